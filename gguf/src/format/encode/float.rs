//! Plain floats: rounded to nearest, ties to even. What is beyond the range of a
//! format becomes its largest number.

use super::super::Encode;
use super::super::float::{BF16, F16, F32};
use super::f16;
use super::lanes::Lanes;

impl Encode for F32 {
    fn encode<V: Lanes>(_: V::Token, x: &[f32], _: Option<&[f32]>) -> Self {
        F32 { v: x[0].to_le_bytes() }
    }
}

impl Encode for F16 {
    fn encode<V: Lanes>(_: V::Token, x: &[f32], _: Option<&[f32]>) -> Self {
        F16 { v: f16(x[0]) }
    }
}

impl Encode for BF16 {
    fn encode<V: Lanes>(_: V::Token, x: &[f32], _: Option<&[f32]>) -> Self {
        let max = half::bf16::MAX.to_f32();
        BF16 { v: half::bf16::from_f32(x[0].clamp(-max, max)).to_le_bytes() }
    }
}
