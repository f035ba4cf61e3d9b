//! Plain floats, as blocks of one element.

use bytemuck::{Pod, Zeroable};
use half::slice::HalfFloatSliceExt;

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

    /// By the processor's own conversion, where it has one.
    fn decode_all(blocks: &[F16], out: &mut [f32]) {
        // So many that to ask for the processor's features costs nothing.
        let mut halves = [half::f16::ZERO; 256];
        for (blocks, out) in blocks.chunks(halves.len()).zip(out.chunks_mut(halves.len())) {
            let halves = &mut halves[..blocks.len()];
            for (half, block) in halves.iter_mut().zip(blocks) {
                *half = half::f16::from_le_bytes(block.v);
            }
            halves.convert_to_f32_slice(out);
        }
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

/// A little-endian binary16 field as f32, exactly. In place of the conversion of `half`, which asks for the processor's
/// features each time: this one the compiler makes vectors of.
#[inline(always)]
pub(super) fn f16(bytes: [u8; 2]) -> f32 {
    /// One step of the exponent.
    const EXPONENT: u32 = 1 << 23;
    /// From the bias of the exponents of binary16 to that of binary32.
    const BIAS: u32 = 127 - 15;
    let bits = u32::from(u16::from_le_bytes(bytes));
    let (sign, magnitude) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    let exponent = magnitude / EXPONENT;
    let normal = magnitude + BIAS * EXPONENT;
    // The least normal number plus the subnormal one has the latter's bits as its fraction.
    let least = (BIAS + 1) * EXPONENT;
    let subnormal = (f32::from_bits(magnitude + least) - f32::from_bits(least)).to_bits();
    // Infinity, and numbers that are none, which become quiet ones.
    let quiet = if magnitude & (EXPONENT - 1) == 0 { 0 } else { EXPONENT / 2 };
    let special = (magnitude + 2 * BIAS * EXPONENT) | quiet;
    let value = match exponent {
        0 => subnormal,
        31 => special,
        _ => normal,
    };
    f32::from_bits(sign | value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binary16_is_itself() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16(bits.to_le_bytes()), half::f16::from_bits(bits).to_f32());
            assert_eq!(ours.to_bits(), theirs.to_bits(), "{bits:04x}");
        }
    }

    #[test]
    fn many_binary16_are_each_of_them() {
        let blocks: Vec<F16> = (0..=u16::MAX).map(|bits| F16 { v: bits.to_le_bytes() }).collect();
        // Lengths that end within a register, and within the numbers that are taken at a time.
        for blocks in [&blocks[..], &blocks[31_000..32_003], &blocks[..5], &[]] {
            let mut all = vec![0.0; blocks.len()];
            F16::decode_all(blocks, &mut all);
            for (block, all) in blocks.iter().zip(all) {
                let mut one = [0.0];
                block.decode(&mut one);
                assert_eq!(all.to_bits(), one[0].to_bits(), "{block:?}");
            }
        }
    }
}
