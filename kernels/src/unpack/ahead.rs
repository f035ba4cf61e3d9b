//! Reading weights as fast as memory gives them: one stretch after the other, each line asked for ahead of its use.
//!
//! A matrix is one stretch of memory, panel after panel, and a worker walks through its part of it from the first line
//! to the last: that is what every processor's own prefetchers know best. (Several panels side by side, each asked for
//! ahead, gave 10 to 15 GB/s a core where one gives 23 to 28, the machine's roof.)
//!
//! x86 asks into the second-level cache: few lines can be on their way to the first level at a time, and the arithmetic
//! waits for them. (Q4_K and Q6_K on two threads of a Zen 4: 29 GB/s, asked into the first level 24, of a roof of 31.
//! 2 KB ahead 20, 8 KB 27, 16 KB 25.) It asks for one line of each 128 bytes, since the neighbour comes along; to ask for
//! both keeps the few places for lines on their way busy. (One thread, of 28 to 31 GB/s: F16 19 to 29 GB/s, Q4_1 22 to 30,
//! Q4_K 22 to 26; Q8_0 28 and Q6_K 23 either way; not asked at all, Q8_0 22. Two chains of sums abreast, which two groups
//! at a time would allow, gave F16 17 to 20 GB/s, four 12 to 14: the next line must be the next in memory.)

use super::{GROUP, Unpack};
use crate::simd::Simd;

/// Bytes that are asked for ahead: the page of memory after the one that is read, where hardware stops to look.
const AHEAD: usize = 4096;

/// The block to ask for while block `at` is read: [`AHEAD`] farther on, or the last.
#[inline(always)]
pub fn soon<U: Unpack>(blocks: &[U::Block], at: usize) -> &U::Block {
    &blocks[(at + const { AHEAD.div_ceil(size_of::<U::Block>()) }).min(blocks.len() - 1)]
}

/// Asks for a part of a block: the `g`-th of as many as it has groups. One line of every two that share 128 bytes.
#[inline(always)]
pub fn prefetch<S: Simd, U: Unpack>(s: S, block: &U::Block, g: usize) {
    let (lines, _) = bytemuck::bytes_of(block).as_chunks::<64>();
    let odd = (lines.as_ptr().addr() >> 6) & 1;
    let (pairs, parts) = (lines.len().div_ceil(2), U::K / GROUP);
    for pair in pairs * g / parts..pairs * (g + 1) / parts {
        s.prefetch(&lines[(2 * pair + odd).min(lines.len() - 1)]);
    }
}
