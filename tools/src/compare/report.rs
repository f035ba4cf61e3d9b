//! What was found, as a table and as JSON.

use std::collections::BTreeMap;

use engine::inspect::Operation;
use serde_json::{Value, json};

use super::walk::{Findings, Row};
use crate::ui::format::{count, printable, table};

/// A comparison that has ended.
pub struct Report<'a> {
    /// The two sides: how they were written, and what they ran on.
    pub sides: [(String, String); 2],
    /// The operations.
    pub operations: &'a [Operation],
    /// What was found.
    pub findings: &'a Findings,
    /// What is allowed, and why.
    pub tolerance: (f64, &'a str),
    /// Tokens of the text.
    pub tokens: usize,
    /// Largest logits that were compared.
    pub top: usize,
}

impl Report<'_> {
    /// Operations as a table: all, or of each kind of all layers the one that is furthest apart.
    pub fn table(&self, all: bool) -> String {
        let head =
            ["OP", "LAYER", "KIND", "TENSOR", "SHAPE", "NMSE", "MAX ABS", "MAX ULP", ""].map(String::from).to_vec();
        let shown: Vec<&Row> = if all { self.findings.rows.iter().collect() } else { self.worst() };
        let rows = std::iter::once(head).chain(shown.into_iter().map(|row| self.row(row))).collect::<Vec<_>>();
        let mut text = String::new();
        for (name, (spec, device)) in ["a", "b"].iter().zip(&self.sides) {
            text += &format!("{name}  {spec}: {device}\n");
        }
        text += &format!("{} tokens in {} batches\n\n", self.tokens, self.findings.batches);
        text += &table(&rows, &[0, 1, 4, 5, 6, 7]);
        if !all {
            text += "Of each kind the layer that is furthest apart; --all lists every operation.\n";
        }
        text + "\n" + &self.verdict()
    }

    fn worst(&self) -> Vec<&Row> {
        let mut by_kind: BTreeMap<_, &Row> = BTreeMap::new();
        let mut order = vec![];
        for row in &self.findings.rows {
            let o = &self.operations[row.operation];
            let key = (o.kind, short(o), row.what, o.layer.is_some());
            if !by_kind.contains_key(&key) {
                order.push(key.clone());
            }
            let worst = by_kind.entry(key).or_insert(row);
            if row.difference.nmse() > worst.difference.nmse() {
                *worst = row;
            }
        }
        order.iter().map(|key| by_kind[key]).collect()
    }

    fn row(&self, row: &Row) -> Vec<String> {
        let (o, d) = (&self.operations[row.operation], row.difference);
        let kind = if row.what == "out" { o.kind.to_string() } else { format!("{}: {}", o.kind, row.what) };
        vec![
            row.operation.to_string(),
            o.layer.map_or(String::new(), |layer| layer.to_string()),
            kind,
            printable(&short(o)),
            format!("{} x {}", row.shape[0], row.shape[1]),
            scientific(d.nmse()),
            scientific(d.max_abs),
            count(d.max_ulp.into()),
            if d.is_past(self.tolerance.0) { "past".into() } else { String::new() },
        ]
    }

    /// What follows from it, in words.
    fn verdict(&self) -> String {
        let (tolerance, why) = self.tolerance;
        let mut text = match &self.findings.first {
            None => format!("every operation is within {} ({why})\n", exact(tolerance)),
            Some(first) => {
                let o = &self.operations[first.operation];
                let layer = o.layer.map_or(String::new(), |layer| format!(" of layer {layer}"));
                let [from, to] = first.positions;
                let tensor = if o.tensor.is_empty() { String::new() } else { format!(" {}", printable(&o.tensor)) };
                format!(
                    "first past {} ({why}): operation {}, {}{tensor}{layer}, {}, at positions {from} to {to}: \
                     NMSE {}, largest {}\n",
                    exact(tolerance),
                    first.operation,
                    o.kind,
                    first.what,
                    scientific(first.difference.nmse()),
                    scientific(first.difference.max_abs)
                )
            }
        };
        let a = &self.findings.agreement;
        if a.positions > 0 {
            text += &format!(
                "logits: the most probable token is the same at {} of {} positions; of the {} largest {:.1} % are in both\n",
                a.same_top,
                a.positions,
                self.top,
                100.0 * a.overlap()
            );
        }
        text
    }

    /// Everything as JSON.
    pub fn json(&self) -> Value {
        let sides = ["a", "b"].iter().zip(&self.sides);
        let sides: serde_json::Map<_, _> =
            sides.map(|(name, (spec, device))| (name.to_string(), json!({ "spec": spec, "device": device }))).collect();
        let figures = |d: &super::difference::Difference| {
            // JSON has no infinity.
            let number = |x: f64| if x.is_finite() { json!(x) } else { json!("infinite") };
            json!({ "nmse": number(d.nmse()), "max_abs": number(d.max_abs), "max_ulp": d.max_ulp })
        };
        let operation = |index: usize, what: &str| {
            let o = &self.operations[index];
            json!({ "index": index, "kind": o.kind, "layer": o.layer, "tensor": o.tensor, "what": what })
        };
        let merged = |mut a: Value, b: Value| {
            if let (Some(a), Value::Object(b)) = (a.as_object_mut(), b) {
                a.extend(b);
            }
            a
        };
        let rows: Vec<Value> = self
            .findings
            .rows
            .iter()
            .map(|row| {
                let more = json!({ "shape": row.shape, "past": row.difference.is_past(self.tolerance.0) });
                merged(merged(operation(row.operation, row.what), figures(&row.difference)), more)
            })
            .collect();
        let first = self.findings.first.as_ref().map(|first| {
            let more = json!({ "positions": first.positions });
            merged(merged(operation(first.operation, first.what), figures(&first.difference)), more)
        });
        let a = &self.findings.agreement;
        let logits = (a.positions > 0).then(|| {
            json!({ "positions": a.positions, "same_top": a.same_top, "top": self.top, "overlap": a.overlap(), "least_shared": a.worst })
        });
        json!({
            "sides": sides,
            "tokens": self.tokens,
            "batches": self.findings.batches,
            "tolerance": self.tolerance.0,
            "tolerance_reason": self.tolerance.1,
            "within": first.is_none(),
            "first_past": first,
            "operations": rows,
            "logits": logits,
        })
    }
}

/// A tensor's name without its layer and the word `weight`.
fn short(o: &Operation) -> String {
    let name = o.tensor.strip_suffix(".weight").unwrap_or(&o.tensor);
    match o.layer {
        Some(layer) => name.replacen(&format!("blk.{layer}."), "", 1),
        None => name.to_string(),
    }
}

fn exact(x: f64) -> String {
    if x == 0.0 { "0".into() } else { format!("{x:e}") }
}

fn scientific(x: f64) -> String {
    if x == 0.0 { "0".into() } else { format!("{x:.1e}") }
}
