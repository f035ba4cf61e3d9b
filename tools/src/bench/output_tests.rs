//! Every format of a row whose figures are known.

use super::super::record::tests::{model, row, sitting};
use super::*;
use serde_json::json;

fn written(format: Format) -> String {
    let (sitting, model) = (sitting(), model());
    results(format, &[row(&sitting, &model)])
}

fn columns() -> usize {
    let (sitting, model) = (sitting(), model());
    let row = row(&sitting, &model);
    row.record(&row.figures().unwrap()).cells.len()
}

#[test]
fn json_has_columns_and_samples() {
    let rows: Value = serde_json::from_str(&written(Format::Json)).unwrap();
    let object = rows[0].as_object().unwrap();
    assert_eq!(object.len(), columns() + 3);
    assert_eq!(object["n_gen"], 2);
    assert_eq!(object["median_ts"], 80.0);
    assert_eq!(object["samples_ns"], json!([20_000_000, 25_000_000, 40_000_000]));
    assert_eq!(object["drifted_ns"], json!([400_000_000]));
    assert_eq!(object["peak_memory"], Value::Null);
    let line: Value = serde_json::from_str(written(Format::Jsonl).trim_end()).unwrap();
    assert_eq!(line, rows[0]);
}

#[test]
fn csv_is_quoted() {
    let text = written(Format::Csv);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("build_commit,build_number,cpu_info,") && lines[0].ends_with("roof_f32"));
    assert!(lines[1].contains("\"A \"\"fast\"\" one\",\"\",\"CPU\",\"/somewhere/it's.gguf\""), "{}", lines[1]);
    assert!(lines[1].contains("\"76.666667\",\"25.166115\""), "{}", lines[1]);
    assert_eq!(lines[1].matches("\",\"").count() + 1, columns());
}

#[test]
fn sql_is_quoted() {
    let text = written(Format::Sql);
    assert!(
        text.starts_with("CREATE TABLE IF NOT EXISTS llama_bench (\n  build_commit TEXT,\n  build_number INTEGER,\n")
    );
    assert!(text.contains("  avg_ts REAL,\n"));
    assert!(text.contains("'/somewhere/it''s.gguf'") && text.contains(", NULL, "));
    assert_eq!(text.matches("INSERT INTO llama_bench (").count(), 1);
}

#[test]
fn the_table_is_that_of_llama_bench_and_more() {
    let text = written(Format::Md);
    let lines: Vec<&str> = text.lines().collect();
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|c| c.trim().to_string()).collect() };
    assert_eq!(
        cells(lines[0]),
        ["model", "size", "params", "backend", "threads", "test", "t/s", "median [interval]", "roof"]
    );
    assert!(cells(lines[1]).iter().all(|c| c.trim_end_matches(':').chars().all(|c| c == '-')));
    assert_eq!(
        cells(lines[2]),
        [
            "llama 135M Q4_1",
            "90.00 MiB",
            "134.52 M",
            "CPU",
            "2",
            "tg2 @ d16",
            "76.67 ± 25.17",
            "80.00 [50.00, 100.00]",
            "80 %"
        ]
    );
    assert!(lines.iter().take(3).all(|l| l.chars().count() == lines[0].chars().count()));
    assert!(
        text.contains("drift: 1 of 4 runs")
            && !text.contains("(!)")
            && text.contains("interval: holds the median with 75.0 %")
    );
}

#[test]
fn what_differs_from_the_default_gets_a_column() {
    let (sitting, model) = (sitting(), model());
    let mut second = row(&sitting, &model);
    second.setting.batch = 256;
    second.runs.iter_mut().for_each(|r| r.drifted = true);
    second.runs[0].sample.hash = None;
    let text = results(Format::Md, &[row(&sitting, &model), second]);
    assert!(text.lines().next().unwrap().contains("n_batch"));
    assert!(
        text.contains("(!): every run") && text.contains("warning: the logits of llama 135M Q4_1 tg2 @ d16 differed")
    );
    assert_eq!(results(Format::Md, &[]), "");
}
