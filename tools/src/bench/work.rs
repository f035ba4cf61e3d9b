//! How much a step must read and compute at least: counted from the graph, for comparing with the roof.

use super::probe::Roof;
use engine::graph::{AttentionSpec, Graph, Op, Rows, ValueId, WeightId};
use engine::kernels::{panel, simd::LANES};
use engine::plan::integer_product;
use engine::{KvType, Precision};
use std::ops::AddAssign;

/// Reading and arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes of weights, in the layout in memory, and of the KV cache. A step reads each weight once.
    pub bytes: u64,
    /// Multiplications and additions of 8-bit integers.
    pub int8: u64,
    /// Multiplications and additions of f32.
    pub float: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.bytes += other.bytes;
        self.int8 += other.int8;
        self.float += other.float;
    }
}

impl Work {
    /// Seconds that a machine with this roof needs at least: reading and arithmetic can overlap, the two kinds of
    /// arithmetic cannot.
    pub fn least_time(&self, roof: &Roof) -> f64 {
        let arithmetic = self.int8 as f64 / roof.int8 + self.float as f64 / roof.float;
        (self.bytes as f64 / roof.read).max(arithmetic)
    }

    /// Multiplications and additions of both kinds.
    pub fn ops(&self) -> u64 {
        self.int8 + self.float
    }
}

/// What decides the work of a step beside the graph.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Tokens computed.
    pub tokens: usize,
    /// Tokens of the sequence before them.
    pub start: usize,
    /// Rows of logits.
    pub outputs: usize,
}

/// The work of one step of one sequence.
pub fn of_step(graph: &Graph, step: Step, precision: Precision, kv: KvType) -> Work {
    let mut work = Work::default();
    for op in &graph.ops {
        work += match *op {
            Op::Embed { table, .. } => {
                let bytes = matrix_bytes(graph, table) / graph.weights[table.0 as usize].rows.max(1) as u64;
                Work { bytes: bytes * step.tokens as u64, ..Work::default() }
            }
            Op::MatMul { x, weight, .. } => matmul(graph, weight, rows(graph, x, step), precision),
            Op::Attention { attention, .. } => attend(&attention, step, kv),
            // Rows that are in the caches, and arithmetic beneath a hundredth of the rest.
            _ => Work::default(),
        };
    }
    work
}

fn rows(graph: &Graph, v: ValueId, step: Step) -> usize {
    match graph.values[v.0 as usize].rows {
        Rows::Tokens => step.tokens,
        Rows::Outputs => step.outputs,
    }
}

/// Bytes of a matrix in panels.
pub fn matrix_bytes(graph: &Graph, weight: WeightId) -> u64 {
    let w = &graph.weights[weight.0 as usize];
    (w.rows.div_ceil(LANES) * panel::bytes(w.format, w.k).unwrap_or(0)) as u64
}

/// A matmul with so many columns.
pub fn matmul(graph: &Graph, weight: WeightId, columns: usize, precision: Precision) -> Work {
    if columns == 0 {
        return Work::default();
    }
    let w = &graph.weights[weight.0 as usize];
    let (bytes, ops) = (matrix_bytes(graph, weight), (2 * w.rows * w.k * columns) as u64);
    match integer_product(w.format, precision) {
        true => Work { bytes, int8: ops, float: 0 },
        false => Work { bytes, int8: 0, float: ops },
    }
}

/// Products of queries with the keys that they may see, and of weights with the values. The cache is read once.
pub fn attend(attention: &AttentionSpec, step: Step, kv: KvType) -> Work {
    let window = attention.window.unwrap_or(usize::MAX);
    let pairs: usize = (step.start..step.start + step.tokens).map(|position| (position + 1).min(window)).sum();
    let keys = (step.start + step.tokens).min(window.saturating_add(step.tokens.saturating_sub(1)));
    let width = attention.d_k + attention.d_v;
    Work {
        bytes: (keys * attention.n_head_kv * width * kv.bytes()) as u64,
        int8: 0,
        float: (2 * pairs * attention.n_head * width) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTENTION: AttentionSpec = AttentionSpec {
        layer: 0,
        n_head: 4,
        n_head_kv: 2,
        d_k: 8,
        d_v: 8,
        scale: 1.0,
        window: None,
        softcap: None,
        causal: true,
        alibi: false,
        sinks: None,
    };

    #[test]
    fn attention_counts_what_is_seen() {
        let step = |tokens, start| Step { tokens, start, outputs: 1 };
        // Positions 2, 3 and 4 see 3, 4 and 5 keys.
        let work = attend(&ATTENTION, step(3, 2), KvType::F16);
        assert_eq!(work, Work { bytes: 5 * 2 * 16 * 2, int8: 0, float: 2 * 12 * 4 * 16 });
        let windowed = AttentionSpec { window: Some(2), ..ATTENTION };
        // Each sees 2 keys; together they reach over 4 of them.
        let work = attend(&windowed, step(3, 2), KvType::F32);
        assert_eq!(work, Work { bytes: 4 * 2 * 16 * 4, int8: 0, float: 2 * 6 * 4 * 16 });
    }

    #[test]
    fn the_slower_of_reading_and_arithmetic_decides() {
        let roof = Roof { read: 10.0, int8: 100.0, float: 50.0 };
        assert_eq!(Work { bytes: 30, int8: 100, float: 50 }.least_time(&roof), 3.0);
        assert_eq!(Work { bytes: 10, int8: 100, float: 50 }.least_time(&roof), 2.0);
        let mut sum = Work { bytes: 1, int8: 2, float: 3 };
        sum += sum;
        assert_eq!((sum, sum.ops()), (Work { bytes: 2, int8: 4, float: 6 }, 10));
    }
}
