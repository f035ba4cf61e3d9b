//! Quantization: from f32 to blocks. Nothing here is needed to run a model.
//!
//! [`float`] rounds to nearest; [`legacy`] has the well-known one-pass methods, whose output equals
//! that of other tools byte for byte where the importance of columns is not known; [`kquant`], [`scaled`] and [`own`]
//! search as [`search`] describes, eight numbers at a time ([`lanes`]).

mod affine;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
mod avx2;
mod float;
mod kquant;
pub mod lanes;
mod legacy;
mod own;
mod scaled;
mod search;
mod symmetric;

use std::marker::PhantomData;

use super::Encode;
use lanes::Lanes;

/// A binary16 field, rounded to nearest; finite for every finite number.
fn f16(x: f32) -> [u8; 2] {
    let max = half::f16::MAX.to_f32();
    half::f16::from_f32(x.clamp(-max, max)).to_le_bytes()
}

/// A number rounded to binary16, as the decoder will see it.
#[inline(always)]
fn rounded(x: f32) -> f32 {
    super::float::f16(f16(x))
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

/// Codes of 4 bits, those of each 32 as [`super::legacy`] has them: the first sixteen in the low nibbles, the others in
/// the high ones.
#[inline(always)]
fn nibbles<const N: usize>(codes: &[u8]) -> [u8; N] {
    bytes(|i| {
        let at = i / 16 * 32 + i % 16;
        codes[at] & 15 | codes[at + 16] << 4
    })
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

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    /// Blocks by what the processor has, and by what the oldest has.
    fn both<B: Encode>(x: &[f32], importance: Option<&[f32]>) -> [Vec<u8>; 2] {
        let bytes = x.len() / B::LEN * B::BYTES;
        let (mut best, mut plain) = (vec![0; bytes], vec![0; bytes]);
        encode_blocks::<B>(x, importance, &mut best);
        let blocks = Blocks::<B> { values: x, importance, out: &mut plain, block: PhantomData };
        blocks.fill::<wide::f32x8>(());
        [best, plain]
    }

    #[test]
    fn every_processor_makes_the_same_bytes() {
        // Numbers of many sizes and both signs, and blocks of zeros and of one value.
        let mut state = 1u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut x: Vec<f32> = (0..64 * 256).map(|i| number().powi(1 + i % 3) * 10f32.powi(i / 4096 - 2)).collect();
        x[256..512].fill(0.0);
        x[512..768].fill(-0.75);
        let weights: Vec<f32> = x.iter().map(|_| number().abs()).collect();
        macro_rules! check {
            ($($block:ty)*) => {$(
                for importance in [None, Some(&weights[..])] {
                    let [best, plain] = both::<$block>(&x, importance);
                    assert!(best == plain, "{}, importance {}", <$block>::FORMAT, importance.is_some());
                }
            )*};
        }
        check! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2K Q3K Q4K Q5K Q6K IQ4NL IQ4XS MXFP4 TQ1_0 TQ2_0 Q4E F16 BF16 }
    }
}
