//! One pass a block: the scale from the extreme values, codes rounded to nearest with the scale
//! before its own rounding to binary16. These are the methods of ggml's reference quantization.
//! Where the importance of columns is known, the scale (and minimum) is searched for instead.

use super::super::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::super::{Block, Encode};
use super::affine::fit_one_affine;
use super::lanes::{Lanes, larger, smaller};
use super::search::{Groups, One, Whole, code, lay};
use super::symmetric::fit_one_symmetric;
use super::{bytes, f16, inverse, nibbles, rounded};

impl Encode for Q8_0 {
    /// `d = max|x| / 127`.
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], _: Option<&[f32]>) -> Self {
        let x = &x[..Self::LEN];
        let d = magnitude::<V>(cpu, x) / 127.0;
        let id = inverse(d);
        Q8_0 { d: f16(d), qs: bytes(|i| (x[i] * id).round() as i8 as u8) }
    }
}

impl Encode for Q4_0 {
    /// The value of largest magnitude becomes code 0, which is -8 times the scale.
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, codes) = match importance {
            None => around_middle::<V>(cpu, x, 4),
            Some(w) => searched_around_middle::<V, -8, 7>(cpu, x, w),
        };
        Q4_0 { d: f16(d), qs: nibbles(&codes) }
    }
}

impl Encode for Q5_0 {
    /// The value of largest magnitude becomes code 0, which is -16 times the scale.
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, codes) = match importance {
            None => around_middle::<V>(cpu, x, 5),
            Some(w) => searched_around_middle::<V, -16, 15>(cpu, x, w),
        };
        Q5_0 { d: f16(d), qh: fifth_bits(&codes), qs: nibbles(&codes) }
    }
}

impl Encode for Q4_1 {
    /// Codes 0 and 15 are the extremes.
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, m, codes) = match importance {
            None => between_extremes::<V>(cpu, x, 4),
            Some(w) => searched_between::<V>(cpu, x, w, 15.0),
        };
        Q4_1 { d: f16(d), m: f16(m), qs: nibbles(&codes) }
    }
}

impl Encode for Q5_1 {
    /// Codes 0 and 31 are the extremes.
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, m, codes) = match importance {
            None => between_extremes::<V>(cpu, x, 5),
            Some(w) => searched_between::<V>(cpu, x, w, 31.0),
        };
        Q5_1 { d: f16(d), m: f16(m), qh: fifth_bits(&codes), qs: nibbles(&codes) }
    }
}

/// Scale and codes for `d * (q - 2^(bits - 1))`.
#[inline(always)]
fn around_middle<V: Lanes>(cpu: V::Token, x: &[f32], bits: u32) -> (f32, [u8; 32]) {
    let x = &x[..32];
    let middle = (1 << (bits - 1)) as f32;
    let most = magnitude::<V>(cpu, x);
    // Of two as large the first.
    let extreme = x.iter().find(|v| v.abs() == most).copied().unwrap_or(0.0);
    let d = extreme / -middle;
    let id = inverse(d);
    (d, bytes(|i| up(x[i] * id + middle, bits)))
}

/// The largest magnitude.
#[inline(always)]
fn magnitude<V: Lanes>(cpu: V::Token, x: &[f32]) -> f32 {
    let zero = V::all(cpu, 0.0);
    lay::<V, One, 4>(cpu, x).into_iter().fold(zero, |most, v| v.abs().max(most)).fold(larger)
}

/// Scale, minimum and codes for `d * q + m`.
#[inline(always)]
fn between_extremes<V: Lanes>(cpu: V::Token, x: &[f32], bits: u32) -> (f32, f32, [u8; 32]) {
    let x = &x[..32];
    let lanes = lay::<V, One, 4>(cpu, x);
    let min = lanes.iter().fold(lanes[0].like(f32::MAX), |min, &v| v.min(min)).fold(smaller);
    let max = lanes.iter().fold(lanes[0].like(f32::MIN), |max, &v| v.max(max)).fold(larger);
    let d = (max - min) / ((1 << bits) - 1) as f32;
    let id = inverse(d);
    (d, min, bytes(|i| up((x[i] - min) * id, bits)))
}

/// As [`around_middle`], of least weighted error.
#[inline(always)]
fn searched_around_middle<V: Lanes, const LOW: i32, const HIGH: i32>(
    cpu: V::Token,
    x: &[f32],
    importance: &[f32],
) -> (f32, [u8; 32]) {
    let d = rounded(fit_one_symmetric::<V, Whole<LOW, HIGH>, 4>(&Groups::new(cpu, x, Some(importance))));
    let id = inverse(d);
    (d, bytes(|i| code(x[i] * id, LOW as f32, HIGH as f32).wrapping_sub(LOW as u8)))
}

/// As [`between_extremes`], of least weighted error.
#[inline(always)]
fn searched_between<V: Lanes>(cpu: V::Token, x: &[f32], importance: &[f32], top: f32) -> (f32, f32, [u8; 32]) {
    let (d, min) = fit_one_affine::<V, 4>(&Groups::new(cpu, x, Some(importance)), top);
    let (d, m) = (rounded(d), rounded(-min));
    let id = inverse(d);
    (d, m, bytes(|i| code((x[i] - m) * id, 0.0, top)))
}

/// The nearest code, ties upwards.
#[inline(always)]
fn up(v: f32, bits: u32) -> u8 {
    ((v + 0.5) as u8).min((1 << bits) - 1)
}

/// Bit 4 of each code, one after the other.
#[inline(always)]
fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    let (eights, _) = codes.as_chunks::<8>();
    std::array::from_fn(|i| {
        let bits = u64::from_le_bytes(eights[i]) >> 4 & 0x0101_0101_0101_0101;
        // Byte `j` of the product's terms meets bit `j` of its last byte, and no other term does.
        (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
    })
}
