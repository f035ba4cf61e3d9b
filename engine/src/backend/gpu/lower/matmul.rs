//! Products with one matrix, or with several that one value meets one after the other, and the codes of what is multiplied.

use super::{Extent, Lower, Wanted};
use crate::graph::{Op, Rows, ValueId};
use crate::plan::{Precision, integer_product};
use shaders::layout::{GROUP, LANES};
use shaders::{ACT_QUADS, Kernel, NONE, ROW_WG, Way, ops};

/// Lanes that make the codes of a group.
const LANES_OF_GROUP: usize = 8;

/// Bytes of the codes of `n` rows of `k` values.
pub fn act_bytes(_: Precision, k: usize, n: usize) -> usize {
    n * (k / GROUP) * ACT_QUADS * 16
}

/// A matrix of a dispatch: the row where it begins, then place of its result, place of its bias, its rows.
type Member = [u32; 4];

impl Lower<'_> {
    /// Makes codes of a value.
    pub(super) fn quantize(&mut self, x: ValueId) {
        let op = ops::Quantize { x: self.at(x), out: self.acts(x), k: self.width(x) };
        let groups = op.k as usize / GROUP;
        self.push(Kernel::Quantize, &op, groups.div_ceil(ROW_WG / LANES_OF_GROUP), self.rows(x));
    }

    /// Place of a value's codes in the arena, in words.
    fn acts(&self, x: ValueId) -> u32 {
        self.plan.acts(x).map_or(NONE, |acts| (acts.offset / 4) as u32)
    }

    pub(super) fn matmul(&mut self, op: Op) {
        let Op::MatMul { x, weight, scale, residual, out, .. } = op else { return };
        let index = self.ends.len();
        if self.followers.contains(&index) {
            return;
        }
        let run = self.runs.get(&index).cloned().unwrap_or_else(|| vec![index]);
        let members = self.members(&run);
        let of = |i: usize| members.get(i).copied().unwrap_or_default();
        let [[_, first_out, bias, width], [second, second_out, second_bias, second_width], last] =
            [of(0), of(1), of(2)];
        let [third, third_out, third_bias, third_width] = last;
        let info = &self.plan.graph().weights[weight.0 as usize];
        let (way, x) = match integer_product(info.format, self.plan.limits().precision) {
            true => (Way::Dot, self.acts(x)),
            false => (self.way.of_row(info.k), self.at(x)),
        };
        for part in self.parts(weight) {
            let op = ops::MatmulWide {
                x,
                out: first_out,
                residual: residual.map_or(NONE, |r| self.at(r)),
                bias,
                k: info.k as u32,
                width,
                first: (part.first * LANES) as u32,
                panels: part.panels as u32,
                quads: part.quads as u32,
                words: part.words as u32,
                outputs: u32::from(self.rows(out) == Rows::Outputs),
                scale: scale.unwrap_or(1.0),
                second,
                second_out,
                second_bias,
                second_width,
                third,
                third_out,
                third_bias,
                third_width,
            };
            let kernels = way.columns().iter().map(|&columns| {
                let kernel = Kernel::MatMul { format: info.format, columns, way };
                (columns, kernel, way.workgroups(columns, part.panels) as u32)
            });
            self.wanted.push(Wanted {
                kernels: kernels.collect(),
                op: bytemuck::bytes_of(&op).to_vec(),
                part: Some(part),
                kv: None,
                extent: Extent::Columns(self.rows(out)),
                finds: None,
            });
        }
    }

    /// The matrices of some products whose panels follow each other.
    fn members(&self, run: &[usize]) -> Vec<Member> {
        let graph = self.plan.graph();
        let (mut members, mut first) = (vec![], 0);
        for &index in run {
            let Op::MatMul { weight, bias, out, .. } = graph.ops[index] else { continue };
            let rows = graph.weights[weight.0 as usize].rows;
            members.push([first as u32, self.at(out), self.vector(bias), rows as u32]);
            first += rows.next_multiple_of(LANES);
        }
        members
    }
}
