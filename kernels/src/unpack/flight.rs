//! Reading weights as fast as memory gives them: several panels side by side, each asked for ahead of its use.

use super::{GROUP, Unpack};
use crate::panel::Weights;
use crate::simd::Simd;

/// Bytes that are asked for ahead in each panel. At 20 GB/s and two panels this is 200 ns, twice a memory's latency.
const AHEAD: usize = 2048;

/// Blocks by which [`AHEAD`] is ahead.
pub const fn ahead<U: Unpack>() -> usize {
    AHEAD.div_ceil(size_of::<U::Block>())
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

/// `P` panels that are read side by side, and the next `P`.
pub struct Flight<'a, U: Unpack, const P: usize> {
    now: [&'a [U::Block]; P],
    next: [&'a [U::Block]; P],
}

impl<'a, U: Unpack, const P: usize> Flight<'a, U, P> {
    /// The panels from `first` on. At `end` and beyond the last panel before it stands in: its sums are not stored.
    #[inline(always)]
    pub fn new(weights: &Weights<'a>, first: usize, end: usize) -> Self {
        let (mut now, mut next) = ([&[][..]; P], [&[][..]; P]);
        for p in 0..P {
            now[p] = weights.panel::<U>((first + p).min(end - 1));
            next[p] = weights.panel::<U>((first + P + p).min(end - 1));
        }
        Flight { now, next }
    }

    /// Blocks of a panel.
    #[inline(always)]
    pub fn blocks(&self) -> usize {
        self.now[0].len()
    }

    /// Block `b` of each panel, and the block of each to ask for meanwhile.
    #[inline(always)]
    pub fn at(&self, b: usize) -> ([&'a U::Block; P], [&'a U::Block; P]) {
        let (mut now, mut soon) = ([&self.now[0][0]; P], [&self.now[0][0]; P]);
        let (len, at) = (self.blocks(), b + ahead::<U>());
        for p in 0..P {
            now[p] = &self.now[p][b];
            soon[p] = if at < len { &self.now[p][at] } else { &self.next[p][(at - len).min(len - 1)] };
        }
        (now, soon)
    }
}
