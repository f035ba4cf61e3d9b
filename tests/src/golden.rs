//! Expected values, computed elsewhere from the same weights in f32 arithmetic, and the means to compare.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Expected values of a tiny model.
#[derive(Clone, Debug, Deserialize)]
pub struct Tiny {
    /// The prompt.
    pub ids: Vec<u32>,
    /// Logits after position 5 of the prompt.
    pub logits_pos5: Vec<f64>,
    /// Logits after the prompt.
    pub logits_last: Vec<f64>,
    /// The most probable continuation, end of text ignored.
    pub greedy: Vec<u32>,
    /// Logits after the continuation.
    pub logits_after_greedy: Vec<f64>,
    /// Distance of the two largest logits, at its least over the continuation.
    pub min_top_gap: f64,
    /// Texts and their ids, special tokens added and parsed.
    pub tokenize: Vec<(String, Vec<u32>)>,
}

/// Expected values of a prompt on a real model.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// The prompt.
    pub prompt: String,
    /// Its ids.
    pub tokens: Vec<u32>,
    /// Mean negative log-likelihood of `tokens[1..]`, natural logarithm.
    pub mean_nll: f64,
    /// The largest logits after the prompt with their ids, largest first.
    pub top20: Vec<(u32, f64)>,
    /// The most probable continuation, up to the token that ends the text.
    pub greedy: Vec<u32>,
    /// The continuation as text.
    pub text: String,
    /// Distance of the two largest logits, at its least over the continuation.
    pub min_top_gap: f64,
}

/// A file of this crate's fixtures.
pub fn fixture(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", path].iter().collect()
}

/// A file of this crate's fixtures, read.
///
/// # Panics
/// If it is missing: fixtures are part of the repository.
pub fn read_fixture(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap_or_else(|error| panic!("fixture {path}: {error}"))
}

fn parse<T: for<'a> Deserialize<'a>>(path: &str) -> T {
    serde_json::from_slice(&read_fixture(path)).unwrap_or_else(|error| panic!("fixture {path}: {error}"))
}

/// The tiny models: name, file bytes and expected values.
pub fn tiny() -> Vec<(String, Vec<u8>, Tiny)> {
    let rows: BTreeMap<String, Tiny> = parse("tiny/golden.json");
    rows.into_iter().map(|(name, row)| (name.clone(), read_fixture(&format!("tiny/{name}.gguf")), row)).collect()
}

/// The expected values of a real model by file name: `smollm2` or `gemma3-270m`.
pub fn cases(name: &str) -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    parse::<File>(&format!("golden/{name}.json")).cases
}

/// The largest difference between two rows of logits.
///
/// # Panics
/// If their lengths differ or a value is NaN.
pub fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "rows of logits of different vocabularies");
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, x| {
        assert!(!x.is_nan(), "a logit is NaN");
        if x > max { x } else { max }
    })
}

/// The largest difference between two rows, relative to the root of the mean square of what is expected.
///
/// # Panics
/// As [`distance`].
pub fn relative(found: &[f64], expected: &[f64]) -> f64 {
    let spread = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    distance(found, expected) / spread
}
