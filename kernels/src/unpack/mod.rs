//! Formats as the matmul sees them: a panel block unpacks to codes, scales and minimums of sixteen rows.
//!
//! `value = scale * (code - zero) - min`. A format is one type here that implements [`Unpack`], and [`Coded`] where
//! it has integer codes; [`Table::ROWS`] is the list. Nothing else in this crate names a format.
//!
//! A **panel block** holds [`Unpack::K`] consecutive values along k of sixteen rows. Codes lie in groups of 32
//! along k, a group in eight **steps** of four, so that a step is 64 bytes: byte `4 * row + i`. Codes narrower
//! than a byte share lines ([`codes`]); bits above the fourth or second lie in lines of their own. Scales lie lane
//! by lane. So a block is about as long as the sixteen rows in the file.

pub mod ahead;
pub mod expand;
pub mod float;
pub mod kquant;
pub mod legacy;
pub mod scaled;

use crate::Columns;
use crate::acts::Layout;
use crate::isa::Token;
use crate::matmul::{self, MatMul};
use crate::simd::{LANES, Simd};
use bytemuck::Pod;
use expand::ToValues;
use gguf::Format;
use gguf::format as file;
use std::ops::Range;

/// Values along k of a group.
pub const GROUP: usize = 32;
/// Steps of a group: 4 values along k each.
pub const STEPS: usize = 8;
/// One step of codes of sixteen rows.
pub type Line = [u8; 64];

/// What the integer matmul must know of a format: it is compiled once for each shape.
pub trait Shape: 'static {
    /// The largest code; 255 says that codes are signed bytes biased by 128. 0 where there are no codes.
    const MAX: u8;
    /// The code of the value 0: a power of two, or 0.
    const ZERO: u8;
    /// Values along k that share a scale and a minimum: 32 or 16.
    const SUB: usize;
    /// Whether there are minimums.
    const MINS: bool;
}

/// A shape by its numbers.
pub struct Codes<const MAX: u8, const ZERO: u8, const SUB: usize, const MINS: bool>;

impl<const MAX: u8, const ZERO: u8, const SUB: usize, const MINS: bool> Shape for Codes<MAX, ZERO, SUB, MINS> {
    const MAX: u8 = MAX;
    const ZERO: u8 = ZERO;
    const SUB: usize = SUB;
    const MINS: bool = MINS;
}

/// The shape of plain floats.
pub type Floats = Codes<0, 0, GROUP, false>;

/// A format's panel block.
pub trait Unpack: 'static {
    /// Sixteen rows of [`Unpack::K`] values. Its size is a multiple of 64 bytes.
    type Block: Pod;
    /// Values along k of a block, a multiple of 32.
    const K: usize;
    /// What values are made of.
    type Shape: Shape;

    /// The four values `code - zero` of a step (a constant at every call) of group `g`, before the scale.
    fn values<S: Simd>(s: S, block: &Self::Block, g: usize, step: usize) -> [S::F32; 4];
    /// The scales of sub-group `sub`, counted within the block.
    fn scale<S: Simd>(s: S, block: &Self::Block, sub: usize) -> S::F32;
    /// The minimums of sub-group `sub`, counted within the block.
    fn min<S: Simd>(s: S, block: &Self::Block, sub: usize) -> S::F32;
}

/// A format whose panel block is one of its own.
pub trait Pack: Unpack {
    /// The format in the file.
    const FORMAT: Format;
    /// Writes one row of a block, all zeros before, from up to [`Unpack::K`] values of a file's row.
    fn pack(file: &[u8], lane: usize, block: &mut Self::Block);
}

/// A format with integer codes.
pub trait Coded: Unpack {
    /// Step `step` (a constant at every call) of group `g`.
    fn codes<S: Simd>(s: S, block: &Self::Block, g: usize, step: usize) -> S::Codes;
}

/// The body once for each step of a group, `$step` a constant in each.
macro_rules! each_step {
    ($step:ident, $body:block) => {
        each_step!($step, $body, 0 1 2 3 4 5 6 7)
    };
    ($step:ident, $body:block, $($value:literal)*) => {
        $({
            const $step: usize = $value;
            $body
        })*
    };
}
pub(crate) use each_step;

/// A matmul over a range of panels.
pub type Run<S> = fn(S, &MatMul<'_>, Range<usize>, &mut Columns<'_>);

/// A matmul over a range of panels with quantized activations: their bytes and layout.
pub type RunCodes<S> = fn(S, &MatMul<'_>, (&[u8], Layout), Range<usize>, &mut Columns<'_>);

/// What the crate does with a format on one ISA.
pub struct Row<S: Token> {
    /// The format.
    pub format: Format,
    /// Values along k that are packed at a time: one panel block, or some.
    pub k: usize,
    /// Bytes of what they become.
    pub bytes: usize,
    /// Writes one row of them, see [`Pack::pack`].
    pub pack: fn(file: &[u8], lane: usize, block: &mut [u8]),
    /// The matmul over quantized activations, where there are codes.
    pub q8: Option<RunCodes<S>>,
    /// The matmul over activations in f32.
    pub f32: Run<S::Float>,
    /// Unpacks a group to f32.
    pub values: ToValues<S::Float>,
    /// [`Shape::SUB`].
    pub sub: usize,
    /// [`Shape::MINS`].
    pub mins: bool,
}

/// The list of formats for an ISA.
pub trait Table: Token {
    /// One row a format.
    const ROWS: &'static [Row<Self>];

    /// The row of a format, `None` where there are no kernels for it.
    fn row(format: Format) -> Option<&'static Row<Self>> {
        Self::ROWS.iter().find(|row| row.format == format)
    }
}

impl<S: Token> Table for S {
    const ROWS: &'static [Row<S>] = &[
        dense::<S, float::F32>(),
        dense::<S, float::F16>(),
        dense::<S, float::BF16>(),
        coded::<S, legacy::Q4_0>(),
        coded::<S, legacy::Q4_1>(),
        coded::<S, legacy::Q5_0>(),
        coded::<S, legacy::Q5_1>(),
        coded::<S, legacy::Q8_0>(),
        coded::<S, legacy::Q4E>(),
        coded::<S, kquant::Q2K>(),
        coded::<S, kquant::Q3K>(),
        coded::<S, kquant::Q4K>(),
        coded::<S, kquant::Q5K>(),
        coded::<S, kquant::Q6K>(),
        wide::<S, file::IQ2XXS>(),
        wide::<S, file::IQ2XS>(),
        wide::<S, file::IQ2S>(),
        wide::<S, file::IQ3XXS>(),
        wide::<S, file::IQ3S>(),
        wide::<S, file::IQ1S>(),
        wide::<S, file::IQ1M>(),
        wide::<S, file::NVFP4>(),
        wide::<S, file::TQ1_0>(),
        wide::<S, file::TQ2_0>(),
        wide::<S, file::Q1_0>(),
        wide::<S, file::Q2_0>(),
        shared::<S, scaled::Table<scaled::Iq4>>(Format::IQ4NL, 1, |file, lane, blocks| {
            scaled::pack_iq4_nl(file, lane, bytemuck::cast_slice_mut(blocks));
        }),
        shared::<S, scaled::Table<scaled::Iq4>>(Format::IQ4XS, 4, |file, lane, blocks| {
            scaled::pack_iq4_xs(file, lane, bytemuck::cast_slice_mut(blocks));
        }),
        shared::<S, scaled::Table<scaled::Fp4>>(Format::MXFP4, 1, |file, lane, blocks| {
            scaled::pack_mxfp4(file, lane, bytemuck::cast_slice_mut(blocks));
        }),
    ];
}

const fn dense<S: Token, U: Pack>() -> Row<S> {
    Row { f32: matmul::f32::dense::<S::Float, U>, ..any::<S, U>(U::FORMAT, 1, pack::<U>) }
}

const fn coded<S: Token, U: Coded + Pack>() -> Row<S> {
    shared::<S, U>(U::FORMAT, 1, pack::<U>)
}

/// One of several formats that the panel block `U` serves: a row of a file packs `n` of them at a time.
const fn shared<S: Token, U: Coded>(format: Format, n: usize, pack: fn(&[u8], usize, &mut [u8])) -> Row<S> {
    Row { q8: Some(matmul::q8::run::<S, U>), ..any::<S, U>(format, n, pack) }
}

/// A format of small integers under scales that is unpacked at load.
const fn wide<S: Token, B: file::Scaled>() -> Row<S> {
    shared::<S, scaled::Wide>(B::FORMAT, B::LEN / scaled::K, |file, lane, blocks| {
        scaled::pack_wide::<B>(file, lane, bytemuck::cast_slice_mut(blocks));
    })
}

fn pack<U: Pack>(file: &[u8], lane: usize, block: &mut [u8]) {
    U::pack(file, lane, bytemuck::from_bytes_mut(block));
}

const fn any<S: Token, U: Unpack>(format: Format, n: usize, pack: fn(&[u8], usize, &mut [u8])) -> Row<S> {
    const { assert!(size_of::<U::Block>().is_multiple_of(64) && U::K.is_multiple_of(GROUP)) };
    Row {
        format,
        k: n * U::K,
        bytes: n * size_of::<U::Block>(),
        pack,
        q8: None,
        f32: matmul::f32::run::<S::Float, U>,
        values: expand::values::<S::Float, U>,
        sub: U::Shape::SUB,
        mins: U::Shape::MINS,
    }
}

/// Low bits of a byte.
const fn mask(bits: usize) -> u8 {
    ((1u16 << bits) - 1) as u8
}

/// Where a group of codes of `LOW + HIGH` bits has a step's line of low bits, and that of its high bits: in the order in
/// which the steps come to them, so that a group is read from its first line to its last.
const fn places<const LOW: usize, const HIGH: usize>(step: usize) -> (usize, usize) {
    let (low, high) = (step * LOW / 8, step * HIGH / 8);
    match HIGH {
        0 => (low, 0),
        _ => (low + (low * HIGH).div_ceil(LOW), high + high * LOW / HIGH + 1),
    }
}

/// Writes the codes of one row of a group, `LOW + HIGH` bits each, into its `LOW + HIGH` zeroed lines: the low bits of
/// step `t` at bit `t * LOW % 8` of their line, the high bits likewise. `LOW` bits a code make `LOW` lines a group.
pub fn pack_codes<const LOW: usize, const HIGH: usize>(codes: &[u8; GROUP], lane: usize, lines: &mut [Line]) {
    fn put(line: &mut Line, bits: usize, step: usize, lane: usize, codes: [u8; 4]) {
        // All four bytes at once: no code is shifted out of its byte.
        let word = u32::from_le_bytes(codes) & u32::from_le_bytes([mask(bits); 4]);
        let (words, _) = line.as_chunks_mut::<4>();
        words[lane] = (u32::from_le_bytes(words[lane]) | word << (step * bits % 8)).to_le_bytes();
    }
    for (step, quad) in codes.as_chunks::<4>().0.iter().enumerate() {
        let (low, high) = places::<LOW, HIGH>(step);
        put(&mut lines[low], LOW, step, lane, *quad);
        if HIGH > 0 {
            put(&mut lines[high], HIGH, step, lane, quad.map(|code| code >> (LOW % 8)));
        }
    }
}

/// The codes that [`pack_codes`] wrote: step `step`, which must be a constant after inlining.
#[inline(always)]
pub fn codes<S: Simd, const LOW: usize, const HIGH: usize>(s: S, lines: &[Line], step: usize) -> S::Codes {
    let (low, high) = places::<LOW, HIGH>(step);
    let line = s.load_codes(&lines[low]);
    if LOW == 8 {
        return line;
    }
    let low = bits(s, line, step * LOW % 8, 0, LOW);
    if HIGH == 0 {
        return low;
    }
    s.or(low, bits(s, s.load_codes(&lines[high]), step * HIGH % 8, LOW, HIGH))
}

/// Bits `from..from + count` of each byte, moved to bit `to`, the others 0.
#[inline(always)]
fn bits<S: Simd>(s: S, line: S::Codes, from: usize, to: usize, count: usize) -> S::Codes {
    let moved = match from as isize - to as isize {
        0 => line,
        1 => s.shr_codes::<1>(line),
        2 => s.shr_codes::<2>(line),
        3 => s.shr_codes::<3>(line),
        4 => s.shr_codes::<4>(line),
        5 => s.shr_codes::<5>(line),
        6 => s.shr_codes::<6>(line),
        -1 => s.shl_codes::<1>(line),
        -2 => s.shl_codes::<2>(line),
        -3 => s.shl_codes::<3>(line),
        -4 => s.shl_codes::<4>(line),
        _ => unreachable!(),
    };
    s.and(moved, s.splat_codes(mask(count) << to))
}

/// A step's codes as four vectors of `code - zero`, in order along k.
#[inline(always)]
pub fn quad<S: Simd>(s: S, codes: S::Codes, zero: u8) -> [S::F32; 4] {
    let words = s.words(codes);
    let (byte, zero) = (s.splat_i32(0xff), s.splat_i32(i32::from(zero)));
    let codes = [
        s.and_i32(words, byte),
        s.and_i32(s.shr_i32::<8>(words), byte),
        s.and_i32(s.shr_i32::<16>(words), byte),
        s.shr_i32::<24>(words),
    ];
    let mut values = [s.splat(0.0); 4];
    for i in 0..4 {
        values[i] = s.to_f32(s.sub_i32(codes[i], zero));
    }
    values
}

/// A little-endian field of two bytes.
pub fn half(bytes: [u8; 2]) -> u16 {
    u16::from_le_bytes(bytes)
}

/// One 16-bit number a lane.
pub type Halves = [u16; LANES];
/// One byte a lane.
pub type Bytes = [u8; LANES];
