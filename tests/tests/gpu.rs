//! Whole models on every adapter of this machine against the processor: tiny random ones of every format and awkward
//! shape, the same bits however they are computed, and the real models' expected answers.

use engine::backend::{Check, Description, measure};
use engine::sampler::Params;
use engine::tokenizer::Encode;
use engine::{Device, Engine, Event, KvType, Options, Precision, Request, Variant};
use gguf::Format;
use serde_json::Value;
use tests::golden::{Case, cases};
use tests::gpu::{nmse, obtain};
use tests::models;
use tests::observe::{as_f64, digest, observe, other_bits};
use tests::tiny::Model;

/// f32 arithmetic in another order, on logits as they are: what the issue of a wrong bit would pass by far.
const NMSE: f64 = 1e-6;

fn options(device: Device) -> Options {
    Options { precision: Precision::F32, kv: KvType::F32, ctx: Some(128), device, ..Options::default() }
}

fn prompt(model: &Model, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 37 + 11) % model.n_vocab) as u32).collect()
}

/// Whether an adapter has a variant, if one is asked for.
fn has(adapter: &Description, variant: Option<Variant>) -> bool {
    !adapter.without.iter().any(|without| Some(without.0) == variant)
}

/// Each model on each adapter: the error of all logits of a prompt, and a greedy continuation.
fn check(rows: &[(String, Model)], options: &dyn Fn(Device) -> Options) {
    check_within(NMSE, rows, options);
}

/// The same where another error is allowed, on adapters that have the variant.
fn check_within(allowed: f64, rows: &[(String, Model)], options: &dyn Fn(Device) -> Options) {
    let (adapters, _busy) = obtain();
    let mut failures = Vec::new();
    for (name, model) in rows {
        let (bytes, prompt) = (model.bytes(), prompt(model, 45));
        let run = |device| {
            let engine = Engine::from_bytes(&bytes, &options(device))?;
            observe(&engine, &prompt, 0, 4, as_f64)
        };
        let expected = run(Device::Cpu).unwrap_or_else(|error| panic!("{name} on the processor: {error}"));
        let flat = |rows: &[(usize, Vec<f64>)]| rows.iter().flat_map(|row| row.1.clone()).collect::<Vec<f64>>();
        let asked = options(Device::Index(0)).variant;
        for adapter in adapters.iter().filter(|a| has(a, asked)) {
            let at = format!("{name} on {} ({})", adapter.name, adapter.api);
            match run(Device::Index(adapter.index)) {
                Err(error) => failures.push(format!("{at}: {error}")),
                Ok(found) => {
                    let off = nmse(&flat(&found.rows), &flat(&expected.rows));
                    // Written so that NaN fails.
                    if !matches!(off.partial_cmp(&allowed), Some(std::cmp::Ordering::Less)) {
                        failures.push(format!("{at}: NMSE {off:.1e}, allowed {allowed:.0e}"));
                    }
                    if found.generated != expected.generated {
                        failures.push(format!("{at}: {:?}, expected {:?}", found.generated, expected.generated));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_format_computes_what_the_processor_does() {
    let formats = shaders::layout::ALL.map(|layout| layout.format);
    let sized = |format: Format, model: Model| {
        let k = format.block_len().max(32);
        Model { format, embd_format: format, n_embd: k, n_ff: 2 * k, n_layer: 2, d_head: k / 4, n_head: 4, ..model }
    };
    let rows = formats.map(|format| {
        let model = if format.id() % 2 == 0 { Model::llama(7) } else { Model::gemma3(8) };
        (format!("{:?} in {format}", model.arch), sized(format, model))
    });
    check(&rows, &options);
}

#[test]
fn odd_shapes_compute_what_the_processor_does() {
    let llama = || Model::llama(21);
    let gemma = || Model::gemma3(22);
    let rows = [
        ("seven queries a key", Model { n_head: 7, n_head_kv: 1, ..llama() }),
        ("heads of 2", Model { d_head: 2, ..llama() }),
        ("heads of 66", Model { d_head: 66, ..llama() }),
        ("width of 33, feed-forward of 257", Model { n_embd: 33, n_ff: 257, ..llama() }),
        (
            "one layer, tied, biases, rope factors",
            Model { n_layer: 1, tied: true, biases: true, rope_factors: true, ..llama() },
        ),
        ("window of 1", Model { window: 1, ..gemma() }),
        ("window of 33, grouped queries", Model { window: 33, n_head: 6, n_head_kv: 3, ..gemma() }),
    ];
    check(&rows.map(|(name, model)| (name.to_string(), model)), &options);
}

#[test]
fn keys_and_values_in_f16_are_those_of_the_processor() {
    let rows = [("llama", Model::llama(5)), ("heads of 66", Model { d_head: 66, ..Model::llama(6) })];
    check(&rows.map(|(name, model)| (name.to_string(), model)), &|device| Options {
        kv: KvType::F16,
        ..options(device)
    });
}

/// A rounding of the last bit now and then turns a code of 8 bits over, which is 1/127 of the largest of its group.
const FLIPS: f64 = 1e-4;

/// `--precision q8` on a device is that of the processor.
#[test]
fn codes_of_8_bits_give_what_those_of_the_processor_do() {
    let sized = |format: Format, model: Model| Model { format, n_embd: 256, n_ff: 512, n_layer: 2, ..model };
    let rows = [
        ("llama q8_0", sized(Format::Q8_0, Model::llama(51))),
        ("gemma3 q4_k", sized(Format::Q4K, Model::gemma3(52))),
        ("llama q6_k", sized(Format::Q6K, Model::llama(53))),
        ("llama f16, which has no codes", sized(Format::F16, Model::llama(54))),
    ];
    check_within(FLIPS, &rows.map(|(name, model)| (name.to_string(), model)), &|device| Options {
        precision: Precision::Q8,
        gpu_precision: Precision::Q8,
        ..options(device)
    });
}

/// On one device: chunks, neighbours and cached prefixes change no bit, in any variant that it has and at any precision.
#[test]
fn a_device_gives_the_same_bits_however_it_is_asked() {
    let (adapters, _busy) = obtain();
    let mut failures = Vec::new();
    let f32_in = |variant| (Precision::F32, variant);
    for (name, model, ways) in [
        (
            "llama q4_k",
            Model { format: Format::Q4K, n_embd: 256, n_ff: 512, n_layer: 2, ..Model::llama(31) },
            &[f32_in(None), f32_in(Some(Variant::Subgroup)), (Precision::Q8, Some(Variant::Baseline))][..],
        ),
        (
            "gemma3 q8_0",
            Model { format: Format::Q8_0, n_layer: 2, ..Model::gemma3(32) },
            &[f32_in(None), f32_in(Some(Variant::F16)), (Precision::Q8, None)],
        ),
    ] {
        let (bytes, prompt) = (model.bytes(), prompt(&model, 90));
        for adapter in &adapters {
            for &(gpu_precision, variant) in ways.iter().filter(|way| has(adapter, way.1)) {
                let load = |batch, sequences| {
                    let own = options(Device::Index(adapter.index));
                    let options = Options { batch, sequences, gpu_precision, variant, ..own };
                    Engine::from_bytes(&bytes, &options).expect("a sound model")
                };
                // Chunks are dear: what nobody asked for goes through all of them, the rest through one that fits no tile.
                let all = (gpu_precision, variant) == f32_in(None);
                let other = other_bits(&load, &prompt, if all { &[1, 3, 7, 64] } else { &[7] }, digest);
                let at = format!("{name} on {}, {} {variant:?}", adapter.name, gpu_precision.name());
                failures.extend(other.iter().map(|how| format!("{at}, {how}")));
            }
        }
    }
    assert!(failures.is_empty(), "other bits:\n{}", failures.join("\n"));
}

/// So many heads that a prompt is walked and its pieces are split, by tokens and by heads of a group: all of them the same
/// bits, which are those of what the processor computes.
#[test]
fn attention_gives_the_same_bits_in_every_form() {
    let (adapters, _busy) = obtain();
    let model = Model { n_head: 64, n_head_kv: 16, d_head: 6, n_layer: 1, n_ctx: 512, ..Model::llama(33) };
    let (bytes, prompt) = (model.bytes(), prompt(&model, 150));
    let mut failures = Vec::new();
    let in_device = |device, batch, sequences| {
        let variant = (device != Device::Cpu).then_some(Variant::Baseline);
        let options = Options { batch, sequences, variant, kv: KvType::F16, ctx: Some(256), ..options(device) };
        Engine::from_bytes(&bytes, &options).expect("a sound model")
    };
    let flat = |engine: &Engine| {
        let found = observe(engine, &prompt, 0, 4, as_f64).expect("an answer");
        found.rows.into_iter().flat_map(|row| row.1).collect::<Vec<f64>>()
    };
    let expected = flat(&in_device(Device::Cpu, 512, 1));
    for adapter in &adapters {
        let load = |batch, sequences| in_device(Device::Index(adapter.index), batch, sequences);
        let off = nmse(&flat(&load(512, 1)), &expected);
        // Written so that NaN fails.
        if !matches!(off.partial_cmp(&NMSE), Some(std::cmp::Ordering::Less)) {
            failures.push(format!("{}: NMSE {off:.1e}, allowed {NMSE:.0e}", adapter.name));
        }
        let other = other_bits(&load, &prompt, &[5, 40], digest);
        failures.extend(other.iter().map(|how| format!("{}: other bits in {how}", adapter.name)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Every variant computes what the processor does, half floats less exactly.
#[test]
fn every_variant_computes_what_the_processor_does() {
    for variant in Variant::ALL {
        let allowed = if variant == Variant::F16 { 1e-5 } else { NMSE };
        let rows = [
            ("llama q4_k", Model { format: Format::Q4K, n_embd: 256, n_ff: 512, n_layer: 1, ..Model::llama(61) }),
            ("gemma3 f16", Model { format: Format::F16, n_layer: 1, ..Model::gemma3(62) }),
        ];
        check_within(allowed, &rows.map(|(name, model)| (format!("{name}, {variant}"), model)), &|device| Options {
            variant: (device != Device::Cpu).then_some(variant),
            ..options(device)
        });
    }
}

#[test]
fn what_a_device_cannot_do_is_an_error_that_says_what_it_can() {
    let (adapters, _busy) = obtain();
    let bytes = Model::llama(1).bytes();
    let refused = |options: &Options| Engine::from_bytes(&bytes, options).err().expect("an error").to_string();
    for adapter in &adapters {
        let own = options(Device::Index(adapter.index));
        let error = refused(&Options { gpu_precision: Precision::Q16, ..own.clone() });
        assert!(error.contains("--precision") && error.contains("q8 or f32 on a GPU"), "{error}");
        for (variant, lacked) in &adapter.without {
            let error = refused(&Options { variant: Some(*variant), ..own.clone() });
            assert!(error.contains("--variant") && error.contains(lacked) && error.contains("baseline"), "{error}");
        }
    }
    let error = refused(&Options { variant: Some(Variant::Narrow), ..options(Device::Cpu) });
    assert!(error.contains("--variant") && error.contains("a GPU"), "{error}");
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let bytes = Model::llama(1).bytes();
    for device in [Device::Index(99), Device::Name("no such device".into())] {
        let error = Engine::from_bytes(&bytes, &options(device.clone())).err().expect("no such device").to_string();
        assert!(error.contains("--device") && error.contains(&device.to_string()), "{error}");
    }
}

/// Longest prompt of the cases that always run; drivers that compute on the processor are slow.
const SHORT: usize = 12;
/// Likelihoods in f32 arithmetic in another order of sums.
const NLL_TOLERANCE: f64 = 1e-4;
/// Logits of about 20 in six digits, from the same arithmetic.
const LOGIT_TOLERANCE: f64 = 2e-3;
/// Two logits closer than this may change places.
const TIE: f64 = 1e-3;

/// What of an answer is off.
fn golden_case(engine: &Engine, case: &Case) -> Result<Vec<String>, engine::Error> {
    let tokens = engine.tokenizer().encode(&case.prompt, Encode { add_special: true, parse_special: false });
    let mut rows = vec![];
    if tokens != case.tokens {
        rows.push(format!("tokens {tokens:?}, expected {:?}", case.tokens));
    }
    let found = observe(engine, &case.tokens, 0, case.greedy.len(), as_f64)?;
    let nll = |(position, row): &(usize, Vec<f64>)| {
        let largest = row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let total: f64 = row.iter().map(|logit| (logit - largest).exp()).sum();
        case.tokens.get(position + 1).map(|&next| total.ln() + largest - row[next as usize])
    };
    let each: Vec<f64> = found.rows.iter().filter_map(nll).collect();
    let off = (each.iter().sum::<f64>() / each.len() as f64 / case.mean_nll - 1.0).abs();
    // Written so that NaN fails.
    if !matches!(off.partial_cmp(&NLL_TOLERANCE), Some(std::cmp::Ordering::Less)) {
        rows.push(format!("mean_nll off by {off:.1e} of it, allowed {NLL_TOLERANCE:.0e}"));
    }
    let last = &found.rows[found.rows.len() - 1].1;
    let distance = |&(id, expected): &(u32, f64)| (last[id as usize] - expected).abs();
    let off = case.top20.iter().map(distance).fold(0.0, f64::max);
    if off > LOGIT_TOLERANCE {
        rows.push(format!("the largest logits are off by {off:.1e}, allowed {LOGIT_TOLERANCE:.0e}"));
    }
    if found.generated != case.greedy && case.min_top_gap > TIE {
        rows.push(format!("continued by {:?}, expected {:?}", found.generated, case.greedy));
    }
    Ok(rows.into_iter().map(|row| format!("{:?}: {row}", case.prompt)).collect())
}

/// Expected answers, computed elsewhere, on the first adapter: the short cases, and all of them where
/// `HANDMILL_FULL_MATRIX` is 1.
fn golden(model: &str, name: &str) {
    let Some(path) = models::obtain(model) else { return };
    let (adapters, _busy) = obtain();
    let Some(adapter) = adapters.first() else { return };
    let full = std::env::var("HANDMILL_FULL_MATRIX").is_ok_and(|value| value == "1");
    let options = Options { ctx: Some(1024), ..options(Device::Index(adapter.index)) };
    let engine = Engine::open(&path, &options, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"));
    let cases = cases(name).into_iter().filter(|case| full || case.tokens.len() <= SHORT);
    let rows: Vec<String> =
        cases.flat_map(|case| golden_case(&engine, &case).unwrap_or_else(|error| panic!("{error}"))).collect();
    assert!(rows.is_empty(), "on {}:\n{}", adapter.name, rows.join("\n"));
}

#[test]
fn smollm2_gives_the_exact_answers() {
    golden("smollm2", "smollm2");
}

/// Its embedding of 178 MB is more than a binding holds on many adapters.
#[test]
fn gemma3_gives_the_exact_answers() {
    golden("gemma3:270m", "gemma3-270m");
}

/// The largest logit that the device finds is that of the row, and so are the largest few: the same tokens, whether someone
/// looks at rows or not, and whatever is drawn beside them.
#[test]
fn a_device_chooses_the_token_that_its_row_says() {
    let (adapters, _busy) = obtain();
    let model = Model::llama(41);
    let (bytes, prompt) = (model.bytes(), prompt(&model, 20));
    for adapter in &adapters {
        let load = |sequences| Options { sequences, ..options(Device::Index(adapter.index)) };
        let engine = Engine::from_bytes(&bytes, &load(2)).expect("a sound model");
        let submit = |sampling: &Params, watched: bool| {
            let mut request = Request::new(prompt.clone(), sampling.clone());
            (request.max_tokens, request.ignore_eog) = (Some(30), true);
            request.observer = watched.then(|| Box::new(|_: usize, _: &[f32]| ()) as engine::request::Observer);
            engine.submit(request)
        };
        let tokens = |events: std::sync::mpsc::Receiver<Event>| -> Vec<u32> {
            events.iter().filter_map(|e| if let Event::Token { id, .. } = e { Some(id) } else { None }).collect()
        };
        let drawn = Params { temperature: 1.5, seed: Some(9), ..Params::default() };
        let [greedy, few] = [Params::greedy(), drawn].map(|sampling| (tokens(submit(&sampling, true)), sampling));
        assert!(greedy.0.len() == 30 && greedy.0 != few.0, "on {}", adapter.name);
        for (expected, sampling) in [&greedy, &few] {
            assert_eq!(&tokens(submit(sampling, false)), expected, "{sampling:?} on {}", adapter.name);
        }
        let beside = submit(&greedy.1, false);
        assert_eq!(tokens(submit(&few.1, false)), few.0, "beside another on {}", adapter.name);
        assert_eq!(tokens(beside), greedy.0, "beside another on {}", adapter.name);
    }
}

/// Every driver here computes what the kernels say, and is asked once: results are kept, and a damaged file is as none.
#[test]
fn kernels_are_tested_once_for_a_driver() {
    let (adapters, _busy) = obtain();
    for adapter in &adapters {
        let folder = tempfile::tempdir().expect("a folder for files");
        let ask = || {
            let measured = measure(&Device::Index(adapter.index), folder.path()).expect("a sound driver");
            (measured.variant, measured.checks)
        };
        let (first, second) = (ask(), ask());
        let all = |checks: &[Check], fresh| checks.iter().all(|check| check.good && check.fresh == fresh);
        assert!(first.1.len() >= 9 && all(&first.1, true), "on {}: {:?}", adapter.name, first.1);
        assert!(all(&second.1, false), "on {}: {:?}", adapter.name, second.1);
        // Text keeps all but the last bit of a number.
        let same = |(a, b): (&Check, &Check)| a.kernel == b.kernel && (a.error - b.error).abs() <= a.error * 1e-12;
        assert!(first.0 == second.0 && first.1.iter().zip(&second.1).all(same), "on {}", adapter.name);
        for file in std::fs::read_dir(folder.path()).expect("a readable folder") {
            std::fs::write(file.expect("a readable entry").path(), "{ damaged").expect("a writable file");
        }
        assert!(all(&ask().1, true), "on {}", adapter.name);
    }
}

/// A kernel that a driver computes wrongly is not used, nor are others of its variant; it is said which. One that was asked
/// for is an error.
#[test]
fn a_variant_that_is_off_is_not_used() {
    let (adapters, _busy) = obtain();
    let bytes = Model { format: Format::Q8_0, n_layer: 1, ..Model::llama(71) }.bytes();
    for adapter in &adapters {
        let folder = tempfile::tempdir().expect("a folder for files");
        let own = Options { checks: Some(folder.path().into()), ..options(Device::Index(adapter.index)) };
        let info = |options: &Options| Engine::from_bytes(&bytes, options).map(|engine| engine.info().kernels.clone());
        let kernels = info(&own).expect("a sound driver");
        assert!(kernels.contains(&format!("{} as", adapter.variant)) && kernels.contains(" tested"), "{kernels}");
        // What was found is kept, so a driver that is off can be made up.
        let file = std::fs::read_dir(folder.path()).expect("a readable folder");
        let files = file.map(|entry| entry.expect("a readable entry").path());
        for path in files.filter(|path| path.extension().is_some_and(|end| end == "json")) {
            let text = std::fs::read_to_string(&path).expect("a readable file");
            let mut errors: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("errors by kernel");
            errors.iter_mut().filter(|(key, _)| key.starts_with("matmul-")).for_each(|(_, error)| *error = 0.5.into());
            std::fs::write(&path, serde_json::to_vec(&errors).expect("JSON")).expect("a writable file");
        }
        if matches!(adapter.variant, Variant::Baseline | Variant::Subgroup) {
            // The products of these are the simplest.
            let error = info(&own).expect_err("a driver that is off").to_string();
            assert!(error.contains("its driver computes matmul-"), "{error}");
            continue;
        }
        let kernels = info(&own).expect("a simpler variant");
        assert!(!kernels.contains(&format!("{} as", adapter.variant)), "{kernels}");
        assert!(
            kernels.contains("as its driver computes matmul-") && kernels.contains("off and not used: matmul-"),
            "{kernels}"
        );
        let asked = Options { variant: Some(adapter.variant), ..own.clone() };
        let error = info(&asked).expect_err("a variant that is off").to_string();
        assert!(error.contains(&format!("{} kernels cannot be used", adapter.variant)), "{error}");
    }
}
