//! Products with one matrix.

use super::{Extent, Lower, Wanted};
use crate::graph::{Op, Rows};
use shaders::layout::LANES;
use shaders::{COLUMNS, Kernel, NONE, ops};

impl Lower<'_> {
    pub(super) fn matmul(&mut self, op: Op) {
        let Op::MatMul { x, weight, scale, bias, residual, out } = op else { return };
        let info = &self.plan.graph().weights[weight.0 as usize];
        let way = self.way.of_row(info.k);
        for part in self.parts(weight) {
            let op = ops::MatmulWide {
                x: self.at(x),
                out: self.at(out),
                residual: residual.map_or(NONE, |r| self.at(r)),
                bias: self.vector(bias),
                k: info.k as u32,
                width: info.rows as u32,
                first: (part.first * LANES) as u32,
                panels: part.panels as u32,
                words: part.words as u32,
                outputs: u32::from(self.rows(out) == Rows::Outputs),
                scale: scale.unwrap_or(1.0),
            };
            let kernels = COLUMNS.map(|columns| {
                let kernel = Kernel::MatMul { format: info.format, columns, way };
                (columns, kernel, part.panels.div_ceil(way.panels(columns)) as u32)
            });
            self.wanted.push(Wanted {
                kernels: kernels.to_vec(),
                op: bytemuck::bytes_of(&op).to_vec(),
                part: Some(part),
                kv: None,
                extent: Extent::Columns(self.rows(out)),
            });
        }
    }
}
