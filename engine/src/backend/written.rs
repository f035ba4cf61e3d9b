//! What an operation leaves behind, for those who compare two devices step by step.
//!
//! Arena memory is used again and again, so it is read right after the operation. What is fused into an operation
//! (bias, residual, factor) is part of what it writes.

use crate::error::Result;
use crate::graph::{AttentionSpec, Columns, Graph, Op, ValueId};

/// Something that an operation has written for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Written {
    /// `out`; of what goes into the KV cache `queries`, `keys` and `values`.
    pub what: &'static str,
    /// Floats of a row.
    pub width: usize,
    /// The rows.
    pub values: Vec<f32>,
}

/// A backend's memory, as far as operations write it.
pub(super) trait Memory {
    /// The rows of a value.
    fn value(&self, v: ValueId) -> Result<Vec<f32>>;
    /// The keys of the batch's tokens in the cache of a layer, and their values.
    fn cached(&self, attention: &AttentionSpec) -> Result<[Vec<f32>; 2]>;
}

/// What an operation has just written.
pub(super) fn written(graph: &Graph, op: &Op, memory: &dyn Memory) -> Result<Vec<Written>> {
    let value = op.written();
    let width = graph.values[value.0 as usize].width;
    let values = memory.value(value)?;
    Ok(match op {
        Op::RopeStoreKv { attention: a, .. } => {
            let [keys, stored] = memory.cached(a)?;
            vec![
                Written { what: "queries", width, values },
                Written { what: "keys", width: a.n_head_kv * a.d_k, values: keys },
                Written { what: "values", width: a.n_head_kv * a.d_v, values: stored },
            ]
        }
        // What it leaves alone may not have been written yet.
        Op::Copy { columns, .. } => {
            let values = values.chunks_exact(width).flat_map(|row| picked(row, *columns)).copied().collect();
            vec![Written { what: "out", width: columns.heads * columns.width, values }]
        }
        _ => vec![Written { what: "out", width, values }],
    })
}

/// The columns of a row that a copy writes.
fn picked(row: &[f32], columns: Columns) -> impl Iterator<Item = &f32> {
    (0..columns.heads).flat_map(move |head| &row[columns.to.0 + head * columns.to.1..][..columns.width])
}
