//! A model in two parts: every family cut before every layer, and layers shared by the processor and each adapter.

use engine::backend::cpu::{CpuBackend, CpuOptions};
use engine::backend::{Backend, GpuLayers, KvType};
use engine::batch::Batch;
use engine::graph::{Builder, Graph};
use engine::plan::{Limits, Plan};
use engine::spec::Spec;
use engine::{Device, Engine, Isa, Options, Precision};
use gguf::{Format, Gguf};
use tests::golden::fixture;
use tests::gpu::{nmse, obtain};
use tests::observe::{Take, observe, other_bits};
use tests::process::handmill;
use tests::tiny::Model;

/// f32 sums in another order.
const NMSE: f64 = 1e-6;
/// Tokens of the prompts.
const TOKENS: usize = 40;

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|x| x.to_bits()).collect()
}

fn load(graph: Graph, source: &Gguf) -> CpuBackend {
    let limits = Limits { tokens: TOKENS, outputs: TOKENS, precision: Precision::Q8 };
    let options = CpuOptions {
        threads: 2,
        isa: Isa::best(),
        kv: KvType::F16,
        pages: 2,
        ctx: 64,
        check_tensors: false,
        check_workers: true,
        probe: None,
        weights: None,
    };
    let plan = Plan::compile(graph, limits, &CpuBackend::act_bytes);
    CpuBackend::load(plan, source, &options, &mut |_, _| ()).expect("a sound graph")
}

fn run(backend: &mut dyn Backend, batch: &Batch) -> Vec<f32> {
    match backend.run(batch) {
        engine::backend::Logits::Ready(rows) => rows.expect("not taken").expect("a step").to_vec(),
        engine::backend::Logits::Later(_) => panic!("the processor answers at once"),
    }
}

/// Two halves of a model are the whole, bit for bit: that only the residual stream goes from one to the other is true of
/// every family, and each half holds the caches of its own layers.
#[test]
fn every_family_can_be_cut_before_every_layer() {
    let mut cuts = 0;
    for entry in std::fs::read_dir(fixture("tiny")).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "gguf") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a fixture");
        let gguf = Gguf::parse(&bytes).expect("a sound file");
        let mut spec = Spec::from_meta(gguf.meta()).expect("a known family");
        spec.n_ctx = 64;
        let graph = (spec.arch.build)(&spec, Builder::new(&spec, &gguf).expect("a file")).expect("a graph");
        let tokens: Vec<u32> = (0..TOKENS).map(|i| ((i * 37 + 11) % spec.n_vocab) as u32).collect();
        // A prompt in two batches where tokens do not see later ones, so that caches are read.
        let first = if spec.causal { 33 } else { TOKENS };
        let batches: Vec<Batch> = [0..first, first..TOKENS]
            .into_iter()
            .filter(|piece| !piece.is_empty())
            .map(|piece| {
                let mut batch = Batch::with_capacity(TOKENS, 2);
                batch.push(&tokens[piece.clone()], piece.start, &[1, 0], 0..piece.len());
                batch
            })
            .collect();
        let mut whole = load(graph.clone(), &gguf);
        let expected: Vec<Vec<f32>> = batches.iter().map(|batch| run(&mut whole, batch)).collect();
        for layer in 1..spec.layers.len() {
            let [front, back] = graph.cut(layer).unwrap_or_else(|e| panic!("{} before {layer}: {e}", path.display()));
            assert!(front.weights.len() < graph.weights.len() && back.weights.len() < graph.weights.len());
            assert_eq!(front.ops.len() + back.ops.len(), graph.ops.len());
            let (mut front, mut back) = (load(front, &gguf), load(back, &gguf));
            for (batch, expected) in batches.iter().zip(&expected) {
                let rows = run(&mut front, batch);
                assert_eq!(rows.len(), batch.tokens().len() * spec.n_embd);
                back.give(&rows).expect("rows of the residual stream");
                assert_eq!(bits(&run(&mut back, batch)), bits(expected), "{} before {layer}", path.display());
            }
            cuts += 1;
        }
        for wrong in [0, spec.layers.len()] {
            let error = graph.cut(wrong).expect_err("no layer before it, or none behind").to_string();
            assert!(error.contains("--gpu-layers"), "{error}");
        }
    }
    assert!(cuts >= 10, "{cuts} cuts");
}

/// Rows for a graph that takes none are an error, and so are more than there is room for.
#[test]
fn only_the_back_of_a_model_takes_rows() {
    let bytes = Model::llama(3).bytes();
    let gguf = Gguf::parse(&bytes).expect("a sound file");
    let mut spec = Spec::from_meta(gguf.meta()).expect("a known family");
    spec.n_ctx = 64;
    let graph = (spec.arch.build)(&spec, Builder::new(&spec, &gguf).expect("a file")).expect("a graph");
    let [front, back] = graph.cut(1).expect("two layers");
    assert!(load(front, &gguf).give(&[0.0; 64]).is_err());
    let mut back = load(back, &gguf);
    assert!(back.give(&[0.0; 64]).is_ok());
    assert!(back.give(&vec![0.0; 64 * (TOKENS + 1) + 16]).is_err());
}

fn options(device: Device, gpu_layers: GpuLayers) -> Options {
    let (precision, kv) = (Precision::F32, KvType::F32);
    Options { precision, kv, ctx: Some(128), device, gpu_layers, ..Options::default() }
}

/// Logits of a prompt, and a greedy continuation.
fn answer(bytes: &[u8], prompt: &[u32], options: &Options) -> (Vec<f32>, Vec<u32>) {
    let take: Take<Vec<f32>> = <[f32]>::to_vec;
    let engine = Engine::from_bytes(bytes, options).expect("a sound model");
    let found = observe(&engine, prompt, 0, 3, take).expect("an answer");
    (found.rows.into_iter().flat_map(|row| row.1).collect(), found.generated)
}

#[test]
fn layers_are_shared_by_the_processor_and_an_adapter() {
    let (adapters, _busy) = obtain();
    let model = Model { format: Format::Q8_0, n_layer: 4, n_ff: 64, ..Model::gemma3(41) };
    let bytes = model.bytes();
    let prompt: Vec<u32> = (0..45).map(|i| ((i * 37 + 11) % model.n_vocab) as u32).collect();
    let cpu = answer(&bytes, &prompt, &options(Device::Cpu, GpuLayers::All));
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    for adapter in &adapters {
        let device = Device::Index(adapter.index);
        let with = |n| answer(&bytes, &prompt, &options(device.clone(), GpuLayers::Count(n)));
        let gpu = answer(&bytes, &prompt, &options(device.clone(), GpuLayers::All));
        assert!(bits(&with(0).0) == bits(&cpu.0), "none on {}: other bits than the processor's", adapter.name);
        assert!(bits(&with(4).0) == bits(&gpu.0), "all on {}: other bits than its own", adapter.name);
        assert!(bits(&with(99).0) == bits(&gpu.0), "more than all on {}", adapter.name);
        for n in 1..4 {
            let (logits, generated) = with(n);
            let off = nmse(&wide(&logits), &wide(&cpu.0));
            assert!(off < NMSE, "{n} layers on {}: {off:e}", adapter.name);
            assert_eq!(generated, cpu.1, "{n} layers on {}", adapter.name);
            assert!(bits(&logits) != bits(&cpu.0), "{n} layers on {}: not even a rounding differs", adapter.name);
        }
        // A machine that runs this test has room for some hundred kilobytes.
        let fitting = answer(&bytes, &prompt, &options(device.clone(), GpuLayers::Fitting));
        assert!(bits(&fitting.0) == bits(&gpu.0), "{}: not all layers had room", adapter.name);
    }
}

/// On one pair of devices: chunks, neighbours and cached prefixes change no bit.
#[test]
fn a_pair_of_devices_gives_the_same_bits_however_it_is_asked() {
    let (adapters, _busy) = obtain();
    let model = Model { n_layer: 3, ..Model::llama(42) };
    let bytes = model.bytes();
    let prompt: Vec<u32> = (0..90).map(|i| ((i * 37 + 11) % model.n_vocab) as u32).collect();
    for adapter in &adapters {
        let load = |batch, sequences| {
            let options = Options { batch, sequences, ..options(Device::Index(adapter.index), GpuLayers::Count(2)) };
            Engine::from_bytes(&bytes, &options).expect("a sound model")
        };
        let other = other_bits(&load, &prompt, &[1, 7, 64], bits);
        assert!(other.is_empty(), "{}: other bits in {other:?}", adapter.name);
    }
}

#[test]
fn memory_and_devices_are_told_as_they_are() {
    let (adapters, _busy) = obtain();
    let Some(adapter) = adapters.first() else { return };
    let model = Model { n_layer: 4, n_embd: 64, ..Model::gemma3(43) };
    let bytes = model.bytes();
    let load = |device: &Device, layers| Engine::from_bytes(&bytes, &options(device.clone(), layers)).expect("a model");
    let (cpu, gpu) = (Device::Cpu, Device::Index(adapter.index));
    let all = load(&cpu, GpuLayers::All).memory();
    let none = load(&gpu, GpuLayers::All).memory();
    assert_eq!((all.device.total(), none.host.total()), (0, 0));
    let engine = load(&gpu, GpuLayers::Count(1));
    let split = engine.memory();
    assert_eq!(split.device.kv * 4, none.device.kv, "one layer of four");
    assert_eq!(split.host.kv * 4, all.host.kv * 3, "three of four");
    // The embedding is the output matrix too: both parts hold it.
    let embedding = (model.n_vocab * model.n_embd * 4) as u64;
    assert!(split.weights() >= all.weights() + embedding, "{split:?}, {all:?}");
    let device = &engine.info().device;
    assert!(device.contains("layers 0 to 2") && device.contains("layer 3 and the output"), "{device}");
}

#[test]
fn what_cannot_be_is_an_error() {
    let bytes = Model::llama(1).bytes();
    for (device, layers, says) in [
        (Device::Cpu, GpuLayers::Count(1), "--device gpu"),
        (Device::Cpu, GpuLayers::Fitting, "--device gpu"),
        // A device that is not there is not passed over, even where nothing would run on it.
        (Device::Name("no such device".into()), GpuLayers::Count(0), "not here"),
        (Device::Name("no such device".into()), GpuLayers::Fitting, "not here"),
    ] {
        let error = Engine::from_bytes(&bytes, &options(device, layers)).err().expect("an error").to_string();
        assert!(error.contains(says), "{error}");
    }
    for wrong in ["-2", "many", "1.5"] {
        let outcome = handmill(&["run", "--gpu-layers", wrong, "x.gguf", "y"]).run();
        assert!(outcome.code != Some(0) && outcome.stderr.contains("number of layers"), "{outcome:?}");
    }
}
