//! Matrices of which each row takes its own: mixtures of experts, and the heads of compressed attention.
//!
//! Rows are gathered by expert, so that weights are read once for all rows that want them. A result depends on its own
//! row alone: the matmul gives each column the same bits in whatever company.

use super::walk::{PANELS, Walk};
use super::{CpuBackend, acts, layout};
use crate::graph::{Op, ValueId, WeightId};
use crate::plan::{ALIGN, Plan, StepKind, integer_product};
use kernels::Columns;
use kernels::matmul::{Acts, Epilogue, MatMul, Residual};
use kernels::panel::Weights;
use kernels::simd::LANES;
use std::ops::Range;

/// Columns that are gathered at a time.
const COLUMNS: usize = 64;
/// Most experts of a layer.
pub const MAX_EXPERTS: usize = 512;

/// Bytes of scratch memory of one worker: gathered rows, the same quantized, results.
pub fn scratch_bytes(plan: &Plan) -> usize {
    let bytes = |weight: WeightId| {
        let w = &plan.graph().weights[weight.0 as usize];
        let acts = if integer_product(w.format, plan.limits().precision) {
            CpuBackend::act_bytes(plan.limits().precision, w.k, COLUMNS)
        } else {
            0
        };
        (w.k + w.rows) * COLUMNS * 4 + acts + 2 * ALIGN
    };
    let all = plan.steps().iter().filter_map(|step| match step.kind {
        StepKind::Op(Op::ExpertMatMul { weight, .. }) => Some(bytes(weight)),
        _ => None,
    });
    all.max().unwrap_or(0).next_multiple_of(ALIGN)
}

/// One [`Op::ExpertMatMul`].
#[derive(Clone, Copy)]
pub struct Experts<'a> {
    pub walk: Walk<'a>,
    pub x: ValueId,
    pub routes: Option<ValueId>,
    pub weight: WeightId,
    pub bias: Option<WeightId>,
    pub out: ValueId,
}

impl Experts<'_> {
    /// Parts of a row of the result.
    fn slots(self) -> usize {
        self.walk.width(self.out) / self.walk.panels(self.weight, 0).rows
    }

    /// Groups of panels of an expert, which are shared among pieces.
    fn groups(self) -> usize {
        self.walk.panels(self.weight, 0).panels().div_ceil(PANELS)
    }

    /// Into how many pieces it is cut, at most.
    pub fn pieces(self, workers: usize) -> usize {
        let most = self.walk.experts(self.weight).min(self.walk.n_rows(self.out) * self.slots());
        (most * self.groups()).min(4 * workers)
    }

    /// The expert of a row's slot.
    fn expert(self, row: usize, slot: usize) -> usize {
        self.routes.map_or(slot, |routes| self.walk.rows(routes, row..row + 1)[slot] as usize)
    }

    /// Shows the rows of a product.
    fn show(self, rows: usize, slots: usize) {
        let Some(probe) = self.walk.probe() else { return };
        let info = &self.walk.plan().graph().weights[self.weight.0 as usize];
        for (row, slot) in (0..rows).flat_map(|row| (0..slots).map(move |slot| (row, slot))) {
            let x = self.walk.rows(self.x, row..row + 1);
            let part = if x.len() == info.k { 0 } else { slot };
            let matrix = (self.expert(row, slot), info.experts);
            probe.see(&info.name, matrix, &x[part * info.k..(part + 1) * info.k]);
        }
    }

    /// This piece's share.
    pub fn run(self) {
        let (rows, slots, groups) = (self.walk.n_rows(self.out), self.slots(), self.groups());
        self.show(rows, slots);
        let mut wanted = [false; MAX_EXPERTS];
        for row in 0..rows {
            for slot in 0..slots {
                wanted[self.expert(row, slot)] = true;
            }
        }
        let active = wanted.iter().filter(|&&w| w).count();
        let mine = self.walk.piece.share(active * groups);
        let experts = wanted.iter().enumerate().filter(|(_, w)| **w).map(|(e, _)| e);
        for (i, expert) in experts.enumerate() {
            let own = mine.start.max(i * groups)..mine.end.min((i + 1) * groups);
            if !own.is_empty() {
                self.one(expert, own.start - i * groups..own.end - i * groups);
            }
        }
    }

    /// Some groups of panels of one expert, for all rows that want it.
    fn one(self, expert: usize, groups: Range<usize>) {
        let weights = self.walk.panels(self.weight, expert);
        let panels = groups.start * PANELS..(groups.end * PANELS).min(weights.panels());
        let slots = self.slots();
        let (mut columns, mut n) = ([(0, 0); COLUMNS], 0);
        for row in 0..self.walk.n_rows(self.out) {
            for slot in (0..slots).filter(|&slot| self.expert(row, slot) == expert) {
                columns[n] = (row, slot);
                n += 1;
                if n == COLUMNS {
                    self.multiply(&weights, expert, panels.clone(), &columns);
                    n = 0;
                }
            }
        }
        if n > 0 {
            self.multiply(&weights, expert, panels, &columns[..n]);
        }
    }

    /// Some panels of an expert times gathered columns, each a row and its slot.
    fn multiply(self, weights: &Weights, expert: usize, panels: Range<usize>, columns: &[(usize, usize)]) {
        let (k, kernels) = (weights.k, self.walk.backend.kernels);
        let part = panels.start * LANES..(panels.end * LANES).min(weights.rows);
        let scratch = self.walk.scratch();
        let (x, rest) = scratch.split_at_mut(columns.len() * k);
        let (y, rest) = rest.split_at_mut(columns.len() * part.len());
        for (x, &(row, slot)) in x.chunks_exact_mut(k).zip(columns) {
            let all = self.walk.rows(self.x, row..row + 1);
            x.copy_from_slice(if all.len() == k { all } else { &all[slot * k..][..k] });
        }
        let acts = if integer_product(weights.format, self.walk.precision()) {
            let layout = layout(self.walk.precision(), k, columns.len());
            let units = &mut bytemuck::cast_slice_mut::<f32, u8>(rest)[..layout.bytes()];
            (kernels.quantize)(x, layout, 0..layout.units(), units);
            acts(self.walk.precision(), units)
        } else {
            Acts::F32(x)
        };
        let bias = self.bias.map(|bias| &self.walk.vector(bias)[expert * weights.rows..][..weights.rows]);
        let epilogue = Epilogue { scale: None, bias, residual: Residual::None };
        let mut out = Columns::new(y, part.len());
        (kernels.matmul)(&MatMul { weights: *weights, acts, epilogue }, panels, &mut out);
        for (y, &(row, slot)) in y.chunks_exact(part.len()).zip(columns) {
            let at = slot * weights.rows;
            self.walk.row_part(self.out, row, at + part.start..at + part.end).copy_from_slice(y);
        }
    }
}
