//! Formats of a table of values, and ternary ones.

use wide::f32x8;

use super::super::scaled::{FP4_VALUES, IQ4_VALUES, IQ4NL, IQ4XS, MXFP4, TQ1_0, TQ2_0};
use super::super::{Block, Encode};
use super::kquant::quarters;
use super::search::{Codes, Group, fit_symmetric, symmetric};
use super::{f16, inverse};

/// The values of IQ4, as [`IQ4_VALUES`].
struct Iq4;

/// Halfway between neighbours of a table that rises.
const fn halfway(values: &[i8; 16]) -> [f32; 15] {
    let mut between = [0.0; 15];
    let mut i = 0;
    while i < 15 {
        between[i] = (values[i] as f32 + values[i + 1] as f32) / 2.0;
        i += 1;
    }
    between
}

const IQ4_HALFWAY: [f32; 15] = halfway(&IQ4_VALUES);

impl Codes for Iq4 {
    const ENDS: [f32; 2] = [IQ4_VALUES[0] as f32, IQ4_VALUES[15] as f32];
    // Finding the nearest entry costs more than rounding, and more grids would lower the error by 1 % only.
    const STEPS: i32 = 2;

    fn nearest(v: f32x8) -> f32x8 {
        // From the least value up, a step wherever the halfway point is passed.
        let mut value = f32x8::splat(Self::ENDS[0]);
        for (i, &at) in IQ4_HALFWAY.iter().enumerate() {
            let step = f32::from(IQ4_VALUES[i + 1]) - f32::from(IQ4_VALUES[i]);
            value += v.simd_gt(f32x8::splat(at)) & f32x8::splat(step);
        }
        value
    }

    fn one(v: f32) -> f32 {
        f32::from(IQ4_VALUES[iq4_index(v)])
    }
}

/// The entry nearest to a value.
fn iq4_index(v: f32) -> usize {
    IQ4_HALFWAY.iter().filter(|&&at| v > at).count()
}

/// Entries of 32 values: the first sixteen in the low nibbles, the others in the high ones.
fn nibbles(index: impl Fn(usize) -> usize) -> [u8; 16] {
    std::array::from_fn(|i| (index(i) | index(i + 16) << 4) as u8)
}

impl Encode for IQ4NL {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let d = f16(fit_symmetric::<Iq4, 4>(&Group::new(x, importance)));
        // Rounding the scale moves the nearest entries.
        let inverse = inverse(half::f16::from_le_bytes(d).to_f32());
        IQ4NL { d, qs: nibbles(|i| iq4_index(x[i] * inverse)) }
    }
}

impl Encode for IQ4XS {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = symmetric::<Iq4, 8, 4>(&Group::all(x, importance), -32.0);
        let scales = block.scales.map(|s| (s + 32) as u8);
        let high = (0..8).fold(0u16, |bits, g| bits | u16::from(scales[g] >> 4) << (2 * g));
        let mut qs = [0; 128];
        for (g, qs) in qs.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            *qs = nibbles(|i| iq4_index(block.values[32 * g + i]));
        }
        IQ4XS {
            d: f16(block.d),
            scales_h: high.to_le_bytes(),
            scales_l: std::array::from_fn(|i| scales[2 * i] & 15 | (scales[2 * i + 1] & 15) << 4),
            qs,
        }
    }
}

impl Encode for MXFP4 {
    /// The power of two of least error among the one by which the largest value is just in range, and its neighbours.
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let x = &x[..Self::LEN];
        let weight = |i: usize| importance.map_or(1.0, |w| w[i]);
        let largest = x.iter().fold(0f32, |max, v| max.max(v.abs()));
        // The largest entry is 6: 1.5 times four, two powers below its own.
        let usual = (largest.to_bits() >> 23) as i32 - 2;
        let mut best = MXFP4 { e: [0], qs: [0; 16] };
        let mut least = f32::INFINITY;
        for e in usual - 1..=usual + 1 {
            let mut block = MXFP4 { e: [e.clamp(0, 254) as u8], qs: [0; 16] };
            let scale = block.scale();
            block.qs = nibbles(|i| fp4_index(x[i] * inverse(scale)));
            let mut y = [0.0; 32];
            block.decode(&mut y);
            let error = x.iter().zip(y).enumerate().map(|(i, (x, y))| weight(i) * (x - y) * (x - y)).sum::<f32>();
            if error < least {
                (best, least) = (block, error);
            }
        }
        best
    }
}

/// The entry of a 4-bit float nearest to a value, ties to the smaller.
fn fp4_index(v: f32) -> usize {
    let of = |i: usize| f32::from(FP4_VALUES[i]);
    let magnitude = (0..7).filter(|&i| v.abs() > (of(i) + of(i + 1)) / 2.0).count();
    if v < 0.0 && magnitude > 0 { magnitude + 8 } else { magnitude }
}

/// The scale and the signs of least weighted error of `d * {-1, 0, 1}`: those with the largest values are not 0, however
/// many of them; the best scale is their mean size.
fn ternary(x: &[f32], importance: Option<&[f32]>) -> ([u8; 2], [u8; 256]) {
    let weight = |i: usize| importance.map_or(1.0, |w| w[i]);
    let mut order: [usize; 256] = std::array::from_fn(|i| i);
    order.sort_by(|&a, &b| x[b].abs().total_cmp(&x[a].abs()));
    let (mut sum, mut weights, mut best, mut kept) = (0.0, 0.0, (0.0, 0.0), 0);
    for (n, &i) in order.iter().enumerate() {
        sum += weight(i) * x[i].abs();
        weights += weight(i);
        // What so many values take off the error.
        let gain = if weights > 0.0 { sum * sum / weights } else { 0.0 };
        if gain > best.0 {
            best = (gain, sum / weights);
            kept = n + 1;
        }
    }
    let mut codes = [1; 256];
    for &i in &order[..kept] {
        codes[i] = if x[i] < 0.0 { 0 } else { 2 };
    }
    (f16(best.1), codes)
}

impl Encode for TQ1_0 {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, codes) = ternary(x, importance);
        // Five digits, the first the most significant; the number is moved up so that a product by a power of three cuts
        // a digit off.
        let byte = |digits: [u8; 5]| {
            let number = digits.iter().fold(0u16, |number, &digit| number * 3 + u16::from(digit));
            (number * 256).div_ceil(243) as u8
        };
        TQ1_0 {
            qs: std::array::from_fn(|m| match m {
                0..32 => byte(std::array::from_fn(|n| codes[m + 32 * n])),
                _ => byte(std::array::from_fn(|n| codes[160 + m - 32 + 16 * n])),
            }),
            qh: std::array::from_fn(|m| byte(std::array::from_fn(|n| if n < 4 { codes[240 + m + 4 * n] } else { 0 }))),
            d,
        }
    }
}

impl Encode for TQ2_0 {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, codes) = ternary(x, importance);
        TQ2_0 { qs: std::array::from_fn(|i| quarters(&codes, i)), d }
    }
}
