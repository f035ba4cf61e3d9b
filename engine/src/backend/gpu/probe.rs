//! One kernel at a time, on memory that the caller gives: for tests, for measurements, and for the check that a
//! driver computes what the kernels say.

use super::adapter::Opened;
use super::pipelines::Pipelines;
use super::tables::HEAD;
use crate::backend::pool::Lines;
use crate::error::Result;
use kernels::acts;
use shaders::layout::GROUP;
use shaders::{Kernel, place};
use wgpu::{Buffer, BufferUsages};

/// What a kernel is run on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory<'a> {
    /// What changes from step to step, as `Step` of `step.wgsl`, then the tables.
    pub tables: &'a [u32],
    /// The kernel's parameters.
    pub op: &'a [u8],
    /// What steps compute.
    pub arena: &'a [f32],
    /// Weights in the layout of their format.
    pub weights: &'a [u32],
    /// One layer of the KV cache, or the results of a kernel that has some.
    pub cache: &'a [u32],
    /// Vectors.
    pub vectors: &'a [f32],
}

/// What a kernel has left behind.
#[derive(Clone, Debug, PartialEq)]
pub struct After {
    /// What steps compute.
    pub arena: Vec<f32>,
    /// The layer of the KV cache.
    pub cache: Vec<u32>,
}

fn upload(gpu: &Opened, what: &str, bytes: &[u8], usage: BufferUsages) -> Result<Buffer> {
    let usage = usage | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
    let buffer = gpu.buffer(what, bytes.len() as u64, usage)?;
    gpu.queue.write_buffer(&buffer, 0, bytes);
    Ok(buffer)
}

/// A kernel with its memory on the device.
pub struct SetUp {
    pipelines: Pipelines,
    pipeline: usize,
    group: wgpu::BindGroup,
    arena: Buffer,
    cache: Buffer,
}

impl SetUp {
    /// Brings a kernel's memory to the device.
    ///
    /// # Errors
    /// The driver refuses it, or there is no room.
    pub fn new(gpu: &Opened, kernel: Kernel, memory: &Memory) -> Result<SetUp> {
        let weights = upload(gpu, "weights", bytemuck::cast_slice(memory.weights), BufferUsages::STORAGE)?;
        SetUp::on(gpu, kernel, memory, weights)
    }

    /// The same with weights that are there already.
    ///
    /// # Errors
    /// As [`SetUp::new`].
    pub fn on(gpu: &Opened, kernel: Kernel, memory: &Memory, weights: Buffer) -> Result<SetUp> {
        let mut pipelines = Pipelines::default();
        let pipeline = pipelines.get(gpu, kernel)?;
        let mut tables = memory.tables.to_vec();
        tables.resize(tables.len().max(HEAD) + 64, 0);
        let storage = BufferUsages::STORAGE;
        let tables = upload(gpu, "tables", bytemuck::cast_slice(&tables), storage | BufferUsages::UNIFORM)?;
        let mut op = memory.op.to_vec();
        op.resize(op.len().next_multiple_of(16), 0);
        let op = upload(gpu, "parameters", &op, BufferUsages::UNIFORM)?;
        let arena = upload(gpu, "arena", bytemuck::cast_slice(memory.arena), storage)?;
        let cache = upload(gpu, "cache", bytemuck::cast_slice(memory.cache), storage)?;
        let vectors = upload(gpu, "vectors", bytemuck::cast_slice(memory.vectors), storage)?;
        let entry = |b: &shaders::Binding| {
            let binding = match b.index {
                place::STEP => wgpu::BufferBinding {
                    size: wgpu::BufferSize::new(HEAD as u64 * 4),
                    ..tables.as_entire_buffer_binding()
                },
                place::OP => op.as_entire_buffer_binding(),
                place::ARENA => arena.as_entire_buffer_binding(),
                place::QUADS | place::WORDS => weights.as_entire_buffer_binding(),
                place::CACHE | place::RESULTS => cache.as_entire_buffer_binding(),
                place::TABLES => wgpu::BufferBinding { offset: HEAD as u64 * 4, ..tables.as_entire_buffer_binding() },
                _ => vectors.as_entire_buffer_binding(),
            };
            wgpu::BindGroupEntry { binding: b.index, resource: wgpu::BindingResource::Buffer(binding) }
        };
        let entries: Vec<_> = kernel.bindings().iter().map(entry).collect();
        let layout = pipelines.layout(kernel);
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries });
        Ok(SetUp { pipelines, pipeline, group, arena, cache })
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder, [x, y, z]: [u32; 3], times: usize) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipelines.all()[self.pipeline]);
        pass.set_bind_group(0, &self.group, &[0]);
        for _ in 0..times {
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Runs it so many times with so many workgroups and waits.
    ///
    /// # Errors
    /// The device was lost, or does not answer.
    pub fn replay(&self, gpu: &Opened, [x, y]: [u32; 2], times: usize) -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.encode(&mut encoder, [x, y, 1], times);
        gpu.queue.submit([encoder.finish()]);
        gpu.read_with(&self.arena, 0, &mut |_| ())
    }
}

/// Rows of `k` floats as the processor quantizes them, laid out as `quantize.wgsl` does that, and what the codes stand for.
///
/// # Errors
/// There is no memory for them.
///
/// # Panics
/// If `k` is no multiple of 32.
pub fn quantized(x: &[f32], k: usize) -> Result<(Vec<u32>, Vec<f64>)> {
    let (quantize, layout) = (kernels::Kernels::best().quantize, acts::Layout::new(k, 1));
    let mut lines = Lines::zeroed(layout.bytes())?;
    let (mut words, mut values) = (vec![], vec![]);
    for row in x.chunks(k) {
        let units = &mut lines.bytes_mut()[..layout.bytes()];
        quantize(row, layout, 0..layout.units(), units);
        let units = acts::Units::<1>::new(units, layout);
        for group in (0..units.chunks()).flat_map(|chunk| units.get(chunk, 0)).take(k / GROUP) {
            let field = |i: usize| group[i][0].cast_unsigned();
            let sums = [acts::SCALED_HALF_SUMS, acts::SCALED_HALF_SUMS + 1, acts::SCALED_SUM];
            words.extend((0..=acts::SCALE).chain(sums).map(field));
            let scale = f64::from(f32::from_bits(field(acts::SCALE)));
            let codes = (0..acts::SCALE).flat_map(|i| field(i).to_le_bytes());
            values.extend(codes.map(|code| scale * f64::from(code.cast_signed())));
        }
    }
    Ok((words, values))
}

/// Runs a kernel with `x` times `y` workgroups.
///
/// # Errors
/// The driver refuses it.
pub fn run(gpu: &Opened, kernel: Kernel, memory: &Memory, [x, y]: [u32; 2]) -> Result<After> {
    run_in(gpu, kernel, memory, [x, y, 1])
}

/// The same with `z` times as many.
///
/// # Errors
/// As there.
pub fn run_in(gpu: &Opened, kernel: Kernel, memory: &Memory, grid: [u32; 3]) -> Result<After> {
    let set_up = SetUp::new(gpu, kernel, memory)?;
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    set_up.encode(&mut encoder, grid, 1);
    let back = [read_later(gpu, &mut encoder, &set_up.arena)?, read_later(gpu, &mut encoder, &set_up.cache)?];
    gpu.queue.submit([encoder.finish()]);
    let [arena, cache] = back.map(|buffer| gpu.read(&buffer, buffer.size()));
    let (mut arena, mut cache) = (bytemuck::pod_collect_to_vec(&arena?), bytemuck::pod_collect_to_vec(&cache?));
    arena.truncate(memory.arena.len());
    cache.truncate(memory.cache.len());
    Ok(After { arena, cache })
}

fn read_later(gpu: &Opened, encoder: &mut wgpu::CommandEncoder, from: &Buffer) -> Result<Buffer> {
    let buffer = gpu.buffer("results", from.size(), BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
    encoder.copy_buffer_to_buffer(from, 0, &buffer, 0, from.size());
    Ok(buffer)
}
