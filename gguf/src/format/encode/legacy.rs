//! One pass a block: the scale from the extreme values, codes rounded to nearest with the scale
//! before its own rounding to binary16. These are the methods of ggml's reference quantization.
//! Where the importance of columns is known, the scale (and minimum) is searched for instead.

use super::super::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::super::{Block, Encode};
use super::search::{Group, Whole, fit_affine, fit_symmetric, whole};
use super::{f16, inverse};

impl Encode for Q8_0 {
    /// `d = max|x| / 127`.
    fn encode(x: &[f32], _: Option<&[f32]>) -> Self {
        let x = &x[..Self::LEN];
        let d = x.iter().fold(0f32, |max, v| max.max(v.abs())) / 127.0;
        let id = inverse(d);
        Q8_0 { d: f16(d), qs: std::array::from_fn(|i| (x[i] * id).round() as i8 as u8) }
    }
}

impl Encode for Q4_0 {
    /// The value of largest magnitude becomes code 0, which is -8 times the scale.
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, codes) = match importance {
            None => around_middle(x, 4),
            Some(w) => searched_around_middle::<-8, 7>(x, w),
        };
        Q4_0 { d: f16(d), qs: nibbles(&codes) }
    }
}

impl Encode for Q5_0 {
    /// The value of largest magnitude becomes code 0, which is -16 times the scale.
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, codes) = match importance {
            None => around_middle(x, 5),
            Some(w) => searched_around_middle::<-16, 15>(x, w),
        };
        Q5_0 { d: f16(d), qh: fifth_bits(&codes), qs: nibbles(&codes) }
    }
}

impl Encode for Q4_1 {
    /// Codes 0 and 15 are the extremes.
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, m, codes) = match importance {
            None => between_extremes(x, 4),
            Some(w) => searched_between(x, w, 15.0),
        };
        Q4_1 { d: f16(d), m: f16(m), qs: nibbles(&codes) }
    }
}

impl Encode for Q5_1 {
    /// Codes 0 and 31 are the extremes.
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let (d, m, codes) = match importance {
            None => between_extremes(x, 5),
            Some(w) => searched_between(x, w, 31.0),
        };
        Q5_1 { d: f16(d), m: f16(m), qh: fifth_bits(&codes), qs: nibbles(&codes) }
    }
}

/// Scale and codes for `d * (q - 2^(bits - 1))`.
fn around_middle(x: &[f32], bits: u32) -> (f32, [u8; 32]) {
    let x = &x[..32];
    let middle = (1 << (bits - 1)) as f32;
    let larger = |max: f32, &v: &f32| if v.abs() > max.abs() { v } else { max };
    let d = x.iter().fold(0.0, larger) / -middle;
    let id = inverse(d);
    (d, std::array::from_fn(|i| code(x[i] * id + middle, bits)))
}

/// Scale, minimum and codes for `d * q + m`.
fn between_extremes(x: &[f32], bits: u32) -> (f32, f32, [u8; 32]) {
    let x = &x[..32];
    let min = x.iter().copied().fold(f32::MAX, f32::min);
    let max = x.iter().copied().fold(f32::MIN, f32::max);
    let d = (max - min) / ((1 << bits) - 1) as f32;
    let id = inverse(d);
    (d, min, std::array::from_fn(|i| code((x[i] - min) * id, bits)))
}

/// A number rounded to binary16, as the decoder will see it.
fn rounded(x: f32) -> f32 {
    half::f16::from_le_bytes(f16(x)).to_f32()
}

/// As [`around_middle`], of least weighted error.
fn searched_around_middle<const LOW: i32, const HIGH: i32>(x: &[f32], importance: &[f32]) -> (f32, [u8; 32]) {
    let d = rounded(fit_symmetric::<Whole<LOW, HIGH>, 4>(&Group::new(x, Some(importance))));
    let id = inverse(d);
    (d, std::array::from_fn(|i| (whole(x[i] * id, LOW as f32, HIGH as f32) - LOW as f32) as u8))
}

/// As [`between_extremes`], of least weighted error.
fn searched_between(x: &[f32], importance: &[f32], top: f32) -> (f32, f32, [u8; 32]) {
    let (d, min) = fit_affine(&Group::<4>::new(x, Some(importance)), top, true);
    let (d, m) = (rounded(d), rounded(-min));
    let id = inverse(d);
    (d, m, std::array::from_fn(|i| whole((x[i] - m) * id, 0.0, top) as u8))
}

/// The nearest code, ties upwards.
fn code(v: f32, bits: u32) -> u8 {
    ((v + 0.5) as u8).min((1 << bits) - 1)
}

fn nibbles(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| codes[i] & 15 | codes[i + 16] << 4)
}

fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    let bits = codes.iter().enumerate().fold(0, |bits, (i, &q)| bits | u32::from(q >> 4 & 1) << i);
    bits.to_le_bytes()
}
