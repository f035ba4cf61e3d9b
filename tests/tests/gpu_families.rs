//! Every family of models on every adapter of this machine: tiny random models against the processor, logits,
//! continuations and embeddings, and the same bits in any company.
//!
//! The models of the repository are read always; `HANDMILL_TINY=DIR` walks a folder of more of them.

use engine::embed::Embedding;
use engine::{Device, Engine, KvType, Options, Precision};
use std::path::{Path, PathBuf};
use tests::golden::{distance, fixture};
use tests::gpu::{nmse, obtain};
use tests::observe::{as_f64, digest, observe, submit};

/// f32 arithmetic in another order.
const NMSE: f64 = 1e-6;
/// Differences of a vector of length 1.
const UNIT: f64 = 1e-5;
/// Models of architectures that the engine does not have, and says so.
const UNKNOWN: [&str; 2] = ["mamba", "t5encoder"];

fn options(device: Device) -> Options {
    Options { precision: Precision::F32, kv: KvType::F32, ctx: Some(96), device, ..Options::default() }
}

fn models() -> Vec<(String, Vec<u8>)> {
    let folder = std::env::var_os("HANDMILL_TINY").map_or_else(|| fixture("tiny"), PathBuf::from);
    let entries = std::fs::read_dir(&folder).expect("a folder of models");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "gguf"));
    paths.sort();
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let known = paths.iter().map(|path| (name(path), path)).filter(|row| !UNKNOWN.contains(&row.0.as_str()));
    known.map(|(name, path)| (name, std::fs::read(path).expect("a readable model"))).collect()
}

fn prompt(vocabulary: usize, length: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 37 + 11) % vocabulary) as u32).collect()
}

/// What a device makes of a model: logits of all positions, a continuation, an embedding where it gives one.
#[derive(Default)]
struct Answer {
    logits: Vec<f64>,
    generated: Vec<u32>,
    embedding: Vec<f64>,
}

fn answer(bytes: &[u8], device: Device) -> engine::Result<Answer> {
    let engine = Engine::from_bytes(bytes, &options(device))?;
    let ids = prompt(engine.spec().n_vocab, 45);
    if !engine.spec().hidden {
        let found = observe(&engine, &ids, 0, 8, as_f64)?;
        let logits = found.rows.into_iter().flat_map(|row| row.1).collect();
        return Ok(Answer { logits, generated: found.generated, ..Answer::default() });
    }
    // Another text beside it in the same batch changes nothing.
    let how = Embedding::of(engine.spec());
    let beside = engine.embed(ids[..7].to_vec(), how);
    let found = engine.embed(ids, how).recv().expect("an answer")?;
    beside.recv().expect("an answer")?;
    Ok(Answer { embedding: found.into_iter().map(f64::from).collect(), ..Answer::default() })
}

/// What a device's answer is off by.
fn compare(at: &str, found: &Answer, expected: &Answer) -> Vec<String> {
    let mut failures = vec![];
    let off = nmse(&found.logits, &expected.logits);
    // Written so that NaN fails.
    if !matches!(off.partial_cmp(&NMSE), Some(std::cmp::Ordering::Less)) {
        failures.push(format!("{at}: NMSE {off:.1e}, allowed {NMSE:.0e}"));
    }
    if found.generated != expected.generated {
        failures.push(format!("{at}: {:?}, expected {:?}", found.generated, expected.generated));
    }
    let off = distance(&found.embedding, &expected.embedding);
    if off > UNIT {
        failures.push(format!("{at}: an embedding off by {off:.1e}, allowed {UNIT:.0e}"));
    }
    failures
}

#[test]
fn every_family_computes_what_the_processor_does() {
    let (adapters, _busy) = obtain();
    let mut failures = Vec::new();
    for (name, bytes) in models() {
        let expected = answer(&bytes, Device::Cpu).unwrap_or_else(|error| panic!("{name} on the processor: {error}"));
        for adapter in &adapters {
            let at = format!("{name} on {} ({})", adapter.name, adapter.api);
            match answer(&bytes, Device::Index(adapter.index)) {
                Err(error) => failures.push(format!("{at}: {error}")),
                Ok(found) => failures.extend(compare(&at, &found, &expected)),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Experts too meet codes of 8 bits as on the processor, where a rounding now and then turns one over.
#[test]
fn experts_of_codes_compute_what_the_processor_does() {
    let (adapters, _busy) = obtain();
    let bytes = tests::golden::read_fixture("tiny/gpt-oss-mxfp4.gguf");
    let logits = |device, precision| -> Vec<f64> {
        let options = Options { precision, gpu_precision: precision, ..options(device) };
        let engine = Engine::from_bytes(&bytes, &options).unwrap_or_else(|error| panic!("{error}"));
        let ids = prompt(engine.spec().n_vocab, 45);
        let rows = observe(&engine, &ids, 0, 0, as_f64).expect("logits").rows;
        rows.into_iter().flat_map(|row| row.1).collect()
    };
    let [codes, floats] = [Precision::Q8, Precision::F32].map(|precision| logits(Device::Cpu, precision));
    for adapter in &adapters {
        let found = logits(Device::Index(adapter.index), Precision::Q8);
        let [near, far] = [&codes, &floats].map(|expected| nmse(&found, expected));
        assert!(near < far / 10.0, "on {}: {near:e} from the same codes, {far:e} from f32", adapter.name);
    }
}

/// On one device: chunks and neighbours change no bit, whatever the family.
#[test]
fn a_family_gives_the_same_bits_in_any_company() {
    let (adapters, _busy) = obtain();
    let mut failures = Vec::new();
    for name in ["deepseek2", "gpt-oss-mxfp4", "command-r"] {
        let bytes = tests::golden::read_fixture(&format!("tiny/{name}.gguf"));
        for adapter in &adapters {
            let load = |batch, sequences| {
                let options = Options { batch, sequences, ..options(Device::Index(adapter.index)) };
                Engine::from_bytes(&bytes, &options).unwrap_or_else(|error| panic!("{name}: {error}"))
            };
            let alone = load(512, 1);
            let prompt = prompt(alone.spec().n_vocab, 60);
            let expected = observe(&alone, &prompt, 50, 3, digest).expect("an answer");
            let engine = load(7, 3);
            let others: Vec<_> = (1..3).map(|i| submit(&engine, &prompt[i..20 * i], 0, 2, digest)).collect();
            let found = observe(&engine, &prompt, 50, 3, digest).expect("an answer");
            drop(others);
            if (&found.rows, &found.generated) != (&expected.rows, &expected.generated) {
                failures.push(format!("{name} on {} ({})", adapter.name, adapter.api));
            }
        }
    }
    assert!(failures.is_empty(), "other bits:\n{}", failures.join("\n"));
}

/// Other texts in the batch change no bit of an embedding, which sees all of its own text at once.
#[test]
fn an_embedding_is_the_same_bits_in_any_company() {
    let (adapters, _busy) = obtain();
    for name in ["bert", "jina-bert-v2", "qwen3-embed"] {
        let bytes = tests::golden::read_fixture(&format!("tiny/{name}.gguf"));
        for adapter in &adapters {
            let options = Options { embeddings: true, sequences: 4, ..options(Device::Index(adapter.index)) };
            let engine = Engine::from_bytes(&bytes, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (how, ids) = (Embedding::of(engine.spec()), prompt(engine.spec().n_vocab, 45));
            let bits = |of: std::sync::mpsc::Receiver<engine::Result<Vec<f32>>>| {
                let vector = of.recv().expect("an answer").expect("an embedding");
                vector.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
            };
            let alone = bits(engine.embed(ids.clone(), how));
            let asked: Vec<_> = [&ids[..9], &ids[..], &ids[3..40]].map(|ids| engine.embed(ids.to_vec(), how)).into();
            let together: Vec<_> = asked.into_iter().map(bits).collect();
            assert!(together[1] == alone, "{name} on {} ({}): other bits in company", adapter.name, adapter.api);
        }
    }
}
