//! The lanes as arrays: available on every CPU, and the plain reading of what the other ISAs must compute.
//!
//! Nothing here is unsafe. `f32::mul_add` rounds once on every target (in hardware or by the maths library), so
//! this ISA gives the bits of the others, only slower.

use crate::simd::{LANES, Simd};
use half::f16;
use std::array::from_fn;

/// Token of the portable implementation. It needs no instructions, so anyone may make one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scalar;

type F = [f32; LANES];
type I = [i32; LANES];
type C = [u8; 64];

/// Applies `f` to the little-endian 16-bit pairs of `a`.
#[inline(always)]
fn pairs(a: C, f: impl Fn(u16) -> u16) -> C {
    let mut out = [0; 64];
    for (o, x) in out.chunks_exact_mut(2).zip(a.chunks_exact(2)) {
        o.copy_from_slice(&f(u16::from_le_bytes([x[0], x[1]])).to_le_bytes());
    }
    out
}

/// Folds the lanes by halves: lane i with lane i + 8, then i + 4, i + 2, i + 1.
#[inline(always)]
fn halves(mut a: F, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            a[i] = f(a[i], a[i + half]);
        }
        half /= 2;
    }
    a[0]
}

/// `acc[row] + sum over i of (codes[4 row + i] - zero) * x[i]`.
#[inline(always)]
fn dot(acc: I, codes: C, x: i32, zero: i32) -> I {
    let x = x.to_ne_bytes().map(u8::cast_signed);
    from_fn(|row| (0..4).fold(acc[row], |sum, i| sum + (i32::from(codes[4 * row + i]) - zero) * i32::from(x[i])))
}

impl Simd for Scalar {
    type F32 = F;
    type I32 = I;
    type Codes = C;
    type Dot = I;

    const BIASED_DOT: bool = false;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce(Self) -> R) -> R {
        f(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        *x
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> F {
        from_fn(|i| if i < x.len() { x[i] } else { fill })
    }
    #[inline(always)]
    fn store_partial(self, v: F, out: &mut [f32]) {
        let n = out.len();
        out.copy_from_slice(&v[..n]);
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> F {
        x.map(|h| f16::from_bits(h).to_f32())
    }
    #[inline(always)]
    fn store_f16(self, v: F, out: &mut [u16; LANES]) {
        *out = v.map(|x| f16::from_f32(x).to_bits());
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> F {
        x.map(|h| f32::from_bits(u32::from(h) << 16))
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn fnma(self, a: F, b: F, c: F) -> F {
        from_fn(|i| (-a[i]).mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        from_fn(|i| if b[i] < a[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn sqrt(self, a: F) -> F {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn select_lt(self, a: F, b: F, t: F, f: F) -> F {
        from_fn(|i| if a[i] < b[i] { t[i] } else { f[i] })
    }
    #[inline(always)]
    fn swap_pairs(self, a: F) -> F {
        from_fn(|i| a[i ^ 1])
    }
    #[inline(always)]
    fn reduce_add(self, a: F) -> f32 {
        halves(a, |x, y| x + y)
    }
    #[inline(always)]
    fn reduce_max(self, a: F) -> f32 {
        halves(a, |x, y| if y < x { x } else { y })
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> I {
        x.map(i32::from)
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> I {
        x.map(|b| i32::from(b.cast_signed()))
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i32(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn and_i32(self, a: I, b: I) -> I {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn shl_i32<const N: i32>(self, a: I) -> I {
        a.map(|x| x << N)
    }
    #[inline(always)]
    fn shr_i32<const N: i32>(self, a: I) -> I {
        a.map(|x| (x.cast_unsigned() >> N).cast_signed())
    }
    #[inline(always)]
    fn sar_i32<const N: i32>(self, a: I) -> I {
        a.map(|x| x >> N)
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn to_i32(self, a: F) -> I {
        a.map(|x| x.round_ties_even() as i32)
    }
    #[inline(always)]
    fn from_bits(self, a: I) -> F {
        a.map(|x| f32::from_bits(x.cast_unsigned()))
    }
    #[inline(always)]
    fn i32_array(self, a: I) -> [i32; LANES] {
        a
    }
    #[inline(always)]
    fn store_i8(self, a: I, out: &mut [i8; LANES]) {
        *out = a.map(|x| x as i8);
    }

    #[inline(always)]
    fn load_codes(self, x: &[u8; 64]) -> C {
        *x
    }
    #[inline(always)]
    fn prefetch(self, _: &[u8; 64]) {}
    #[inline(always)]
    fn store_codes(self, a: C, out: &mut [u8; 64]) {
        *out = a;
    }
    #[inline(always)]
    fn splat_codes(self, x: u8) -> C {
        [x; 64]
    }
    #[inline(always)]
    fn and(self, a: C, b: C) -> C {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: C, b: C) -> C {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor(self, a: C, b: C) -> C {
        from_fn(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn shr_codes<const N: i32>(self, a: C) -> C {
        pairs(a, |x| x >> N)
    }
    #[inline(always)]
    fn shl_codes<const N: i32>(self, a: C) -> C {
        pairs(a, |x| x << N)
    }
    #[inline(always)]
    fn lut(self, table: &[u8; 16], a: C) -> C {
        a.map(|c| table[usize::from(c & 15)])
    }

    #[inline(always)]
    fn words(self, a: C) -> I {
        from_fn(|row| i32::from_le_bytes(from_fn(|i| a[4 * row + i])))
    }

    #[inline(always)]
    fn dot_start(self, init: I) -> I {
        init
    }
    #[inline(always)]
    fn dot_small(self, acc: I, codes: C, x: i32) -> I {
        dot(acc, codes, x, 0)
    }
    #[inline(always)]
    fn dot_wide(self, acc: I, codes: C, x: i32) -> I {
        dot(acc, codes, x, 128)
    }
    #[inline(always)]
    fn dot_carry(self, acc: I) -> I {
        acc
    }
    #[inline(always)]
    fn dot_end(self, acc: I) -> I {
        acc
    }
}
