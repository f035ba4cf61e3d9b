//! Products with what low-rank adapters have for a matrix.

use super::{Builder, Op, ValueId, WeightId};
use crate::error::Result;
use crate::source::adapter_tensor;

impl Builder<'_> {
    /// Adds to `out`, a product of `x`, what each adapter has for the matrix.
    pub(super) fn adapt(&mut self, x: ValueId, weight: WeightId, scale: f32, mut out: ValueId) -> Result<ValueId> {
        let w = self.graph.weights[weight.0 as usize].clone();
        for (adapter, &alpha) in self.source.alphas().iter().enumerate() {
            let [a, b] = [0, 1].map(|end| adapter_tensor(adapter, &w.name, end));
            let (Some(&[_, rank]), Some(&[_, rows])) = (self.dims(&a), self.dims(&b)) else { continue };
            let (rank, rows) = (rank as usize, rows as usize);
            let down = self.matrix(&a, rank, w.k)?;
            let up = self.matrix_part(&b, rows, rank, w.first..w.first + w.rows)?;
            let small = self.like(x, rank);
            let (of_x, factor) =
                (Op::MatMul { x, weight: down, scale: None, bias: None, residual: None, out: small }, scale);
            let factor = if alpha == 0.0 { factor } else { factor * alpha / rank as f32 };
            let sum = self.like(out, w.rows);
            let scale = (factor != 1.0).then_some(factor);
            let added = Op::MatMul { x: small, weight: up, scale, bias: None, residual: Some(out), out: sum };
            self.graph.ops.extend([of_x, Op::Adapt { x: small, adapter }, added]);
            out = sum;
        }
        Ok(out)
    }
}
