//! Blocks of 256 in groups of 16 or 32, each group with its own small integer scale (and minimum),
//! which one binary16 a block scales in turn. Layouts are those of ggml.

use bytemuck::{Pod, Zeroable};

use super::float::f16;
use super::{Block, Format};

/// Elements a block of every format of this file.
const LEN: usize = 256;

/// 2-bit codes, 16 groups of 16: `d * scale * q - dmin * min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q2K {
    /// Group `g`: scale in the low, minimum in the high nibble of byte `g`.
    pub scales: [u8; 16],
    /// Codes: element `128 h + 32 s + i` in bits `2 s` and `2 s + 1` of byte `32 h + i`.
    pub qs: [u8; 64],
    /// Scale of the scales, binary16.
    pub d: [u8; 2],
    /// Scale of the minimums, binary16.
    pub dmin: [u8; 2],
}

/// 3-bit codes around 4, 16 groups of 16: `d * scale * (q - 4)`, scales signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q3K {
    /// Third bits: bit `j` of byte `i` belongs to element `32 j + i`.
    pub hmask: [u8; 32],
    /// The low two bits, as in [`Q2K`].
    pub qs: [u8; 64],
    /// 16 scales of 6 bits; see [`Q3K::group_scales`].
    pub scales: [u8; 12],
    /// Scale of the scales, binary16.
    pub d: [u8; 2],
}

/// 4-bit codes, 8 groups of 32: `d * scale * q - dmin * min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q4K {
    /// Scale of the scales, binary16.
    pub d: [u8; 2],
    /// Scale of the minimums, binary16.
    pub dmin: [u8; 2],
    /// 8 scales and 8 minimums of 6 bits; see [`scales_and_mins`].
    pub scales: [u8; 12],
    /// Codes: element `64 h + i` in the low, `64 h + 32 + i` in the high nibble of byte `32 h + i`.
    pub qs: [u8; 128],
}

/// 5-bit codes, 8 groups of 32: `d * scale * q - dmin * min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q5K {
    /// Scale of the scales, binary16.
    pub d: [u8; 2],
    /// Scale of the minimums, binary16.
    pub dmin: [u8; 2],
    /// 8 scales and 8 minimums of 6 bits; see [`scales_and_mins`].
    pub scales: [u8; 12],
    /// Fifth bits: bit `g` of byte `i` belongs to element `32 g + i`.
    pub qh: [u8; 32],
    /// The low four bits, as in [`Q4K`].
    pub qs: [u8; 128],
}

/// 6-bit codes around 32, 16 groups of 16: `d * scale * (q - 32)`, scales signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q6K {
    /// The low four bits: element `128 h + 64 n + i` in nibble `n` of byte `64 h + i`.
    pub ql: [u8; 128],
    /// The high two bits: element `128 h + 32 s + i` in bits `2 s` and `2 s + 1` of byte `32 h + i`.
    pub qh: [u8; 64],
    /// A signed scale a group.
    pub scales: [u8; 16],
    /// Scale of the scales, binary16.
    pub d: [u8; 2],
}

const _: () = {
    assert!(size_of::<Q2K>() == 84 && size_of::<Q3K>() == 110 && size_of::<Q4K>() == 144);
    assert!(size_of::<Q5K>() == 176 && size_of::<Q6K>() == 210);
};

/// The 8 scales and 8 minimums of [`Q4K`] and [`Q5K`], 0 to 63 each.
///
/// Bytes 0 to 3 hold the scales 0 to 3 in their low six bits, bytes 4 to 7 the minimums 0 to 3.
/// Scales and minimums 4 to 7 have their low four bits in the nibbles of bytes 8 to 11 and their
/// high two bits in the top of bytes 0 to 3 and 4 to 7.
pub fn scales_and_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let scale = |g: usize| match g {
        0..4 => packed[g] & 63,
        _ => packed[g + 4] & 15 | packed[g - 4] >> 6 << 4,
    };
    let min = |g: usize| match g {
        0..4 => packed[g + 4] & 63,
        _ => packed[g + 4] >> 4 | packed[g] >> 6 << 4,
    };
    (std::array::from_fn(scale), std::array::from_fn(min))
}

impl Block for Q2K {
    const FORMAT: Format = Format::Q2K;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let (d, dmin) = (f16(self.d), f16(self.dmin));
        for (i, y) in out[..LEN].iter_mut().enumerate() {
            let group = self.scales[i / 16];
            let q = self.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
            *y = d * f32::from(group & 15) * f32::from(q) - dmin * f32::from(group >> 4);
        }
    }
}

impl Q3K {
    /// The scales of the 16 groups, -32 to 31.
    ///
    /// Group `g` has its low four bits in a nibble of byte `g % 8` (low nibbles first) and its
    /// high two bits at bit `g / 4 * 2` of byte `8 + g % 4`.
    pub fn group_scales(&self) -> [i8; 16] {
        std::array::from_fn(|g| {
            let low = self.scales[g % 8] >> (g / 8 * 4) & 15;
            let high = self.scales[8 + g % 4] >> (g / 4 * 2) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

impl Block for Q3K {
    const FORMAT: Format = Format::Q3K;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let (d, scales) = (f16(self.d), self.group_scales());
        for (i, y) in out[..LEN].iter_mut().enumerate() {
            let low = self.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
            let high = self.hmask[i % 32] >> (i / 32) & 1;
            let q = i16::from(low | high << 2) - 4;
            *y = d * f32::from(scales[i / 16]) * f32::from(q);
        }
    }
}

impl Block for Q4K {
    const FORMAT: Format = Format::Q4K;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let (d, dmin) = (f16(self.d), f16(self.dmin));
        let (scales, mins) = scales_and_mins(&self.scales);
        for (i, y) in out[..LEN].iter_mut().enumerate() {
            let q = self.qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
            *y = d * f32::from(scales[i / 32]) * f32::from(q) - dmin * f32::from(mins[i / 32]);
        }
    }
}

impl Block for Q5K {
    const FORMAT: Format = Format::Q5K;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let (d, dmin) = (f16(self.d), f16(self.dmin));
        let (scales, mins) = scales_and_mins(&self.scales);
        for (i, y) in out[..LEN].iter_mut().enumerate() {
            let low = self.qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
            let high = self.qh[i % 32] >> (i / 32) & 1;
            let q = low | high << 4;
            *y = d * f32::from(scales[i / 32]) * f32::from(q) - dmin * f32::from(mins[i / 32]);
        }
    }
}

impl Block for Q6K {
    const FORMAT: Format = Format::Q6K;
    const LEN: usize = LEN;

    fn decode(&self, out: &mut [f32]) {
        let d = f16(self.d);
        for (i, y) in out[..LEN].iter_mut().enumerate() {
            let low = self.ql[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4) & 15;
            let high = self.qh[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3;
            let q = i16::from(low | high << 4) - 32;
            *y = d * f32::from(self.scales[i / 16] as i8) * f32::from(q);
        }
    }
}
