//! Makes the fixtures from whole vocabularies. Run by hand:
//!
//! ```text
//! HANDMILL_VOCABULARIES=folder cargo test --release -p engine --test tokenizer -- --ignored make
//! ```
//!
//! The folder holds `tokens.json` and `ggml-vocab-NAME.gguf` files, as llama.cpp publishes them. Five vocabularies go
//! whole into the fixtures. Of the others every token keeps its id, but the text of one that cannot occur is emptied,
//! and merges that cannot happen are left out: a token or a merge is of use only where its text is part of a text to be
//! encoded, so the results for the expected rows are those of the whole vocabulary.

use std::io::Write;
use std::path::Path;

use gguf::{Gguf, Meta, Value};

use super::{GOLDEN, VOCABULARIES, inflate};

/// Vocabularies that are kept whole.
const WHOLE: [&str; 5] = ["bert-bge", "deepseek-coder", "gpt-2", "llama-spm", "phi-3"];

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// The alphabet of byte-level BPE: printable Latin-1 for itself, the other bytes from U+0100 on.
fn mapped(text: &str) -> String {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let place = |b: u8| (0..b).filter(|&other| !printable(other)).count() as u32;
    let map = |b: u8| if printable(b) { char::from(b) } else { char::from_u32(0x100 + place(b)).expect("a character") };
    text.bytes().map(map).collect()
}

/// All texts of the expected rows, as a vocabulary writes them.
fn texts(golden: &serde_json::Value, byte_level: bool) -> Vec<String> {
    let rows = golden.as_object().expect("an object").values().flat_map(|v| v.as_array().expect("rows"));
    let texts = rows.map(|row| row[0].as_str().expect("a text"));
    texts.map(|t| if byte_level { mapped(t) } else { format!(" {t}").replace(' ', "\u{2581}") }).collect()
}

/// A vocabulary without what the texts cannot use.
fn reduced(meta: &Meta<'_>, golden: &serde_json::Value) -> Vec<u8> {
    let byte_level = meta.str("tokenizer.ggml.model").expect("a model") == "gpt2";
    let texts = texts(golden, byte_level);
    let occurs = |token: &str| texts.iter().any(|t| t.contains(token));
    let kinds: Vec<i64> = meta.ints("tokenizer.ggml.token_type").expect("types").ints().expect("ints").collect();
    let tokens = meta.strings("tokenizer.ggml.tokens").expect("tokens").strings().enumerate();
    let kept: Vec<(String, bool)> = tokens
        .map(|(i, text)| {
            let text = String::from_utf8(text.to_vec()).expect("UTF-8");
            // Fillers of the embedding table never occur either.
            let keep = kinds[i] != 1 && !text.starts_with("[PAD") || text.chars().count() == 1 || occurs(&text);
            if keep { (text, true) } else { (String::new(), false) }
        })
        .collect();
    let mut file = gguf::Builder::new(gguf::Endian::Little);
    for (key, value) in meta.iter().filter(|(key, _)| key.starts_with("tokenizer.") || key.starts_with("general.")) {
        match (key, value) {
            ("tokenizer.ggml.tokens", _) => {
                let texts: Vec<&str> = kept.iter().map(|k| k.0.as_str()).collect();
                file.key(key, texts)
            }
            ("tokenizer.ggml.scores", Value::Array(scores)) => {
                let scores = scores.floats().expect("floats").zip(&kept);
                file.key(key, scores.map(|(score, k)| if k.1 { score } else { 0.0 }).collect::<Vec<f32>>())
            }
            ("tokenizer.ggml.merges", Value::Array(merges)) => {
                let merges = merges.strings().map(|m| String::from_utf8(m.to_vec()).expect("UTF-8"));
                let useful: Vec<String> = merges.filter(|m| occurs(&m.replacen(' ', "", 1))).collect();
                file.key(key, useful.iter().map(String::as_str).collect::<Vec<_>>())
            }
            (key, value) => file.key(key, value),
        }
        .expect("a key");
    }
    file.start(Vec::new()).expect("a header").finish().expect("a file")
}

#[test]
#[ignore = "needs whole vocabularies; writes the fixtures"]
fn make() {
    let folder = std::env::var("HANDMILL_VOCABULARIES").expect("a folder with vocabularies");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let golden = std::fs::read(Path::new(&folder).join("tokens.json")).expect("tokens.json");
    let mut rows: serde_json::Value = serde_json::from_slice(&golden).expect("JSON");
    rows.as_object_mut().expect("an object").retain(|name, _| VOCABULARIES.iter().any(|v| v.0 == name));
    std::fs::write(fixtures.join("tokens.json.deflate"), deflate(rows.to_string().as_bytes())).expect("a file");
    for (name, _) in VOCABULARIES {
        let bytes = std::fs::read(Path::new(&folder).join(format!("ggml-vocab-{name}.gguf"))).expect("a vocabulary");
        let gguf = Gguf::parse(&bytes).expect("a GGUF file");
        let made = if WHOLE.contains(&name) { bytes } else { reduced(gguf.meta(), &rows) };
        std::fs::write(fixtures.join(format!("{name}.gguf.deflate")), deflate(&made)).expect("a file");
    }
}

#[test]
fn reduced_vocabularies_keep_their_ids() {
    let rows: serde_json::Value = serde_json::from_slice(&inflate(GOLDEN)).expect("JSON");
    for (name, bytes) in VOCABULARIES {
        let gguf = inflate(bytes);
        let gguf = Gguf::parse(&gguf).expect("a GGUF file");
        let tokens = gguf.meta().strings("tokenizer.ggml.tokens").expect("tokens").len();
        let most = rows[name].as_array().expect("rows").iter().flat_map(|r| r[2].as_array().expect("ids"));
        let most = most.filter_map(serde_json::Value::as_u64).max();
        assert!(most < Some(tokens as u64), "{name}");
    }
}
