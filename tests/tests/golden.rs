//! The program's `score` on real and tiny models against values computed elsewhere from the same weights.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use tests::golden::{Case, cases, fixture, read_fixture, tiny};
use tests::models;
use tests::process::handmill;

/// A line that `score` prints.
#[derive(Debug, Deserialize)]
struct Scored {
    tokens: Vec<u32>,
    mean_nll: Option<f64>,
    top: Vec<(u32, f64)>,
    greedy: Vec<u32>,
    text: String,
    logits_sha256: String,
}

/// What `score` says about prompts, given as JSON lines.
fn score(model: &Path, lines: &[serde_json::Value], flags: &[&str]) -> Vec<Scored> {
    let folder = tempfile::tempdir().expect("a folder for files");
    let input = folder.path().join("cases.jsonl");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&input, text).expect("a writable folder");
    let [model, input] = [model, &input].map(|path| path.to_str().expect("a path of UTF-8"));
    let arguments = [&["score", model, "--input", input], flags].concat();
    let output = handmill(&arguments).run().success();
    let scored: Vec<Scored> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(scored.len(), lines.len(), "one line a case");
    scored
}

/// A text, its tokens, and its tokens with special ones added and parsed.
type TextRow = (String, Vec<u32>, Vec<u32>);

const EXACT: [&str; 4] = ["--precision", "f32", "--kv", "f32"];

/// Likelihoods in f32 arithmetic in another order of sums.
const NLL_TOLERANCE: f64 = 1e-4;
/// Logits of about 20 in six digits, from the same arithmetic.
const LOGIT_TOLERANCE: f64 = 2e-3;
/// Two logits closer than this may change places: their distance is within what f32 sums in another order move.
const TIE: f64 = 1e-3;

fn prompts(cases: &[Case]) -> Vec<serde_json::Value> {
    cases.iter().map(|case| serde_json::json!({ "prompt": case.prompt })).collect()
}

/// What of an exact result is off.
fn compare(at: &str, case: &Case, found: &Scored) -> Vec<String> {
    let mut rows = Vec::new();
    if found.tokens != case.tokens {
        rows.push(format!("{at}: tokens {:?}, expected {:?}", found.tokens, case.tokens));
    }
    let nll = found.mean_nll.unwrap_or(f64::NAN);
    let off = (nll - case.mean_nll).abs() / case.mean_nll;
    // Written so that NaN fails.
    if !matches!(off.partial_cmp(&NLL_TOLERANCE), Some(std::cmp::Ordering::Less)) {
        rows.push(format!("{at}: mean_nll {nll}, expected {} within {NLL_TOLERANCE:.0e} of it", case.mean_nll));
    }
    let last = found.top.last().map_or(f64::INFINITY, |row| row.1);
    for &(id, expected) in &case.top20 {
        match found.top.iter().find(|row| row.0 == id) {
            Some(row) if (row.1 - expected).abs() <= LOGIT_TOLERANCE => (),
            // The last of the list may have changed places with the first behind it.
            None if (expected - last).abs() <= LOGIT_TOLERANCE => (),
            other => {
                rows.push(format!("{at}: logit of {id} is {other:?}, expected {expected} within {LOGIT_TOLERANCE}"))
            }
        }
    }
    if found.greedy != case.greedy && case.min_top_gap > TIE {
        rows.push(format!("{at}: continued by {:?}, expected {:?}", found.greedy, case.greedy));
    }
    if found.greedy == case.greedy && found.text != case.text {
        rows.push(format!("{at}: text {:?}, expected {:?}", found.text, case.text));
    }
    rows
}

fn exact(model: &str, golden: &str) {
    let Some(path) = models::obtain(model) else { return };
    let cases = cases(golden);
    let flags = [&EXACT[..], &["--top", "20", "--greedy", "24"]].concat();
    let found = score(&path, &prompts(&cases), &flags);
    let rows: Vec<String> = cases
        .iter()
        .zip(&found)
        .enumerate()
        .flat_map(|(at, (case, found))| compare(&format!("case {at}"), case, found))
        .collect();
    assert!(rows.is_empty(), "{}", rows.join("\n"));
    // An answer may be nothing but the token that ends it.
    assert!(
        found.iter().all(|line| line.logits_sha256.len() == 64 && (line.greedy.len() == 1 || !line.text.is_empty()))
    );
    // The same prompt as ids is the same computation.
    let ids: Vec<_> = found[..2].iter().map(|line| serde_json::json!({ "tokens": line.tokens })).collect();
    for (line, again) in found.iter().zip(score(&path, &ids, &flags)) {
        assert_eq!((&line.logits_sha256, &line.greedy), (&again.logits_sha256, &again.greedy));
    }
}

/// What 8-bit activations move the log-probability of one token by, in nats: sqrt(2 KL) at the divergence of 0.004 that
/// groups of 32 give. It averages out over a prompt's tokens.
const TOKEN_NOISE: f64 = 0.09;

/// The defaults: activations in 8 bits, keys and values in f16.
fn fast(model: &str, golden: &str) {
    let Some(path) = models::obtain(model) else { return };
    let cases = cases(golden);
    let found = score(&path, &prompts(&cases), &["--top", "20", "--greedy", "24"]);
    let (mut exact, mut fast) = (0.0, 0.0);
    for (case, line) in cases.iter().zip(&found) {
        let (n, nll) = ((case.tokens.len() - 1) as f64, line.mean_nll.unwrap_or(f64::NAN));
        assert!(
            (nll - case.mean_nll).abs() < 3.0 * TOKEN_NOISE / n.sqrt(),
            "mean_nll {nll}, expected {}",
            case.mean_nll
        );
        (exact, fast) = (exact + n * case.mean_nll, fast + n * nll);
    }
    assert!((fast / exact - 1.0).abs() < 0.01, "mean_nll of all prompts {fast}, expected {exact} within 1 %");
    let same = cases.iter().zip(&found).filter(|(case, line)| case.greedy.first() == line.greedy.first()).count();
    assert!(same >= 7, "{same} of {} first tokens are those of exact arithmetic", cases.len());
}

#[test]
fn smollm2_gives_the_exact_answers() {
    exact("smollm2", "smollm2");
}

#[test]
fn gemma3_gives_the_exact_answers() {
    exact("gemma3:270m", "gemma3-270m");
}

#[test]
fn smollm2_stays_close_in_8_bits() {
    fast("smollm2", "smollm2");
}

#[test]
fn gemma3_stays_close_in_8_bits() {
    fast("gemma3:270m", "gemma3-270m");
}

/// Texts with all that tokenizers stumble over, with and without special tokens.
fn tokenize(model: &str, golden: &str) {
    let Some(path) = models::obtain(model) else { return };
    let rows: BTreeMap<String, Vec<TextRow>> =
        serde_json::from_slice(&read_fixture("golden/tokens.json")).expect("a sound fixture");
    let file = engine::file::ModelFile::open(&path).expect("a readable file");
    let gguf = file.parse().expect("a sound file");
    let tokenizer = engine::tokenizer::Tokenizer::from_meta(gguf.meta()).expect("a known tokenizer");
    let mut failures = Vec::new();
    for (text, plain, special) in &rows[golden] {
        for (expected, on) in [(plain, false), (special, true)] {
            let found = tokenizer.encode(text, engine::tokenizer::Encode { add_special: on, parse_special: on });
            if found != *expected {
                failures.push(format!("{text:?}, special {on}: {found:?}, expected {expected:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn smollm2_splits_text_as_expected() {
    tokenize("smollm2", "smollm2");
}

#[test]
fn gemma3_splits_text_as_expected() {
    tokenize("gemma3:270m", "gemma3-270m");
}

/// The whole way through the program: every logit after the prompt, by ids.
#[test]
fn score_agrees_with_every_tiny_model() {
    let mut rows = Vec::new();
    for (name, _, golden) in tiny() {
        let top = golden.logits_last.len().to_string();
        let flags = [&EXACT[..], &["--top", &top, "--greedy", "16"]].concat();
        let found =
            score(&fixture(&format!("tiny/{name}.gguf")), &[serde_json::json!({ "tokens": golden.ids })], &flags);
        let [line] = &found[..] else { panic!("{name}: one line for one case") };
        let off =
            line.top.iter().map(|&(id, logit)| (logit - golden.logits_last[id as usize]).abs()).fold(0.0, f64::max);
        if off > 1e-3 || line.top.len() != golden.logits_last.len() {
            rows.push(format!("{name}: {} logits, off by up to {off:.1e}", line.top.len()));
        }
        if line.greedy != golden.greedy {
            rows.push(format!("{name}: continued by {:?}, expected {:?}", line.greedy, golden.greedy));
        }
    }
    assert!(rows.is_empty(), "{}", rows.join("\n"));
}
