//! Two devices side by side, operation by operation: `handmill compare` as a user starts it, and the inspector beneath.

use engine::inspect::Inspector;
use engine::{Device, Engine, Isa, KvType, Options, Precision, Variant};
use gguf::Format;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tests::golden::fixture;
use tests::gpu::{nmse, obtain};
use tests::observe::observe;
use tests::process::handmill;
use tests::tiny::Model;

/// What two ways of adding the same f32 products may differ by, and f16 roundings that fall to the other side.
const NMSE: f64 = 1e-6;

fn options(isa: Isa, precision: Precision) -> Options {
    Options {
        isa: Some(isa),
        precision,
        ctx: Some(96),
        batch: 24,
        sequences: 24,
        check_workers: true,
        ..Options::default()
    }
}

fn prompt(n_vocab: usize, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 37 + 11) % n_vocab) as u32).collect()
}

/// Every model of the fixtures, and a tiny one in a format with integer products.
fn models() -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(fixture("tiny")).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let mut models: Vec<(String, Vec<u8>)> = files
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("a fixture")))
        .collect();
    models.sort();
    let quantized = Model { format: Format::Q8_0, n_embd: 96, n_ff: 64, ..Model::gemma3(3) };
    models.push(("gemma3 in q8_0".into(), quantized.bytes()));
    models
}

/// The axiom down to every operation: two instruction sets write the same bits, in every family.
#[test]
fn instruction_sets_write_the_same_bits_in_every_operation() {
    let mut failures = vec![];
    for (name, bytes) in models() {
        for precision in [Precision::Q8, Precision::F32] {
            let [mut a, mut b] = [Isa::Scalar, Isa::best()].map(|isa| {
                Inspector::from_bytes(&bytes, &options(isa, precision)).unwrap_or_else(|e| panic!("{name}: {e}"))
            });
            let tokens = prompt(a.spec().n_vocab, 20);
            // A prompt and, where tokens do not see later ones, a step of one token on top of it.
            let batches = if a.spec().causal { vec![&tokens[..19], &tokens[19..]] } else { vec![&tokens[..]] };
            for batch in batches {
                [&mut a, &mut b].into_iter().for_each(|side| side.begin(batch).expect("tokens of the vocabulary"));
                for (i, operation) in a.operations().to_vec().iter().enumerate() {
                    let [a, b] = [&mut a, &mut b].map(|side| side.compute(i).expect("an operation"));
                    let bits = |all: &[engine::backend::Written]| -> Vec<u32> {
                        all.iter().flat_map(|w| &w.values).map(|x| x.to_bits()).collect()
                    };
                    assert!(a.iter().any(|w| !w.values.is_empty()), "{name}: {operation:?} writes nothing");
                    if bits(&a) != bits(&b) {
                        failures.push(format!("{name}, {}: {operation:?}", precision.name()));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "other bits:\n{}", failures.join("\n"));
}

/// One operation after the other gives what a step gives.
#[test]
fn the_last_operation_writes_the_logits_of_a_step() {
    let bytes = Model::gemma3(4).bytes();
    let options = options(Isa::best(), Precision::F32);
    let tokens = prompt(Model::gemma3(4).n_vocab, 20);
    let engine = Engine::from_bytes(&bytes, &options).expect("a sound model");
    let expected = observe(&engine, &tokens, 0, 0, <[f32]>::to_vec).expect("logits").rows;
    let expected: Vec<f32> = expected.into_iter().flat_map(|row| row.1).collect();
    let mut inspector = Inspector::from_bytes(&bytes, &options).expect("a sound model");
    inspector.begin(&tokens).expect("tokens of the vocabulary");
    let mut last = vec![];
    for i in 0..inspector.operations().len() {
        last = inspector.compute(i).expect("an operation").remove(0).values;
    }
    assert_eq!(last, expected);
}

/// Files that go when this does.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().expect("a folder"))
    }

    fn model(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

/// The program's answer as JSON, and its exit code.
fn compare(model: &Path, a: &str, b: &str, more: &[&str]) -> (Value, i32) {
    let model = model.to_str().expect("UTF-8");
    let outcome = handmill(&[&["compare", model, "--a", a, "--b", b, "--json"], more].concat()).run();
    let found = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    (found, outcome.code.expect("an exit code"))
}

/// The largest figure of all operations.
fn most(found: &Value, figure: &str) -> f64 {
    let rows = found["operations"].as_array().expect("a list");
    rows.iter().map(|row| row[figure].as_f64().unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
}

#[test]
fn a_comparison_of_instruction_sets_and_of_precisions() {
    let files = Files::new();
    let model = Model { format: Format::Q4_0, n_embd: 128, n_ff: 192, ..Model::llama(9) };
    let path = files.model("tiny.gguf", &model.bytes());
    for precision in ["q8", "f32"] {
        let (same, code) = compare(&path, "cpu,isa=scalar,threads=1", "cpu", &["--precision", precision]);
        assert_eq!((code, most(&same, "max_ulp"), same["tolerance"].as_f64()), (0, 0.0, Some(0.0)), "{same:#}");
        assert_eq!((&same["within"], &same["logits"]["overlap"]), (&true.into(), &1.0.into()));
    }
    let (coarse, code) = compare(&path, "cpu", "cpu,precision=q8", &[]);
    let worst = most(&coarse, "nmse");
    assert!(code == 0 && worst > 1e-6 && worst < 1e-2, "{worst}");
    let (fine, _) = compare(&path, "cpu", "cpu,precision=q16", &[]);
    assert!(most(&fine, "nmse") < worst / 1000.0, "128 times finer is 16,000 times nearer");
    // The first product is the first operation that 8 bits can touch.
    let (strict, code) = compare(&path, "cpu", "cpu,precision=q8", &["--tolerance", "0"]);
    let first = &strict["first_past"];
    assert_eq!((code, &first["kind"], &first["tensor"]), (1, &"matmul".into(), &"blk.0.attn_q.weight".into()));
}

/// A weight that is wrong on one side is named.
#[test]
fn the_first_broken_operation_is_found() {
    let files = Files::new();
    let mut draft = Model::llama(11).draft();
    let good = files.model("good.gguf", &draft.bytes());
    // One weight of some ten thousand, to its opposite.
    let data = &mut draft.tensor("blk.1.ffn_up.weight").data;
    data[4 * 77 + 3] ^= 0x80;
    let bad = files.model("bad.gguf", &draft.bytes());
    let side = format!("cpu,model={}", bad.display());
    let (found, code) = compare(&good, "cpu", &side, &["--tolerance", "1e-9"]);
    let first = &found["first_past"];
    assert_eq!(code, 1, "{found:#}");
    assert_eq!((&first["tensor"], &first["layer"]), (&"blk.1.ffn_up.weight".into(), &1.into()));
    let path = good.to_str().expect("UTF-8");
    let table = handmill(&["compare", path, "--a", "cpu", "--b", &side, "--tolerance", "1e-9", "--all"]).run();
    assert!(table.code == Some(1) && table.stdout.contains("matmul blk.1.ffn_up.weight of layer 1"), "{table:?}");
}

#[test]
fn every_adapter_is_within_tolerance_in_every_operation() {
    let (adapters, _busy) = obtain();
    let files = Files::new();
    for (name, model) in [
        ("llama", Model { format: Format::Q4K, n_embd: 256, n_ff: 512, ..Model::llama(12) }),
        ("gemma3", Model { format: Format::Q8_0, ..Model::gemma3(13) }),
    ] {
        let path = files.model(&format!("{name}.gguf"), &model.bytes());
        for adapter in &adapters {
            for kv in ["f16", "f32"] {
                let (found, code) = compare(&path, "cpu", &format!("gpu:{},kv={kv}", adapter.index), &["--kv", kv]);
                assert_eq!(code, 0, "{name} on {}: {:#}", adapter.name, found["first_past"]);
                assert!(most(&found, "nmse") > 0.0, "{name} on {}: not even a rounding differs", adapter.name);
                assert_eq!(found["logits"]["same_top"], found["logits"]["positions"]);
            }
        }
    }
}

/// Two variants of one adapter, and codes of 8 bits on both devices: within what each allows, and not the same bits.
#[test]
fn variants_and_precisions_of_an_adapter() {
    let (adapters, _busy) = obtain();
    let files = Files::new();
    // Rows of some length, so that the variants add up in orders of their own.
    let model = Model { format: Format::Q4K, n_embd: 256, n_ff: 2048, ..Model::llama(15) };
    let path = files.model("llama.gguf", &model.bytes());
    for adapter in &adapters {
        let side = |more: &str| format!("gpu:{},kv=f32{more}", adapter.index);
        let baseline = side(",variant=baseline");
        let lacks = |variant| adapter.without.iter().any(|without| without.0 == variant);
        for variant in Variant::ALL.into_iter().filter(|&variant| !lacks(variant)) {
            let (found, code) = compare(&path, &baseline, &side(&format!(",variant={variant}")), &[]);
            let exact = variant == Variant::Baseline;
            assert_eq!(code, 0, "{variant} on {}: {:#}", adapter.name, found["first_past"]);
            assert_eq!(most(&found, "nmse") == 0.0, exact, "{variant} on {}", adapter.name);
            let ran_on = found["sides"]["b"]["device"].to_string();
            assert!(ran_on.contains(&format!("{variant} as it was asked for")), "{ran_on}");
        }
        let (found, code) = compare(&path, "cpu,kv=f32", &side(""), &["--precision", "q8"]);
        assert_eq!(code, 0, "codes of 8 bits on {}: {:#}", adapter.name, found["first_past"]);
        let (coarse, _) = compare(&path, "cpu,kv=f32", &side(",precision=q8"), &["--tolerance", "1"]);
        let [near, far] = [&found, &coarse].map(|found| most(found, "nmse"));
        assert!(near < far / 10.0, "on {}: {near:e} from the same codes, {far:e} from f32", adapter.name);
    }
}

/// What a GPU has written, one operation at a time, is what a step gives there: the same bits.
#[test]
fn operations_of_an_adapter_give_the_logits_of_a_step() {
    let (adapters, _busy) = obtain();
    let model = Model { n_layer: 1, ..Model::llama(14) };
    let (bytes, tokens) = (model.bytes(), prompt(model.n_vocab, 17));
    for adapter in &adapters {
        let options =
            Options { device: Device::Index(adapter.index), kv: KvType::F32, ..options(Isa::best(), Precision::F32) };
        let engine = Engine::from_bytes(&bytes, &options).expect("a sound model");
        let expected = observe(&engine, &tokens, 0, 0, <[f32]>::to_vec).expect("logits").rows;
        let expected: Vec<f32> = expected.into_iter().flat_map(|row| row.1).collect();
        drop(engine);
        let mut inspector = Inspector::from_bytes(&bytes, &options).expect("a sound model");
        inspector.begin(&tokens).expect("tokens of the vocabulary");
        let mut last = vec![];
        for i in 0..inspector.operations().len() {
            last = inspector.compute(i).expect("an operation").remove(0).values;
        }
        assert_eq!(last, expected, "{}", adapter.name);
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let cpu = Engine::from_bytes(&bytes, &Options { device: Device::Cpu, ..options }).expect("a sound model");
        let cpu = observe(&cpu, &tokens, 0, 0, <[f32]>::to_vec).expect("logits").rows;
        let cpu: Vec<f32> = cpu.into_iter().flat_map(|row| row.1).collect();
        let off = nmse(&wide(&last), &wide(&cpu));
        assert!(off < NMSE, "{}: {off:e}", adapter.name);
    }
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let files = Files::new();
    let path = files.model("tiny.gguf", &Model::llama(1).bytes());
    let other = files.model("other.gguf", &Model { n_layer: 3, ..Model::llama(1) }.bytes());
    let path = path.to_str().expect("UTF-8");
    let other = format!("cpu,model={}", other.display());
    for (a, b, more, says) in [
        ("cpu,speed=1", "cpu", "", "allowed are isa="),
        ("gpu,isa=avx2", "cpu", "", "nothing that a GPU takes"),
        ("cpu", "gpu:no such device", "", "not here"),
        ("cpu", "cpu", "--tolerance=-1", "--tolerance"),
        ("cpu", "cpu", "--tokens=0", "nothing to compute"),
        ("cpu", &other, "", "not of one shape"),
        ("cpu", "cpu,isa=neon", "", "neon"),
    ] {
        let mut arguments = vec!["compare", path, "--a", a, "--b", b];
        arguments.extend((!more.is_empty()).then_some(more));
        let outcome = handmill(&arguments).run();
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(says), "{arguments:?}: {}", outcome.stderr);
    }
}
