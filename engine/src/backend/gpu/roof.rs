//! What an adapter does at most, measured by two small kernels of our own.

use super::super::Reach;
use super::adapter::Opened;
use super::probe::{Memory, SetUp};
use crate::error::Result;
use shaders::{Kernel, ROW_WG, ops};
use std::time::{Duration, Instant};

/// Memory that is read; the caches of most adapters are smaller.
const BYTES: usize = 64 << 20;
/// Reads of an invocation.
const READS: usize = 64;
/// Rounds of arithmetic of an invocation, each 32 multiplications and additions.
const ROUNDS: usize = 256;
/// Workgroups of arithmetic.
const GROUPS: usize = 4096;
/// A measurement lasts at least so long, so that submitting it does not count.
const LEAST: Duration = Duration::from_millis(100);
/// So often is each made; the best counts.
const TRIES: usize = 3;

/// Bytes read and operations a second.
///
/// # Errors
/// The device was lost or has no room.
pub fn measure(gpu: &Opened) -> Result<Reach> {
    let weights = vec![0u32; BYTES / 4];
    let quads = BYTES / 16;
    let op = |rounds: usize| ops::Roof { rounds: rounds as u32, quads: quads as u32, factor: 0.5, never: 0x7fc1_2345 };
    let arena = [0.0f32; 4];
    let run = |read: bool, rounds: usize, groups: usize| -> Result<f64> {
        let op = op(rounds);
        let memory = Memory {
            op: bytemuck::bytes_of(&op),
            arena: &arena,
            weights: if read { &weights } else { &weights[..4] },
            ..Memory::default()
        };
        let set_up = SetUp::new(gpu, Kernel::Roof { read }, &memory)?;
        let (mut times, mut best) = (1, f64::INFINITY);
        for _ in 0..TRIES {
            loop {
                let start = Instant::now();
                set_up.replay(gpu, [groups as u32, 1], times)?;
                let taken = start.elapsed();
                if taken >= LEAST {
                    best = best.min(taken.as_secs_f64() / times as f64);
                    break;
                }
                times *= 2;
            }
        }
        Ok(best)
    };
    let groups = quads / READS / ROW_WG;
    let read = BYTES as f64 / run(true, READS, groups)?;
    let operations = (GROUPS * ROW_WG * ROUNDS * 8 * 4 * 2) as f64;
    Ok(Reach { read, float: operations / run(false, ROUNDS, GROUPS)? })
}
