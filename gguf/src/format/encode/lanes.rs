//! Eight numbers side by side, in the registers that the processor has: those of AVX2 (`super::avx2`) where it is there, else what
//! [`wide`] makes of the target's oldest processor. Each operation is the IEEE one in every lane, so that every machine
//! gets the same bits. All is inlined: a function of its own would be built for the oldest processor.

use std::ops::{Add, Div, Mul, Sub};

use wide::f32x8;

/// Lanes.
pub const L: usize = 8;

/// Eight numbers.
pub trait Lanes: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    /// What shows that the processor can do this.
    type Token: Copy;

    /// Eight numbers.
    fn load(token: Self::Token, v: [f32; L]) -> Self;
    /// Them.
    fn array(self) -> [f32; L];
    /// One number in all lanes of a vector like this.
    fn like(self, v: f32) -> Self;
    /// The larger, and `b` where one is not a number.
    fn max(self, b: Self) -> Self;
    /// The smaller, and `b` where one is not a number.
    fn min(self, b: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `yes` where it is less than `b`, else `no`.
    fn less(self, b: Self, yes: Self, no: Self) -> Self;

    /// One number in all lanes.
    #[inline(always)]
    fn all(token: Self::Token, v: f32) -> Self {
        Self::load(token, [v; L])
    }

    /// The magnitudes.
    #[inline(always)]
    fn abs(self) -> Self {
        self.max(self.like(0.0) - self)
    }

    /// The reciprocals, and 0 of 0: a group of zeros has scale 0 and codes of 0.
    #[inline(always)]
    fn inverse(self) -> Self {
        let (zero, one) = (self.like(0.0), self.like(1.0));
        // Not a number has no order, and keeps its reciprocal.
        let inverse = one / self;
        self.less(zero, inverse, zero.less(self, inverse, self * zero))
    }

    /// All lanes as one, always in the same order.
    #[inline(always)]
    fn fold(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let [a, b, c, d, e, g, h, i] = self.array();
        f(f(f(a, e), f(b, g)), f(f(c, h), f(d, i)))
    }

    /// The sum of all.
    #[inline(always)]
    fn total(self) -> f32 {
        self.fold(|a, b| a + b)
    }
}

impl Lanes for f32x8 {
    type Token = ();

    #[inline(always)]
    fn load(_: (), v: [f32; L]) -> f32x8 {
        f32x8::from(v)
    }

    #[inline(always)]
    fn array(self) -> [f32; L] {
        self.to_array()
    }

    #[inline(always)]
    fn like(self, v: f32) -> f32x8 {
        f32x8::splat(v)
    }

    #[inline(always)]
    fn max(self, b: f32x8) -> f32x8 {
        b.simd_lt(self).select(self, b)
    }

    #[inline(always)]
    fn min(self, b: f32x8) -> f32x8 {
        self.simd_lt(b).select(self, b)
    }

    #[inline(always)]
    fn sqrt(self) -> f32x8 {
        f32x8::sqrt(self)
    }

    #[inline(always)]
    fn less(self, b: f32x8, yes: f32x8, no: f32x8) -> f32x8 {
        self.simd_lt(b).select(yes, no)
    }
}

/// The larger of two, and the second where one is not a number.
#[inline(always)]
pub fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The smaller of two, and the second where one is not a number.
#[inline(always)]
pub fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The value farther from zero; of two the first.
#[inline(always)]
pub fn farther(a: f32, b: f32) -> f32 {
    if b.abs() > a.abs() { b } else { a }
}
