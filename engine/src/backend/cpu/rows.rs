//! The steps that are cut by rows: each piece has its own rows and meets no other.

use super::experts::MAX_EXPERTS;
use super::walk::Walk;
use crate::graph::{Activation, Columns, Lookup, Op, Routing, Rows, ValueId};
use kernels::rowwise::Norm;

impl Walk<'_> {
    pub(super) fn embed(self, op: Op) {
        let Op::Embed { table, lookup, scale, add, out } = op else { return };
        let rows = self.my_rows(self.n_rows(out));
        let (panels, width, k) = (self.panels(table, 0), self.width(out), self.backend.kernels);
        let x = self.rows_mut(out, rows.clone());
        for (row, x) in rows.zip(x.chunks_exact_mut(width)) {
            let at = match lookup {
                Lookup::Token => self.batch.tokens()[row],
                Lookup::Position => self.batch.positions()[row],
                Lookup::First => 0,
            };
            (k.embed)(&panels, at as usize, x);
            if scale != 1.0 {
                (k.scale)(scale, x);
            }
            if let Some(add) = add {
                (k.add)(self.rows(add, row..row + 1), x);
            }
        }
    }

    pub(super) fn rms_norm(self, op: Op) {
        let Op::RmsNorm { x, weight, eps, heads, residual, out } = op else { return };
        let rows = self.my_rows(self.n_rows(out));
        let norm = Norm { width: self.width(x) / heads, eps, weight: Some(self.vector(weight)), bias: None };
        let k = self.backend.kernels;
        let (x, y) = (self.rows(x, rows.clone()), self.rows_mut(out, rows.clone()));
        match residual {
            None => (k.rms_norm)(&norm, x, y),
            Some(r) => {
                if self.plan().value(r) != self.plan().value(out) {
                    y.copy_from_slice(self.rows(r, rows));
                }
                (k.rms_norm_add)(&norm, x, y);
            }
        }
    }

    pub(super) fn layer_norm(self, op: Op) {
        let Op::LayerNorm { x, weight, bias, eps, heads, out } = op else { return };
        let (rows, all) = (self.my_rows(self.n_rows(out)), self.width(x));
        let (weight, bias, width) = (self.vector(weight), bias.map(|b| self.vector(b)), all / heads);
        let (x, y) = (self.rows(x, rows.clone()), self.rows_mut(out, rows));
        // One weight for all heads, or one a head.
        for (x, y) in x.chunks_exact(all).zip(y.chunks_exact_mut(all)) {
            for (i, (x, y)) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)).enumerate() {
                let of_head = |v: &'_ [f32]| if v.len() == width { 0 } else { i * width };
                let (weight, bias) = (&weight[of_head(weight)..], bias.map(|b| &b[of_head(b)..][..width]));
                let norm = Norm { width, eps, weight: Some(&weight[..width]), bias };
                (self.backend.kernels.layer_norm)(&norm, x, y);
            }
        }
    }

    pub(super) fn gated(self, gate: ValueId, up: ValueId, act: Activation, out: ValueId) {
        let rows = self.my_rows(self.n_rows(out));
        let y = self.rows_mut(out, rows.clone());
        (self.backend.kernels.gated)(act, self.rows(gate, rows.clone()), self.rows(up, rows), y);
    }

    pub(super) fn clamped_glu(self, gate: ValueId, up: ValueId, out: ValueId) {
        let rows = self.my_rows(self.n_rows(out));
        let y = self.rows_mut(out, rows.clone());
        (self.backend.kernels.clamped_glu)(self.rows(gate, rows.clone()), self.rows(up, rows), y);
    }

    pub(super) fn activate(self, x: ValueId, act: Activation) {
        let rows = self.my_rows(self.n_rows(x));
        (self.backend.kernels.activate)(act, self.rows_mut(x, rows));
    }

    pub(super) fn softcap(self, x: ValueId, cap: f32) {
        let rows = self.my_rows(self.n_rows(x));
        (self.backend.kernels.softcap)(cap, self.rows_mut(x, rows));
    }

    /// Weighs each row by how strong an adapter is for its sequence.
    pub(super) fn adapt(self, x: ValueId, adapter: usize) {
        for row in self.my_rows(self.n_rows(x)) {
            let token = match self.plan().graph().values[x.0 as usize].rows {
                Rows::Tokens => row,
                Rows::Outputs => self.batch.outputs()[row] as usize,
            };
            match self.batch.strength(token, adapter) {
                1.0 => {}
                strength => (self.backend.kernels.scale)(strength, self.rows_mut(x, row..row + 1)),
            }
        }
    }

    pub(super) fn copy(self, x: ValueId, columns: Columns, out: ValueId) {
        let Columns { heads, width, from, to } = columns;
        for row in self.my_rows(self.n_rows(out)) {
            let (x, y) = (self.rows(x, row..row + 1), self.rows_mut(out, row..row + 1));
            for head in 0..heads {
                let (from, to) = (from.0 + head * from.1, to.0 + head * to.1);
                y[to..to + width].copy_from_slice(&x[from..from + width]);
            }
        }
    }

    /// The experts of largest probability, the first of equals first.
    pub(super) fn route(self, scores: ValueId, routing: Routing, out: ValueId) {
        let k = self.backend.kernels;
        for row in self.my_rows(self.n_rows(out)) {
            let mut room = [0.0; MAX_EXPERTS];
            let p = &mut room[..self.width(scores)];
            p.copy_from_slice(self.rows(scores, row..row + 1));
            (k.softmax)(p);
            let (ids, weights) = self.rows_mut(out, row..row + 1).split_at_mut(routing.used);
            for (id, weight) in ids.iter_mut().zip(weights.iter_mut()) {
                let best = (k.argmax)(p);
                (*id, *weight) = (best as f32, p[best]);
                p[best] = f32::NEG_INFINITY;
            }
            let total = if routing.normalize { weights.iter().sum() } else { 1.0 };
            weights.iter_mut().for_each(|w| *w = *w / total * routing.scale);
        }
    }

    pub(super) fn combine(self, op: Op) {
        let Op::Combine { x, routes, residual, out } = op else { return };
        let (k, width) = (self.backend.kernels, self.width(out));
        for row in self.my_rows(self.n_rows(out)) {
            let y = self.rows_mut(out, row..row + 1);
            match residual {
                None => y.fill(0.0),
                Some(r) if self.plan().value(r) == self.plan().value(out) => {}
                Some(r) => y.copy_from_slice(self.rows(r, row..row + 1)),
            }
            let routes = self.rows(routes, row..row + 1);
            let weights = &routes[routes.len() / 2..];
            for (x, &weight) in self.rows(x, row..row + 1).chunks_exact(width).zip(weights) {
                (k.add_scaled)(weight, x, y);
            }
        }
    }
}
