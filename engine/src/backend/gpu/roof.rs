//! What an adapter does at most, measured by three small kernels of our own.

use super::super::Reach;
use super::adapter::Opened;
use super::probe::{Memory, SetUp};
use crate::error::Result;
use shaders::{Kernel, Peak, ops};
use std::time::{Duration, Instant};
use wgpu::{Buffer, BufferUsages};

/// Memory that is read, if there is room: the caches of adapters are smaller by far.
const BYTES: u64 = 512 << 20;
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
/// So often is each made; the best counts.
const TRIES: usize = 3;

/// Bytes read and operations a second.
///
/// # Errors
/// The device was lost or has no room.
pub fn measure(gpu: &Opened) -> Result<Reach> {
    let memory = memory(gpu)?;
    let bytes = memory.size();
    let groups = (PASSES * bytes / RUN).div_ceil(u64::from(READS)) as u32;
    let read = rate(gpu, Peak::Read, READS, &memory, [groups; 2])? * (u64::from(READS) * RUN) as f64;
    let operations = |each: u64| (INVOCATIONS * u64::from(ROUNDS) * each) as f64;
    let float = rate(gpu, Peak::Float, ROUNDS, &memory, GROUPS)? * operations(FLOAT_OPERATIONS);
    let int8 = rate(gpu, Peak::Int8, ROUNDS, &memory, GROUPS)? * operations(INT8_OPERATIONS);
    memory.destroy();
    Ok(Reach { read, float, int8 })
}

/// Memory to read, as much as there is room for.
fn memory(gpu: &Opened) -> Result<Buffer> {
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
    let most = gpu.device.limits().max_storage_buffer_binding_size.min(BYTES) / SEED * SEED;
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

/// Workgroups a second. As many are started at once, in the bounds given, as it takes to last; then one such dispatch
/// after the other.
fn rate(gpu: &Opened, peak: Peak, rounds: u32, memory: &Buffer, [few, many]: [u32; 2]) -> Result<f64> {
    let runs = (memory.size() / RUN) as u32;
    let op = ops::Roof { rounds, runs, factor: 0.5, codes: 0x01ff_02fe, never: 0x7fc1_2345 };
    let own = Memory { op: bytemuck::bytes_of(&op), arena: &[0.0; 4], ..Memory::default() };
    let set_up = SetUp::on(gpu, Kernel::Roof(peak), &own, memory.clone())?;
    let (mut groups, mut times, mut best) = (few, 1, 0f64);
    for _ in 0..TRIES {
        loop {
            let start = Instant::now();
            set_up.replay(gpu, [groups, 1], times)?;
            let taken = start.elapsed();
            if taken >= LEAST {
                best = best.max(f64::from(groups) * times as f64 / taken.as_secs_f64());
                break;
            }
            match groups < many {
                true => groups = (groups * 2).min(many),
                false => times *= 2,
            }
        }
    }
    Ok(best)
}
