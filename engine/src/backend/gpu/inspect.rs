//! One operation at a time, and what it has written: a submit and a read-back for each.

use super::super::written::{Memory, Written, written};
use super::GpuBackend;
use super::lower::Run;
use super::tables;
use crate::batch::Batch;
use crate::error::Result;
use crate::graph::{AttentionSpec, Rows, ValueId};
use crate::kv::PAGE;
use crate::sampler::Wants;
use half::f16;
use wgpu::{Buffer, BufferUsages};

impl GpuBackend {
    /// Computes one operation, all before it having been computed.
    pub(super) fn one(&mut self, batch: &Batch, index: usize) -> Result<Vec<Written>> {
        let counts = tables::count(batch);
        let mut encoder = self.upload(batch, counts)?;
        self.list(counts, Wants::Row);
        let own = self.runs.iter().filter(|run| self.lowered.dispatches[run.dispatch].operation == index);
        let own: Vec<Run> = own.copied().collect();
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        self.encode(&mut pass, &own);
        drop(pass);
        self.send(encoder);
        let graph = self.plan.graph();
        written(graph, &graph.ops[index], &Seen { backend: self, batch })
    }

    /// Some bytes of a buffer, after all work.
    fn fetch(&self, from: &Buffer, at: u64, bytes: u64) -> Result<Vec<u8>> {
        let to = self.gpu.buffer("results", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(from, at, &to, 0, bytes);
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.read(&to, bytes)
    }
}

/// The memory of a backend after a batch.
struct Seen<'a> {
    backend: &'a GpuBackend,
    batch: &'a Batch,
}

impl Memory for Seen<'_> {
    fn value(&self, v: ValueId) -> Result<Vec<f32>> {
        let plan = &self.backend.plan;
        let rows = match plan.graph().values[v.0 as usize].rows {
            Rows::Tokens => self.batch.tokens().len(),
            Rows::Outputs => self.batch.outputs().len(),
        };
        let bytes = (rows * plan.width(v) * 4) as u64;
        let found = self.backend.fetch(&self.backend.buffers.arena, plan.value(v).offset as u64, bytes)?;
        Ok(bytemuck::pod_collect_to_vec(&found))
    }

    /// As `cache.wgsl` lays them out.
    fn cached(&self, a: &AttentionSpec) -> Result<[Vec<f32>; 2]> {
        let place = self.backend.buffers.kv[a.layer];
        let bytes = self.backend.cache_bytes[a.layer];
        let found = self.backend.fetch(&self.backend.buffers.caches[place.buffer], place.at, bytes)?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&found);
        let per = self.backend.per_word;
        let [of_key, of_value] = [a.d_k, a.d_v].map(|d| d.div_ceil(per));
        let element = |word: u32, d: usize| match per {
            2 => f16::from_bits((word >> (16 * (d % 2))) as u16).to_f32(),
            _ => f32::from_bits(word),
        };
        let [mut keys, mut values] = [vec![], vec![]];
        for run in self.batch.runs() {
            for slot in run.slot..run.slot + run.tokens.len() {
                for head in 0..a.n_head_kv {
                    let key = (run.page as usize * a.n_head_kv + head) * PAGE * (of_key + of_value);
                    let value = key + PAGE * of_key + slot * of_value;
                    keys.extend((0..a.d_k).map(|d| element(words[key + d / per * PAGE + slot], d)));
                    values.extend((0..a.d_v).map(|d| element(words[value + d / per], d)));
                }
            }
        }
        Ok([keys, values])
    }
}
