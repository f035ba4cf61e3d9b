//! `handmill synth` and `handmill quantize` as a user starts them.

mod common;

use common::Home;
use gguf::{Builder, Endian, Format, Gguf};
use serde_json::Value;

/// A home with a folder beside the store, and the path of a file in it.
fn path(home: &Home, name: &str) -> String {
    home.store().with_file_name(name).to_str().unwrap().to_string()
}

fn synth(home: &Home, name: &str, arguments: &[&str]) -> String {
    let out = path(home, name);
    home.run(&[&["synth", "tiny", "-o", &out], arguments].concat()).success();
    out
}

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// The bytes of each tensor, by name.
fn data(path: &str) -> Vec<(String, Format, Vec<u8>)> {
    let bytes = bytes(path);
    let gguf = Gguf::parse(&bytes).unwrap();
    gguf.tensors().iter().map(|t| (t.name.clone(), t.format, gguf.data(t).to_vec())).collect()
}

#[test]
fn the_same_seed_gives_the_same_file() {
    let home = Home::new();
    let a = synth(&home, "a.gguf", &["--quant", "q4_k_m", "--threads", "1"]);
    let b = synth(&home, "b.gguf", &["--quant", "q4_k_m", "--threads", "3"]);
    let c = synth(&home, "c.gguf", &["--quant", "q4_k_m", "--seed", "1"]);
    assert!(bytes(&a) == bytes(&b), "threads change the file");
    assert!(bytes(&a) != bytes(&c), "the seed changes nothing");
    let answer = home.run(&["run", &a, "hello", "-n", "4", "--temp", "0"]).success();
    assert!(!answer.is_empty());
}

/// Quantizing what synth made in f32 gives what synth makes in the type itself: the same weights, the same rules.
#[test]
fn quantize_and_synth_agree() {
    let home = Home::new();
    let float = synth(&home, "f32.gguf", &["--quant", "f32"]);
    for kind in [
        "f16", "bf16", "q8_0", "q4_0", "q5_1", "q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "iq4_xs", "mxfp4",
        "tq2_0", "q4_e",
    ] {
        let direct = synth(&home, "direct.gguf", &["--quant", kind]);
        let out = path(&home, "out.gguf");
        let json = home.run(&["quantize", &float, &out, kind, "--json"]).success();
        assert!(bytes(&direct) == bytes(&out), "{kind}");
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["type"], kind);
        assert_eq!(json["bytes"].as_u64().unwrap(), bytes(&out).len() as u64);
    }
}

#[test]
fn a_format_survives_itself_and_floats() {
    let home = Home::new();
    let first = synth(&home, "q8.gguf", &["--quant", "q8_0"]);
    let (copy, float, again) = (path(&home, "copy.gguf"), path(&home, "f32.gguf"), path(&home, "again.gguf"));
    home.run(&["quantize", &first, &copy, "q8_0"]).success();
    assert!(bytes(&first) == bytes(&copy), "what has its format already is copied");
    home.run(&["quantize", &first, &float, "f32"]).success();
    let run = home.run(&["quantize", &first, &again, "q4_k"]);
    assert!(run.stderr.contains("tensors are in q8_0 already"), "{}", run.stderr);
    run.success();
    let (old, new) = (data(&first), data(&float));
    for ((name, format, blocks), (_, now, values)) in old.iter().zip(&new) {
        let mut expected = vec![0.0; blocks.len() / format.block_bytes() * format.block_len()];
        format.decoder().unwrap()(blocks, &mut expected);
        assert_eq!(*now, Format::F32);
        let values: Vec<f32> = values.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert!(values == expected, "{name}");
    }
}

/// A file with one matrix.
fn one(name: &str, k: u64, format: Format, blocks: &[u8]) -> Vec<u8> {
    let mut head = Builder::new(Endian::Big);
    head.key("general.name", "one").unwrap();
    head.tensor(name, &[k, 2], format).unwrap();
    let mut out = head.start(Vec::new()).unwrap();
    out.data(blocks).unwrap();
    out.finish().unwrap()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn what_cannot_be_written_is_an_error_and_leaves_the_old_file() {
    let home = Home::new();
    let out = home.file("out.gguf", b"old").to_str().unwrap().to_string();
    let nan = home
        .file("nan.gguf", &one("a.weight", 32, Format::F32, &floats(&[[1.0; 63].to_vec(), vec![f32::NAN]].concat())));
    let error = home.run(&["quantize", nan.to_str().unwrap(), &out, "q8_0"]).failure();
    assert!(error.contains("a.weight") && error.contains("63") && error.contains("NaN"), "{error}");
    let raw = home.file("raw.gguf", &one("a.weight", 256, Format::Q8K, &[0; 584]));
    let error = home.run(&["quantize", raw.to_str().unwrap(), &out, "q8_0"]).failure();
    assert!(error.contains("q8_k") && error.contains("q4_k"), "{error}");
    assert_eq!(bytes(&out), b"old");
    let error = home.run(&["quantize", nan.to_str().unwrap(), &path(&home, "no/such/folder.gguf"), "q8_0"]).failure();
    assert!(error.contains("no/such"), "{error}");
    let files = std::fs::read_dir(home.store().parent().unwrap()).unwrap();
    let left: Vec<_> =
        files.map(|f| f.unwrap().file_name()).filter(|n| n.to_str().unwrap().starts_with(".tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Big-endian files are read; rows of no whole blocks and numbers beyond a format are said.
#[test]
fn nothing_is_lost_silently() {
    let home = Home::new();
    let values: Vec<f32> = (0..40).map(|i| i as f32 * 5000.0).collect();
    let odd = home.file("odd.gguf", &one("a.weight", 20, Format::F32, &floats(&values)));
    let out = path(&home, "out.gguf");
    let run = home.run(&["quantize", odd.to_str().unwrap(), &out, "q4_k"]);
    assert!(run.stderr.contains("f16 instead of q4_k for a.weight"), "{}", run.stderr);
    assert!(run.stderr.contains("26 numbers are beyond the range of f16"), "{}", run.stderr);
    run.success();
    assert_eq!(data(&out)[0].1, Format::F16);
    let found = bytes(&out);
    let meta = Gguf::parse(&found).unwrap();
    assert_eq!(meta.meta().str("general.name").unwrap(), "one");
    assert_eq!(meta.meta().u32("general.file_type").unwrap(), 14);
}

/// What `quantize` says it made of a tensor.
fn format_of(json: &Value, name: &str) -> String {
    let tensors = json["tensors"].as_array().unwrap();
    tensors.iter().find(|t| t["name"] == name).unwrap()["to"].as_str().unwrap().to_string()
}

#[test]
fn formats_by_name_and_settings_in_a_file() {
    let home = Home::new();
    let float = synth(&home, "f32.gguf", &["--quant", "f32"]);
    let out = path(&home, "out.gguf");
    let wishes = ["--tensor-type", "attn_v=q8_0", "--tensor-type", "blk.0.=iq4_nl", "--json"];
    let json = home.run(&[&["quantize", &float, &out, "q4_0"], &wishes[..]].concat()).success();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(format_of(&json, "blk.0.attn_v.weight"), "q8_0", "the first that fits counts");
    assert_eq!(format_of(&json, "blk.0.attn_q.weight"), "iq4_nl");
    assert_eq!(format_of(&json, "blk.1.attn_q.weight"), "q4_0");
    for (text, kind) in [
        (r#"{"precision": "int4", "block_size": 32, "symmetric": false}"#, "q4_1"),
        (r#"{"precision": "INT8"}"#, "q8_0"),
        (r#"{"precision": "fp16"}"#, "f16"),
    ] {
        let settings = home.file("settings.json", text.as_bytes()).to_str().unwrap().to_string();
        let json = home.run(&["quantize", &float, &out, "--config", &settings, "--json"]).success();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["type"], kind, "{text}");
    }
    for (text, word) in [
        (r#"{"precision": "int4", "block_size": 128}"#, "int4 with block_size 32 and symmetric true"),
        (r#"{"precision": "int4", "group": 32}"#, "group"),
        ("[", "settings"),
    ] {
        let settings = home.file("settings.json", text.as_bytes()).to_str().unwrap().to_string();
        let error = home.run(&["quantize", &float, &out, "--config", &settings]).failure();
        assert!(error.contains(word), "{text}: {error}");
    }
}

/// Importance is measured, written as a GGUF, read again, and moves the fits; that of another model is refused.
#[test]
fn importance_of_columns() {
    let home = Home::new();
    let float = synth(&home, "f32.gguf", &["--quant", "f32"]);
    let text = home.file("text.txt", "A line of a text that repeats.\n".repeat(20).as_bytes());
    let (measured, out, plain) = (path(&home, "i.gguf"), path(&home, "out.gguf"), path(&home, "plain.gguf"));
    let text = text.to_str().unwrap();
    home.run(&["imatrix", &float, text, "-o", &measured, "--ctx", "64", "--chunks", "4"]).success();
    let found = bytes(&measured);
    let gguf = Gguf::parse(&found).unwrap();
    assert_eq!(gguf.meta().str("general.type").unwrap(), "imatrix");
    assert_eq!(
        (gguf.meta().u32("imatrix.chunk_count").unwrap(), gguf.meta().u32("imatrix.chunk_size").unwrap()),
        (4, 64)
    );
    let counts = gguf.tensor("blk.0.attn_q.weight.counts").unwrap();
    assert_eq!(gguf.data(counts), 256f32.to_le_bytes());
    for kind in ["q4_0", "q4_1", "q4_k", "q3_k", "iq4_nl", "q4_e"] {
        let weighted = ["quantize", &float, &out, kind, "--imatrix", &measured];
        home.run(&weighted).success();
        home.run(&["quantize", &float, &plain, kind]).success();
        let both = [&out, &plain].map(|p| data(p).into_iter().find(|t| t.0 == "blk.1.ffn_up.weight").unwrap());
        assert!(both[0].1 == both[1].1 && both[0].2 != both[1].2, "{kind}: importance changes nothing");
        let weighted = bytes(&out);
        assert!(Gguf::parse(&weighted).unwrap().meta().u32("quantize.imatrix.entries_count").unwrap() > 0);
    }
    let other = one("blk.0.attn_q.weight", 32, Format::F32, &floats(&[1.0; 64]));
    let other = home.file("other.gguf", &other).to_str().unwrap().to_string();
    let error = home.run(&["quantize", &other, &out, "q4_0", "--imatrix", &measured]).failure();
    assert!(error.contains("another model"), "{error}");
    let error = home.run(&["quantize", &float, &out, "q4_0", "--imatrix", &float]).failure();
    assert!(error.contains("in_sum2"), "{error}");
}

#[test]
fn quality_of_candidates() {
    let home = Home::new();
    let float = synth(&home, "f32.gguf", &["--quant", "f32"]);
    let text = home.file("text.txt", "A line of a text that repeats.\n".repeat(20).as_bytes());
    let candidates = ["q8_0", "q4_0", "q2_k"].map(|kind| {
        let out = path(&home, &format!("{kind}.gguf"));
        home.run(&["quantize", &float, &out, kind]).success();
        out
    });
    let page = path(&home, "page.html");
    let rest = ["--text", text.to_str().unwrap(), "--ctx", "64", "--chunks", "3", "--generate", "4", "--html", &page];
    let names: Vec<&str> = [float.as_str()].into_iter().chain(candidates.iter().map(String::as_str)).collect();
    let json = home.run(&[&["quality"], &names[..], &rest[..], &["--json"]].concat()).success();
    let json: Value = serde_json::from_str(&json).unwrap();
    let found: Vec<(f64, f64)> = (0..4)
        .filter_map(|i| json["candidates"].get(i))
        .map(|c| (c["weight_error"].as_f64().unwrap(), c["kl_divergence"]["mean"].as_f64().unwrap()))
        .collect();
    assert!(found.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1), "fewer bits, more error: {found:?}");
    let first = &json["candidates"][0];
    assert!(first["tokens_per_second"]["prompt"].as_f64().unwrap() > 0.0);
    assert!(first["layers"].as_array().unwrap().len() > 1 && !first["tensors"].as_array().unwrap().is_empty());
    let page = String::from_utf8(bytes(&page)).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("blk.0.attn_q.weight"), "{page}");
    let same = home.run(&[&["quality", &float, &float], &rest[..8], &["--json"]].concat()).success();
    let same: Value = serde_json::from_str(&same).unwrap();
    assert_eq!(same["candidates"][0]["weight_error"], 0.0);
    assert_eq!(same["candidates"][0]["kl_divergence"]["max"], 0.0);
}
