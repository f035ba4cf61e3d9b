//! One piece of a stage of the plan: each step's share of the work, a call of a kernel each.

use super::super::pool::Piece;
use super::attend::Attend;
use super::experts::Experts;
use super::{CpuBackend, Weight, acts, layout};
use crate::batch::Batch;
use crate::graph::{AttentionSpec, Op, Rows, ValueId, WeightId};
use crate::plan::{Buffer, Plan, Precision, Step, StepKind, integer_product};
use crate::probe::Probe;
use kernels::matmul::{Acts, Epilogue, MatMul, Residual};
use kernels::panel::Weights;
use kernels::rowwise::Rotation;
use kernels::simd::LANES;
use std::ops::Range;

/// Panels that stay in one piece of a matmul of many columns: as many as a kernel unpacks side by side.
pub const PANELS: usize = 3;
/// Least bytes of weights (times columns) of a piece of a matmul, where it can be cut at all.
const PIECE_BYTES: usize = 64 << 10;

/// A batch on its way through the plan, as one piece of a stage sees it.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    pub backend: &'a CpuBackend,
    pub batch: &'a Batch,
    pub piece: Piece,
}

impl<'a> Walk<'a> {
    /// This piece's share of a step.
    pub fn step(self, step: &'a Step) {
        match step.kind {
            StepKind::RopeTable { rope } => self.rope_table(rope),
            StepKind::Quantize { x } => self.quantize(x),
            StepKind::Op(op) => match op {
                Op::Embed { .. } => self.embed(op),
                Op::RmsNorm { .. } => self.rms_norm(op),
                Op::LayerNorm { .. } => self.layer_norm(op),
                Op::MatMul { .. } => self.matmul(op),
                Op::RopeStoreKv { .. } => self.rope_store_kv(op),
                Op::Attention { q, ref attention, out } => Attend { walk: self, spec: attention, q, out }.run(),
                Op::GatedAct { gate, up, act, out } => self.gated(gate, up, act, out),
                Op::ClampedGlu { gate, up, out } => self.clamped_glu(gate, up, out),
                Op::Act { x, act } => self.activate(x, act),
                Op::Softcap { x, cap } => self.softcap(x, cap),
                Op::Adapt { x, adapter } => self.adapt(x, adapter),
                Op::Copy { x, columns, out } => self.copy(x, columns, out),
                Op::Route { scores, routing, out } => self.route(scores, routing, out),
                Op::ExpertMatMul { x, routes, weight, bias, out } => {
                    Experts { walk: self, x, routes, weight, bias, out }.run();
                }
                Op::Combine { .. } => self.combine(op),
                Op::Gather { x, out } => self.gather(x, out),
            },
        }
    }

    /// The merge of an attention whose tiles were shared.
    pub fn merge(self, step: &'a Step) {
        if let Some(attend) = self.attention(step) {
            attend.merge();
        }
    }

    fn attention(self, step: &'a Step) -> Option<Attend<'a>> {
        match step.kind {
            StepKind::Op(Op::Attention { q, ref attention, out }) => {
                Some(Attend { walk: self, spec: attention, q, out })
            }
            _ => None,
        }
    }

    /// Into how many pieces the merge of an attention is cut: none where whole units were shared.
    pub fn merge_pieces(self, step: &'a Step) -> usize {
        self.attention(step).map_or(0, |attend| attend.pieces(self.workers())[1])
    }

    fn workers(self) -> usize {
        self.backend.pool.workers()
    }

    /// Into how many pieces a step of this batch is cut, at most.
    pub fn pieces(self, step: &'a Step) -> usize {
        let by_rows = |n: usize| if n == 1 { 1 } else { n.div_ceil(kernels::acts::TILE).min(2 * self.workers()) };
        match step.kind {
            StepKind::RopeTable { .. } => by_rows(self.batch.tokens().len()),
            StepKind::Quantize { x } => by_rows(self.n_rows(x)),
            StepKind::Op(op) => match op {
                Op::Embed { out, .. }
                | Op::RmsNorm { out, .. }
                | Op::LayerNorm { out, .. }
                | Op::GatedAct { out, .. }
                | Op::ClampedGlu { out, .. }
                | Op::Act { x: out, .. }
                | Op::Softcap { x: out, .. }
                | Op::Adapt { x: out, .. }
                | Op::Copy { out, .. }
                | Op::Route { out, .. }
                | Op::Combine { out, .. }
                | Op::Gather { out, .. } => by_rows(self.n_rows(out)),
                Op::ExpertMatMul { x, routes, weight, bias, out } => {
                    Experts { walk: self, x, routes, weight, bias, out }.pieces(self.workers())
                }
                Op::RopeStoreKv { .. } => self.batch.runs().len().min(2 * self.workers()),
                Op::Attention { .. } => self.attention(step).map_or(0, |attend| attend.pieces(self.workers())[0]),
                Op::MatMul { weight, out, .. } => match self.n_rows(out) {
                    0 => 0,
                    n => self.matmul_pieces(self.panels(weight, 0), n),
                },
            },
        }
    }

    fn matmul_pieces(self, weights: Weights, n: usize) -> usize {
        let workers = self.workers();
        let rounds = (weights.data.len() * n.min(64) / (workers * PIECE_BYTES)).clamp(1, 4);
        weights.panels().div_ceil(panels_together(n)).min(workers * rounds)
    }

    pub(super) fn plan(self) -> &'a Plan {
        &self.backend.plan
    }

    pub(super) fn precision(self) -> Precision {
        self.plan().limits().precision
    }

    /// Floats in a row of a value.
    pub(super) fn width(self, v: ValueId) -> usize {
        self.plan().width(v)
    }

    /// This worker's scratch memory.
    pub(super) fn scratch(self) -> &'a mut [f32] {
        let all = self.backend.scratch.bytes() / self.workers();
        let start = all * self.piece.worker;
        self.backend.scratch.claim(self.piece, start..start + all)
    }

    /// Rows of a value in this batch.
    pub(super) fn n_rows(self, v: ValueId) -> usize {
        match self.plan().graph().values[v.0 as usize].rows {
            Rows::Tokens => self.batch.tokens().len(),
            Rows::Outputs => self.batch.outputs().len(),
        }
    }

    /// This piece's rows of `n` where a step is cut by tokens: whole tiles of the matmul's columns, so that
    /// quantization cuts as the steps before it do.
    pub(super) fn my_rows(self, n: usize) -> Range<usize> {
        let tile = if n == 1 { 1 } else { kernels::acts::TILE };
        let tiles = self.piece.share(n.div_ceil(tile));
        (tiles.start * tile).min(n)..(tiles.end * tile).min(n)
    }

    /// Floats of a buffer's rows.
    fn read(self, buffer: Buffer, width: usize, rows: Range<usize>) -> &'a [f32] {
        let at = |row: usize| buffer.offset + row * width * 4;
        self.backend.arena.read(at(rows.start)..at(rows.end))
    }

    fn claim(self, buffer: Buffer, width: usize, rows: Range<usize>) -> &'a mut [f32] {
        let at = |row: usize| buffer.offset + row * width * 4;
        self.backend.arena.claim(self.piece, at(rows.start)..at(rows.end))
    }

    /// All rows of a value.
    pub(super) fn value(self, v: ValueId) -> &'a [f32] {
        self.rows(v, 0..self.n_rows(v))
    }

    pub(super) fn rows(self, v: ValueId, rows: Range<usize>) -> &'a [f32] {
        self.read(self.plan().value(v), self.plan().width(v), rows)
    }

    pub(super) fn rows_mut(self, v: ValueId, rows: Range<usize>) -> &'a mut [f32] {
        self.claim(self.plan().value(v), self.plan().width(v), rows)
    }

    /// Elements `cols` of one row, for writing.
    pub(super) fn row_part(self, v: ValueId, row: usize, cols: Range<usize>) -> &'a mut [f32] {
        let at = |col: usize| self.plan().value(v).offset + (row * self.plan().width(v) + col) * 4;
        self.backend.arena.claim(self.piece, at(cols.start)..at(cols.end))
    }

    pub(super) fn vector(self, w: WeightId) -> &'a [f32] {
        match &self.backend.weights.list[w.0 as usize] {
            Weight::Vector(v) => v,
            Weight::Panels { .. } => unreachable!("the builder gives vectors where the graph wants vectors"),
        }
    }

    /// The matrix of one expert; the only matrix is that of expert 0.
    pub(super) fn panels(self, w: WeightId, expert: usize) -> Weights<'a> {
        match &self.backend.weights.list[w.0 as usize] {
            Weight::Panels { format, rows, k, experts, place } => {
                let bytes = place.len() / experts;
                let data =
                    self.backend.weights.panels.read(place.start + expert * bytes..place.start + (expert + 1) * bytes);
                Weights { format: *format, rows: *rows, k: *k, data }
            }
            Weight::Vector(_) => unreachable!("the builder gives matrices where the graph wants matrices"),
        }
    }

    /// How many matrices a weight has.
    pub(super) fn experts(self, w: WeightId) -> usize {
        self.plan().graph().weights[w.0 as usize].experts
    }

    /// Cosines and sines of each token's position.
    fn rope_table(self, rope: usize) {
        let freqs = &self.plan().graph().ropes[rope];
        let width = 2 * freqs.pairs();
        if width == 0 {
            return;
        }
        let rows = self.my_rows(self.batch.tokens().len());
        let table = self.claim(self.plan().rope_table(rope), width, rows.clone());
        for (row, &position) in table.chunks_exact_mut(width).zip(&self.batch.positions()[rows]) {
            let (cos, sin) = row.split_at_mut(freqs.pairs());
            freqs.fill(position, cos, sin);
        }
    }

    fn gather(self, x: ValueId, out: ValueId) {
        let rows = self.my_rows(self.n_rows(out));
        for row in rows {
            let token = self.batch.outputs()[row] as usize;
            self.rows_mut(out, row..row + 1).copy_from_slice(self.rows(x, token..token + 1));
        }
    }

    /// Rotates queries and keys and stores keys and values, a page's run of tokens at a time: no two runs share a
    /// page.
    fn rope_store_kv(self, op: Op) {
        let Op::RopeStoreKv { q, k, v, rope, attention } = op else { return };
        let runs = self.batch.runs();
        for run in &runs[self.piece.share(runs.len())] {
            if let Some(rope) = rope {
                for token in run.tokens.clone() {
                    self.rotate(rope, token, q, attention.d_k);
                    self.rotate(rope, token, k, attention.d_k);
                }
            }
            self.store_kv(run, [k, v], &attention);
        }
    }

    fn rotate(self, rope: usize, token: usize, x: ValueId, d_k: usize) {
        let freqs = &self.plan().graph().ropes[rope];
        let table = self.read(self.plan().rope_table(rope), 2 * freqs.pairs(), token..token + 1);
        let (cos, sin) = table.split_at(freqs.pairs());
        let rotation = Rotation { pairing: freqs.pairing, cos, sin };
        (self.backend.kernels.rope)(&rotation, d_k, self.rows_mut(x, token..token + 1));
    }

    fn store_kv(self, run: &crate::batch::Run, [k, v]: [ValueId; 2], attention: &AttentionSpec) {
        let layer = &self.backend.kv_layers[attention.layer];
        let page = layer.offset + run.page as usize * layer.page();
        for head in 0..attention.n_head_kv {
            let at = page + head * layer.block;
            let block = self.backend.kv.claim::<u8>(self.piece, at..at + layer.block);
            for (i, token) in run.tokens.clone().enumerate() {
                let k = &self.rows(k, token..token + 1)[head * attention.d_k..][..attention.d_k];
                let v = &self.rows(v, token..token + 1)[head * attention.d_v..][..attention.d_v];
                (self.backend.kernels.kv_store)(self.backend.kv_type, block, run.slot + i, [k, v]);
            }
        }
    }

    /// Quantizes this piece's rows: a run of column tiles, which lie apart in each chunk along k.
    fn quantize(self, x: ValueId) {
        let Some(buffer) = self.plan().acts(x) else { return };
        let layout = layout(self.plan().limits().precision, self.plan().width(x), self.n_rows(x));
        if layout.n == 0 {
            return;
        }
        let rows = self.my_rows(layout.n);
        let tiles = layout.tiles_of(rows);
        let chunks = layout.units() / layout.tiles();
        for chunk in 0..chunks {
            let units = chunk * layout.tiles() + tiles.start..chunk * layout.tiles() + tiles.end;
            let bytes = layout.range(units.clone());
            let out = self.backend.arena.claim(self.piece, buffer.offset + bytes.start..buffer.offset + bytes.end);
            (self.backend.kernels.quantize)(self.value(x), layout, units, out);
        }
    }

    /// Who wants to see what products are fed: one piece shows it.
    pub(super) fn probe(&self) -> Option<&'a Probe> {
        self.backend.probe.as_ref().filter(|_| self.piece.index == 0)
    }

    /// Shows the rows of a product.
    fn show(self, weight: WeightId, x: ValueId) {
        let Some(probe) = self.probe() else { return };
        let info = &self.plan().graph().weights[weight.0 as usize];
        // Of matrices that are parts of one tensor, the first.
        if info.first == 0 {
            self.value(x).chunks_exact(info.k).for_each(|row| probe.see(&info.name, (0, 1), row));
        }
    }

    fn matmul(self, op: Op) {
        let Op::MatMul { x, weight, scale, bias, residual, out } = op else { return };
        let n = self.n_rows(out);
        if n == 0 {
            return;
        }
        self.show(weight, x);
        let weights = self.panels(weight, 0);
        let acts = match self.plan().acts(x) {
            Some(buffer) if integer_product(weights.format, self.plan().limits().precision) => {
                let precision = self.plan().limits().precision;
                let bytes = layout(precision, weights.k, n).bytes();
                let units = self.backend.arena.read(buffer.offset..buffer.offset + bytes);
                acts(precision, units)
            }
            _ => Acts::F32(self.value(x)),
        };
        let residual = match residual {
            None => Residual::None,
            Some(r) if self.plan().value(r) == self.plan().value(out) => Residual::Output,
            Some(r) => Residual::From(self.value(r)),
        };
        let epilogue = Epilogue { scale, bias: bias.map(|b| self.vector(b)), residual };
        let together = panels_together(n);
        let share = self.piece.share(weights.panels().div_ceil(together));
        let panels = share.start * together..(share.end * together).min(weights.panels());
        let rows = (panels.start * LANES).min(weights.rows)..(panels.end * LANES).min(weights.rows);
        let at = self.plan().value(out).offset;
        let mut columns = self.backend.arena.columns(self.piece, at, [n, weights.rows], rows);
        (self.backend.kernels.matmul)(&MatMul { weights, acts, epilogue }, panels, &mut columns);
    }
}

/// Panels that stay in one piece of a matmul of `n` columns.
fn panels_together(n: usize) -> usize {
    if n > kernels::acts::TILE { PANELS } else { 1 }
}
