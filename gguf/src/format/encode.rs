//! Quantization: from f32 to blocks. Nothing here is needed to run a model.
//!
//! [`float`] rounds to nearest; [`legacy`] has the well-known one-pass methods, whose output equals
//! that of other tools byte for byte where the importance of columns is not known; [`kquant`], [`scaled`] and [`own`]
//! search with what [`search`] has.

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx2;
mod float;
mod kquant;
pub mod lanes;
mod legacy;
mod own;
mod scaled;
mod search;

use std::marker::PhantomData;

use super::Encode;
use lanes::Lanes;

/// A binary16 field, rounded to nearest; finite for every finite number.
fn f16(x: f32) -> [u8; 2] {
    let max = half::f16::MAX.to_f32();
    half::f16::from_f32(x.clamp(-max, max)).to_le_bytes()
}

/// The reciprocal, and 0 for 0: a block of zeros has scale 0 and codes of 0.
#[inline(always)]
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Bytes of a block, one after the other. In place of `std::array::from_fn`, which need not be inlined.
#[inline(always)]
fn bytes<const N: usize>(f: impl Fn(usize) -> u8) -> [u8; N] {
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = f(i);
    }
    bytes
}

/// Blocks of a format and the values that they are made of.
struct Blocks<'a, B> {
    values: &'a [f32],
    importance: Option<&'a [f32]>,
    out: &'a mut [u8],
    block: PhantomData<B>,
}

impl<B: Encode> Blocks<'_, B> {
    #[inline(always)]
    fn fill<V: Lanes>(self, cpu: V::Token) {
        let blocks = self.out.chunks_exact_mut(B::BYTES).zip(self.values.chunks_exact(B::LEN));
        for (i, (block, values)) in blocks.enumerate() {
            let importance = self.importance.map(|w| &w[i * B::LEN..(i + 1) * B::LEN]);
            block.copy_from_slice(bytemuck::bytes_of(&B::encode::<V>(cpu, values, importance)));
        }
    }
}

/// Encodes with code that is built for what the processor has.
pub fn encode_blocks<B: Encode>(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let blocks = Blocks::<B> { values, importance, out, block: PhantomData };
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    if let Some(cpu) = pulp::x86::V3::try_new() {
        return cpu.vectorize(avx2::Fill { blocks, cpu });
    }
    blocks.fill::<wide::f32x8>(());
}
