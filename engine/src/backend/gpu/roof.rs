//! What an adapter does at most, measured by three small kernels of our own, and by two of them whether it is as fast
//! as it was.

use super::super::{Anchor, Level, Reach};
use super::adapter::Opened;
use super::probe::{Memory, SetUp};
use crate::error::Result;
use shaders::{Kernel, Peak, ops};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wgpu::{Buffer, BufferUsages};

/// Memory that is read, if there is room: the caches of adapters are smaller by far.
const BYTES: u64 = 512 << 20;
/// The same of an anchor, which leaves the room to a model.
const ANCHOR_BYTES: u64 = 128 << 20;
/// The same of an adapter that computes on the processor, and the least of others.
const FEW_BYTES: u64 = 64 << 20;
/// Memory is filled by copies of so much that no driver can tell apart from weights.
const SEED: u64 = 16 << 20;
/// Invocations of a workgroup.
const INVOCATIONS: u64 = 256;
/// Bytes that a workgroup reads at once: eight quads an invocation.
const RUN: u64 = INVOCATIONS * 8 * 16;
/// Runs that a workgroup reads.
const READS: u32 = 4;
/// Dispatches read memory so often at least, so that starting them does not count.
const PASSES: u64 = 2;
/// Rounds of arithmetic of an invocation.
const ROUNDS: u32 = 64;
/// Operations of a round: eight chains of eight times four multiplications and additions, or of 32 dots of four codes.
const FLOAT_OPERATIONS: u64 = 8 * 8 * 4 * 2;
const INT8_OPERATIONS: u64 = 8 * 32 * 4 * 2;
/// Workgroups of arithmetic, from a few, which busy a processor, to many for every unit of a large GPU.
const GROUPS: [u32; 2] = [16, 8192];
/// A measurement lasts at least so long, so that submitting it does not count.
const LEAST: Duration = Duration::from_millis(50);
/// The same of an anchor, which is measured between any two runs.
const ANCHOR_LEAST: Duration = Duration::from_millis(10);
/// An anchor is measured after so much work: an adapter that was idle takes some milliseconds to raise its clock.
const WARM: Duration = Duration::from_millis(50);
/// So often is each made; the best counts.
const TRIES: usize = 3;

/// Bytes read and operations a second.
///
/// # Errors
/// The device was lost or has no room.
pub fn measure(gpu: &Opened) -> Result<Reach> {
    let memory = memory(gpu, BYTES)?;
    let rate = |peak: Peak| Work::new(gpu, peak, &memory, LEAST)?.rate(gpu);
    let reach = Reach { read: rate(Peak::Read)?, float: rate(Peak::Float)?, int8: rate(Peak::Int8)? };
    memory.destroy();
    Ok(reach)
}

/// The anchor of an adapter. Takes memory when it is measured first.
pub fn anchor(gpu: Arc<Opened>) -> Anchor {
    let mut works: Option<[Work; 2]> = None;
    Box::new(move || {
        let [read, float] = match &mut works {
            Some(works) => works,
            none => none.insert(anchor_works(&gpu)?),
        };
        let start = Instant::now();
        while start.elapsed() < WARM {
            float.once(&gpu)?;
        }
        Ok(Level { memory: read.shortest(&gpu)? * 1e9, arithmetic: float.shortest(&gpu)? * 1e9 })
    })
}

/// Reading and arithmetic, so much of each that it lasts at a high clock.
fn anchor_works(gpu: &Opened) -> Result<[Work; 2]> {
    let memory = memory(gpu, ANCHOR_BYTES)?;
    let work = |peak| Work::new(gpu, peak, &memory, ANCHOR_LEAST);
    let (mut read, mut float) = (work(Peak::Read)?, work(Peak::Float)?);
    let start = Instant::now();
    while start.elapsed() < WARM {
        float.rate(gpu)?;
    }
    read.rate(gpu)?;
    Ok([read, float])
}

/// A kernel with as many workgroups, and as many dispatches after each other, as it takes to last.
struct Work {
    set_up: SetUp,
    /// Bytes or operations of a workgroup.
    each: f64,
    groups: u32,
    /// Workgroups of a dispatch at most.
    many: u32,
    times: usize,
    least: Duration,
}

impl Work {
    fn new(gpu: &Opened, peak: Peak, memory: &Buffer, least: Duration) -> Result<Work> {
        let runs = memory.size() / RUN;
        let whole = (PASSES * runs).div_ceil(u64::from(READS)) as u32;
        let operations = |each: u64| INVOCATIONS * u64::from(ROUNDS) * each;
        let (rounds, each, [few, many]) = match peak {
            Peak::Read => (READS, u64::from(READS) * RUN, [whole; 2]),
            Peak::Float => (ROUNDS, operations(FLOAT_OPERATIONS), GROUPS),
            Peak::Int8 => (ROUNDS, operations(INT8_OPERATIONS), GROUPS),
        };
        let op = ops::Roof { rounds, runs: runs as u32, factor: 0.5, codes: 0x01ff_02fe, never: 0x7fc1_2345 };
        let own = Memory { op: bytemuck::bytes_of(&op), arena: &[0.0; 4], ..Memory::default() };
        let set_up = SetUp::on(gpu, Kernel::Roof(peak), &own, memory.clone())?;
        Ok(Work { set_up, each: each as f64, groups: few, many, times: 1, least })
    }

    /// Bytes or operations a second: the best of some tries, each of which makes it longer until it lasts.
    fn rate(&mut self, gpu: &Opened) -> Result<f64> {
        let mut best = 0f64;
        for _ in 0..TRIES {
            let mut taken = self.once(gpu)?;
            while taken < self.least.as_secs_f64() {
                match self.groups < self.many {
                    true => self.groups = (self.groups * 2).min(self.many),
                    false => self.times *= 2,
                }
                taken = self.once(gpu)?;
            }
            best = best.max(self.each * f64::from(self.groups) * self.times as f64 / taken);
        }
        Ok(best)
    }

    /// Seconds that it takes: the best of some tries.
    fn shortest(&self, gpu: &Opened) -> Result<f64> {
        (0..TRIES).try_fold(f64::INFINITY, |best, _| Ok(best.min(self.once(gpu)?)))
    }

    fn once(&self, gpu: &Opened) -> Result<f64> {
        let start = Instant::now();
        self.set_up.replay(gpu, [self.groups, 1], self.times)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Memory to read, as much as there is room for.
fn memory(gpu: &Opened, most: u64) -> Result<Buffer> {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
    let most = gpu.device.limits().max_storage_buffer_binding_size.min(most) / SEED * SEED;
    let mut bytes = if gpu.description.kind == "cpu" { FEW_BYTES } else { most };
    let memory = loop {
        match gpu.buffer("memory to read", bytes, usage) {
            Err(_) if bytes > FEW_BYTES => bytes = (bytes / 2).max(FEW_BYTES),
            made => break made?,
        }
    };
    let seed = gpu.mapped("memory to read", SEED)?;
    let mut words: Vec<u32> = Vec::with_capacity(SEED as usize / 4);
    let next = |word: &u32| Some(word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    words.extend(std::iter::successors(Some(1), next).take(SEED as usize / 4));
    let view = seed.get_mapped_range_mut(..);
    view.map_err(|e| gpu.error(e.to_string(), super::adapter::RELOAD))?.copy_from_slice(bytemuck::cast_slice(&words));
    seed.unmap();
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for at in (0..bytes).step_by(SEED as usize) {
        encoder.copy_buffer_to_buffer(&seed, 0, &memory, at, SEED.min(bytes - at));
    }
    gpu.queue.submit([encoder.finish()]);
    gpu.wait()?;
    Ok(memory)
}
