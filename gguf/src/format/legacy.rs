//! Blocks of 32 with one scale, and in the `_1` formats one minimum.
//!
//! Low nibbles hold the elements 0 to 15, high nibbles 16 to 31. Layouts are those of ggml.

use bytemuck::{Pod, Zeroable};

use super::float::f16;
use super::{Block, Format};

/// Elements a block of every format of this file.
const LEN: usize = 32;

/// 4-bit codes around 8: `d * (q - 8)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_0 {
    /// Scale, binary16.
    pub d: [u8; 2],
    /// Codes: element `i` in the low, `i + 16` in the high nibble of byte `i`.
    pub qs: [u8; 16],
}

/// 4-bit codes with a minimum: `d * q + m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_1 {
    /// Scale, binary16.
    pub d: [u8; 2],
    /// Minimum, binary16.
    pub m: [u8; 2],
    /// Codes, as in [`Q4_0`].
    pub qs: [u8; 16],
}

/// 5-bit codes around 16: `d * (q - 16)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_0 {
    /// Scale, binary16.
    pub d: [u8; 2],
    /// The fifth bits: bit `i` of the little-endian u32 belongs to element `i`.
    pub qh: [u8; 4],
    /// The low four bits, as in [`Q4_0`].
    pub qs: [u8; 16],
}

/// 5-bit codes with a minimum: `d * q + m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_1 {
    /// Scale, binary16.
    pub d: [u8; 2],
    /// Minimum, binary16.
    pub m: [u8; 2],
    /// The fifth bits, as in [`Q5_0`].
    pub qh: [u8; 4],
    /// The low four bits, as in [`Q4_0`].
    pub qs: [u8; 16],
}

/// Signed bytes: `d * q`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q8_0 {
    /// Scale, binary16.
    pub d: [u8; 2],
    /// Codes, two's complement, element by element.
    pub qs: [u8; 32],
}

const _: () = {
    assert!(size_of::<Q4_0>() == 18 && size_of::<Q4_1>() == 20);
    assert!(size_of::<Q5_0>() == 22 && size_of::<Q5_1>() == 24);
    assert!(size_of::<Q8_0>() == 34);
};

/// The 32 codes of nibbles and, above them, fifth bits.
fn codes(qs: &[u8; 16], qh: [u8; 4]) -> [u8; LEN] {
    let high = u32::from_le_bytes(qh);
    std::array::from_fn(|i| {
        let low = if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 };
        low | ((high >> i & 1) as u8) << 4
    })
}

impl Block for Q4_0 {
    const FORMAT: Format = Format::Q4_0;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let d = f16(self.d);
        for (y, q) in out[..LEN].iter_mut().zip(codes(&self.qs, [0; 4])) {
            *y = d * (f32::from(q) - 8.0);
        }
    }
}

impl Block for Q4_1 {
    const FORMAT: Format = Format::Q4_1;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let (d, m) = (f16(self.d), f16(self.m));
        for (y, q) in out[..LEN].iter_mut().zip(codes(&self.qs, [0; 4])) {
            *y = d * f32::from(q) + m;
        }
    }
}

impl Block for Q5_0 {
    const FORMAT: Format = Format::Q5_0;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let d = f16(self.d);
        for (y, q) in out[..LEN].iter_mut().zip(codes(&self.qs, self.qh)) {
            *y = d * (f32::from(q) - 16.0);
        }
    }
}

impl Block for Q5_1 {
    const FORMAT: Format = Format::Q5_1;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let (d, m) = (f16(self.d), f16(self.m));
        for (y, q) in out[..LEN].iter_mut().zip(codes(&self.qs, self.qh)) {
            *y = d * f32::from(q) + m;
        }
    }
}

impl Block for Q8_0 {
    const FORMAT: Format = Format::Q8_0;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let d = f16(self.d);
        for (y, q) in out[..LEN].iter_mut().zip(self.qs) {
            *y = d * f32::from(q as i8);
        }
    }
}
