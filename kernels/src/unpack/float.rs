//! Plain floats: a block is 32 values along k, each sixteen rows side by side.

use super::{Floats, GROUP, Pack, Unpack};
use crate::simd::{LANES, Simd};
use gguf::Format;

macro_rules! float {
    ($name:ident, $value:ty, $load:ident, $doc:literal) => {
        #[doc = $doc]
        pub struct $name;

        impl Pack for $name {
            const FORMAT: Format = Format::$name;

            fn pack(file: &[u8], lane: usize, block: &mut Self::Block) {
                let values = file.as_chunks().0.iter();
                for (row, &value) in block.iter_mut().zip(values) {
                    row[lane] = <$value>::from_le_bytes(value);
                }
            }
        }

        impl Unpack for $name {
            type Block = [[$value; LANES]; GROUP];
            const K: usize = GROUP;
            type Shape = Floats;

            #[inline(always)]
            fn values<S: Simd>(s: S, block: &Self::Block, _: usize, step: usize) -> [S::F32; 4] {
                let at = 4 * step;
                [s.$load(&block[at]), s.$load(&block[at + 1]), s.$load(&block[at + 2]), s.$load(&block[at + 3])]
            }
            #[inline(always)]
            fn scale<S: Simd>(s: S, _: &Self::Block, _: usize) -> S::F32 {
                s.splat(1.0)
            }
            #[inline(always)]
            fn min<S: Simd>(s: S, _: &Self::Block, _: usize) -> S::F32 {
                s.splat(0.0)
            }
        }
    };
}

float!(F32, f32, load, "IEEE binary32.");
float!(F16, u16, load_f16, "IEEE binary16, widened on the way.");
float!(BF16, u16, load_bf16, "bfloat16, widened on the way.");
