//! A graph in two parts, the layers before one and the layers from it on, for two devices.
//!
//! What goes from the first part to the second is one value with a row for each token: the residual stream. That nothing
//! else does is found here, not assumed: a graph in which more lives on cannot be cut there. Weights that both parts take,
//! as an embedding that is the output matrix too, are in both.

use super::{Graph, Op, Rows, ValueId, WeightId};
use crate::error::{Error, Result};
use crate::plan::{Access, operands};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

impl Graph {
    /// The operations of layers before `layer` with all that comes before them, and those from it on with all that
    /// follows. The first part's result is the input of the second.
    ///
    /// # Errors
    /// There is no such layer behind another, or more than one value is alive between the two parts.
    pub fn cut(&self, layer: usize) -> Result<[Graph; 2]> {
        let refuse = |why: String| Error::Option {
            name: "--gpu-layers",
            found: format!("a cut before layer {layer}"),
            expected: format!("0, all layers, or another cut: {why}"),
        };
        let layers = self.layers();
        let last = layers.iter().flatten().max().map_or(0, |&last| last);
        let at = layers.iter().position(|l| l.is_some_and(|l| l >= layer)).filter(|_| (1..=last).contains(&layer));
        let at = at.ok_or_else(|| refuse(format!("the layers are 0 to {last}")))?;
        if layers[at..].iter().flatten().any(|&l| l < layer) {
            return Err(refuse("the operations of the model are not in the order of its layers".into()));
        }
        // The operation before the cut has written it, so that it is there to be looked at when that one is done.
        let last_written = |v: ValueId| at > 0 && self.ops[at - 1].written() == v;
        let handed = match self.alive(at)[..] {
            [one] if self.values[one.0 as usize].rows == Rows::Tokens && last_written(one) => one,
            ref all => {
                return Err(refuse(format!("{} values live on across it, where one can be handed over", all.len())));
            }
        };
        let (n, result) = (self.ops.len(), self.logits);
        Ok([self.part(0..at, None, handed), self.part(at..n, Some(handed), result)])
    }

    /// The values that operations before `at` write and later ones read.
    fn alive(&self, at: usize) -> Vec<ValueId> {
        let mut written = BTreeSet::new();
        for op in &self.ops[..at] {
            written.extend(
                operands(op).into_iter().filter(|(_, a)| matches!(a, Access::Write | Access::Both)).map(|o| o.0),
            );
        }
        let mut alive = BTreeSet::new();
        for op in &self.ops[at..] {
            let touched = operands(op);
            let read = touched.iter().filter(|(_, a)| !matches!(a, Access::Write)).map(|o| o.0);
            alive.extend(read.filter(|v| written.contains(v)));
            // A copy leaves the rest of its row as it was; anything else writes the whole of it.
            if !matches!(op, Op::Copy { .. }) {
                let renewed = touched.iter().filter(|(_, a)| matches!(a, Access::Write)).map(|o| o.0);
                written.retain(|v| renewed.clone().all(|r| r != *v));
            }
        }
        alive.into_iter().collect()
    }

    /// Some of the operations as a graph of its own, with the weights that they take and their layers' caches.
    fn part(&self, ops: Range<usize>, input: Option<ValueId>, result: ValueId) -> Graph {
        let mut part = Graph { ops: self.ops[ops].to_vec(), weights: vec![], input, logits: result, ..self.clone() };
        let first = part.ops.iter().filter_map(cached_layer).min().unwrap_or(0);
        let mut places: HashMap<WeightId, WeightId> = HashMap::new();
        for op in &mut part.ops {
            op.each_weight(|w| {
                *w = *places.entry(*w).or_insert_with(|| {
                    part.weights.push(self.weights[w.0 as usize].clone());
                    WeightId(part.weights.len() as u32 - 1)
                });
            });
            if let Op::RopeStoreKv { attention, .. } | Op::Attention { attention, .. } = op {
                attention.layer -= first;
            }
        }
        part
    }
}

/// The layer whose cache an operation touches.
fn cached_layer(op: &Op) -> Option<usize> {
    match op {
        Op::RopeStoreKv { attention, .. } | Op::Attention { attention, .. } => Some(attention.layer),
        _ => None,
    }
}
