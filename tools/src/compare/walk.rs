//! Two models side by side through a text, one operation after the other.

use std::collections::BTreeMap;

use engine::inspect::Inspector;

use super::difference::{Agreement, Difference};
use crate::error::{Error, Result};
use crate::ui::Ui;

/// Something that an operation writes, over all batches.
#[derive(Clone, Debug)]
pub struct Row {
    /// The operation.
    pub operation: usize,
    /// What of it: `out`, `keys`.
    pub what: &'static str,
    /// Rows of the largest batch, and floats of a row.
    pub shape: [usize; 2],
    /// How far the two sides are apart.
    pub difference: Difference,
}

/// The first thing that was past the tolerance.
#[derive(Clone, Debug)]
pub struct First {
    /// The operation, and what of it.
    pub operation: usize,
    /// What of it.
    pub what: &'static str,
    /// Positions of the batch, the last one included.
    pub positions: [usize; 2],
    /// How far the two sides were apart.
    pub difference: Difference,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// One row for each thing that an operation writes, in order.
    pub rows: Vec<Row>,
    /// The first past the tolerance.
    pub first: Option<First>,
    /// What the logits say; of a model of embeddings, nothing.
    pub agreement: Agreement,
    /// Batches.
    pub batches: usize,
}

/// How to go.
pub struct Way<'a> {
    /// The text.
    pub tokens: &'a [u32],
    /// Most tokens of a batch.
    pub batch: usize,
    /// Tokens that are computed one by one after the text, the most probable ones of the first side.
    pub decode: usize,
    /// Largest logits that are compared.
    pub top: usize,
    /// What is allowed.
    pub tolerance: f64,
}

/// Walks the way.
///
/// # Errors
/// The models have not the same operations, or a device fails.
pub fn walk(mut sides: [Inspector; 2], way: &Way, ui: Ui) -> Result<Findings> {
    check_alike(&sides)?;
    let batch = sides.iter().map(Inspector::most_tokens).min().unwrap_or(1).min(way.batch);
    // Where tokens see later ones all are computed at once, and nothing follows.
    let causal = sides[0].spec().causal;
    let batch = if causal { batch } else { way.tokens.len() };
    let decode = if causal && !sides[0].spec().hidden { way.decode } else { 0 };
    let (n, batches) = (sides[0].operations().len(), way.tokens.len().div_ceil(batch) + decode);
    let steps = ui.steps("comparing", batches * n);
    let (mut findings, mut index) = (Findings { batches, ..Findings::default() }, BTreeMap::new());
    let (mut position, mut next) = (0, vec![]);
    for i in 0..batches {
        let rest = &way.tokens[position.min(way.tokens.len())..];
        let tokens = if rest.is_empty() { &next[..] } else { &rest[..batch.min(rest.len())] };
        for side in &mut sides {
            side.begin(tokens)?;
        }
        let positions = [position, position + tokens.len() - 1];
        let mut batch = Batch { sides: &mut sides, findings: &mut findings, index: &mut index, positions, way };
        let mut last = [vec![], vec![]];
        for operation in 0..n {
            last = batch.operation(operation)?;
            steps.at(i * n + operation + 1, "operations");
        }
        position += tokens.len();
        let (spec, [a, b]) = (sides[0].spec(), &last);
        if !spec.hidden {
            findings.agreement.take([a, b], spec.n_vocab, way.top);
            let row = &a[a.len() - spec.n_vocab..];
            next = crate::commands::score::largest(row, 1).into_iter().map(|(id, _)| id).collect();
        }
    }
    Ok(findings)
}

/// Fails unless both sides have the same operations.
fn check_alike([a, b]: &[Inspector; 2]) -> Result<()> {
    let (ours, theirs) = (a.operations(), b.operations());
    if a.spec().n_vocab != b.spec().n_vocab || a.spec().hidden != b.spec().hidden {
        return Err(Error::Usage("the two models have not the same vocabulary".into()));
    }
    let apart = ours.iter().zip(theirs).position(|(a, b)| a != b);
    match apart.or((ours.len() != theirs.len()).then(|| ours.len().min(theirs.len()))) {
        None => Ok(()),
        Some(i) => {
            let of = |all: &[engine::inspect::Operation]| {
                all.get(i).map_or("nothing".to_string(), |o| format!("{} {}", o.kind, o.tensor))
            };
            Err(Error::Usage(format!(
                "the two models are not of one shape: operation {i} is {} in the first, {} in the second",
                of(ours),
                of(theirs)
            )))
        }
    }
}

/// Both sides at a batch.
struct Batch<'a> {
    sides: &'a mut [Inspector; 2],
    findings: &'a mut Findings,
    /// Rows by operation and place in what it writes.
    index: &'a mut BTreeMap<(usize, usize), usize>,
    positions: [usize; 2],
    way: &'a Way<'a>,
}

impl Batch<'_> {
    /// Computes an operation on both sides, and gives the last of what each has written.
    fn operation(&mut self, operation: usize) -> Result<[Vec<f32>; 2]> {
        let [a, b] = self.sides;
        let (a, b) = (a.compute(operation)?, b.compute(operation)?);
        for (i, (a, b)) in a.iter().zip(&b).enumerate() {
            if (a.what, a.width, a.values.len()) != (b.what, b.width, b.values.len()) {
                let shape = |w: &engine::backend::Written| format!("{} of {} x {}", w.what, w.values.len(), w.width);
                let (a, b) = (shape(a), shape(b));
                return Err(Error::Usage(format!(
                    "operation {operation} writes {a} in the first model, {b} in the second"
                )));
            }
            let mut own = Difference::default();
            own.take(&a.values, &b.values);
            if self.findings.first.is_none() && own.is_past(self.way.tolerance) {
                let (what, positions, difference) = (a.what, self.positions, own);
                self.findings.first = Some(First { operation, what, positions, difference });
            }
            let rows = &mut self.findings.rows;
            let at = *self.index.entry((operation, i)).or_insert_with(|| {
                rows.push(Row { operation, what: a.what, shape: [0, a.width], difference: Difference::default() });
                rows.len() - 1
            });
            rows[at].difference.take(&a.values, &b.values);
            rows[at].shape[0] = rows[at].shape[0].max(a.values.len() / a.width.max(1));
        }
        let last = |all: Vec<engine::backend::Written>| all.into_iter().next_back().map_or(vec![], |w| w.values);
        Ok([last(a), last(b)])
    }
}
