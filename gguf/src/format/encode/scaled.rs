//! Formats of a table of values, and ternary ones.

use super::super::Encode;
use super::super::scaled::{FP4_VALUES, IQ4_VALUES, IQ4NL, IQ4XS, MXFP4, TQ1_0, TQ2_0};
use super::kquant::quarters;
use super::lanes::{Lanes, larger};
use super::search::{Codes, Groups, LEN, One, lay};
use super::symmetric::{fit_one_symmetric, symmetric};
use super::{bytes, f16, inverse, nibbles, rounded};

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

    #[inline(always)]
    fn nearest<V: Lanes>(v: V) -> V {
        // From the least value up, a step wherever the halfway point is passed.
        let mut value = v.like(Self::ENDS[0]);
        for (i, &at) in IQ4_HALFWAY.iter().enumerate() {
            let step = f32::from(IQ4_VALUES[i + 1]) - f32::from(IQ4_VALUES[i]);
            value = value + v.like(at).less(v, v.like(step), v.like(0.0));
        }
        value
    }
}

/// The entry nearest to a value.
#[inline(always)]
fn iq4_index(v: f32) -> u8 {
    IQ4_HALFWAY.iter().filter(|&&at| v > at).count() as u8
}

impl Encode for IQ4NL {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let d = fit_one_symmetric::<V, Iq4, 4>(&Groups::new(cpu, x, importance));
        // Rounding the scale moves the nearest entries.
        let inverse = inverse(rounded(d));
        let codes: [u8; 32] = bytes(|i| iq4_index(x[i] * inverse));
        IQ4NL { d: f16(d), qs: nibbles(&codes) }
    }
}

impl Encode for IQ4XS {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = symmetric::<V, Iq4, 8, 1, 32>(cpu, x, importance, -32.0);
        let scales = block.scales.map(|s| (s + 32) as u8);
        let high = (0..8).fold(0u16, |bits, g| bits | u16::from(scales[g] >> 4) << (2 * g));
        let q = block.codes(x, iq4_index);
        IQ4XS {
            d: f16(block.d),
            scales_h: high.to_le_bytes(),
            scales_l: bytes(|i| scales[2 * i] & 15 | (scales[2 * i + 1] & 15) << 4),
            qs: nibbles(&q),
        }
    }
}

impl Encode for MXFP4 {
    /// The power of two of least error among the one by which the largest value is just in range, and its neighbours.
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let lanes = lay::<V, One, 4>(cpu, x);
        let weights = importance.map_or([lanes[0].like(1.0); 4], |w| lay::<V, One, 4>(cpu, w));
        let largest = lanes.iter().fold(lanes[0].like(0.0), |most, v| v.abs().max(most)).fold(larger);
        // The largest entry is 6: 1.5 times four, two powers below its own.
        let usual = (largest.to_bits() >> 23) as i32 - 2;
        let (mut best, mut least) = (MXFP4 { e: [0], qs: [0; 16] }, f32::INFINITY);
        for e in usual - 1..=usual + 1 {
            let block = MXFP4 { e: [e.clamp(0, 254) as u8], ..best };
            let scale = lanes[0].like(block.scale());
            let inverse = scale.inverse();
            let mut error = scale.like(0.0);
            for (&x, &w) in lanes.iter().zip(&weights) {
                let x = x.abs();
                let e = x - scale * fp4_magnitude(x * inverse);
                error = error + w * e * e;
            }
            let error = error.total();
            if error < least {
                (best, least) = (block, error);
            }
        }
        let inverse = inverse(best.scale());
        let codes: [u8; 32] = bytes(|i| fp4_index(x[i] * inverse));
        MXFP4 { qs: nibbles(&codes), ..best }
    }
}

/// Halfway between the magnitudes of a 4-bit float, and what is added where it is passed.
const FP4_STEPS: [(f32, f32); 7] = {
    let mut steps = [(0.0, 0.0); 7];
    let mut i = 0;
    while i < 7 {
        let (low, high) = (FP4_VALUES[i] as f32, FP4_VALUES[i + 1] as f32);
        steps[i] = ((low + high) / 2.0, high - low);
        i += 1;
    }
    steps
};

/// The magnitude of a 4-bit float nearest to a magnitude, ties to the smaller.
#[inline(always)]
fn fp4_magnitude<V: Lanes>(v: V) -> V {
    let zero = v.like(0.0);
    FP4_STEPS.iter().fold(zero, |value, &(at, step)| value + v.like(at).less(v, v.like(step), zero))
}

/// The entry of a 4-bit float nearest to a value, ties to the smaller.
#[inline(always)]
fn fp4_index(v: f32) -> u8 {
    let mut index = 0;
    for (at, _) in FP4_STEPS {
        index += u8::from(v.abs() > at);
    }
    if v < 0.0 && index > 0 { index + 8 } else { index }
}

/// The scale and the signs of small weighted error of `d * {-1, 0, 1}`. The best scale is the mean size of the values that
/// are not 0, and those are larger than half of it: a few steps from one to the other, from several scales.
#[inline(always)]
fn ternary<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> ([u8; 2], [u8; LEN]) {
    let mut sizes = lay::<V, One, 32>(cpu, x);
    for v in &mut sizes {
        *v = v.abs();
    }
    let zero = sizes[0].like(0.0);
    let weights = importance.map_or([zero.like(1.0); 32], |w| lay::<V, One, 32>(cpu, w));
    let largest = sizes.iter().fold(zero, |most, &v| v.max(most)).fold(larger);
    let (mut best, mut most) = (0.0, 0.0);
    for start in 1..=4 {
        let mut d = largest * start as f32 / 4.0;
        for _ in 0..4 {
            let half = zero.like(d / 2.0);
            let (mut sum, mut weight) = (zero, zero);
            for (&v, &w) in sizes.iter().zip(&weights) {
                let kept = half.less(v, w, zero);
                (sum, weight) = (sum + kept * v, weight + kept);
            }
            let (sum, weight) = (sum.total(), weight.total());
            d = sum * inverse(weight);
            // What these values take off the error.
            if sum * d > most {
                (best, most) = (d, sum * d);
            }
        }
    }
    let half = best / 2.0;
    let mut codes = [0; LEN];
    for (q, &x) in codes.iter_mut().zip(x) {
        *q = 1 + u8::from(x > half) - u8::from(x < -half);
    }
    (f16(best), codes)
}

impl Encode for TQ1_0 {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, codes) = ternary::<V>(cpu, x, importance);
        // Five digits, the first the most significant; the number is moved up so that a product by a power of three cuts
        // a digit off.
        let byte = |digits: [u8; 5]| {
            let number = digits.iter().fold(0u16, |number, &digit| number * 3 + u16::from(digit));
            (number * 256).div_ceil(243) as u8
        };
        TQ1_0 {
            qs: bytes(|m| match m {
                0..32 => byte(bytes(|n| codes[m + 32 * n])),
                _ => byte(bytes(|n| codes[160 + m - 32 + 16 * n])),
            }),
            qh: bytes(|m| byte(bytes(|n| if n < 4 { codes[240 + m + 4 * n] } else { 0 }))),
            d,
        }
    }
}

impl Encode for TQ2_0 {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, codes) = ternary::<V>(cpu, x, importance);
        TQ2_0 { qs: bytes(|i| quarters(&codes, i)), d }
    }
}
