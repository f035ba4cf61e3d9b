//! Formats of this project alone, with ids from [`OWN`] on: worked examples for whoever tries an idea of their own.
//!
//! # How a format is added, by the example of `Q4_E`
//!
//! The idea: Q4_0 spends two of its eighteen bytes on the scale of 32 weights, more than 4-bit codes can use. A scale of
//! eight bits makes the block 17 bytes, and a search for the scale more than makes up for the bits: 4.25 bits a weight
//! with less error than the 4.5 of Q4_0 (6.5 % less on the weights of SmolLM2). Weights beyond 60 do not fit.
//!
//! 1. *Decode* (here): a struct of plain bytes with [`Block::decode`], the definition of the format, and a row in
//!    `format.rs`. From here on files can hold it: the parser, the writer, `show` and `quantize` loop over that list.
//! 2. *Encode* (`encode/own.rs`): the fits of `encode/search.rs` do the work; a format says what its codes stand for
//!    and rounds the scale. A row in the program's `quantize/types.rs` gives it a name.
//! 3. *Processor* (`kernels/src/unpack/legacy.rs`): how a row of the file goes into a panel, and a row in `Table::ROWS`.
//!    The matmul, on every instruction set, is there already.
//! 4. *GPU* (`shaders/wgsl/unpack/q4_e.wgsl` and a row in `shaders/src/layout.rs`): scale and codes of a group.
//! 5. *Tests*: those of decoding, encoding, panels, matmuls on every instruction set, shaders and whole models loop over
//!    the lists; what is the format's own is in `gguf/tests/file/encode.rs`.
//! 6. *Report*: `handmill quality F16 Q4_0 Q4_E --text FILE` weighs error, perplexity, divergence, bytes and speed.

use bytemuck::{Pod, Zeroable};

use super::float::f16;
use super::{Block, Format};

/// The first id that is no id of ggml's.
pub const OWN: u32 = 1024;

/// 4-bit codes around 8 under an 8-bit float: `scale * (q - 8)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Q4E {
    /// Scale: a sign, four bits of exponent around 13, three of mantissa; the values of binary16 without its two lowest
    /// powers, times 4. The largest is 7.5.
    pub e: [u8; 1],
    /// Codes: element `i` in the low, `i + 16` in the high nibble of byte `i`.
    pub qs: [u8; 16],
}

const _: () = assert!(size_of::<Q4E>() == 17);

impl Q4E {
    /// The scale; exact in binary16.
    pub fn scale(&self) -> f32 {
        let byte = u16::from(self.e[0]);
        4.0 * f16(((byte & 128) << 8 | (byte & 127) << 7).to_le_bytes())
    }
}

impl Block for Q4E {
    const FORMAT: Format = Format::Q4E;
    const LEN: usize = 32;

    fn decode(&self, out: &mut [f32]) {
        let (low, high) = out[..Self::LEN].split_at_mut(16);
        let value = |q: u8| self.scale() * (f32::from(q) - 8.0);
        for ((low, high), q) in low.iter_mut().zip(high).zip(self.qs) {
            (*low, *high) = (value(q & 15), value(q >> 4));
        }
    }
}
