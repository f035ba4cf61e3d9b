//! `handmill eval` as a user starts it.

mod common;

use common::Home;
use serde_json::Value;

/// A home with a tiny model and a text of some chunks of 32 tokens.
fn home(kind: &str) -> (Home, String, String) {
    let home = Home::new();
    let model = home.store().with_file_name("tiny.gguf").to_str().unwrap().to_string();
    home.run(&["synth", "tiny", "--quant", kind, "-o", &model]).success();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(4);
    let text = home.file("text.txt", text.as_bytes()).to_str().unwrap().to_string();
    (home, model, text)
}

fn eval(home: &Home, arguments: &[&str]) -> Value {
    serde_json::from_str(&home.run(&[&["eval"], arguments, &["--ctx", "32", "--json"]].concat()).success()).unwrap()
}

#[test]
fn a_model_is_nearest_to_itself_and_nearer_with_finer_activations() {
    let (home, model, text) = home("q8_0");
    let against = |precision: &str| {
        let pair = ["--precision", precision, "--against", &model, "--against-precision", "f32"];
        eval(&home, &[&[model.as_str(), "--text", &text][..], &pair].concat())
    };
    let (same, coarse) = (against("f32"), against("q8"));
    for figure in ["mean", "error", "median", "p99", "max", "rms_probability"] {
        assert_eq!(same["kl_divergence"][figure], 0.0, "{figure}");
    }
    assert_eq!(same["kl_divergence"]["same_top"], 1.0);
    assert_eq!(same["model"]["perplexity"], same["against"]["perplexity"]);
    let mean = coarse["kl_divergence"]["mean"].as_f64().unwrap();
    assert!(mean > 0.0 && mean < 0.05, "{mean}");
    // 180 bytes are 180 tokens and BOS: 5 chunks of 32, of each the predictions after its positions 16 to 30.
    assert_eq!((&same["chunks"], &same["model"]["perplexity"]["tokens"]), (&5.into(), &75.into()));
    let alone = eval(&home, &[&model, "--text", &text, "--precision", "f32", "--threads", "1"]);
    assert_eq!(alone["model"]["perplexity"], same["model"]["perplexity"]);
    assert!(alone.get("kl_divergence").is_none());
    let short = eval(&home, &[&model, "--text", &text, "--chunks", "2"]);
    assert_eq!(short["model"]["perplexity"]["tokens"], 30);
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let (home, model, text) = home("q4_0");
    let error = |arguments: &[&str]| home.run(&[&["eval", &model, "--text"], arguments].concat()).failure();
    assert!(error(&[&text, "--ctx", "4096"]).contains("fewer than one chunk of 4096"));
    assert!(error(&[&text, "--ctx", "32", "--chunks", "6"]).contains("5 chunks"));
    assert!(error(&[&text, "--ctx", "2"]).contains("--ctx"));
    assert!(error(&["/no/such/text"]).contains("/no/such/text"));
    let binary = home.file("binary.txt", &[b'a', 0xff]).to_str().unwrap().to_string();
    assert!(error(&[&binary]).contains("no UTF-8 from byte 1 on"));
}
