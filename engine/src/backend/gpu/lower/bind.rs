//! Pipelines and bind groups: one for each set of buffers, whichever dispatches bind it. Their parameters lie side by side in
//! one buffer, at an offset that each dispatch names.

use super::super::adapter::Opened;
use super::super::cache::Kept;
use super::super::pipelines::Pipelines;
use super::super::tables::HEAD;
use super::{Dispatch, Extent, FINDERS, Form, Lower, Lowered, Wanted};
use crate::error::Result;
use crate::graph::Op;
use crate::plan::{Plan, StepKind};
use shaders::{Binding, Kernel, place};
use std::collections::HashMap;
use wgpu::{BindGroup, Buffer, BufferUsages};

/// Bytes from one kernel's parameters to the next: the coarsest alignment that an adapter may ask for.
const OP_STRIDE: usize = 256;

/// What tells bind groups apart: the list of bindings, the buffer of weights, the buffer of caches.
type Key = (&'static [Binding], Option<usize>, Option<usize>);

/// Bytes of the parameters of a plan's kernels, where no tensor is cut.
pub fn parameter_bytes(plan: &Plan) -> u64 {
    let of = |kind: &StepKind| match kind {
        StepKind::RopeTable { .. } => 0,
        // Its tiles are merged.
        StepKind::Op(Op::Attention { .. }) => 2,
        _ => 1,
    };
    let kernels: usize = plan.steps().iter().map(|step| of(&step.kind)).sum();
    ((kernels + FINDERS) * OP_STRIDE) as u64
}

impl<'a> Lower<'a> {
    /// Makes pipelines and bind groups.
    pub(super) fn build(self, gpu: &Opened) -> Result<Lowered> {
        let mut params = vec![0; self.wanted.len() * OP_STRIDE];
        for (i, w) in self.wanted.iter().enumerate() {
            params[i * OP_STRIDE..][..w.op.len()].copy_from_slice(&w.op);
        }
        let room = parameter_bytes(self.plan).max(params.len() as u64);
        let uniform = gpu.buffer("parameters", room, BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
        gpu.queue.write_buffer(&uniform, 0, &params);
        let kept = self.options.checks.as_ref().and_then(|folder| Kept::open(gpu, folder));
        let (mut pipelines, mut keys) = (Pipelines::new(kept), HashMap::new());
        let (mut dispatches, mut groups) = (vec![], vec![]);
        for (i, w) in self.wanted.iter().enumerate() {
            let mut kernels = vec![];
            for &(columns, kernel, others) in &w.kernels {
                let most = if let Kernel::MatMul { way, .. } = kernel { way.most(columns) } else { usize::MAX };
                kernels.push(Form { columns, most, pipeline: pipelines.get(gpu, kernel)?, others });
            }
            let cache = w.kv.map(|layer| self.buffers.kv[layer].buffer);
            let key: Key = (w.kernels[0].1.bindings(), w.part.map(|part| part.buffer), cache);
            let group = *keys.entry(key).or_insert_with(|| {
                groups.push(self.bind(gpu, &pipelines, w, &uniform));
                groups.len() - 1
            });
            let operation = self.ends.partition_point(|&end| end <= i);
            let product = matches!(w.extent, Extent::Columns(_));
            let bytes = w.part.filter(|_| product).map_or(0, |part| part.bytes);
            let parameters = (i * OP_STRIDE) as u32;
            dispatches.push(Dispatch {
                kernels,
                group,
                parameters,
                extent: w.extent,
                bytes,
                operation,
                finds: w.finds,
            });
        }
        gpu.check()?;
        pipelines.keep();
        Ok(Lowered { dispatches, groups, pipelines })
    }

    fn bind(&self, gpu: &Opened, pipelines: &Pipelines, w: &Wanted<'a>, uniform: &Buffer) -> BindGroup {
        let kernel = w.kernels[0].1;
        let whole = Buffer::as_entire_buffer_binding;
        let entries: Vec<_> = kernel
            .bindings()
            .iter()
            .filter_map(|b| {
                let tables = &self.buffers.tables;
                let binding = match b.index {
                    place::STEP => {
                        wgpu::BufferBinding { size: wgpu::BufferSize::new(HEAD as u64 * 4), ..whole(tables) }
                    }
                    place::OP => {
                        wgpu::BufferBinding { size: wgpu::BufferSize::new(OP_STRIDE as u64), ..whole(uniform) }
                    }
                    place::ARENA => whole(&self.buffers.arena),
                    place::QUADS | place::WORDS => whole(&self.buffers.weights.buffers[w.part?.buffer]),
                    place::CACHE => whole(&self.buffers.caches[self.buffers.kv[w.kv?].buffer]),
                    place::RESULTS => whole(&self.buffers.results),
                    place::TABLES => wgpu::BufferBinding { offset: HEAD as u64 * 4, ..whole(tables) },
                    _ => whole(&self.buffers.weights.vectors),
                };
                Some(wgpu::BindGroupEntry { binding: b.index, resource: wgpu::BindingResource::Buffer(binding) })
            })
            .collect();
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: pipelines.layout(kernel),
            entries: &entries,
        })
    }
}
