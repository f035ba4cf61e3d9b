//! K-quants: the fits of [`super::search`], packed.

use super::super::Encode;
use super::super::kquant::{Q2K, Q3K, Q4K, Q5K, Q6K};
use super::f16;
use super::search::{Affine, Group, LEN, Tops, Whole, affine, symmetric};

impl Encode for Q2K {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let block: Affine<16> = affine(&Group::<2>::all(x, importance), Tops { code: 3.0, scale: 15.0 });
        Q2K {
            scales: std::array::from_fn(|g| block.scales[g] | block.mins[g] << 4),
            qs: std::array::from_fn(|i| quarters(&block.codes, i)),
            d: f16(block.d),
            dmin: f16(block.dmin),
        }
    }
}

/// Byte `i` of the low two bits of codes, as [`Q2K`], [`Q3K`] and the ternary formats have them.
pub fn quarters(q: &[u8; LEN], i: usize) -> u8 {
    let at = i / 32 * 128 + i % 32;
    (0..4).fold(0, |bits, s| bits | (q[at + 32 * s] & 3) << (2 * s))
}

impl Encode for Q3K {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = symmetric::<Whole<-4, 3>, 16, 2>(&Group::all(x, importance), -32.0);
        let q = block.values.map(|v| (v + 4.0) as u8);
        let scales = block.scales.map(|s| (s + 32) as u8);
        let third = |i: usize| (0..8).fold(0, |bits, j| bits | (q[32 * j + i] >> 2) << j);
        Q3K {
            hmask: std::array::from_fn(third),
            qs: std::array::from_fn(|i| quarters(&q, i)),
            scales: std::array::from_fn(|i| match i {
                0..8 => scales[i] & 15 | (scales[i + 8] & 15) << 4,
                _ => (0..4).fold(0, |bits, j| bits | (scales[4 * j + i - 8] >> 4) << (2 * j)),
            }),
            d: f16(block.d),
        }
    }
}

impl Encode for Q4K {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let block: Affine<8> = affine(&Group::<4>::all(x, importance), Tops { code: 15.0, scale: 63.0 });
        let q = &block.codes;
        Q4K {
            d: f16(block.d),
            dmin: f16(block.dmin),
            scales: pack_scales(&block.scales, &block.mins),
            qs: std::array::from_fn(|i| low_nibbles(q, i)),
        }
    }
}

impl Encode for Q5K {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let block: Affine<8> = affine(&Group::<4>::all(x, importance), Tops { code: 31.0, scale: 63.0 });
        let q = &block.codes;
        let fifth = |i: usize| (0..8).fold(0, |bits, g| bits | (q[32 * g + i] >> 4 & 1) << g);
        Q5K {
            d: f16(block.d),
            dmin: f16(block.dmin),
            scales: pack_scales(&block.scales, &block.mins),
            qh: std::array::from_fn(fifth),
            qs: std::array::from_fn(|i| low_nibbles(q, i)),
        }
    }
}

/// Byte `i` of the nibbles of [`Q4K`] and [`Q5K`].
fn low_nibbles(q: &[u8; LEN], i: usize) -> u8 {
    let at = i / 32 * 64 + i % 32;
    q[at] & 15 | q[at + 32] << 4
}

/// The inverse of [`super::super::scales_and_mins`].
fn pack_scales(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => scales[i] | scales[i + 4] >> 4 << 6,
        4..8 => mins[i - 4] | mins[i] >> 4 << 6,
        _ => scales[i - 4] & 15 | mins[i - 4] << 4,
    })
}

impl Encode for Q6K {
    fn encode(x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = symmetric::<Whole<-32, 31>, 16, 2>(&Group::all(x, importance), -128.0);
        let q = |i: usize| (block.values[i] + 32.0) as u8;
        let low = |i: usize| {
            let at = i / 64 * 128 + i % 64;
            q(at) & 15 | q(at + 64) << 4
        };
        let high = |i: usize| {
            let at = i / 32 * 128 + i % 32;
            (0..4).fold(0, |bits, s| bits | q(at + 32 * s) >> 4 << (2 * s))
        };
        Q6K {
            ql: std::array::from_fn(low),
            qh: std::array::from_fn(high),
            scales: block.scales.map(|s| s as u8),
            d: f16(block.d),
        }
    }
}
