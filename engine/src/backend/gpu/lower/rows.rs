//! What is cut by rows: lookups, norms, activations, gathers.

use super::Lower;
use crate::graph::{Activation, Lookup, Op, ValueId};
use shaders::{Act, Kernel, NONE, ROW_WG, ops};

impl Lower<'_> {
    pub(super) fn embed(&mut self, op: Op) {
        let Op::Embed { table, lookup, scale, add, out } = op else { return };
        let info = &self.plan.graph().weights[table.0 as usize];
        for part in self.parts(table) {
            let op = ops::Embed {
                out: self.at(out),
                k: info.k as u32,
                first: part.first as u32,
                panels: part.panels as u32,
                words: part.words as u32,
                scale,
                lookup: match lookup {
                    Lookup::Token => 0,
                    Lookup::Position => 1,
                    Lookup::First => 2,
                },
                add: add.map_or(NONE, |v| self.at(v)),
            };
            let others = info.k.div_ceil(shaders::layout::GROUP).div_ceil(ROW_WG);
            self.push(Kernel::Embed(info.format), &op, others, self.rows(out)).part = Some(part);
        }
    }

    pub(super) fn rms_norm(&mut self, op: Op) {
        let Op::RmsNorm { x, weight, eps, heads, residual, out } = op else { return };
        let op = ops::RmsNorm {
            x: self.at(x),
            out: self.at(out),
            residual: residual.map_or(NONE, |r| self.at(r)),
            weight: self.vector(Some(weight)),
            width: self.width(x) / heads as u32,
            slices: heads as u32,
            eps,
        };
        self.push(Kernel::RmsNorm, &op, heads, self.rows(out));
    }

    pub(super) fn gated_act(&mut self, gate: ValueId, up: ValueId, act: Activation, out: ValueId) {
        let op = ops::GatedAct { gate: self.at(gate), up: self.at(up), out: self.at(out), width: self.width(out) };
        self.push_elements(Kernel::GatedAct(act_of(act)), &op, out);
    }

    pub(super) fn gather(&mut self, x: ValueId, out: ValueId) {
        let op = ops::Gather { x: self.at(x), out: self.at(out), width: self.width(out) };
        self.push_elements(Kernel::Gather, &op, out);
    }

    /// A kernel of which an invocation computes an element of each row of `out`.
    fn push_elements(&mut self, kernel: Kernel, op: &impl bytemuck::Pod, out: ValueId) {
        let others = (self.width(out) as usize).div_ceil(ROW_WG);
        self.push(kernel, op, others, self.rows(out));
    }
}

fn act_of(act: Activation) -> Act {
    match act {
        Activation::Silu => Act::Silu,
        Activation::GeluTanh => Act::GeluTanh,
        Activation::GeluErf => Act::GeluErf,
        Activation::Relu => Act::Relu,
        Activation::ReluSquared => Act::ReluSquared,
        Activation::Sigmoid => Act::Sigmoid,
    }
}
