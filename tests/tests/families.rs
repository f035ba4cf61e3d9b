//! Every family of models on tiny random ones, against values computed elsewhere: logits, continuations, embeddings, on
//! every instruction set.
//!
//! The models of the repository are read always; `HANDMILL_TINY=DIR` walks a folder of more of them, with its own
//! `golden.json`: all families, or one model in every format.

use engine::embed::Embedding;
use engine::spec::Pooling;
use engine::tokenizer::Encode;
use engine::{Engine, Isa, KvType, Options, Precision};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tests::golden::{distance, fixture, relative};
use tests::observe::{as_f64, observe};

/// Expected values of a model; which of them there are says what it is.
#[derive(Debug, Deserialize)]
struct Golden {
    ids: Vec<u32>,
    logits_pos5: Option<Vec<f64>>,
    logits_last: Option<Vec<f64>>,
    greedy: Option<Vec<u32>>,
    logits_after_greedy: Option<Vec<f64>>,
    /// The context that the values are for.
    n_ctx: Option<usize>,
    /// The values in a context for which other rotary factors count.
    long: Option<Box<Long>>,
    embedding: Option<Vec<f64>>,
    embedding_raw: Option<Vec<f64>>,
    raw_mean: Option<Vec<f64>>,
    raw_cls: Option<Vec<f64>>,
    raw_last: Option<Vec<f64>>,
    #[serde(default)]
    tokenize: Vec<(String, Vec<u32>)>,
}

#[derive(Debug, Deserialize)]
struct Long {
    n_ctx: usize,
    logits_last: Vec<f64>,
    logits_pos5: Vec<f64>,
    greedy: Vec<u32>,
}

/// Models of architectures that the engine does not have, and says so.
const UNKNOWN: [&str; 2] = ["mamba", "t5encoder"];

fn folder() -> PathBuf {
    std::env::var_os("HANDMILL_TINY").map_or_else(|| fixture("tiny"), PathBuf::from)
}

/// Expected values of a folder: the repository's own stand beside those of `tiny.rs`.
fn golden() -> PathBuf {
    let own = folder().join("families.json");
    if own.is_file() { own } else { folder().join("golden.json") }
}

fn all() -> Vec<(String, Vec<u8>, Golden)> {
    let text = std::fs::read(golden()).expect("a folder of models with its golden.json");
    let rows: BTreeMap<String, Golden> = serde_json::from_slice(&text).expect("sound expected values");
    let named = rows.into_iter().map(|(name, row)| (name.trim_end_matches(".gguf").to_string(), row));
    named
        .map(|(name, row)| {
            let bytes = std::fs::read(folder().join(format!("{name}.gguf"))).expect("the model's file");
            (name, bytes, row)
        })
        .collect()
}

fn exact(isa: Isa) -> Options {
    let (precision, kv) = (Precision::F32, KvType::F32);
    Options {
        precision,
        kv,
        isa: Some(isa),
        threads: Some(2),
        ctx: Some(96),
        check_workers: true,
        ..Options::default()
    }
}

/// Differences relative to the root of the mean square of what is expected: f32 sums in another order, and values
/// written in six digits, stay below it.
const TOLERANCE: f64 = 1e-4;

/// Differences of a vector of length 1.
const UNIT_TOLERANCE: f64 = 1e-5;

fn compare(at: String, found: &[f64], expected: &[f64]) -> Option<String> {
    let off = relative(found, expected);
    (off > TOLERANCE).then(|| format!("{at}: off by {off:.1e} of their size, allowed {TOLERANCE:.0e}"))
}

fn decoder(name: &str, bytes: &[u8], golden: &Golden, isa: Isa) -> Vec<String> {
    let (Some(pos5), Some(last), Some(greedy)) = (&golden.logits_pos5, &golden.logits_last, &golden.greedy) else {
        return vec![];
    };
    let options = Options { ctx: Some(golden.n_ctx.unwrap_or(96)), ..exact(isa) };
    let mut failures = generate((name, bytes), (&golden.ids, pos5, last, greedy), &options);
    if let Some(long) = &golden.long {
        let options = Options { ctx: Some(long.n_ctx), ..options.clone() };
        let expected = (&golden.ids[..], &long.logits_pos5[..], &long.logits_last[..], &long.greedy[..]);
        failures.extend(generate((&format!("{name}, long"), bytes), expected, &options));
    }
    if let Some(after) = &golden.logits_after_greedy {
        let Ok(engine) = Engine::from_bytes(bytes, &options) else { return failures };
        let whole: Vec<u32> = golden.ids.iter().chain(greedy).copied().collect();
        let found = observe(&engine, &whole, whole.len() - 1, 0, as_f64).unwrap();
        failures.extend(compare(format!("{name} {isa}, after its continuation"), &found.rows[0].1, after));
    }
    failures
}

fn generate(
    (name, bytes): (&str, &[u8]),
    (ids, pos5, last, greedy): (&[u32], &[f64], &[f64], &[u32]),
    options: &Options,
) -> Vec<String> {
    let engine = match Engine::from_bytes(bytes, options) {
        Ok(engine) => engine,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let isa = options.isa.unwrap_or_else(Isa::best);
    let found = observe(&engine, ids, 0, greedy.len(), as_f64).unwrap();
    let rows = [("position 5", &found.rows[5].1, pos5), ("the last", &found.rows[ids.len() - 1].1, last)];
    let mut failures: Vec<String> = rows
        .into_iter()
        .filter_map(|(row, found, expected)| compare(format!("{name} {isa}, {row}"), found, expected))
        .collect();
    if found.generated != greedy {
        failures.push(format!("{name} {isa}: continued by {:?}, expected {greedy:?}", found.generated));
    }
    failures
}

fn encoder(name: &str, bytes: &[u8], golden: &Golden, isa: Isa) -> Vec<String> {
    let Some(unit) = &golden.embedding else { return vec![] };
    let options = Options { embeddings: true, sequences: 2, ..exact(isa) };
    let engine = match Engine::from_bytes(bytes, &options) {
        Ok(engine) => engine,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let asked = Embedding::of(engine.spec());
    let raw = |pooling| Embedding { pooling, normalize: false };
    let rows = [
        ("of the file", asked, Some(unit)),
        ("of the file, as it is", raw(asked.pooling), golden.embedding_raw.as_ref()),
        ("mean", raw(Pooling::Mean), golden.raw_mean.as_ref()),
        ("cls", raw(Pooling::First), golden.raw_cls.as_ref()),
        ("last", raw(Pooling::Last), golden.raw_last.as_ref()),
    ];
    let mut failures = vec![];
    for (row, how, expected) in rows {
        // Another text beside it in the same batch changes nothing.
        let beside = engine.embed(golden.ids[..7].to_vec(), how);
        let found = engine.embed(golden.ids.clone(), how).recv().expect("an answer").expect("an embedding");
        beside.recv().expect("an answer").expect("an embedding");
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        if let Some(off) = expected.map(|e| distance(&found, e)).filter(|off| how.normalize && *off > UNIT_TOLERANCE) {
            failures.push(format!("{name} {isa}, {row}: off by {off:.1e}, allowed {UNIT_TOLERANCE:.0e}"));
        }
        if let Some(expected) = expected {
            failures.extend(compare(format!("{name} {isa}, {row}"), &found, expected));
        }
    }
    failures
}

#[test]
fn every_family_computes_what_is_expected() {
    let mut failures = Vec::new();
    for (name, bytes, golden) in all().into_iter().filter(|row| !UNKNOWN.contains(&row.0.as_str())) {
        for isa in Isa::available() {
            failures.extend(decoder(&name, &bytes, &golden, isa));
            failures.extend(encoder(&name, &bytes, &golden, isa));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_family_splits_text_as_expected() {
    let mut failures = Vec::new();
    for (name, bytes, golden) in all() {
        let file = gguf::Gguf::parse(&bytes).expect("a sound file");
        let tokenizer = match engine::tokenizer::Tokenizer::from_meta(file.meta()) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        for (text, ids) in &golden.tokenize {
            let found = tokenizer.encode(text, Encode { add_special: true, parse_special: true });
            if found != *ids {
                failures.push(format!("{name}: {text:?} became {found:?}, expected {ids:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
