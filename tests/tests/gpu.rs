//! Whole models on every adapter of this machine against the processor: tiny random ones of every format and awkward
//! shape, the same bits however they are computed, and the real models' expected answers.

use engine::{Device, Engine, KvType, Options, Precision};
use gguf::Format;
use tests::gpu::{nmse, obtain};
use tests::observe::{as_f64, digest, observe, submit};
use tests::tiny::Model;

/// f32 arithmetic in another order, on logits as they are: what the issue of a wrong bit would pass by far.
const NMSE: f64 = 1e-6;

fn options(device: Device) -> Options {
    Options { precision: Precision::F32, kv: KvType::F32, ctx: Some(128), device, ..Options::default() }
}

fn prompt(model: &Model, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 37 + 11) % model.n_vocab) as u32).collect()
}

/// Each model on each adapter: the error of all logits of a prompt, and a greedy continuation.
fn check(rows: &[(String, Model)], options: &dyn Fn(Device) -> Options) {
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
        for adapter in &adapters {
            let at = format!("{name} on {} ({})", adapter.name, adapter.api);
            match run(Device::Index(adapter.index)) {
                Err(error) => failures.push(format!("{at}: {error}")),
                Ok(found) => {
                    let off = nmse(&flat(&found.rows), &flat(&expected.rows));
                    // Written so that NaN fails.
                    if !matches!(off.partial_cmp(&NMSE), Some(std::cmp::Ordering::Less)) {
                        failures.push(format!("{at}: NMSE {off:.1e}, allowed {NMSE:.0e}"));
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

/// On one device: chunks, neighbours and cached prefixes change no bit.
#[test]
fn a_device_gives_the_same_bits_however_it_is_asked() {
    let (adapters, _busy) = obtain();
    let mut failures = Vec::new();
    for (name, model) in [
        ("llama q4_k", Model { format: Format::Q4K, n_embd: 256, n_ff: 512, n_layer: 2, ..Model::llama(31) }),
        ("gemma3 q8_0", Model { format: Format::Q8_0, n_layer: 2, ..Model::gemma3(32) }),
    ] {
        let (bytes, prompt) = (model.bytes(), prompt(&model, 90));
        for adapter in &adapters {
            let load = |batch, sequences| {
                let options = Options { batch, sequences, ..options(Device::Index(adapter.index)) };
                Engine::from_bytes(&bytes, &options).expect("a sound model")
            };
            let expected = observe(&load(512, 1), &prompt, 82, 3, digest).expect("an answer");
            for chunk in [1, 3, 7, 64] {
                let engine = load(chunk, 4);
                let others: Vec<_> = (1..4).map(|i| submit(&engine, &prompt[i..20 * i], 0, 2, digest)).collect();
                let cold = observe(&engine, &prompt, 82, 3, digest).expect("an answer");
                let warm = observe(&engine, &prompt, 82, 3, digest).expect("an answer");
                drop(others);
                for (how, found) in [("among others", cold), ("after a cached prefix", warm)] {
                    if (&found.rows, &found.generated) != (&expected.rows, &expected.generated) {
                        failures.push(format!("{name} on {}, chunks of {chunk}, {how}", adapter.name));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "other bits:\n{}", failures.join("\n"));
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    let bytes = Model::llama(1).bytes();
    for device in [Device::Index(99), Device::Name("no such device".into())] {
        let error = Engine::from_bytes(&bytes, &options(device.clone())).err().expect("no such device").to_string();
        assert!(error.contains("--device") && error.contains(&device.to_string()), "{error}");
    }
}
