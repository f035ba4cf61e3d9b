//! What goes wrong on a device: too little room, a device that is lost, batches that it cannot take. Each is an error with
//! the numbers, never a panic, and the process goes on with another device.

use engine::backend::Backend;
use engine::backend::gpu::GpuBackend;
use engine::backend::gpu::adapter::{Opened, open_within};
use engine::batch::Batch;
use engine::sampler::MOST_CANDIDATES;
use engine::{Device, Engine, KvType, Options, Precision};
use tests::golden::read_fixture;
use tests::gpu::{load, logits, obtain};
use tests::tiny::Model;

const TOKENS: [u32; 5] = [5, 77, 3, 120, 44];

/// A device with bindings of at most so many bytes.
fn open(index: usize, binding: u64) -> Opened {
    open_within(&Device::Index(index), binding).unwrap_or_else(|error| panic!("{error}"))
}

/// The error of a model that must not load.
fn refused(gpu: Opened, bytes: &[u8], tokens: usize) -> String {
    match load(gpu, bytes, tokens) {
        Ok(_) => panic!("the model was loaded"),
        Err(error) => error.to_string(),
    }
}

/// Tables, matrices and experts in several bindings are the same bits as in one.
#[test]
fn weights_beyond_a_binding_are_cut() {
    let (adapters, _busy) = obtain();
    let mixture = read_fixture("tiny/deepseek2.gguf");
    for (name, bytes) in [("llama", Model::llama(3).bytes()), ("deepseek2", mixture)] {
        for a in &adapters {
            let run = |binding| {
                // Few tokens, so that what is found of their rows has room in so small a binding.
                let mut backend = load(open(a.index, binding), &bytes, 2).unwrap_or_else(|error| panic!("{error}"));
                logits(&mut backend, &TOKENS[..2]).unwrap_or_else(|error| panic!("{error}"))
            };
            let whole = run(u64::MAX);
            let cut = run(48 << 10);
            assert!(whole.iter().zip(&cut).all(|(a, b)| a.to_bits() == b.to_bits()), "{name} on {}", a.name);
        }
    }
}

/// Everything that a step needs is there after the first at the latest: later steps, of any size, make and give back
/// nothing.
#[test]
fn a_step_makes_nothing() {
    let (adapters, _busy) = obtain();
    let bytes = Model::llama(3).bytes();
    let tokens: Vec<u32> = (0..40).map(|i| i * 3).collect();
    for a in &adapters {
        let mut backend = load(open(a.index, u64::MAX), &bytes, 40).unwrap_or_else(|error| panic!("{error}"));
        let held = |backend: &GpuBackend| {
            let report = backend.opened().device.generate_allocator_report();
            report.map(|r| (r.allocations.len(), r.total_allocated_bytes, r.total_reserved_bytes))
        };
        // As much as was said before, but for the ends of buffers.
        let [taken, planned] = backend.opened().taken();
        assert!((planned..planned + 16 * 256).contains(&taken), "{}: {taken} bytes, planned {planned}", a.name);
        logits(&mut backend, &tokens[..1]).unwrap_or_else(|error| panic!("{error}"));
        let before = held(&backend);
        assert!(before.is_some() || a.api != "vulkan", "{}: no report", a.name);
        for n in [4, 40, 7, 1] {
            logits(&mut backend, &tokens[..n]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(held(&backend), before, "on {} ({}), after {n} tokens", a.name, a.api);
        }
    }
}

/// What a device says of rows, where it looks at them itself, is what stands in them.
#[test]
fn the_largest_few_are_those_of_the_rows() {
    let (adapters, _busy) = obtain();
    let bytes = Model::llama(3).bytes();
    for a in &adapters {
        let mut backend = load(open(a.index, u64::MAX), &bytes, 5).unwrap_or_else(|error| panic!("{error}"));
        let rows = logits(&mut backend, &TOKENS).unwrap_or_else(|error| panic!("{error}"));
        let width = rows.len() / TOKENS.len();
        let mut batch = Batch::with_capacity(TOKENS.len(), 1);
        batch.push(&TOKENS, 0, &[0], 0..TOKENS.len());
        let found = backend.top(&batch).unwrap_or_else(|error| panic!("{error}"));
        for (row, found) in rows.chunks(width).zip(found.chunks(MOST_CANDIDATES)) {
            let mut order: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
            order.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
            let mut found = found.to_vec();
            found.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
            assert_eq!(found, order[..MOST_CANDIDATES], "on {} ({})", a.name, a.api);
        }
    }
}

#[test]
fn what_a_binding_cannot_hold_is_an_error_with_both_sizes() {
    let (adapters, _busy) = obtain();
    let bytes = Model::llama(3).bytes();
    for a in &adapters {
        let error = refused(open(a.index, 1 << 20), &bytes, 1000);
        assert!(error.contains(&a.name) && error.contains("MiB of activations"), "{error}");
        assert!(error.contains("at most 1 MiB") && error.contains("--batch"), "{error}");
        let error = refused(open(a.index, u64::MAX), &bytes, 70_000);
        assert!(error.contains("a batch of 70000 tokens") && error.contains("65535"), "{error}");
    }
}

/// A driver that computes on the processor has as much room as this process may have.
#[cfg(target_os = "linux")]
#[test]
fn a_device_without_room_is_an_error_that_says_for_what() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (adapters, _busy) = obtain();
    let bytes = Model::llama(3).bytes();
    // Activations and logits of 50000 tokens: more than allocators keep in reserve.
    // Mesa's says so when it has no memory; SwiftShader ends the process.
    for a in adapters.iter().filter(|a| a.api == "vulkan" && a.name.contains("llvmpipe")) {
        let gpu = open(a.index, u64::MAX);
        let pages = std::fs::read_to_string("/proc/self/statm").expect("sizes of this process");
        let pages: u64 = pages.split(' ').next().and_then(|n| n.parse().ok()).expect("pages of 4 KiB");
        let (soft, hard) = getrlimit(Resource::RLIMIT_AS).expect("a limit");
        setrlimit(Resource::RLIMIT_AS, (pages << 12) + (8 << 20), hard).expect("a lower limit");
        let error = refused(gpu, &bytes, 50_000);
        setrlimit(Resource::RLIMIT_AS, soft, hard).expect("the limit that was");
        assert!(error.contains(&a.name) && error.contains("no room for "), "{error}");
        let (_, numbers) = error.split_once("taken").map_or(("", ""), |(before, _)| before.rsplit_once(", ").unwrap());
        let [taken, of, needed, ..] = numbers.split(' ').collect::<Vec<_>>()[..] else { panic!("{error}") };
        let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("{error}"));
        assert!(of == "of" && number(taken) < number(needed) && number(needed) > 100, "{error}");
    }
}

#[test]
fn a_lost_device_is_an_error_each_time_and_others_go_on() {
    let (adapters, _busy) = obtain();
    let bytes = Model::llama(3).bytes();
    for a in &adapters {
        let mut backend = load(open(a.index, u64::MAX), &bytes, 5).unwrap_or_else(|error| panic!("{error}"));
        logits(&mut backend, &TOKENS).expect("logits of a sound device");
        backend.opened().device.destroy();
        for _ in 0..2 {
            let error = logits(&mut backend, &TOKENS).expect_err("a lost device").to_string();
            assert!(error.contains(&a.name) && error.contains("the device was lost"), "{error}");
            assert!(error.contains("--device cpu"), "{error}");
        }
        let mut again = load(open(a.index, u64::MAX), &bytes, 5).unwrap_or_else(|error| panic!("{error}"));
        logits(&mut again, &TOKENS).expect("logits of the device, opened again");
    }
    let options = Options { precision: Precision::F32, kv: KvType::F32, ctx: Some(64), ..Options::default() };
    Engine::from_bytes(&bytes, &options).expect("the processor");
}
