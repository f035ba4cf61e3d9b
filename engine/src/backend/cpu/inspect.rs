//! One operation at a time, and what it has written.

use super::super::pool::Arena;
use super::super::written::{Memory, Written, written};
use super::{CpuBackend, KvLayer, Stage, Step};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::graph::{AttentionSpec, Op, Rows, ValueId};
use crate::plan::StepKind;
use bytemuck::Pod;
use half::f16;
use kernels::kv::{KvType, PAGE, value_stride};

impl CpuBackend {
    /// Computes one operation, and the steps that it needs and no operation before it did.
    pub(super) fn one(&mut self, batch: &Batch, index: usize) -> Result<Vec<Written>> {
        let steps = self.plan.steps();
        let mut ends = steps.iter().enumerate().filter(|(_, s)| matches!(s.kind, StepKind::Op(_))).map(|(i, _)| i);
        let (before, last) = match index {
            0 => (None, ends.next()),
            i => (ends.nth(i - 1), ends.next()),
        };
        let last = last.ok_or_else(|| Error::Internal(format!("the plan has no operation {index}")))?;
        let mut stages: Vec<Stage> =
            (before.map_or(0, |i| i + 1)..=last).map(|step| Stage::Steps(step..step + 1)).collect();
        if matches!(steps[last].kind, StepKind::Op(Op::Attention { .. })) {
            stages.push(Stage::Merge(last));
        }
        let pieces: Vec<u16> = stages.iter().map(|stage| self.cut(stage, batch)).collect();
        self.pool.pass(&pieces, &Step { backend: self, batch, stages: &stages }).map_err(Error::Internal)?;
        let graph = self.plan.graph();
        written(graph, &graph.ops[index], &Seen { backend: self, batch })
    }

    /// The rows of a value that a batch has.
    pub(super) fn value(&self, batch: &Batch, v: ValueId) -> &[f32] {
        let rows = match self.plan.graph().values[v.0 as usize].rows {
            Rows::Tokens => batch.tokens().len(),
            Rows::Outputs => batch.outputs().len(),
        };
        let at = self.plan.value(v).offset;
        self.arena.read(at..at + rows * self.plan.width(v) * 4)
    }
}

/// The memory of a backend after a batch.
struct Seen<'a> {
    backend: &'a CpuBackend,
    batch: &'a Batch,
}

impl Memory for Seen<'_> {
    fn value(&self, v: ValueId) -> Result<Vec<f32>> {
        Ok(self.backend.value(self.batch, v).to_vec())
    }

    fn cached(&self, attention: &AttentionSpec) -> Result<[Vec<f32>; 2]> {
        let (kv, layer) = (&self.backend.kv, &self.backend.kv_layers[attention.layer]);
        Ok(match self.backend.kv_type {
            KvType::F16 => read(kv, layer, attention, self.batch, |bits: u16| f16::from_bits(bits).to_f32()),
            KvType::F32 => read(kv, layer, attention, self.batch, |x: f32| x),
        })
    }
}

/// Keys and values of a batch's tokens, out of the blocks that [`kernels::kv`] describes.
fn read<E: Pod>(
    kv: &Arena,
    layer: &KvLayer,
    a: &AttentionSpec,
    batch: &Batch,
    widen: impl Fn(E) -> f32,
) -> [Vec<f32>; 2] {
    let [mut keys, mut values] = [vec![], vec![]];
    for run in batch.runs() {
        for slot in run.slot..run.slot + run.tokens.len() {
            for head in 0..a.n_head_kv {
                let at = layer.offset + run.page as usize * layer.page() + head * layer.block;
                let block: &[E] = kv.read(at..at + layer.block);
                keys.extend((0..a.d_k).map(|d| widen(block[d * PAGE + slot])));
                let value = &block[PAGE * a.d_k + slot * value_stride(a.d_v)..][..a.d_v];
                values.extend(value.iter().map(|&e| widen(e)));
            }
        }
    }
    [keys, values]
}
