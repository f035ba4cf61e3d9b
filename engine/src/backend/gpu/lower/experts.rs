//! The choice of experts, their products and their sums; matrices of heads go the same way.

use super::Lower;
use crate::graph::{Op, Routing, ValueId};
use crate::plan::integer_product;
use shaders::layout::LANES;
use shaders::{Kernel, NONE, ops};

impl Lower<'_> {
    pub(super) fn route(&mut self, scores: ValueId, routing: Routing, out: ValueId) {
        let op = ops::Route {
            scores: self.at(scores),
            out: self.at(out),
            experts: self.width(scores),
            used: routing.used as u32,
            normalize: u32::from(routing.normalize),
            scale: routing.scale,
        };
        self.push(Kernel::Route, &op, 1, self.rows(out));
    }

    pub(super) fn expert_matmul(&mut self, op: Op) {
        let Op::ExpertMatMul { x, routes, weight, bias, out } = op else { return };
        let info = &self.plan.graph().weights[weight.0 as usize];
        let (each, slots) = (info.rows.div_ceil(LANES), self.width(out) as usize / info.rows);
        let dot = integer_product(info.format, self.plan.limits().precision);
        for part in self.parts(weight) {
            let op = ops::Experts {
                x: self.at(x),
                out: self.at(out),
                routes: routes.map_or(NONE, |r| self.at(r)),
                routed: routes.map_or(0, |r| self.width(r)),
                bias: self.vector(bias),
                k: info.k as u32,
                width: info.rows as u32,
                each: each as u32,
                slots: slots as u32,
                parts: u32::from(self.width(x) as usize != info.k),
                first: part.first as u32,
                panels: part.panels as u32,
                quads: part.quads as u32,
                words: part.words as u32,
            };
            let kernel = Kernel::Experts { format: info.format, dot };
            self.push(kernel, &op, slots * each, self.rows(out)).part = Some(part);
        }
    }

    pub(super) fn combine(&mut self, op: Op) {
        let Op::Combine { x, routes, residual, out } = op else { return };
        let op = ops::Combine {
            x: self.at(x),
            routes: self.at(routes),
            slots: self.width(routes) / 2,
            residual: residual.map_or(NONE, |r| self.at(r)),
            out: self.at(out),
            width: self.width(out),
        };
        self.push_elements(Kernel::Combine, &op, out);
    }
}
