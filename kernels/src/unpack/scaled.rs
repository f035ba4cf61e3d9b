//! Formats of small signed integers under a scale (IQ, FP4, ternary, binary).
//!
//! Those with a table of sixteen values keep their nibbles and look them up as they are read ([`Table`]). The others,
//! codebooks and base-3 digits, become bytes once, at load ([`Wide`]): 10 bits a value in memory, in return for one
//! loop for all of them. Scales become f32, exact.

use super::{Coded, Codes, GROUP, Line, STEPS, Unpack, codes, pack_codes, quad};
use crate::simd::{LANES, Simd};
use bytemuck::{Pod, Zeroable};
use gguf::format::{FP4_VALUES, IQ4_VALUES, IQ4NL, IQ4XS, MXFP4, Scaled};
use std::marker::PhantomData;

/// Values along k of a panel block.
pub const K: usize = 2 * GROUP;
/// Code of the value 0.
const ZERO: u8 = 128;
/// The largest block of a file.
const LARGEST: usize = 256;

/// One f32 a lane.
type Floats = [f32; LANES];

/// Signed bytes, a scale for every 16.
pub struct Wide;

/// Sixteen rows of [`Wide`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct PanelWide {
    scales: [Floats; 4],
    codes: [[Line; STEPS]; 2],
}

/// Writes one row of as many panel blocks as a file's block has values for.
pub fn pack_wide<B: Scaled>(file: &[u8], lane: usize, blocks: &mut [PanelWide]) {
    let (mut values, mut scales) = ([0; LARGEST], [0.0; LARGEST / 16]);
    let block: &B = bytemuck::from_bytes(&file[..size_of::<B>()]);
    block.parts(&mut values[..B::LEN], &mut scales[..B::LEN / 16]);
    for ((block, values), scales) in blocks.iter_mut().zip(values.chunks_exact(K)).zip(scales.chunks_exact(K / 16)) {
        for (lines, values) in block.codes.iter_mut().zip(values.as_chunks::<GROUP>().0) {
            pack_codes::<8, 0>(&values.map(biased), lane, lines);
        }
        for (to, &scale) in block.scales.iter_mut().zip(scales) {
            to[lane] = scale;
        }
    }
}

const fn biased(value: i8) -> u8 {
    value.cast_unsigned() ^ 0x80
}

impl Unpack for Wide {
    type Block = PanelWide;
    const K: usize = K;
    type Shape = Codes<255, ZERO, 16, false>;

    #[inline(always)]
    fn values<S: Simd>(s: S, block: &PanelWide, g: usize, step: usize) -> [S::F32; 4] {
        quad(s, Self::codes(s, block, g, step), ZERO)
    }
    #[inline(always)]
    fn scale<S: Simd>(s: S, block: &PanelWide, sub: usize) -> S::F32 {
        s.load(&block.scales[sub])
    }
    #[inline(always)]
    fn min<S: Simd>(s: S, _: &PanelWide, _: usize) -> S::F32 {
        s.splat(0.0)
    }
}

impl Coded for Wide {
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &PanelWide, g: usize, step: usize) -> S::Codes {
        s.load_codes(&block.codes[g][step])
    }
}

/// Sixteen values that nibbles stand for.
pub trait Sixteen: 'static {
    /// The values, biased by 128.
    const VALUES: [u8; 16];
}

const fn table(values: [i8; 16]) -> [u8; 16] {
    let (mut out, mut i) = ([0; 16], 0);
    while i < 16 {
        out[i] = biased(values[i]);
        i += 1;
    }
    out
}

/// The values of IQ4_NL and IQ4_XS.
pub struct Iq4;
/// The values of 4-bit floats, twice.
pub struct Fp4;

impl Sixteen for Iq4 {
    const VALUES: [u8; 16] = table(IQ4_VALUES);
}

impl Sixteen for Fp4 {
    const VALUES: [u8; 16] = table(FP4_VALUES);
}

/// Nibbles that are looked up, a scale for every 32.
pub struct Table<T>(PhantomData<T>);

/// Sixteen rows of [`Table`].
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct PanelTable {
    scales: [Floats; 2],
    codes: [[Line; 4]; 2],
}

/// Writes one row of a group: sixteen bytes of nibbles, as files have them, and their scale.
fn put(block: &mut PanelTable, g: usize, lane: usize, qs: &[u8], scale: f32) {
    let nibbles = std::array::from_fn(|i| if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 });
    pack_codes::<4, 0>(&nibbles, lane, &mut block.codes[g]);
    block.scales[g][lane] = scale;
}

/// [`Table`] from blocks of 32.
pub fn pack_iq4_nl(file: &[u8], lane: usize, blocks: &mut [PanelTable]) {
    for (g, b) in bytemuck::cast_slice::<u8, IQ4NL>(file).iter().enumerate() {
        put(&mut blocks[0], g, lane, &b.qs, half::f16::from_le_bytes(b.d).to_f32());
    }
}

/// [`Table`] from blocks of 32.
pub fn pack_mxfp4(file: &[u8], lane: usize, blocks: &mut [PanelTable]) {
    for (g, b) in bytemuck::cast_slice::<u8, MXFP4>(file).iter().enumerate() {
        put(&mut blocks[0], g, lane, &b.qs, b.scale());
    }
}

/// [`Table`] from blocks of 256.
pub fn pack_iq4_xs(file: &[u8], lane: usize, blocks: &mut [PanelTable]) {
    let b: &IQ4XS = bytemuck::from_bytes(file);
    for (g, scale) in b.group_scales().into_iter().enumerate() {
        put(&mut blocks[g / 2], g % 2, lane, &b.qs[16 * g..][..16], scale);
    }
}

impl<T: Sixteen> Unpack for Table<T> {
    type Block = PanelTable;
    const K: usize = K;
    type Shape = Codes<255, ZERO, GROUP, false>;

    #[inline(always)]
    fn values<S: Simd>(s: S, block: &PanelTable, g: usize, step: usize) -> [S::F32; 4] {
        quad(s, Self::codes(s, block, g, step), ZERO)
    }
    #[inline(always)]
    fn scale<S: Simd>(s: S, block: &PanelTable, sub: usize) -> S::F32 {
        s.load(&block.scales[sub])
    }
    #[inline(always)]
    fn min<S: Simd>(s: S, _: &PanelTable, _: usize) -> S::F32 {
        s.splat(0.0)
    }
}

impl<T: Sixteen> Coded for Table<T> {
    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &PanelTable, g: usize, step: usize) -> S::Codes {
        s.lut(&T::VALUES, codes::<S, 4, 0>(s, &block.codes[g], step))
    }
}
