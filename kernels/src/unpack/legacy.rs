//! Blocks of 32 with one scale, and in the `_1` formats one minimum. A panel block is a pair of them, so that its
//! lines of codes start at multiples of 64 bytes; where k is an odd number of blocks, zeros fill the last pair.

use super::{Coded, Codes, GROUP, Halves, Line, Pack, Unpack, codes, half, pack_codes, quad};
use crate::simd::Simd;
use bytemuck::{Pod, Zeroable};
use gguf::Format;
use gguf::format as file;

/// Sign bit of a half float.
const SIGN: u16 = 1 << 15;

/// Codes of a file's block: nibbles, element `i` low and `i + 16` high in byte `i`, and above them bit `i` of `high`.
fn nibbles(qs: &[u8; 16], high: [u8; 4]) -> [u8; GROUP] {
    let high = u32::from_le_bytes(high);
    std::array::from_fn(|i| {
        let low = if i < 16 { qs[i] & 15 } else { qs[i - 16] >> 4 };
        low | ((high >> i & 1) as u8) << 4
    })
}

/// A format: its codes are `$low + $high` bits around `$zero`, `$scale` takes a file's block to its scale, `$read` to its
/// codes, and `$m` to the minimum (as the format adds it) where there is one.
macro_rules! legacy {
    ($name:ident, $doc:literal, $low:literal + $high:literal bits around $zero:literal, $scale:expr, $read:expr $(, $m:expr)?) => {
        #[doc = $doc]
        pub struct $name;

        const _: () = {
            /// Two groups of sixteen rows.
            #[derive(Clone, Copy, Pod, Zeroable)]
            #[repr(C)]
            pub struct Block {
                scale: [Halves; 2],
                min: [Halves; if_some!(2, 0 $(, $m)?)],
                codes: [[Line; $low + $high]; 2],
            }

            impl Pack for $name {
                const FORMAT: Format = Format::$name;

                fn pack(file: &[u8], lane: usize, block: &mut Block) {
                    let blocks: &[file::$name] = bytemuck::cast_slice(file);
                    for (g, b) in blocks.iter().enumerate() {
                        block.scale[g][lane] = $scale(b);
                        $(block.min[g][lane] = $m(b) ^ SIGN;)?
                        pack_codes::<$low, $high>(&$read(b), lane, &mut block.codes[g]);
                    }
                }
            }

            impl Unpack for $name {
                type Block = Block;
                const K: usize = 2 * GROUP;
                type Shape = Codes<{ ((1u16 << ($low + $high)) - 1) as u8 }, $zero, GROUP, { if_some!(true, false $(, $m)?) }>;

                #[inline(always)]
                fn values<S: Simd>(s: S, block: &Block, g: usize, step: usize) -> [S::F32; 4] {
                    quad(s, Self::codes(s, block, g, step), $zero)
                }
                #[inline(always)]
                fn scale<S: Simd>(s: S, block: &Block, sub: usize) -> S::F32 {
                    s.load_f16(&block.scale[sub])
                }
                #[inline(always)]
                fn min<S: Simd>(s: S, block: &Block, sub: usize) -> S::F32 {
                    block.min.get(sub).map_or(s.splat(0.0), |min| s.load_f16(min))
                }
            }

            impl Coded for $name {
                #[inline(always)]
                fn codes<S: Simd>(s: S, block: &Block, g: usize, step: usize) -> S::Codes {
                    codes::<S, $low, $high>(s, &block.codes[g], step)
                }
            }
        };
    };
}

/// The first where a third argument follows, else the second.
macro_rules! if_some {
    ($yes:expr, $no:expr) => {
        $no
    };
    ($yes:expr, $no:expr, $some:expr) => {
        $yes
    };
}

legacy!(Q4_0, "4-bit codes around 8.", 4 + 0 bits around 8, |b: &file::Q4_0| half(b.d), |b: &file::Q4_0| nibbles(&b.qs, [0; 4]));
legacy!(Q4_1, "4-bit codes and a minimum.", 4 + 0 bits around 0, |b: &file::Q4_1| half(b.d),
    |b: &file::Q4_1| nibbles(&b.qs, [0; 4]), |b: &file::Q4_1| half(b.m));
legacy!(Q5_0, "5-bit codes around 16.", 4 + 1 bits around 16, |b: &file::Q5_0| half(b.d), |b: &file::Q5_0| nibbles(&b.qs, b.qh));
legacy!(Q5_1, "5-bit codes and a minimum.", 4 + 1 bits around 0, |b: &file::Q5_1| half(b.d),
    |b: &file::Q5_1| nibbles(&b.qs, b.qh), |b: &file::Q5_1| half(b.m));
legacy!(Q8_0, "Signed bytes, biased by 128 here.", 8 + 0 bits around 128, |b: &file::Q8_0| half(b.d),
    |b: &file::Q8_0| b.qs.map(|q| q ^ 0x80));
legacy!(Q4E, "4-bit codes around 8 under an 8-bit float, which binary16 holds too.", 4 + 0 bits around 8,
    |b: &file::Q4E| half::f16::from_f32(b.scale()).to_bits(), |b: &file::Q4E| nibbles(&b.qs, [0; 4]));
