//! Formats whose values are small signed integers times a scale for every 16: codebooks (IQ), tables of sixteen values
//! (IQ4, FP4), ternary and binary weights. Layouts are those of ggml.
//!
//! A block says its integers and scales ([`Scaled::parts`]); its values are their products.

use bytemuck::{Pod, Zeroable};

use super::float::f16;
use super::{Block, Format};

/// Values that share a scale.
const SUB: usize = 16;

/// A block of integers and scales.
pub trait Scaled: Block {
    /// Writes the block's integers, each at most 127 in size, and the scale of every 16 of them.
    ///
    /// # Panics
    /// If a slice is too short.
    fn parts(&self, codes: &mut [i8], scales: &mut [f32]);
}

/// Codebooks: rows of eight entries of 2 bits or four entries of 3 bits, as little-endian 16-bit numbers.
static GRIDS: &[u8] = include_bytes!("grids.bin");
/// Where each codebook starts, in rows.
const IQ2XXS_GRID: usize = 0;
const IQ2XS_GRID: usize = IQ2XXS_GRID + 256;
const IQ2S_GRID: usize = IQ2XS_GRID + 512;
const IQ3XXS_GRID: usize = IQ2S_GRID + 1024;
const IQ3S_GRID: usize = IQ3XXS_GRID + 256;
const IQ1_GRID: usize = IQ3S_GRID + 512;

/// The values that entries stand for.
const IQ2_VALUES: [i8; 4] = [8, 25, 43, 0];
const IQ3XXS_VALUES: [i8; 8] = [4, 12, 20, 28, 36, 44, 52, 62];
const IQ3S_VALUES: [i8; 8] = [1, 3, 5, 7, 9, 11, 13, 15];
/// The sixteen values of IQ4_NL and IQ4_XS: steps that widen outwards.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// The sixteen values of a 4-bit float, twice.
pub const FP4_VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

const _: () = assert!(GRIDS.len() == 2 * (IQ1_GRID + 2048));

fn u16_at(bytes: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])
}

fn u32_at(bytes: &[u8], i: usize) -> u32 {
    u32::from(u16_at(bytes, 2 * i)) | u32::from(u16_at(bytes, 2 * i + 1)) << 16
}

/// Writes a row of a codebook whose entries have `BITS` bits, negated where a bit of `signs` is set.
fn row<const BITS: usize, const N: usize>(at: usize, values: &[i8; N], signs: u8, out: &mut [i8]) {
    let entries = usize::from(u16_at(GRIDS, at));
    for (i, code) in out.iter_mut().enumerate() {
        let value = values[entries >> (BITS * i) & (N - 1)];
        *code = if signs >> i & 1 == 1 { -value } else { value };
    }
}

/// Seven signs and an eighth that makes their number even.
fn even_signs(index: u32) -> u8 {
    let index = (index & 127) as u8;
    index | ((index.count_ones() & 1) as u8) << 7
}

/// The two nibbles of byte `i / 2`, the low one first.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 2] >> (i % 2 * 4) & 15
}

/// A block struct, its row, and how it comes apart.
macro_rules! scaled {
    ($name:ident, $len:literal in $bytes:literal, $doc:literal, {$($field:ident: $size:literal, $what:literal;)*},
        |$block:ident, $codes:ident, $scales:ident| $body:block) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name {
            $(#[doc = $what] pub $field: [u8; $size],)*
        }

        const _: () = assert!(size_of::<$name>() == $bytes);

        impl Scaled for $name {
            fn parts(&self, $codes: &mut [i8], $scales: &mut [f32]) {
                let $block = self;
                $body
            }
        }

        impl Block for $name {
            const FORMAT: Format = Format::$name;
            const LEN: usize = $len;

            fn decode(&self, out: &mut [f32]) {
                let (mut codes, mut scales) = ([0; $len], [0.0; $len / SUB]);
                self.parts(&mut codes, &mut scales);
                for (i, (y, code)) in out[..$len].iter_mut().zip(codes).enumerate() {
                    *y = scales[i / SUB] * f32::from(code);
                }
            }
        }
    };
}

scaled!(IQ2XXS, 256 in 66, "2.06 bits: a codebook of 256 rows of eight; 28 bits of signs and a 4-bit scale for every 32.",
{ d: 2, "Scale of the scales, binary16."; qs: 64, "For every 32: four row numbers, then signs and scale."; },
|b, codes, scales| {
    for g in 0..8 {
        let tail = u32_at(&b.qs, 2 * g + 1);
        for i in 0..4 {
            let at = IQ2XXS_GRID + usize::from(b.qs[8 * g + i]);
            row::<2, 4>(at, &IQ2_VALUES, even_signs(tail >> (7 * i)), &mut codes[32 * g + 8 * i..][..8]);
        }
        scales[2 * g..][..2].fill(f16(b.d) * (0.5 + (tail >> 28) as f32) * 0.25);
    }
});

scaled!(IQ2XS, 256 in 74, "2.31 bits: a codebook of 512 rows of eight with 7 bits of signs; a 4-bit scale for every 16.",
{ d: 2, "Scale of the scales, binary16."; qs: 64, "For every 8: 9 bits of row number, 7 of signs.";
  scales: 8, "4-bit scales."; },
|b, codes, scales| {
    for (i, codes) in codes[..256].chunks_exact_mut(8).enumerate() {
        let q = u16_at(&b.qs, i);
        row::<2, 4>(IQ2XS_GRID + usize::from(q & 511), &IQ2_VALUES, even_signs(u32::from(q >> 9)), codes);
    }
    for (i, scale) in scales[..16].iter_mut().enumerate() {
        *scale = f16(b.d) * (0.5 + f32::from(nibble(&b.scales, i))) * 0.25;
    }
});

scaled!(IQ2S, 256 in 82, "2.56 bits: a codebook of 1024 rows of eight with all signs; a 4-bit scale for every 16.",
{ d: 2, "Scale of the scales, binary16."; qs: 32, "Low eight bits of row numbers."; signs: 32, "A bit a value.";
  qh: 8, "High two bits of row numbers."; scales: 8, "4-bit scales."; },
|b, codes, scales| {
    for (i, codes) in codes[..256].chunks_exact_mut(8).enumerate() {
        let high = usize::from(b.qh[i / 4] >> (i % 4 * 2) & 3);
        row::<2, 4>(IQ2S_GRID + (usize::from(b.qs[i]) | high << 8), &IQ2_VALUES, b.signs[i], codes);
    }
    for (i, scale) in scales[..16].iter_mut().enumerate() {
        *scale = f16(b.d) * (0.5 + f32::from(nibble(&b.scales, i))) * 0.25;
    }
});

scaled!(IQ3XXS, 256 in 98, "3.06 bits: a codebook of 256 rows of four; 28 bits of signs and a 4-bit scale for every 32.",
{ d: 2, "Scale of the scales, binary16."; qs: 64, "Row numbers."; tails: 32, "For every 32: signs and scale."; },
|b, codes, scales| {
    for g in 0..8 {
        let tail = u32_at(&b.tails, g);
        for i in 0..8 {
            let signs = even_signs(tail >> (7 * (i / 2))) >> (i % 2 * 4);
            let at = IQ3XXS_GRID + usize::from(b.qs[8 * g + i]);
            row::<3, 8>(at, &IQ3XXS_VALUES, signs, &mut codes[32 * g + 4 * i..][..4]);
        }
        scales[2 * g..][..2].fill(f16(b.d) * (0.5 + (tail >> 28) as f32) * 0.5);
    }
});

scaled!(IQ3S, 256 in 110, "3.44 bits: a codebook of 512 rows of four with all signs; a 4-bit scale for every 32.",
{ d: 2, "Scale of the scales, binary16."; qs: 64, "Low eight bits of row numbers."; qh: 8, "Their ninth bits.";
  signs: 32, "A bit a value."; scales: 4, "4-bit scales."; },
|b, codes, scales| {
    for (i, codes) in codes[..256].chunks_exact_mut(4).enumerate() {
        let high = usize::from(b.qh[i / 8] >> (i % 8) & 1);
        let at = IQ3S_GRID + (usize::from(b.qs[i]) | high << 8);
        row::<3, 8>(at, &IQ3S_VALUES, b.signs[i / 2] >> (i % 2 * 4), codes);
    }
    for (g, pair) in scales[..16].chunks_exact_mut(2).enumerate() {
        pair.fill(f16(b.d) * f32::from(1 + 2 * nibble(&b.scales, g)));
    }
});

/// Eight values of IQ1: ternary entries moved by an eighth, in eighths.
fn ternary(at: usize, down: bool, out: &mut [i8]) {
    row::<2, 4>(IQ1_GRID + at, &[-8, 0, 8, 0], 0, out);
    out.iter_mut().for_each(|code| *code += if down { -1 } else { 1 });
}

scaled!(IQ1S, 256 in 50, "1.56 bits: a codebook of 2048 ternary rows of eight; a 3-bit scale and a shift for every 32.",
{ d: 2, "Scale of the scales, binary16."; qs: 32, "Low eight bits of row numbers.";
  qh: 16, "For every 32: three high bits of four row numbers, scale, sign of the shift."; },
|b, codes, scales| {
    for g in 0..8 {
        let high = u16_at(&b.qh, g);
        for i in 0..4 {
            let at = usize::from(b.qs[4 * g + i]) | usize::from(high >> (3 * i) & 7) << 8;
            ternary(at, high >> 15 == 1, &mut codes[32 * g + 8 * i..][..8]);
        }
        scales[2 * g..][..2].fill(f16(b.d) * f32::from(2 * (high >> 12 & 7) + 1) / 8.0);
    }
});

scaled!(IQ1M, 256 in 56, "1.75 bits: as IQ1_S with a 3-bit scale for every 16 and a shift for every 8.",
{ qs: 32, "Low eight bits of row numbers."; qh: 16, "For every 8: three high bits, sign of the shift.";
  scales: 8, "For every 64: four 3-bit scales, and a nibble of the scale of the scales."; },
|b, codes, scales| {
    for (i, codes) in codes[..256].chunks_exact_mut(8).enumerate() {
        let high = nibble(&b.qh, i);
        ternary(usize::from(b.qs[i]) | usize::from(high & 7) << 8, high >> 3 == 1, codes);
    }
    let d = (0..4).fold(0, |d, i| d | u16_at(&b.scales, i) >> 12 << (4 * i));
    for (i, scale) in scales[..16].iter_mut().enumerate() {
        let three = u16_at(&b.scales, i / 4) >> (i % 4 * 3) & 7;
        *scale = f16(d.to_le_bytes()) * f32::from(2 * three + 1) / 8.0;
    }
});

/// Nibbles of 16 bytes as table entries: element `i` low and `i + 16` high in byte `i`.
fn looked_up(qs: &[u8], values: &[i8; 16], codes: &mut [i8]) {
    let (low, high) = codes[..2 * qs.len()].split_at_mut(qs.len());
    for ((low, high), q) in low.iter_mut().zip(high).zip(qs) {
        (*low, *high) = (values[usize::from(q & 15)], values[usize::from(q >> 4)]);
    }
}

scaled!(IQ4NL, 32 in 18, "4.5 bits: a table of sixteen values.",
{ d: 2, "Scale, binary16."; qs: 16, "Entries: element `i` in the low, `i + 16` in the high nibble of byte `i`."; },
|b, codes, scales| {
    looked_up(&b.qs, &IQ4_VALUES, codes);
    scales[..2].fill(f16(b.d));
});

impl IQ4XS {
    /// The scales of the eight groups.
    pub fn group_scales(&self) -> [f32; 8] {
        std::array::from_fn(|g| {
            let high = u16_at(&self.scales_h, 0) >> (2 * g) & 3;
            let scale = i16::from(nibble(&self.scales_l, g)) | (high << 4).cast_signed();
            f16(self.d) * f32::from(scale - 32)
        })
    }
}

scaled!(IQ4XS, 256 in 136, "4.25 bits: the table of IQ4_NL, a signed 6-bit scale for every 32.",
{ d: 2, "Scale of the scales, binary16."; scales_h: 2, "High two bits of the scales.";
  scales_l: 4, "Their low four."; qs: 128, "Entries, as in IQ4_NL."; },
|b, codes, scales| {
    for (g, scale) in b.group_scales().into_iter().enumerate() {
        looked_up(&b.qs[16 * g..][..16], &IQ4_VALUES, &mut codes[32 * g..]);
        scales[2 * g..][..2].fill(scale);
    }
});

impl MXFP4 {
    /// Half of two to the power of the exponent: the table holds doubles.
    pub fn scale(&self) -> f32 {
        match u32::from(self.e[0]) {
            e @ 0..2 => f32::from_bits(0x0020_0000 << e),
            e => f32::from_bits((e - 1) << 23),
        }
    }
}

scaled!(MXFP4, 32 in 17, "4.25 bits: 4-bit floats under a power of two (OCP Microscaling, 2023).",
{ e: 1, "Exponent, biased by 127."; qs: 16, "Entries, as in IQ4_NL."; },
|b, codes, scales| {
    looked_up(&b.qs, &FP4_VALUES, codes);
    scales[..2].fill(b.scale());
});

/// Half of an unsigned float of 4 exponent and 3 mantissa bits; its NaN is 0.
fn half_of_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (bits >> 3 & 15, f32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa / 1024.0,
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((u32::from(exponent) + 119) << 23),
    }
}

scaled!(NVFP4, 64 in 36, "4.5 bits: 4-bit floats under an 8-bit float for every 16.",
{ d: 4, "Scales."; qs: 32, "Entries: of every 16, element `i` in the low, `i + 8` in the high nibble of byte `i`."; },
|b, codes, scales| {
    for i in 0..4 {
        looked_up(&b.qs[8 * i..][..8], &FP4_VALUES, &mut codes[16 * i..]);
        scales[i] = half_of_e4m3(b.d[i]);
    }
});

scaled!(TQ1_0, 256 in 54, "1.69 bits: ternary, five to a byte as digits of base 3.",
{ qs: 48, "Digits: the first of 32 bytes, then the second, ...; then those of 16 bytes.";
  qh: 4, "The last 16, four digits a byte."; d: 2, "Scale, binary16."; },
|b, codes, scales| {
    let digit = |byte: u8, n: usize| {
        let moved = byte.wrapping_mul([1, 3, 9, 27, 81][n]);
        ((u16::from(moved) * 3) >> 8) as i8 - 1
    };
    for (i, code) in codes[..256].iter_mut().enumerate() {
        *code = match i {
            0..160 => digit(b.qs[i % 32], i / 32),
            160..240 => digit(b.qs[32 + (i - 160) % 16], (i - 160) / 16),
            _ => digit(b.qh[i % 4], (i - 240) / 4),
        };
    }
    scales[..16].fill(f16(b.d));
});

scaled!(TQ2_0, 256 in 66, "2.06 bits: ternary, four to a byte.",
{ qs: 64, "Element `128 h + 32 s + i` in bits `2 s` and `2 s + 1` of byte `32 h + i`."; d: 2, "Scale, binary16."; },
|b, codes, scales| {
    for (i, code) in codes[..256].iter_mut().enumerate() {
        *code = (b.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3).cast_signed() - 1;
    }
    scales[..16].fill(f16(b.d));
});

scaled!(Q1_0, 128 in 18, "1.13 bits: the scale or its negative.",
{ d: 2, "Scale, binary16."; qs: 16, "A bit a value: set where it is positive."; },
|b, codes, scales| {
    for (i, code) in codes[..128].iter_mut().enumerate() {
        *code = 2 * (b.qs[i / 8] >> (i % 8) & 1).cast_signed() - 1;
    }
    scales[..8].fill(f16(b.d));
});

scaled!(Q2_0, 64 in 18, "2.25 bits: -1 to 2 times the scale.",
{ d: 2, "Scale, binary16."; qs: 16, "Two bits a value, lowest first."; },
|b, codes, scales| {
    for (i, code) in codes[..64].iter_mut().enumerate() {
        *code = (b.qs[i / 4] >> (i % 4 * 2) & 3).cast_signed() - 1;
    }
    scales[..4].fill(f16(b.d));
});
