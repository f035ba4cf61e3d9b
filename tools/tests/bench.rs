//! `handmill bench` as a user starts it, on a tiny model: what it prints, not how fast it is.

mod common;
#[path = "../src/bench/tiny.rs"]
mod tiny;

use common::Home;
use serde_json::Value;

/// A home with a model, and the path of it.
fn home() -> (Home, String) {
    let home = Home::new();
    let path = home.file("tiny.gguf", &tiny::model());
    (home, path.to_str().unwrap().to_string())
}

/// Two runs without warm-up: nothing here looks at times.
const SHORT: [&str; 5] = ["-r", "2", "--no-warmup", "-t", "2"];

fn bench(home: &Home, arguments: &[&str]) -> String {
    home.run(&[&["bench"], arguments, &SHORT].concat()).success()
}

fn rows(text: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(text).unwrap().as_array().unwrap().clone()
}

#[test]
fn results_are_those_of_llama_bench_and_more() {
    let (home, model) = home();
    let rows =
        rows(&bench(&home, &[&model, "-p", "40,8", "-n", "5", "-pg", "8,4", "-d", "0,16", "-ub", "16", "-o", "json"]));
    let test =
        |r: &Value| (r["n_prompt"].as_u64().unwrap(), r["n_gen"].as_u64().unwrap(), r["n_depth"].as_u64().unwrap());
    let tests: Vec<_> = rows.iter().map(test).collect();
    assert_eq!(tests, [(40, 0, 0), (8, 0, 0), (0, 5, 0), (8, 4, 0), (40, 0, 16), (8, 0, 16), (0, 5, 16), (8, 4, 16)]);
    for row in &rows {
        assert_eq!(
            (&row["model_type"], &row["n_threads"], &row["n_ubatch"]),
            (&"llama 0M Q8_0".into(), &2.into(), &16.into())
        );
        let count = |name: &str| row[name].as_array().unwrap().len() as u64;
        // Where every run drifted, all of them are shown, and called unreliable.
        let drifted = if row["unreliable"] == true { 0 } else { row["n_drifted"].as_u64().unwrap() };
        assert_eq!(count("samples_ns") + drifted, row["n_runs"].as_u64().unwrap(), "{row}");
        assert_eq!(count("drifted_ns"), row["n_drifted"].as_u64().unwrap(), "{row}");
        assert!(row["median_ts"].as_f64().unwrap() > 0.0 && row["roof_share"].as_f64().unwrap() > 0.0);
        assert_eq!(row["model_sha256"].as_str().unwrap().len(), 64);
        assert_eq!(row["ttft_ns"].is_null(), row["n_prompt"] == 0);
        assert_eq!(row["gap_p99_ns"].is_null(), row["n_gen"] == 0);
        assert!(row["load_ns"].as_u64().unwrap() > 0);
    }
    // The bytes of all panels of the 9 matrices and the head: a token reads each once.
    let generated = &rows[2]["bytes_per_token"].as_f64().unwrap();
    assert!((40_000.0..100_000.0).contains(generated), "{generated}");
}

/// Instruction sets that this processor has for sure, the plainest and a wide one.
fn isas() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        return "scalar,avx2";
    }
    "scalar"
}

/// By the engine's axiom the logits after a position are the same bits whatever computed it.
#[test]
fn what_ends_at_one_position_has_one_hash() {
    let (home, model) = home();
    let tests = ["-p", "12", "-n", "12", "-pg", "4,8", "-ub", "5,64", "--isa", isas(), "-o", "jsonl"];
    let text = bench(&home, &[&[&model[..]], &tests[..]].concat());
    let hash = |line: &str| serde_json::from_str::<Value>(line).unwrap()["logits_sha256"].clone();
    let hashes: Vec<Value> = text.lines().map(hash).collect();
    assert!(hashes.len() >= 6 && hashes[0].is_string());
    assert!(hashes.iter().all(|h| *h == hashes[0]), "{text}");
}

#[test]
fn other_formats() {
    let (home, model) = home();
    let both = |first: &str, second: &str| {
        let line = ["bench", &model, "-p", "4", "-n", "0", "-o", first, "-oe", second];
        let run = home.run(&[&line[..], &SHORT].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        (run.stdout, run.stderr)
    };
    let (table, csv) = both("md", "csv");
    assert!(table.starts_with("| model") && table.contains(" pp4 |") && table.contains("\nbuild: "), "{table}");
    assert_eq!(csv.lines().count(), 2, "{csv}");
    let (sql, lines) = both("sql", "jsonl");
    assert!(sql.starts_with("CREATE TABLE IF NOT EXISTS llama_bench (") && sql.contains("INSERT INTO llama_bench ("));
    assert_eq!(serde_json::from_str::<Value>(&lines).unwrap()["n_prompt"], 4);
}

#[test]
fn kernels_are_listed_with_their_errors() {
    let (home, model) = home();
    let rows = rows(&bench(&home, &[&model, "--kernels", "-ub", "8", "-o", "json"]));
    for kernel in ["matmul", "quantize", "embed", "rms_norm", "rope", "kv_store", "attention", "gated"] {
        let row = rows.iter().find(|r| r["kernel"] == kernel).unwrap_or_else(|| panic!("no {kernel}"));
        assert!(row["median_ns"].as_f64().unwrap() > 0.0 && row["error_f64"].as_f64().unwrap() < 0.01, "{row}");
    }
    let share: f64 = rows.iter().filter(|r| r["step"] == "decode").map(|r| r["step_share"].as_f64().unwrap()).sum();
    // A sum of a dozen rounded parts.
    assert!((share - 1.0).abs() < 1e-9, "{share}");
}

#[test]
fn a_page_is_written() {
    let (home, model) = home();
    let path = home.file("report.html", b"");
    bench(&home, &[&model, "-p", "4", "-n", "4", "-ub", "8", "--html", path.to_str().unwrap()]);
    let page = std::fs::read_to_string(path).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    assert_eq!(page.matches("<svg").count(), 4, "speeds of prompts and of generation, roofline, kernels");
}

#[test]
fn two_results_are_compared() {
    let (home, model) = home();
    let a = home.file("a.json", bench(&home, &[&model, "-p", "4", "-n", "4", "-o", "json"]).as_bytes());
    let b = home.file("b.jsonl", bench(&home, &[&model, "-p", "4", "-n", "4", "-o", "jsonl"]).as_bytes());
    let text = home.run(&["bench", "compare", a.to_str().unwrap(), b.to_str().unwrap()]).success();
    assert!(text.contains("pp4") && text.contains("tg4") && text.contains("verdict"), "{text}");
    let error = home.run(&["bench", "compare", a.to_str().unwrap(), &model]).failure();
    assert!(error.contains("cannot read") || error.contains("is no result"), "{error}");
}

#[test]
fn mistakes_are_explained() {
    let (home, model) = home();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["bench"], 1, "which model?"),
        (&["bench", &model, "-p", "0", "-n", "0"], 1, "nothing to measure"),
        (&["bench", &model, "-t", "0"], 1, "-t 1 to 1024"),
        (&["bench", &model, "--drift", "0"], 1, "--drift"),
        (&["bench", &model, "-p", "5-1"], 2, "is empty"),
        (&["bench", &model, "-pg", "5"], 2, "is no pair"),
        (&["bench", &model, "-r", "0"], 2, "1..=1000"),
    ];
    for (arguments, code, text) in cases {
        let run = home.run(arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(text) && run.stdout.is_empty(), "{arguments:?}: {}", run.stderr);
    }
}
