//! Eight numbers in a register of AVX2, through the safe functions of [`pulp`].

use std::ops::{Add, Div, Mul, Sub};

use pulp::Simd;
use pulp::x86::V3;

use super::super::Encode;
use super::Blocks;
use super::lanes::{L, Lanes};

/// Eight numbers in a register of AVX2.
#[derive(Clone, Copy)]
pub struct Avx2 {
    v: pulp::f32x8,
    cpu: V3,
}

macro_rules! operators {
    ($($name:ident $method:ident $op:ident;)*) => {$(
        impl $name for Avx2 {
            type Output = Avx2;

            #[inline(always)]
            fn $method(self, b: Avx2) -> Avx2 {
                Avx2 { v: self.cpu.$op(self.v, b.v), ..self }
            }
        }
    )*};
}

operators! {
    Add add add_f32s;
    Sub sub sub_f32s;
    Mul mul mul_f32s;
    Div div div_f32s;
}

impl Lanes for Avx2 {
    type Token = V3;

    #[inline(always)]
    fn load(cpu: V3, [a, b, c, d, e, f, g, h]: [f32; L]) -> Avx2 {
        Avx2 { v: pulp::f32x8(a, b, c, d, e, f, g, h), cpu }
    }

    #[inline(always)]
    fn array(self) -> [f32; L] {
        let pulp::f32x8(a, b, c, d, e, f, g, h) = self.v;
        [a, b, c, d, e, f, g, h]
    }

    #[inline(always)]
    fn like(self, v: f32) -> Avx2 {
        Avx2 { v: self.cpu.splat_f32s(v), ..self }
    }

    #[inline(always)]
    fn max(self, b: Avx2) -> Avx2 {
        Avx2 { v: self.cpu.max_f32s(self.v, b.v), ..self }
    }

    #[inline(always)]
    fn min(self, b: Avx2) -> Avx2 {
        Avx2 { v: self.cpu.min_f32s(self.v, b.v), ..self }
    }

    #[inline(always)]
    fn sqrt(self) -> Avx2 {
        Avx2 { v: self.cpu.sqrt_f32s(self.v), ..self }
    }

    #[inline(always)]
    fn less(self, b: Avx2, yes: Avx2, no: Avx2) -> Avx2 {
        let mask = self.cpu.cmp_lt_f32x8(self.v, b.v);
        Avx2 { v: self.cpu.select_f32x8(mask, yes.v, no.v), ..self }
    }
}

/// What is run with AVX2.
pub struct Fill<'a, B> {
    pub blocks: Blocks<'a, B>,
    pub cpu: V3,
}

impl<B: Encode> pulp::NullaryFnOnce for Fill<'_, B> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.blocks.fill::<Avx2>(self.cpu);
    }
}
