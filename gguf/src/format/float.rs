//! Plain floats, as blocks of one element.

use bytemuck::{Pod, Zeroable};

use super::{Block, Format};

/// IEEE binary32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct F32 {
    /// The number, little-endian.
    pub v: [u8; 4],
}

impl Block for F32 {
    const FORMAT: Format = Format::F32;
    const LEN: usize = 1;

    fn decode(&self, out: &mut [f32]) {
        out[0] = f32::from_le_bytes(self.v);
    }
}

/// IEEE binary16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct F16 {
    /// The number, little-endian.
    pub v: [u8; 2],
}

impl Block for F16 {
    const FORMAT: Format = Format::F16;
    const LEN: usize = 1;

    fn decode(&self, out: &mut [f32]) {
        out[0] = f16(self.v);
    }
}

/// bfloat16: the upper half of a binary32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BF16 {
    /// The number, little-endian.
    pub v: [u8; 2],
}

impl Block for BF16 {
    const FORMAT: Format = Format::BF16;
    const LEN: usize = 1;

    fn decode(&self, out: &mut [f32]) {
        out[0] = f32::from_bits(u32::from(u16::from_le_bytes(self.v)) << 16);
    }
}

const _: () = assert!(size_of::<F32>() == 4 && size_of::<F16>() == 2 && size_of::<BF16>() == 2);

/// A little-endian binary16 field as f32, exactly.
pub(super) fn f16(bytes: [u8; 2]) -> f32 {
    half::f16::from_le_bytes(bytes).to_f32()
}
