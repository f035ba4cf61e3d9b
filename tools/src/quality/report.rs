//! The figures as a table, as JSON, as a page.

use serde_json::{Value, json};

use super::weights::{Compared, whole};
use super::{Arguments, Found};
use crate::ui::format::{bytes, printable, table};
use crate::ui::page::{self, escape};

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

/// A page that needs nothing else.
pub fn page(arguments: &Arguments, all: &[Found]) -> String {
    let title = format!("Quality beside {}", arguments.truth);
    let about = format!(
        "Chunks of {} tokens of {}; activations {}.",
        arguments.ctx,
        escape(&arguments.text.display().to_string()),
        arguments.precision.name()
    );
    let mut body =
        format!("<h1>{}</h1>\n<p>{about}</p>\n{}", escape(&title), page::table(&HEADINGS, all.iter().map(line)));
    for found in all {
        body += &format!("<h2>{}</h2>\n", escape(&found.name));
        if !found.layers.is_empty() {
            let layers = found.layers.iter().map(|(name, e)| vec![name.clone(), format!("{e:.6}")]);
            body += &page::table(&["layer", "relative error of its input"], layers);
        }
        let row = |t: &Compared| {
            vec![t.name.clone(), t.format.name().into(), format!("{:.3e}", t.rmse()), format!("{:.6}", t.error())]
        };
        body += &page::table(&["tensor", "format", "RMSE", "relative"], found.tensors.iter().map(row));
    }
    page::page(&title, &body)
}
