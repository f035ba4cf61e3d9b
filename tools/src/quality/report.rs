//! The figures as a table, as JSON, as a page.

use serde_json::{Value, json};

use super::weights::{Compared, whole};
use super::{Arguments, Found};
use crate::bench::escape;
use crate::ui::format::{bytes, printable, table};

/// Matrices that the table names: those with the largest errors.
const WORST: usize = 5;

/// Headings of the table.
const HEADINGS: [&str; 11] = [
    "model",
    "size",
    "bits",
    "weight error",
    "layer error",
    "perplexity",
    "of the truth",
    "KL divergence",
    "same top",
    "prompt t/s",
    "answer t/s",
];

fn line(found: &Found) -> Vec<String> {
    let speed = |i: usize| found.speed.map_or("-".into(), |s| format!("{:.1}", s[i]));
    let divergence = found.figures.divergence();
    let of = |f: &dyn Fn(&crate::eval::Divergence) -> String| divergence.as_ref().map_or("-".into(), f);
    vec![
        printable(&found.name),
        bytes(found.bytes),
        format!("{:.2}", found.bits),
        format!("{:.5}", whole(&found.tensors)),
        found.layers.last().map_or("-".into(), |(_, error)| format!("{error:.5}")),
        format!("{:.4}", found.figures.perplexity().value),
        of(&|d| format!("{:.4}", d.perplexity.value)),
        of(&|d| format!("{:.6} +- {:.6}", d.mean, d.error)),
        of(&|d| format!("{:.2} %", 100.0 * d.same_top)),
        speed(0),
        speed(1),
    ]
}

/// The matrices with the largest errors.
fn worst(found: &Found) -> Vec<&Compared> {
    let mut all: Vec<&Compared> = found.tensors.iter().collect();
    all.sort_by(|a, b| b.error().total_cmp(&a.error()));
    all.truncate(WORST);
    all
}

/// For a person at a terminal.
pub fn text(all: &[Found]) -> String {
    let mut rows = vec![HEADINGS.map(String::from).to_vec()];
    rows.extend(all.iter().map(line));
    let mut text = table(&rows, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for found in all {
        text += &format!("\n{}\n", printable(&found.name));
        for t in worst(found) {
            text += &format!("  {:<40}{:<8}{:.5}\n", printable(&t.name), t.format.name(), t.error());
        }
        let layers: Vec<String> = found.layers.iter().map(|(name, error)| format!("{name}: {error:.4}")).collect();
        if !layers.is_empty() {
            text += &format!("  layers {}\n", layers.join(", "));
        }
    }
    text
}

/// For a program.
pub fn json(arguments: &Arguments, all: &[Found]) -> String {
    let tensor =
        |t: &Compared| json!({ "name": t.name, "format": t.format.name(), "rmse": t.rmse(), "relative": t.error() });
    let one = |found: &Found| {
        let divergence = found.figures.divergence().map(|d| {
            json!({ "mean": d.mean, "error": d.error, "median": d.median, "p99": d.p99, "max": d.max,
                "same_top": d.same_top, "rms_probability": d.rms, "truth_perplexity": d.perplexity.value })
        });
        let speed = found.speed.map(|[prompt, answer]| json!({ "prompt": prompt, "answer": answer }));
        let layers: Vec<Value> = found.layers.iter().map(|(name, e)| json!({ "layer": name, "relative": e })).collect();
        let tensors: Vec<Value> = found.tensors.iter().map(tensor).collect();
        json!({ "model": found.name, "bytes": found.bytes, "bits_per_weight": found.bits,
            "weight_error": whole(&found.tensors), "perplexity": found.figures.perplexity().value,
            "kl_divergence": divergence, "tokens_per_second": speed, "layers": layers, "tensors": tensors })
    };
    let all: Vec<Value> = all.iter().map(one).collect();
    let text = json!({ "truth": arguments.truth, "text": arguments.text.display().to_string(), "ctx": arguments.ctx,
        "precision": arguments.precision.name(), "candidates": all });
    format!("{text:#}\n")
}

/// Rows of a table of the page.
fn html_table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        cells.map(|c| format!("<{tag}>{}</{tag}>", escape(c))).collect::<String>()
    };
    let mut text = format!("<table><tr>{}</tr>\n", cells("th", &mut headings.iter().copied()));
    for row in rows {
        text += &format!("<tr>{}</tr>\n", cells("td", &mut row.iter().map(String::as_str)));
    }
    text + "</table>\n"
}

/// A page that needs nothing else.
pub fn page(arguments: &Arguments, all: &[Found]) -> String {
    const STYLE: &str = "body{font:15px sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse;margin:1em 0}\
        th,td{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}";
    let title = format!("Quality beside {}", escape(&arguments.truth));
    let about = format!(
        "Chunks of {} tokens of {}; activations {}.",
        arguments.ctx,
        escape(&arguments.text.display().to_string()),
        arguments.precision.name()
    );
    let mut body = html_table(&HEADINGS, &all.iter().map(line).collect::<Vec<_>>());
    for found in all {
        body += &format!("<h2>{}</h2>\n", escape(&found.name));
        let layers: Vec<Vec<String>> = found.layers.iter().map(|(n, e)| vec![n.clone(), format!("{e:.6}")]).collect();
        if !layers.is_empty() {
            body += &html_table(&["layer", "relative error of its input"], &layers);
        }
        let row = |t: &Compared| {
            vec![t.name.clone(), t.format.name().into(), format!("{:.3e}", t.rmse()), format!("{:.6}", t.error())]
        };
        body +=
            &html_table(&["tensor", "format", "RMSE", "relative"], &found.tensors.iter().map(row).collect::<Vec<_>>());
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><h1>{title}</h1><p>{about}</p>\n{body}</body></html>\n"
    )
}
