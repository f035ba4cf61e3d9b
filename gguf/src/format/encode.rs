//! Quantization: from f32 to blocks. Nothing here is needed to run a model.
//!
//! [`float`] rounds to nearest; [`legacy`] has the well-known one-pass methods, whose output equals
//! that of other tools byte for byte where the importance of columns is not known; [`kquant`], [`scaled`] and [`own`]
//! search with what [`search`] has.

mod float;
mod kquant;
mod legacy;
mod own;
mod scaled;
mod search;

/// A binary16 field, rounded to nearest; finite for every finite number.
fn f16(x: f32) -> [u8; 2] {
    let max = half::f16::MAX.to_f32();
    half::f16::from_f32(x.clamp(-max, max)).to_le_bytes()
}

/// The reciprocal, and 0 for 0: a block of zeros has scale 0 and codes of 0.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}
