//! Reading weights as fast as memory gives them: one stretch after the other, each line asked for ahead of its use.
//!
//! A matrix is one stretch of memory, panel after panel, and a worker walks through its part of it from the first line
//! to the last: that is what every processor's own prefetchers know best. (Several panels side by side, each asked for
//! ahead, gave 10 to 15 GB/s a core where one gives 23 to 28, the machine's roof.)
//!
//! x86 asks into the second-level cache: few lines can be on their way to the first level at a time, and the arithmetic
//! waits for them. (Q4_K and Q6_K on two threads of a Zen 4: 29 GB/s, asked into the first level 24, of a roof of 31.
//! 2 KB ahead 20, 8 KB 27, 16 KB 25.)

use super::{GROUP, Unpack};
use crate::simd::Simd;

/// Bytes that are asked for ahead: the page of memory after the one that is read, where hardware stops to look.
const AHEAD: usize = 4096;

/// The block to ask for while block `at` is read: [`AHEAD`] farther on, or the last.
#[inline(always)]
pub fn soon<U: Unpack>(blocks: &[U::Block], at: usize) -> &U::Block {
    &blocks[(at + const { AHEAD.div_ceil(size_of::<U::Block>()) }).min(blocks.len() - 1)]
}

/// Asks for a part of a block: the `g`-th of as many as it has groups.
#[inline(always)]
pub fn prefetch<S: Simd, U: Unpack>(s: S, block: &U::Block, g: usize) {
    let (lines, _) = bytemuck::bytes_of(block).as_chunks::<64>();
    let part = lines.len().div_ceil(U::K / GROUP);
    for i in 0..part {
        if let Some(line) = lines.get(g * part + i) {
            s.prefetch(line);
        }
    }
}
