//! Blocks of 256 whose sub-groups of 32 or 16 have integer scales (and minimums) under one half float a row.
//!
//! Scales come first in a panel block, in whole lines, then the lines of codes, group after group: a block is read from its
//! beginning to its end, as prefetchers expect. The 6-bit scales of Q4_K and Q5_K are widened to bytes
//! (2.8 and 2.3 % more memory); blocks of Q3_K and Q6_K are filled up to whole lines.

use super::{Bytes, Coded, Codes, GROUP, Halves, Line, Pack, Shape, Unpack, codes, half, pack_codes, quad};
use crate::simd::Simd;
use bytemuck::{Pod, Zeroable};
use gguf::Format;
use gguf::format as file;
use std::array::from_fn;

/// Values a block.
const LEN: usize = 256;
/// Groups a block.
const GROUPS: usize = LEN / GROUP;

/// The two-bit fields of a group: element `128 h + 32 s + i` lies at bit `2 s` of byte `32 h + i`.
fn two_bits(bytes: &[u8; 64], g: usize) -> [u8; GROUP] {
    from_fn(|i| bytes[g / 4 * 32 + i] >> (g % 4 * 2) & 3)
}

/// The nibbles of a group of Q4_K and Q5_K: element `64 h + 32 n + i` is nibble `n` of byte `32 h + i`.
fn nibbles(bytes: &[u8; 128], g: usize) -> [u8; GROUP] {
    from_fn(|i| bytes[g / 2 * 32 + i] >> (g % 2 * 4) & 15)
}

/// [`Coded`] over the `codes` of a block, each of `$low + $high` bits.
macro_rules! codes {
    ($name:ident, $low:literal + $high:literal bits) => {
        impl Coded for $name {
            #[inline(always)]
            fn codes<S: Simd>(s: S, block: &Self::Block, g: usize, step: usize) -> S::Codes {
                let lines: &[Line; $low + $high] = &block.codes[g];
                codes::<S, $low, $high>(s, lines, step)
            }
        }
    };
}

/// `scale * byte`, exact where they have 11 and 8 bits.
#[inline(always)]
fn times<S: Simd>(s: S, scale: &Halves, byte: S::I32) -> S::F32 {
    s.mul(s.load_f16(scale), s.to_f32(byte))
}

/// 2-bit codes; scale and minimum of 4 bits for every 16.
pub struct Q2K;

/// Sixteen rows of [`Q2K`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct PanelQ2K {
    d: Halves,
    dmin: Halves,
    /// Scale in the low, minimum in the high nibble.
    scales: [Bytes; 2 * GROUPS],
    codes: [[Line; 2]; GROUPS],
}

impl Pack for Q2K {
    const FORMAT: Format = Format::Q2K;

    fn pack(file: &[u8], lane: usize, block: &mut PanelQ2K) {
        let b: &file::Q2K = bytemuck::from_bytes(file);
        block.d[lane] = half(b.d);
        block.dmin[lane] = half(b.dmin);
        for (line, &byte) in block.scales.iter_mut().zip(&b.scales) {
            line[lane] = byte;
        }
        for g in 0..GROUPS {
            pack_codes::<2, 0>(&two_bits(&b.qs, g), lane, &mut block.codes[g]);
        }
    }
}

impl Unpack for Q2K {
    type Block = PanelQ2K;
    const K: usize = LEN;
    type Shape = Codes<3, 0, 16, true>;

    #[inline(always)]
    fn values<S: Simd>(s: S, block: &PanelQ2K, g: usize, step: usize) -> [S::F32; 4] {
        quad(s, Self::codes(s, block, g, step), <Self as Unpack>::Shape::ZERO)
    }
    #[inline(always)]
    fn scale<S: Simd>(s: S, block: &PanelQ2K, sub: usize) -> S::F32 {
        let byte = s.load_u8(&block.scales[sub]);
        times(s, &block.d, s.and_i32(byte, s.splat_i32(15)))
    }
    #[inline(always)]
    fn min<S: Simd>(s: S, block: &PanelQ2K, sub: usize) -> S::F32 {
        times(s, &block.dmin, s.shr_i32::<4>(s.load_u8(&block.scales[sub])))
    }
}

codes!(Q2K, 2 + 0 bits);

/// 3-bit codes around 4; a signed scale of 6 bits for every 16.
pub struct Q3K;

/// Sixteen rows of [`Q3K`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct PanelQ3K {
    d: Halves,
    fill: [u8; 32],
    /// Low four bits of the scales (plus 32) of a group's two halves.
    scales_low: [Bytes; GROUPS],
    /// Their high two bits, two groups a byte: half `h` of group `g` at bit `4 (g % 2) + 2 h`.
    scales_high: [Bytes; GROUPS / 2],
    codes: [[Line; 3]; GROUPS],
}

impl Pack for Q3K {
    const FORMAT: Format = Format::Q3K;

    fn pack(file: &[u8], lane: usize, block: &mut PanelQ3K) {
        let b: &file::Q3K = bytemuck::from_bytes(file);
        block.d[lane] = half(b.d);
        for (sub, scale) in b.group_scales().into_iter().enumerate() {
            let code = (scale + 32).cast_unsigned();
            block.scales_low[sub / 2][lane] |= (code & 15) << (sub % 2 * 4);
            block.scales_high[sub / 4][lane] |= (code >> 4) << (sub % 4 * 2);
        }
        for g in 0..GROUPS {
            let low = two_bits(&b.qs, g);
            let group = from_fn(|i| low[i] | (b.hmask[i] >> g & 1) << 2);
            pack_codes::<2, 1>(&group, lane, &mut block.codes[g]);
        }
    }
}

impl Unpack for Q3K {
    type Block = PanelQ3K;
    const K: usize = LEN;
    type Shape = Codes<7, 4, 16, false>;

    #[inline(always)]
    fn values<S: Simd>(s: S, block: &PanelQ3K, g: usize, step: usize) -> [S::F32; 4] {
        quad(s, Self::codes(s, block, g, step), <Self as Unpack>::Shape::ZERO)
    }
    #[inline(always)]
    fn scale<S: Simd>(s: S, block: &PanelQ3K, sub: usize) -> S::F32 {
        let low = s.load_u8(&block.scales_low[sub / 2]);
        let high = s.load_u8(&block.scales_high[sub / 4]);
        let low = if sub % 2 == 0 { low } else { s.shr_i32::<4>(low) };
        // The two bits go to bits 4 and 5.
        let high = match sub % 4 {
            0 => s.shl_i32::<4>(high),
            1 => s.shl_i32::<2>(high),
            2 => high,
            _ => s.shr_i32::<2>(high),
        };
        let low = s.and_i32(low, s.splat_i32(15));
        let high = s.and_i32(high, s.splat_i32(48));
        let scale = s.sub_i32(s.add_i32(low, high), s.splat_i32(32));
        times(s, &block.d, scale)
    }
    #[inline(always)]
    fn min<S: Simd>(s: S, _: &PanelQ3K, _: usize) -> S::F32 {
        s.splat(0.0)
    }
}

codes!(Q3K, 2 + 1 bits);

/// 4-bit codes; scale and minimum of 6 bits for every 32.
pub struct Q4K;

/// Sixteen rows of [`Q4K`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct PanelQ4K {
    d: Halves,
    dmin: Halves,
    scales: [Bytes; GROUPS],
    mins: [Bytes; GROUPS],
    codes: [[Line; 4]; GROUPS],
}

impl Pack for Q4K {
    const FORMAT: Format = Format::Q4K;

    fn pack(file: &[u8], lane: usize, block: &mut PanelQ4K) {
        let b: &file::Q4K = bytemuck::from_bytes(file);
        block.d[lane] = half(b.d);
        block.dmin[lane] = half(b.dmin);
        let (scales, mins) = file::scales_and_mins(&b.scales);
        for g in 0..GROUPS {
            block.scales[g][lane] = scales[g];
            block.mins[g][lane] = mins[g];
            pack_codes::<4, 0>(&nibbles(&b.qs, g), lane, &mut block.codes[g]);
        }
    }
}

impl Unpack for Q4K {
    type Block = PanelQ4K;
    const K: usize = LEN;
    type Shape = Codes<15, 0, GROUP, true>;

    #[inline(always)]
    fn values<S: Simd>(s: S, block: &PanelQ4K, g: usize, step: usize) -> [S::F32; 4] {
        quad(s, Self::codes(s, block, g, step), <Self as Unpack>::Shape::ZERO)
    }
    #[inline(always)]
    fn scale<S: Simd>(s: S, block: &PanelQ4K, sub: usize) -> S::F32 {
        times(s, &block.d, s.load_u8(&block.scales[sub]))
    }
    #[inline(always)]
    fn min<S: Simd>(s: S, block: &PanelQ4K, sub: usize) -> S::F32 {
        times(s, &block.dmin, s.load_u8(&block.mins[sub]))
    }
}

codes!(Q4K, 4 + 0 bits);

/// 5-bit codes; scale and minimum of 6 bits for every 32.
pub struct Q5K;

/// Sixteen rows of [`Q5K`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct PanelQ5K {
    d: Halves,
    dmin: Halves,
    scales: [Bytes; GROUPS],
    mins: [Bytes; GROUPS],
    codes: [[Line; 5]; GROUPS],
}

impl Pack for Q5K {
    const FORMAT: Format = Format::Q5K;

    fn pack(file: &[u8], lane: usize, block: &mut PanelQ5K) {
        let b: &file::Q5K = bytemuck::from_bytes(file);
        block.d[lane] = half(b.d);
        block.dmin[lane] = half(b.dmin);
        let (scales, mins) = file::scales_and_mins(&b.scales);
        for g in 0..GROUPS {
            block.scales[g][lane] = scales[g];
            block.mins[g][lane] = mins[g];
            let low = nibbles(&b.qs, g);
            let group = from_fn(|i| low[i] | (b.qh[i] >> g & 1) << 4);
            pack_codes::<4, 1>(&group, lane, &mut block.codes[g]);
        }
    }
}

impl Unpack for Q5K {
    type Block = PanelQ5K;
    const K: usize = LEN;
    type Shape = Codes<31, 0, GROUP, true>;

    #[inline(always)]
    fn values<S: Simd>(s: S, block: &PanelQ5K, g: usize, step: usize) -> [S::F32; 4] {
        quad(s, Self::codes(s, block, g, step), <Self as Unpack>::Shape::ZERO)
    }
    #[inline(always)]
    fn scale<S: Simd>(s: S, block: &PanelQ5K, sub: usize) -> S::F32 {
        times(s, &block.d, s.load_u8(&block.scales[sub]))
    }
    #[inline(always)]
    fn min<S: Simd>(s: S, block: &PanelQ5K, sub: usize) -> S::F32 {
        times(s, &block.dmin, s.load_u8(&block.mins[sub]))
    }
}

codes!(Q5K, 4 + 1 bits);

/// 6-bit codes around 32; a signed scale of 8 bits for every 16.
pub struct Q6K;

/// Sixteen rows of [`Q6K`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct PanelQ6K {
    d: Halves,
    fill: [u8; 32],
    /// Two's complement.
    scales: [Bytes; 2 * GROUPS],
    codes: [[Line; 6]; GROUPS],
}

impl Pack for Q6K {
    const FORMAT: Format = Format::Q6K;

    fn pack(file: &[u8], lane: usize, block: &mut PanelQ6K) {
        let b: &file::Q6K = bytemuck::from_bytes(file);
        block.d[lane] = half(b.d);
        for (line, &scale) in block.scales.iter_mut().zip(&b.scales) {
            line[lane] = scale;
        }
        for g in 0..GROUPS {
            // Element 128 h + 64 n + i is nibble n of byte 64 h + i.
            let low = &b.ql[g / 4 * 64 + g % 2 * 32..][..GROUP];
            let high = two_bits(&b.qh, g);
            let group = from_fn(|i| low[i] >> (g / 2 % 2 * 4) & 15 | high[i] << 4);
            pack_codes::<4, 2>(&group, lane, &mut block.codes[g]);
        }
    }
}

impl Unpack for Q6K {
    type Block = PanelQ6K;
    const K: usize = LEN;
    type Shape = Codes<63, 32, 16, false>;

    #[inline(always)]
    fn values<S: Simd>(s: S, block: &PanelQ6K, g: usize, step: usize) -> [S::F32; 4] {
        quad(s, Self::codes(s, block, g, step), <Self as Unpack>::Shape::ZERO)
    }
    #[inline(always)]
    fn scale<S: Simd>(s: S, block: &PanelQ6K, sub: usize) -> S::F32 {
        times(s, &block.d, s.load_i8(&block.scales[sub]))
    }
    #[inline(always)]
    fn min<S: Simd>(s: S, _: &PanelQ6K, _: usize) -> S::F32 {
        s.splat(0.0)
    }
}

codes!(Q6K, 4 + 2 bits);
