//! K-quants: the fits of [`super::affine`] and [`super::symmetric`], packed.

use super::super::Encode;
use super::super::kquant::{Q2K, Q3K, Q4K, Q5K, Q6K};
use super::affine::{Tops, affine};
use super::lanes::Lanes;
use super::search::{LEN, Whole, code};
use super::symmetric::symmetric;
use super::{bytes, f16};

impl Encode for Q2K {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = affine::<V, 16, 2, 16>(cpu, x, importance, Tops { code: 3.0, scale: 15.0 });
        Q2K {
            scales: bytes(|g| block.scales[g] | block.mins[g] << 4),
            qs: bytes(|i| quarters(&block.codes, i)),
            d: f16(block.d),
            dmin: f16(block.dmin),
        }
    }
}

/// Byte `i` of the low two bits of codes, as [`Q2K`], [`Q3K`] and the ternary formats have them.
#[inline(always)]
pub fn quarters(q: &[u8; LEN], i: usize) -> u8 {
    let at = i / 32 * 128 + i % 32;
    (0..4).fold(0, |bits, s| bits | (q[at + 32 * s] & 3) << (2 * s))
}

impl Encode for Q3K {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = symmetric::<V, Whole<-4, 3>, 16, 2, 16>(cpu, x, importance, -32.0);
        let q = block.codes(x, |v| code(v, -4.0, 3.0).wrapping_add(4));
        let scales = block.scales.map(|s| (s + 32) as u8);
        let third = |i: usize| (0..8).fold(0, |bits, j| bits | (q[32 * j + i] >> 2) << j);
        Q3K {
            hmask: bytes(third),
            qs: bytes(|i| quarters(&q, i)),
            scales: bytes(|i| match i {
                0..8 => scales[i] & 15 | (scales[i + 8] & 15) << 4,
                _ => (0..4).fold(0, |bits, j| bits | (scales[4 * j + i - 8] >> 4) << (2 * j)),
            }),
            d: f16(block.d),
        }
    }
}

impl Encode for Q4K {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = affine::<V, 8, 1, 32>(cpu, x, importance, Tops { code: 15.0, scale: 63.0 });
        let q = &block.codes;
        Q4K {
            d: f16(block.d),
            dmin: f16(block.dmin),
            scales: pack_scales(&block.scales, &block.mins),
            qs: bytes(|i| low_nibbles(q, i)),
        }
    }
}

impl Encode for Q5K {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = affine::<V, 8, 1, 32>(cpu, x, importance, Tops { code: 31.0, scale: 63.0 });
        let q = &block.codes;
        let fifth = |i: usize| (0..8).fold(0, |bits, g| bits | (q[32 * g + i] >> 4 & 1) << g);
        Q5K {
            d: f16(block.d),
            dmin: f16(block.dmin),
            scales: pack_scales(&block.scales, &block.mins),
            qh: bytes(fifth),
            qs: bytes(|i| low_nibbles(q, i)),
        }
    }
}

/// Byte `i` of the nibbles of [`Q4K`] and [`Q5K`].
#[inline(always)]
fn low_nibbles(q: &[u8; LEN], i: usize) -> u8 {
    let at = i / 32 * 64 + i % 32;
    q[at] & 15 | q[at + 32] << 4
}

/// The inverse of [`super::super::scales_and_mins`].
#[inline(always)]
fn pack_scales(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    bytes(|i| match i {
        0..4 => scales[i] | scales[i + 4] >> 4 << 6,
        4..8 => mins[i - 4] | mins[i] >> 4 << 6,
        _ => scales[i - 4] & 15 | mins[i - 4] << 4,
    })
}

impl Encode for Q6K {
    #[inline(always)]
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let block = symmetric::<V, Whole<-32, 31>, 16, 2, 16>(cpu, x, importance, -128.0);
        let q = block.codes(x, |v| code(v, -32.0, 31.0).wrapping_add(32));
        let low = |i: usize| {
            let at = i / 64 * 128 + i % 64;
            q[at] & 15 | q[at + 64] << 4
        };
        let high = |i: usize| {
            let at = i / 32 * 128 + i % 32;
            (0..4).fold(0, |bits, s| bits | q[at + 32 * s] >> 4 << (2 * s))
        };
        Q6K { ql: bytes(low), qh: bytes(high), scales: block.scales.map(|s| s as u8), d: f16(block.d) }
    }
}
