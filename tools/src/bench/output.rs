//! Results as text: the table for people, and the formats for programs, in the shapes that llama-bench gives them.

use super::probe::Roof;
use super::record::{COMMIT, Cell, Figures, Kind, Record, Row, build_number};
use clap::ValueEnum;
use serde_json::Value;
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

/// Records in a format that programs read; `table` is the name that SQL gives them.
///
/// # Panics
/// If the format is the table for people, which is made of other columns.
pub fn data(format: Format, table: &str, records: &[Record]) -> String {
    match format {
        Format::Md => unreachable!("tables for people are made where their columns are"),
        Format::Json => {
            let rows: Vec<Value> = records.iter().map(object).collect();
            serde_json::to_string_pretty(&rows).expect("records are plain data") + "\n"
        }
        Format::Jsonl => records.iter().map(|r| object(r).to_string() + "\n").collect(),
        Format::Csv => csv(records),
        Format::Sql => sql(table, records),
    }
}

/// Results in a format.
pub fn results(format: Format, rows: &[Row]) -> String {
    let rows: Vec<(&Row, Figures)> = rows.iter().filter_map(|r| Some((r, r.figures()?))).collect();
    match format {
        Format::Md => markdown(&rows),
        format => data(format, "llama_bench", &rows.iter().map(|(r, f)| r.record(f)).collect::<Vec<_>>()),
    }
}

fn object(record: &Record) -> Value {
    let cells = record.cells.iter().map(|c| (c.name.to_string(), c.value.clone()));
    let lists = record.lists.iter().map(|(name, values)| (name.to_string(), Value::Array(values.clone())));
    Value::Object(cells.chain(lists).collect())
}

/// A value as llama-bench writes it where there are no types: truth as 0 and 1, numbers with six digits.
fn plain(cell: &Cell) -> String {
    match (cell.kind, &cell.value) {
        (_, Value::Null) => String::new(),
        (Kind::Bool, v) => u8::from(v.as_bool() == Some(true)).to_string(),
        (Kind::Real, v) => v.as_f64().map_or_else(String::new, |v| format!("{v:.6}")),
        (Kind::Text, v) => v.as_str().unwrap_or_default().to_string(),
        (Kind::Integer, v) => v.to_string(),
    }
}

/// The names of the columns, with commas between.
fn names(records: &[Record], comma: &str) -> String {
    let cells = records.first().map_or(&[][..], |r| &r.cells);
    cells.iter().map(|c| c.name).collect::<Vec<_>>().join(comma)
}

fn csv(records: &[Record]) -> String {
    let quoted = |c: &Cell| format!("\"{}\"", plain(c).replace('"', "\"\""));
    let line = |r: &Record| r.cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
    names(records, ",") + "\n" + &records.iter().map(line).collect::<String>()
}

fn sql(table: &str, records: &[Record]) -> String {
    let declared = |c: &Cell| {
        let kind = match c.kind {
            Kind::Text => "TEXT",
            Kind::Bool | Kind::Integer => "INTEGER",
            Kind::Real => "REAL",
        };
        format!("  {} {kind}", c.name)
    };
    let literal = |c: &Cell| match c.value {
        Value::Null => "NULL".to_string(),
        _ => format!("'{}'", plain(c).replace('\'', "''")),
    };
    let Some(first) = records.first() else { return String::new() };
    let columns: Vec<String> = first.cells.iter().map(declared).collect();
    let mut text = format!("CREATE TABLE IF NOT EXISTS {table} (\n{}\n);\n\n", columns.join(",\n"));
    for record in records {
        let values: Vec<String> = record.cells.iter().map(literal).collect();
        let _ = writeln!(text, "INSERT INTO {table} ({}) VALUES ({});", names(records, ", "), values.join(", "));
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
    ("backend", false, |r, _| r.backend().into()),
    ("threads", true, |r, _| r.setting.threads.to_string()),
];
/// Columns that stand there only where the rows differ, or from the default.
const CHANGED: [(Shown, &str); 6] = [
    (("n_batch", true, |r, _| r.setting.batch.to_string()), "2048"),
    (("n_ubatch", true, |r, _| r.setting.ubatch.to_string()), "512"),
    (("type_kv", true, |r, _| format!("{:?}", r.setting.kv).to_lowercase()), "f16"),
    (("precision", true, |r, _| r.setting.precision.name().into()), "q8"),
    (("ngl", true, |r, _| r.setting.layers.to_string()), "all"),
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
    let cells = rows.iter().map(|(r, f)| columns.iter().map(|c| (c.2)(r, f)).collect()).collect();
    let headings: Vec<(&str, bool)> = columns.iter().map(|c| (c.0, c.1)).collect();
    let mut text = table(&headings, cells);
    text.push('\n');
    text += &machine_line(first);
    text += &notes(rows);
    let _ = writeln!(text, "build: {COMMIT} ({})", build_number());
    text
}

/// A table: headings with whether their column is aligned right, and the cells of each line.
pub fn table(headings: &[(&str, bool)], cells: Vec<Vec<String>>) -> String {
    let wide = |i: usize| cells.iter().map(|row| row[i].chars().count()).chain([headings[i].0.chars().count()]).max();
    let widths: Vec<usize> = (0..headings.len()).map(|i| wide(i).unwrap_or(0).max(2)).collect();
    let line = |cells: Vec<String>| {
        let padded = cells.iter().zip(&widths).zip(headings).map(|((cell, &w), heading)| match heading.1 {
            true => format!(" {cell:>w$} |"),
            false => format!(" {cell:<w$} |"),
        });
        format!("|{}\n", padded.collect::<String>())
    };
    let rule = |(w, heading): (&usize, &(&str, bool))| "-".repeat(w - 1) + if heading.1 { ":" } else { "-" };
    let mut text = line(headings.iter().map(|h| h.0.to_string()).collect());
    text += &line(widths.iter().zip(headings).map(rule).collect());
    text + &cells.into_iter().map(line).collect::<String>()
}

fn machine_line(row: &Row) -> String {
    let Roof { read, int8, float } = row.sitting.roof;
    let machine = match &row.sitting.device {
        Some(device) => format!("{}, {}", device.device, device.kernels),
        None => format!("{}, {} kernels", row.sitting.machine.cpu, row.setting.isa.name()),
    };
    format!(
        "machine: {machine}; roof {:.1} GB/s, {:.0} GOP/s int8, {:.0} GFLOP/s f32\n",
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
