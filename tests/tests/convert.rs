//! Folders of Hugging Face's become the files that they were made from, real ones give the vectors that their makers get,
//! and hostile ones an error.
//!
//! `HANDMILL_TINY=DIR` walks a folder of more models than the repository holds.

use gguf::{Gguf, Value as GgufValue};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tests::golden::fixture;
use tests::huggingface::{knows, save, take_apart};
use tests::models::obtain;
use tests::process::{Outcome, handmill};

fn convert(folder: &Path, out: &Path, more: &[&str]) -> Outcome {
    let (folder, out) = (folder.to_str().expect("UTF-8"), out.to_str().expect("UTF-8"));
    handmill(&[&["convert", folder, out], more].concat()).run()
}

/// The tiny models that can be taken apart.
fn models() -> Vec<(String, Vec<u8>)> {
    let folder = std::env::var_os("HANDMILL_TINY").map_or_else(|| fixture("tiny"), PathBuf::from);
    let files = std::fs::read_dir(folder).expect("a folder of models").map(|e| e.expect("an entry").path());
    let mut found: Vec<(String, Vec<u8>)> = files
        .filter(|path| path.extension().is_some_and(|e| e == "gguf"))
        .map(|path| (path.file_stem().expect("a name").to_string_lossy().into(), std::fs::read(path).expect("a model")))
        .filter(|(_, bytes)| {
            let gguf = Gguf::parse(bytes).expect("a sound model");
            // Factors that no configuration says are made for tests alone, and experts are of no family that is converted.
            let made_up =
                gguf.tensor("rope_freqs.weight").is_some() || gguf.tensor("blk.0.ffn_gate_inp.weight").is_some();
            knows(gguf.meta().str("general.architecture").expect("an architecture")) && !made_up
        })
        .collect();
    found.sort();
    found
}

/// Keys that a folder cannot say: words of the maker, and what the converter does not write.
const OWN: [&str; 5] = [
    "general.name",
    "general.description",
    "tokenizer.ggml.padding_token_id",
    "bert.attention.head_count_kv",
    "bert.vocab_size",
];

fn differences(name: &str, expected: &Gguf, found: &Gguf) -> Vec<String> {
    let mut rows = Vec::new();
    let arch = expected.meta().str("general.architecture").expect("an architecture");
    for (key, value) in expected.meta().iter().filter(|(key, _)| !OWN.contains(key)) {
        // Only Llama's converter writes it.
        if key == format!("{arch}.vocab_size") && arch != "llama" {
            continue;
        }
        match found.meta().get(key) {
            Some(other) if same(value, other) => {}
            other => rows.push(format!("{name}: {key} is {other:?}, expected {value:?}")),
        }
    }
    if expected.tensors().len() != found.tensors().len() {
        rows.push(format!("{name}: {} tensors, expected {}", found.tensors().len(), expected.tensors().len()));
    }
    for t in expected.tensors() {
        let Some(other) = found.tensor(&t.name) else {
            rows.push(format!("{name}: no {}", t.name));
            continue;
        };
        let numbers = |g: &Gguf, t| bytemuck::pod_collect_to_vec::<u8, f32>(g.data(t));
        let mut wanted = numbers(expected, t);
        if arch == "gemma3" && t.name.ends_with("norm.weight") {
            // The folder holds the distance from 1, rounded.
            wanted.iter_mut().for_each(|v| *v = (*v - 1.0) + 1.0);
        }
        if t.shape != other.shape || wanted != numbers(found, other) {
            rows.push(format!("{name}: {} has other numbers", t.name));
        }
    }
    rows
}

/// Equal whatever the width of an integer.
fn same(a: &GgufValue, b: &GgufValue) -> bool {
    match (a.as_array(), b.as_array()) {
        (Some(a), Some(b)) => a.len() == b.len() && a.values().zip(b.values()).all(|(a, b)| same(&a, &b)),
        _ => a.as_i64().is_some() && a.as_i64() == b.as_i64() || a.to_string() == b.to_string(),
    }
}

#[test]
fn what_was_taken_apart_is_put_together_again() {
    let mut failures = Vec::new();
    for (i, (name, bytes)) in models().into_iter().enumerate() {
        let folder = tempfile::tempdir().expect("a folder");
        let gguf = Gguf::parse(&bytes).expect("a sound model");
        take_apart(&gguf, folder.path(), i % 2 == 0);
        let out = folder.path().join("out.gguf");
        let outcome = convert(folder.path(), &out, &[]);
        if outcome.code != Some(0) {
            failures.push(format!("{name}: {}", outcome.stderr.trim()));
            continue;
        }
        let found = std::fs::read(&out).expect("the file that was written");
        failures.extend(differences(&name, &gguf, &Gguf::parse(&found).expect("a sound file")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A small folder of Llama's that is whole.
fn sound(folder: &Path) {
    small(folder, "llama");
}

/// A small folder of an architecture.
fn small(folder: &Path, arch: &str) {
    let bytes = std::fs::read(fixture(&format!("tiny/{arch}.gguf"))).expect("a model");
    take_apart(&Gguf::parse(&bytes).expect("a sound model"), folder, false);
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
    change(&mut json);
    std::fs::write(path, json.to_string()).expect("a file that can be written");
}

/// A header, and so many bytes of data.
fn raw(length: u64, header: &str, data: usize) -> Vec<u8> {
    [&length.to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

#[test]
fn hostile_weights_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    sound(folder.path());
    let (file, out) = (folder.path().join("model.safetensors"), folder.path().join("out.gguf"));
    std::fs::write(&out, b"old").expect("a file");
    let one = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let n = one.len() as u64;
    let with = |shape: &str, offsets: &str| {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{offsets}]}}}}"#);
        raw(header.len() as u64, &header, 8)
    };
    let rows: [(&str, Vec<u8>, &str); 13] = [
        ("empty", vec![], "0 bytes"),
        ("a length alone", vec![8, 0, 0, 0, 0, 0, 0, 0], "says that its header has 8 bytes"),
        ("a length without end", raw(u64::MAX, one, 8), "says that its header has 18446744073709551615 bytes"),
        ("a header longer than the file", raw(n + 9, one, 8), "expected at most"),
        ("too little data", raw(n, one, 7), "7 bytes of data"),
        ("too much data", raw(n, one, 9), "9 bytes of data"),
        ("no JSON", raw(4, "{{{{", 8), "cannot be used"),
        ("deep JSON", raw(4000, &"[".repeat(4000), 8), "cannot be used"),
        ("offsets that go back", with("2", "8,0"), "cannot be used"),
        ("offsets beyond", with("2", "0,18446744073709551615"), "cannot be used"),
        ("a gap", with("1", "4,8"), "cannot be used"),
        ("sizes that overflow", with("4294967296,4294967296,4294967296", "0,8"), "cannot be used"),
        ("a tensor of no model", raw(n, one, 8), "has no tensor a"),
    ];
    for (name, bytes, words) in rows {
        std::fs::write(&file, bytes).expect("a file");
        let outcome = convert(folder.path(), &out, &[]);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(words), "{name}: {outcome:?}");
        assert!(
            outcome.stderr.contains("model.safetensors") || outcome.stderr.contains("config.json"),
            "{name}: {outcome:?}"
        );
        assert_eq!(std::fs::read(&out).expect("the old file"), b"old", "{name}");
    }
}

#[test]
fn what_is_not_known_is_named() {
    type Row = (&'static str, &'static str, &'static str, fn(&mut Value));
    let rows: [Row; 11] = [
        ("class", "config.json", "LlamaForCausalLM", |j| j["architectures"] = json!(["FrobForCausalLM"])),
        ("activation", "config.json", "hidden_act is \"relu\"", |j| j["hidden_act"] = json!("relu")),
        ("rope", "config.json", "kind frob", |j| j["rope_scaling"] = json!({ "type": "frob" })),
        ("quantized", "config.json", "quantization_config", |j| j["quantization_config"] = json!({})),
        ("layers", "config.json", "num_hidden_layers is 1", |j| j["num_hidden_layers"] = json!(1)),
        ("more layers", "config.json", "do not make", |j| j["num_hidden_layers"] = json!(3)),
        ("heads", "config.json", "no 5 even heads", |j| j["num_attention_heads"] = json!(5)),
        ("vocabulary", "config.json", "vocab_size is 100", |j| j["vocab_size"] = json!(100)),
        ("rules", "tokenizer.json", "have no name", |j| {
            j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("frob");
        }),
        ("rule", "tokenizer.json", "Whitespace", |j| j["pre_tokenizer"] = json!({ "type": "Whitespace" })),
        ("kind", "tokenizer.json", "Frob", |j| j["model"]["type"] = json!("Frob")),
    ];
    for (name, file, words, change) in rows {
        let folder = tempfile::tempdir().expect("a folder");
        sound(folder.path());
        edit(&folder.path().join(file), change);
        let out = folder.path().join("out.gguf");
        let outcome = convert(folder.path(), &out, &[]);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(words), "{name}: {outcome:?}");
        assert!(!out.exists(), "{name} left a file");
    }
}

/// Settings that a file of the architecture has no key for must be the usual ones.
#[test]
fn what_a_file_cannot_say_is_named() {
    type Row = (&'static str, fn(&mut Value));
    let rows: [Row; 4] = [
        ("query_pre_attn_scalar is 99: expected 16", |j| j["query_pre_attn_scalar"] = json!(99)),
        ("sliding_window_pattern is 2: expected 6", |j| j["sliding_window_pattern"] = json!(2)),
        ("rope_local_base_freq is 500", |j| j["rope_local_base_freq"] = json!(500.0)),
        ("every sixth layer", |j| j["layer_types"] = json!(vec!["full_attention"; 7])),
    ];
    for (words, change) in rows {
        let folder = tempfile::tempdir().expect("a folder");
        small(folder.path(), "gemma3");
        edit(&folder.path().join("config.json"), change);
        let outcome = convert(folder.path(), &folder.path().join("out.gguf"), &[]);
        assert!(outcome.code == Some(1) && outcome.stderr.contains(words), "{words}: {outcome:?}");
    }
}

/// Weights of 16 bits stay what they are, and other types are what `quantize` makes.
#[test]
fn types_of_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    sound(folder.path());
    let bytes = std::fs::read(fixture("tiny/llama.gguf")).expect("a model");
    let tensors = tests::huggingface::tensors(&Gguf::parse(&bytes).expect("a sound model"));
    let [out, again] = ["out.gguf", "again.gguf"].map(|name| folder.path().join(name));
    for (dtype, word) in [(Dtype::BF16, "bf16"), (Dtype::F16, "f16")] {
        save(&folder.path().join("model.safetensors"), &tensors, dtype);
        convert(folder.path(), &out, &["--name", "tiny"]).success();
        let found = std::fs::read(&out).expect("a file");
        let found = Gguf::parse(&found).expect("a sound file");
        assert_eq!(found.tensor("blk.0.attn_q.weight").expect("queries").format.name(), word);
        assert_eq!(found.tensor("blk.0.attn_norm.weight").expect("a norm").format.name(), "f32");
        assert_eq!(found.meta().str("general.name").expect("a name"), "tiny");
    }
    convert(folder.path(), &again, &["--name", "tiny", "--type", "q8_0"]).success();
    let [from, to] = [&out, &folder.path().join("q.gguf")].map(|p| p.to_str().expect("UTF-8").to_string());
    handmill(&["quantize", &from, &to, "q8_0"]).run().success();
    let data = |path: &Path| {
        let bytes = std::fs::read(path).expect("a file");
        let gguf = Gguf::parse(&bytes).expect("a sound file");
        gguf.tensors().iter().map(|t| (t.name.clone(), t.format, gguf.data(t).to_vec())).collect::<Vec<_>>()
    };
    assert!(data(&again) == data(Path::new(&to)), "converting to a type is converting and quantizing");
}

/// The cosine of the angle between two vectors.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn numbers(json: &Value) -> Vec<f64> {
    json.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// all-MiniLM-L6-v2 as its makers publish it, converted: the vectors of the original in f64, through both dialects.
#[test]
fn minilm_gives_the_vectors_of_its_makers() {
    let Some(path) = obtain("minilm") else { return };
    let golden: Value = serde_json::from_slice(&tests::golden::read_fixture("golden/minilm.json")).expect("JSON");
    let cases = golden["cases"].as_array().expect("a list");
    let texts: Vec<&Value> = cases.iter().map(|case| &case["text"]).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let small = folder.path().join("minilm-q8_0.gguf");
    let [from, to] = [&path, &small].map(|p| p.to_str().expect("UTF-8").to_string());
    handmill(&["quantize", &from, &to, "q8_0"]).run().success();
    let whole = folder.path().join("minilm.gguf");
    std::fs::copy(&path, &whole).expect("a copy");
    let server = tests::http::Server::start(&[whole.to_str().expect("UTF-8"), &to]);
    for (name, least) in [("minilm", 0.99999), ("minilm-q8_0", 0.999)] {
        let body = json!({ "model": name, "input": texts }).to_string();
        let native = server.post("/api/embed", &body).json();
        let compatible = server.post("/v1/embeddings", &body).json();
        for (i, case) in cases.iter().enumerate() {
            let expected = numbers(&case["embedding"]);
            for found in [&native["embeddings"][i], &compatible["data"][i]["embedding"]] {
                let found = cosine(&numbers(found), &expected);
                assert!(found >= least, "{name}: cosine {found:.7} for {}, expected {least}", case["text"]);
            }
        }
    }
    let file = std::fs::read(&path).expect("the model");
    let file = Gguf::parse(&file).expect("a sound model");
    let tokenizer = engine::tokenizer::Tokenizer::from_meta(file.meta()).expect("a tokenizer");
    for case in cases {
        let how = engine::tokenizer::Encode { add_special: true, parse_special: false };
        let expected: Vec<u32> = numbers(&case["ids"]).into_iter().map(|id| id as u32).collect();
        assert_eq!(tokenizer.encode(case["text"].as_str().expect("a text"), how), expected, "{}", case["text"]);
    }
}
