//! Where a step's time goes: every dispatch in a pass of its own between two timestamps.

use super::super::{KernelTime, Replay};
use super::GpuBackend;
use super::tables;
use crate::batch::Batch;
use crate::error::Result;
use crate::sampler::Wants;
use std::time::Instant;
use wgpu::{BufferUsages, QuerySet, QuerySetDescriptor, QueryType};

/// Dispatches that one set of timestamps has room for.
const ROOM: usize = 2048;

impl GpuBackend {
    /// Computes a batch with every dispatch timed; none if the adapter has no timestamps.
    ///
    /// # Errors
    /// The device was lost, or does not answer.
    pub(super) fn time(&mut self, batch: &Batch) -> Result<Option<Vec<KernelTime>>> {
        if !self.gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let counts = tables::count(batch);
        let mut first = Some(self.upload(batch, counts)?);
        self.list(counts, Wants::Row);
        let runs = self.runs.clone();
        let mut ticks = vec![];
        for some in runs.chunks(ROOM) {
            let count = 2 * some.len() as u32;
            let set =
                self.gpu.device.create_query_set(&QuerySetDescriptor { label: None, ty: QueryType::Timestamp, count });
            let new = || self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut encoder = first.take().unwrap_or_else(new);
            for (i, run) in some.iter().enumerate() {
                let writes = between(&set, 2 * i as u32);
                let timestamp_writes = Some(writes);
                let mut pass =
                    encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { timestamp_writes, ..Default::default() });
                self.encode(&mut pass, std::slice::from_ref(run));
            }
            let bytes = u64::from(count) * 8;
            let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
            let resolved = self.gpu.buffer("timestamps", bytes, usage)?;
            let back = self.gpu.buffer("timestamps", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
            encoder.resolve_query_set(&set, 0..count, &resolved, 0);
            encoder.copy_buffer_to_buffer(&resolved, 0, &back, 0, bytes);
            self.send(encoder);
            ticks.extend(bytemuck::pod_collect_to_vec::<u8, u64>(&self.gpu.read(&back, bytes)?));
        }
        let period = f64::from(self.gpu.queue.get_timestamp_period());
        let times = runs.iter().zip(ticks.chunks_exact(2)).map(|(run, ticks)| KernelTime {
            kernel: self.lowered.pipelines.kernel(run.pipeline).name(),
            ns: ticks[1].saturating_sub(ticks[0]) as f64 * period,
            bytes: run.bytes,
        });
        Ok(Some(times.collect()))
    }

    /// Computes a batch and says what replaying it takes.
    ///
    /// # Errors
    /// As [`GpuBackend::time`].
    pub(super) fn replayed(&mut self, batch: &Batch) -> Result<Replay> {
        let start = Instant::now();
        self.submit(batch, Wants::Row)?;
        let encode = start.elapsed();
        self.read_rows(batch)?;
        let bytes = self.runs.iter().map(|run| run.bytes).sum();
        Ok(Replay { dispatches: self.runs.len(), bytes, encode })
    }
}

fn between(set: &QuerySet, first: u32) -> wgpu::ComputePassTimestampWrites<'_> {
    wgpu::ComputePassTimestampWrites {
        query_set: set,
        beginning_of_pass_write_index: Some(first),
        end_of_pass_write_index: Some(first + 1),
    }
}
