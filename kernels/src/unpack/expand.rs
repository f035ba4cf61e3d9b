//! Panel blocks unpacked to memory: codes to whole bytes or to floats, scales to f32. What is unpacked once is used
//! for many columns, by loops that know no format.

use super::ahead::{prefetch, soon};
use super::{Coded, GROUP, Line, STEPS, Shape, Unpack, each_step};
use crate::matmul::CHUNK;
use crate::panel::Weights;
use crate::simd::{LANES, Simd};

/// One number a row.
pub type Lanes = [f32; LANES];

/// One group of a panel as f32: `value = scales[i / SUB] * values[i] - mins[i / SUB]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Values {
    /// `code - zero`, along k.
    pub values: [Lanes; GROUP],
    /// Scales of the group's sub-groups.
    pub scales: [Lanes; 2],
    /// Their minimums, where the format has some.
    pub mins: [Lanes; 2],
}

impl Values {
    /// All zeros.
    pub const ZERO: Values =
        Values { values: [[0.0; LANES]; GROUP], scales: [[0.0; LANES]; 2], mins: [[0.0; LANES]; 2] };

    /// Unpacks group `g` of a block.
    #[inline(always)]
    fn fill<S: Simd, U: Unpack>(&mut self, s: S, block: &U::Block, g: usize) {
        each_step!(STEP, {
            for (value, out) in U::values(s, block, g, STEP).into_iter().zip(&mut self.values[4 * STEP..]) {
                s.store(value, out);
            }
        });
        for half in 0..GROUP / U::Shape::SUB {
            let sub = g * (GROUP / U::Shape::SUB) + half;
            s.store(U::scale(s, block, sub), &mut self.scales[half]);
            if U::Shape::MINS {
                s.store(U::min(s, block, sub), &mut self.mins[half]);
            }
        }
    }
}

/// One group of a panel as codes of a byte.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Bytes {
    /// Codes, a line a step.
    pub codes: [Line; STEPS],
    /// Scales of the group's sub-groups.
    pub scales: [Lanes; 2],
    /// Their minimums, where the format has some.
    pub mins: [Lanes; 2],
}

impl Bytes {
    /// All zeros.
    pub const ZERO: Bytes = Bytes { codes: [[0; 64]; STEPS], scales: [[0.0; LANES]; 2], mins: [[0.0; LANES]; 2] };

    /// Unpacks group `g` of a block.
    #[inline(always)]
    fn fill<S: Simd, U: Coded>(&mut self, s: S, block: &U::Block, g: usize) {
        each_step!(STEP, {
            s.store_codes(U::codes(s, block, g, STEP), &mut self.codes[STEP]);
        });
        for half in 0..GROUP / U::Shape::SUB {
            let sub = g * (GROUP / U::Shape::SUB) + half;
            s.store(U::scale(s, block, sub), &mut self.scales[half]);
            if U::Shape::MINS {
                s.store(U::min(s, block, sub), &mut self.mins[half]);
            }
        }
    }
}

/// Unpacks the group `g` along k of panel `panel`.
pub type ToValues<S> = fn(S, weights: &Weights<'_>, panel: usize, g: usize, out: &mut Values);

/// The [`ToValues`] of a format. A function of its own, so that it is compiled once an ISA.
#[inline(never)]
pub fn values<S: Simd, U: Unpack>(s: S, weights: &Weights<'_>, panel: usize, g: usize, out: &mut Values) {
    let blocks = weights.all::<U>();
    let (b, g) = (panel * weights.blocks::<U>() + g * GROUP / U::K, g % (U::K / GROUP));
    s.vectorize(
        #[inline(always)]
        |s| {
            prefetch::<S, U>(s, soon::<U>(blocks, b), g);
            out.fill::<S, U>(s, &blocks[b], g);
        },
    );
}

/// How many panels are unpacked side by side.
pub const fn panels_at_a_time<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 3 } else { 1 }
}

/// Unpacks the chunk `chunk` along k of panel `panel`; groups beyond the last stay as they are.
pub type ToBytes<S> = fn(S, weights: &Weights<'_>, panel: usize, chunk: usize, out: &mut [Bytes; CHUNK]);

/// The [`ToBytes`] of a format. A function of its own, so that it is compiled once an ISA.
#[inline(never)]
pub fn bytes<S: Simd, U: Coded>(s: S, weights: &Weights<'_>, panel: usize, chunk: usize, out: &mut [Bytes; CHUNK]) {
    let (per_chunk, per_block) = (CHUNK * GROUP / U::K, U::K / GROUP);
    let (all, len) = (weights.all::<U>(), weights.blocks::<U>());
    let blocks = &all[panel * len..][chunk * per_chunk..len];
    // After the last chunk the first one of the panel that is read next.
    let next = &all[(panel + panels_at_a_time::<S>()).min(weights.panels() - 1) * len..][..len];
    s.vectorize(
        #[inline(always)]
        |s| {
            for (b, out) in out.chunks_exact_mut(per_block).enumerate().take(blocks.len()) {
                let soon = blocks.get(b + per_chunk).unwrap_or(&next[b]);
                for (g, out) in out.iter_mut().enumerate() {
                    prefetch::<S, U>(s, soon, g);
                    out.fill::<S, U>(s, &blocks[b], g);
                }
            }
        },
    );
}
