//! What is cut by rows: lookups, norms, activations, gathers.

use super::super::tables::adapters;
use super::Lower;
use crate::graph::{Activation, Columns, Lookup, Op, Rows, ValueId, WeightId};
use crate::sampler::{MOST_CANDIDATES, Wants};
use shaders::layout::LANES;
use shaders::{Act, Kernel, NONE, ROW_WG, Reducing, SLICES, TOP, Walk, ops};

/// What the kernel finds is what the sampler takes.
const _: () = assert!(TOP == MOST_CANDIDATES);

impl Lower<'_> {
    /// The largest logit of each row: first of slices, then of their results.
    pub(super) fn best(&mut self) {
        let logits = self.plan.graph().logits;
        let op = ops::Best { x: self.at(logits), width: self.width(logits), rows: self.plan.limits().outputs as u32 };
        for (merge, others) in [(false, SLICES), (true, 1)] {
            self.push(self.reducing(Reducing::Best { merge }), &op, others, Rows::Outputs).finds = Some(Wants::Best);
        }
    }

    /// The largest few logits of each row, likewise.
    pub(super) fn top(&mut self) {
        let logits = self.plan.graph().logits;
        let slices = (self.plan.limits().outputs * TOP * 2) as u32;
        let op = ops::Topk { x: self.at(logits), width: self.width(logits), out: 0, slices };
        for (merge, others) in [(false, SLICES), (true, 1)] {
            self.push(Kernel::Topk { merge }, &op, others, Rows::Outputs).finds = Some(Wants::Top);
        }
    }

    pub(super) fn embed(&mut self, op: Op) {
        let Op::Embed { table, lookup, scale, add, out } = op else { return };
        let info = &self.plan.graph().weights[table.0 as usize];
        for part in self.parts(table) {
            let op = ops::Embed {
                out: self.at(out),
                k: info.k as u32,
                first: (part.first * LANES) as u32,
                panels: part.panels as u32,
                quads: part.quads as u32,
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
        let quads = op.width.is_multiple_of(4);
        let narrow = self.subgroup.filter(|_| quads).map(Kernel::RmsNormNarrow);
        let kernel = narrow.unwrap_or_else(|| self.reducing(Reducing::RmsNorm(Walk::of_row(op.width as usize))));
        self.push(kernel, &op, heads, self.rows(out));
    }

    pub(super) fn gated_act(&mut self, gate: ValueId, up: ValueId, act: Activation, out: ValueId) {
        let op = ops::GatedAct { gate: self.at(gate), up: self.at(up), out: self.at(out), width: self.width(out) };
        self.push_elements(Kernel::GatedAct(act_of(act)), &op, out);
    }

    pub(super) fn gather(&mut self, x: ValueId, out: ValueId) {
        let op = ops::Gather { x: self.at(x), out: self.at(out), width: self.width(out) };
        self.push_elements(Kernel::Gather, &op, out);
    }

    pub(super) fn layer_norm(&mut self, op: Op) {
        let Op::LayerNorm { x, weight, bias, eps, heads, out } = op else { return };
        let width = self.width(x) / heads as u32;
        // One weight for all heads, or one a head.
        let own = |w: WeightId| u32::from(self.plan.graph().weights[w.0 as usize].k > width as usize);
        let op = ops::LayerNorm {
            x: self.at(x),
            out: self.at(out),
            weight: self.vector(Some(weight)),
            bias: self.vector(bias),
            width,
            slices: heads as u32,
            weights: own(weight),
            biases: bias.map_or(0, own),
            eps,
        };
        self.push(self.reducing(Reducing::LayerNorm(Walk::of_row(width as usize))), &op, heads, self.rows(out));
    }

    pub(super) fn clamped_glu(&mut self, gate: ValueId, up: ValueId, out: ValueId) {
        let op = ops::GatedAct { gate: self.at(gate), up: self.at(up), out: self.at(out), width: self.width(out) };
        self.push_elements(Kernel::ClampedGlu, &op, out);
    }

    pub(super) fn activate(&mut self, x: ValueId, act: Activation) {
        let op = ops::Act { x: self.at(x), width: self.width(x) };
        self.push_elements(Kernel::Act(act_of(act)), &op, x);
    }

    pub(super) fn softcap(&mut self, x: ValueId, cap: f32) {
        let op = ops::Softcap { x: self.at(x), width: self.width(x), cap };
        self.push_elements(Kernel::Softcap, &op, x);
    }

    pub(super) fn adapt(&mut self, x: ValueId, adapter: usize) {
        let op = ops::Adapt {
            x: self.at(x),
            width: self.width(x),
            adapter: adapter as u32,
            adapters: adapters(self.plan.graph()) as u32,
            outputs: u32::from(self.rows(x) == Rows::Outputs),
        };
        self.push_elements(Kernel::Adapt, &op, x);
    }

    pub(super) fn copy(&mut self, x: ValueId, columns: Columns, out: ValueId) {
        let Columns { heads, width, from, to } = columns;
        let op = ops::Copy {
            x: self.at(x),
            out: self.at(out),
            width: self.width(x),
            width_out: self.width(out),
            heads: heads as u32,
            run: width as u32,
            source: from.0 as u32,
            source_next: from.1 as u32,
            target_at: to.0 as u32,
            target_next: to.1 as u32,
        };
        self.push(Kernel::Copy, &op, (heads * width).div_ceil(ROW_WG), self.rows(out));
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
