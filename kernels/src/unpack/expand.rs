//! Panel blocks unpacked to memory: codes to whole bytes or to floats, scales to f32. What is unpacked once is used
//! for many columns, by loops that know no format.

use super::{Coded, GROUP, Line, STEPS, Shape, Unpack, each_step};
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
    pub const ZERO: Values = Values { values: [[0.0; LANES]; GROUP], scales: [[0.0; LANES]; 2], mins: [[0.0; LANES]; 2] };

    /// Unpacks group `g` of a row of blocks.
    #[inline(always)]
    pub fn expand<S: Simd, U: Unpack>(&mut self, s: S, blocks: &[U::Block], g: usize) {
        let (block, g) = (&blocks[g * GROUP / U::K], g % (U::K / GROUP));
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
    pub fn expand<S: Simd, U: Coded>(&mut self, s: S, block: &U::Block, g: usize) {
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
