//! The engine on tiny models, against values computed elsewhere and against the f64 twin at shapes and in formats that
//! no real model has.

use engine::tokenizer::Encode;
use engine::{Engine, Isa, KvType, Options, Precision};
use gguf::Format;
use tests::golden::{distance, relative, tiny};
use tests::observe::{as_f64, observe};
use tests::tiny::Model;
use tests::twin::{Past, Twin};

fn exact() -> Options {
    Options { precision: Precision::F32, kv: KvType::F32, threads: Some(2), ctx: Some(128), ..Options::default() }
}

/// The largest difference relative to the root of the mean square: f32 sums in another order, and values written in six
/// digits, stay below it. The normalized mean squared error is then below 1e-8.
const GOLDEN_TOLERANCE: f64 = 1e-4;

#[test]
fn the_engine_agrees_with_every_tiny_model() {
    let mut failures = Vec::new();
    for (name, bytes, golden) in tiny() {
        let engine = Engine::from_bytes(&bytes, &exact()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let observed = observe(&engine, &golden.ids, 0, golden.greedy.len(), as_f64).unwrap();
        let whole: Vec<u32> = golden.ids.iter().chain(&golden.greedy).copied().collect();
        let after = observe(&engine, &whole, whole.len() - 1, 0, as_f64).unwrap();
        let rows = [
            ("position 5", relative(&observed.rows[5].1, &golden.logits_pos5)),
            ("last", relative(&observed.rows[golden.ids.len() - 1].1, &golden.logits_last)),
            ("after greedy", relative(&after.rows[0].1, &golden.logits_after_greedy)),
        ];
        for (row, off) in rows.into_iter().filter(|row| row.1 > GOLDEN_TOLERANCE) {
            failures.push(format!("{name}, {row}: off by {off:.1e}, allowed {GOLDEN_TOLERANCE:.0e}"));
        }
        if observed.generated != golden.greedy {
            failures.push(format!("{name}: continued by {:?}, expected {:?}", observed.generated, golden.greedy));
        }
        for (text, ids) in &golden.tokenize {
            let found = engine.tokenizer().encode(text, Encode { add_special: true, parse_special: true });
            if found != *ids {
                failures.push(format!("{name}: {text:?} became {found:?}, expected {ids:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// f32 against f64 over at most eight layers of logits below 100: a few hundred roundings of 6e-8 each.
const TWIN_TOLERANCE: f64 = 1e-3;

/// The largest distance from the twin over all positions of a prompt of `length` tokens.
fn distance_from_twin(model: &Model, options: &Options, length: usize) -> Result<f64, engine::Error> {
    let bytes = model.bytes();
    let prompt: Vec<u32> = (0..length).map(|i| ((i * 37 + 11) % model.n_vocab) as u32).collect();
    let engine = Engine::from_bytes(&bytes, options)?;
    let found = observe(&engine, &prompt, 0, 0, as_f64)?;
    let expected = Twin::load(&bytes).logits(&mut Past::default(), &prompt);
    assert_eq!(found.rows.len(), length, "every position was observed");
    Ok(found.rows.iter().zip(&expected).map(|((_, row), expected)| distance(row, expected)).fold(0.0, f64::max))
}

fn check(rows: Vec<(String, Model)>) {
    let mut failures = Vec::new();
    for (name, model) in rows {
        match distance_from_twin(&model, &exact(), 45) {
            Ok(off) if off <= TWIN_TOLERANCE => (),
            Ok(off) => failures.push(format!("{name}: off by {off:.1e}, allowed {TWIN_TOLERANCE:.0e}")),
            Err(error) => failures.push(format!("{name}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_format_computes_what_its_decoder_says() {
    let decodable = Format::ALL.iter().filter(|format| format.decoder().is_some());
    let rows = decodable.flat_map(|&format| {
        let sized = |model: Model| {
            let k = format.block_len().max(32);
            Model { format, embd_format: format, n_embd: k, n_ff: 2 * k, n_layer: 2, d_head: k / 4, n_head: 4, ..model }
        };
        [Model::llama(7), Model::gemma3(8)].map(|model| (format!("{:?} in {format}", model.arch), sized(model)))
    });
    check(rows.collect());
}

#[test]
fn odd_shapes_compute_what_the_twin_says() {
    let llama = || Model::llama(21);
    let gemma = || Model::gemma3(22);
    let rows = [
        ("one head", Model { n_head: 1, n_head_kv: 1, ..llama() }),
        ("as many key heads as query heads", Model { n_head: 5, n_head_kv: 5, ..llama() }),
        ("seven queries a key", Model { n_head: 7, n_head_kv: 1, ..llama() }),
        ("heads of 2", Model { d_head: 2, ..llama() }),
        ("heads of 66", Model { d_head: 66, ..llama() }),
        ("width of 1", Model { n_embd: 1, ..llama() }),
        ("width of 33", Model { n_embd: 33, ..llama() }),
        ("feed-forward of 1", Model { n_ff: 1, ..llama() }),
        ("feed-forward of 257", Model { n_ff: 257, ..llama() }),
        ("one layer", Model { n_layer: 1, ..llama() }),
        ("vocabulary of 1025", Model { n_vocab: 1025, ..llama() }),
        ("tied", Model { tied: true, ..llama() }),
        ("biases", Model { biases: true, ..llama() }),
        ("rope factors", Model { rope_factors: true, ..llama() }),
        ("window of 1", Model { window: 1, ..gemma() }),
        ("window of 16", Model { window: 16, ..gemma() }),
        ("window of 33", Model { window: 33, ..gemma() }),
        ("window of 1000", Model { window: 1000, ..gemma() }),
        ("gemma3, thirteen layers", Model { n_layer: 13, ..gemma() }),
        ("gemma3, heads of 6", Model { d_head: 6, ..gemma() }),
        ("gemma3, grouped queries", Model { n_head: 6, n_head_kv: 3, ..gemma() }),
    ];
    check(rows.map(|(name, model)| (name.to_string(), model)).into());
}

/// 8-bit activations: each product is off by up to half a step, 1/254 of the largest activation of its group, and the
/// steps of a sum are independent. What is left of that after the layers is a fraction of the logits' own spread.
#[test]
fn eight_bit_activations_stay_close() {
    let options = Options { precision: Precision::Q8, kv: KvType::F16, ..exact() };
    let mut failures = Vec::new();
    for format in [Format::Q4_1, Format::Q8_0, Format::Q4K, Format::Q6K, Format::F16] {
        let model = Model { format, embd_format: format, n_embd: 256, n_ff: 512, ..Model::llama(9) };
        let spread = {
            let logits = Twin::load(&model.bytes()).logits(&mut Past::default(), &[1, 2, 3]);
            (logits[2].iter().map(|x| x * x).sum::<f64>() / logits[2].len() as f64).sqrt()
        };
        let off = distance_from_twin(&model, &options, 45).unwrap();
        if off > 0.1 * spread {
            failures.push(format!("{format}: off by {off:.2e} where logits spread over {spread:.2e}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let mut failures = Vec::new();
    for model in [Model::llama(31), Model { n_layer: 3, format: Format::Q8_0, ..Model::gemma3(32) }] {
        for precision in Precision::ALL {
            let bytes = model.bytes();
            let digests = |isa, batch| {
                let options = Options { isa: Some(isa), precision, batch, kv: KvType::F16, ..exact() };
                let engine = Engine::from_bytes(&bytes, &options).unwrap();
                observe(&engine, &[5, 77, 3, 120, 44, 9, 250, 11, 12, 13], 0, 6, tests::observe::digest).unwrap()
            };
            let expected = digests(Isa::Scalar, 512);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                for batch in [1, 3, 512] {
                    if digests(isa, batch) != expected {
                        failures.push(format!("{:?} {precision:?}: {isa:?} in chunks of {batch}", model.arch));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "other bits than scalar:\n{}", failures.join("\n"));
}
