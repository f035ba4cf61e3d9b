//! Results as text: the table for people, and the formats for programs, in the shapes that llama-bench gives them.

use super::probe::Roof;
use super::record::{COLUMNS, COMMIT, Column, Figures, Kind, Row, build_number};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Formats of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    Md,
    /// One array of objects.
    Json,
    /// An object a line.
    Jsonl,
    /// Comma-separated values.
    Csv,
    /// Statements that fill the table `llama_bench`.
    Sql,
}

/// The rows in a format.
pub fn write(format: Format, rows: &[Row]) -> String {
    let rows: Vec<(&Row, Figures)> = rows.iter().filter_map(|r| Some((r, r.figures()?))).collect();
    match format {
        Format::Md => markdown(&rows),
        Format::Json => {
            let rows: Vec<Value> = rows.iter().map(|(r, f)| object(r, f)).collect();
            let text = serde_json::to_string_pretty(&rows).expect("columns are plain data");
            text + "\n"
        }
        Format::Jsonl => rows.iter().map(|(r, f)| object(r, f).to_string() + "\n").collect(),
        Format::Csv => csv(&rows),
        Format::Sql => sql(&rows),
    }
}

/// A row with all its columns and every sample.
fn object(row: &Row, figures: &Figures) -> Value {
    let mut object: Map<String, Value> =
        COLUMNS.iter().map(|c| (c.name.to_string(), (c.value)(row, figures))).collect();
    let whole: Vec<u64> = figures.ns.iter().map(|&ns| ns as u64).collect();
    object.insert("samples_ns".into(), json!(whole));
    object.insert("samples_ts".into(), json!(figures.ts));
    let drifted: Vec<u64> = row.runs.iter().filter(|r| r.drifted).map(|r| r.sample.ns).collect();
    object.insert("drifted_ns".into(), json!(drifted));
    Value::Object(object)
}

/// A value as llama-bench writes it where there are no types: truth as 0 and 1, numbers with six digits.
fn plain(column: &Column, value: &Value) -> String {
    match (column.kind, value) {
        (_, Value::Null) => String::new(),
        (Kind::Bool, v) => u8::from(v.as_bool() == Some(true)).to_string(),
        (Kind::Real, v) => format!("{:.6}", v.as_f64().unwrap_or(f64::NAN)),
        (Kind::Text, v) => v.as_str().unwrap_or_default().to_string(),
        (Kind::Integer, v) => v.to_string(),
    }
}

fn csv(rows: &[(&Row, Figures)]) -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|c| c.name).collect();
    let mut text = names.join(",") + "\n";
    for (row, figures) in rows {
        let quoted = |c: &Column| format!("\"{}\"", plain(c, &(c.value)(row, figures)).replace('"', "\"\""));
        text += &COLUMNS.iter().map(quoted).collect::<Vec<_>>().join(",");
        text.push('\n');
    }
    text
}

fn sql(rows: &[(&Row, Figures)]) -> String {
    let declared = |c: &Column| {
        let kind = match c.kind {
            Kind::Text => "TEXT",
            Kind::Bool | Kind::Integer => "INTEGER",
            Kind::Real => "REAL",
        };
        format!("  {} {kind}", c.name)
    };
    let columns: Vec<String> = COLUMNS.iter().map(declared).collect();
    let names: Vec<&str> = COLUMNS.iter().map(|c| c.name).collect();
    let mut text = format!("CREATE TABLE IF NOT EXISTS llama_bench (\n{}\n);\n\n", columns.join(",\n"));
    for (row, figures) in rows {
        let literal = |c: &Column| match (c.value)(row, figures) {
            Value::Null => "NULL".to_string(),
            value => format!("'{}'", plain(c, &value).replace('\'', "''")),
        };
        let values: Vec<String> = COLUMNS.iter().map(literal).collect();
        let _ = writeln!(text, "INSERT INTO llama_bench ({}) VALUES ({});", names.join(", "), values.join(", "));
    }
    text
}

/// A column of the table for people: its heading, whether it is aligned right, its cell.
type Shown = (&'static str, bool, fn(&Row, &Figures) -> String);

/// Columns that stand in every table.
const FIRST: [Shown; 5] = [
    ("model", false, |r, _| r.model.kind.clone()),
    ("size", true, |r, _| size(r.model.size)),
    ("params", true, |r, _| params(r.model.params)),
    ("backend", false, |_, _| "CPU".into()),
    ("threads", true, |r, _| r.setting.threads.to_string()),
];
/// Columns that stand there only where the rows differ, or from the default.
const CHANGED: [(Shown, &str); 5] = [
    (("n_batch", true, |r, _| r.setting.batch.to_string()), "2048"),
    (("n_ubatch", true, |r, _| r.setting.ubatch.to_string()), "512"),
    (("type_kv", true, |r, _| format!("{:?}", r.setting.kv).to_lowercase()), "f16"),
    (("precision", true, |r, _| r.setting.precision.name().into()), "q8"),
    (("kernels", true, |r, _| r.setting.isa.name().into()), ""),
];
/// What was measured.
const LAST: [Shown; 4] = [
    ("test", true, |r, _| r.test.name()),
    ("t/s", true, |_, f| format!("{:.2} ± {:.2}", f.ts_summary.mean, f.ts_summary.sd)),
    ("median [interval]", true, |_, f| {
        let i = f.ts_summary.interval;
        let mark = if f.unreliable { " (!)" } else { "" };
        format!("{:.2} [{:.2}, {:.2}]{mark}", f.ts_summary.median, i.low, i.high)
    }),
    ("roof", true, |_, f| format!("{:.0} %", f.roof_share * 100.0)),
];

fn markdown(rows: &[(&Row, Figures)]) -> String {
    let Some((first, _)) = rows.first() else { return String::new() };
    let best = engine::Isa::best().name();
    let changed = CHANGED.iter().filter(|((name, _, cell), default)| {
        let default = if *name == "kernels" { best } else { default };
        rows.iter().any(|(r, f)| cell(r, f) != default)
    });
    let columns: Vec<Shown> = FIRST.into_iter().chain(changed.map(|c| c.0)).chain(LAST).collect();
    let cells: Vec<Vec<String>> = rows.iter().map(|(r, f)| columns.iter().map(|c| (c.2)(r, f)).collect()).collect();
    let wide = |i: usize| cells.iter().map(|row| row[i].chars().count()).chain([columns[i].0.len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(wide).collect();
    let line = |cells: Vec<String>| {
        let padded = cells.iter().zip(&widths).zip(&columns).map(|((cell, &w), c)| match c.1 {
            true => format!(" {cell:>w$} |"),
            false => format!(" {cell:<w$} |"),
        });
        format!("|{}\n", padded.collect::<String>())
    };
    let rule = |(w, c): (&usize, &Shown)| format!("{}{}", "-".repeat(w.max(&2) - 1), if c.1 { ":" } else { "-" });
    let mut text = line(columns.iter().map(|c| c.0.to_string()).collect());
    text += &line(widths.iter().zip(&columns).map(rule).collect());
    text += &cells.into_iter().map(line).collect::<String>();
    text.push('\n');
    text += &machine_line(first);
    text += &notes(rows);
    let _ = writeln!(text, "build: {COMMIT} ({})", build_number());
    text
}

fn machine_line(row: &Row) -> String {
    let Roof { read, int8, float } = row.sitting.roof;
    format!(
        "machine: {}, {} kernels; roof {:.1} GB/s, {:.0} GOP/s int8, {:.0} GFLOP/s f32\n",
        row.sitting.machine.cpu,
        row.setting.isa.name(),
        read / 1e9,
        int8 / 1e9,
        float / 1e9
    )
}

/// What a reader of the table must know: intervals of few runs, machines that drifted, results that differed.
fn notes(rows: &[(&Row, Figures)]) -> String {
    let mut text = String::new();
    let coverage = rows.iter().map(|(_, f)| f.ts_summary.interval.coverage).fold(1.0, f64::min);
    let _ = writeln!(text, "interval: holds the median with {:.1} % or more", coverage * 100.0);
    let (drifted, all) =
        (rows.iter().map(|(_, f)| f.drifted).sum::<usize>(), rows.iter().map(|(r, _)| r.runs.len()).sum::<usize>());
    if drifted > 0 {
        let _ = writeln!(text, "drift: {drifted} of {all} runs met a machine of another speed and were left out");
    }
    if rows.iter().any(|(_, f)| f.unreliable) {
        let _ = writeln!(text, "(!): every run of this test drifted; the figure is not to be trusted");
    }
    for (row, _) in rows.iter().filter(|(_, f)| f.hash.is_none()) {
        let _ = writeln!(text, "warning: the logits of {} {} differed between runs", row.model.kind, row.test.name());
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 20) {
        mib if mib < 1024.0 => format!("{mib:.2} MiB"),
        mib => format!("{:.2} GiB", mib / 1024.0),
    }
}

fn params(n: u64) -> String {
    match n as f64 {
        n if n < 1e9 => format!("{:.2} M", n / 1e6),
        n => format!("{:.2} B", n / 1e9),
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
