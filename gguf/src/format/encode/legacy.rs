//! Quantization to the formats of [`crate::format::Q8_0`]'s family: one pass, round to nearest.

use super::super::legacy::Q8_0;
use super::super::{Block, Encode};

/// A binary16 field, rounded to nearest.
fn f16(x: f32) -> [u8; 2] {
    half::f16::from_f32(x).to_le_bytes()
}

/// The reciprocal, and 0 for 0: a block of zeros has scale 0 and codes of 0.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

impl Encode for Q8_0 {
    /// `d = max|x| / 127`; codes are `x / d` with the scale before its rounding to binary16.
    fn encode(x: &[f32]) -> Self {
        let x = &x[..Self::LEN];
        let d = x.iter().fold(0f32, |max, v| max.max(v.abs())) / 127.0;
        let id = inverse(d);
        let qs = std::array::from_fn(|i| (x[i] * id).round() as i8 as u8);
        Q8_0 { d: f16(d), qs }
    }
}
