//! Elementary functions on sixteen lanes: exp, tanh, the logistic function and the activations made of them.
//!
//! Each is a fixed chain of correctly rounded operations, so the bits are those of every ISA. The polynomials were
//! fitted by the Remez exchange to the expressions given at each; bounds are in units in the last place (ulp) of the
//! exact result and were measured over all 2^32 inputs (`tests/math.rs` walks a dense sample of them, or all on
//! request). NaN gives NaN in every function; which NaN is not specified.
//!
//! This module knows lanes only: slices and rows are [`crate::rowwise`]'s.

use crate::simd::Simd;

/// `ln 2` in two parts: the first has few enough bits that its products with all exponents are exact.
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `(e^r - 1 - r) / r^2` on `|r| <= ln(2) / 2`, highest power first.
const EXP: [f32; 5] = [0.001_380_738_2, 0.008_368_152, 0.041_668_393, 0.166_665_27, 0.499_999_94];

/// `exp(x^2 / 2) Phi(-x) (1 + x)` with Phi the normal distribution function, as a polynomial of
/// `t = (x - 2.5) / (x + 2.5)` on `0 <= x <= 14.5`, highest power first.
const PHI: [f32; 11] = [
    -6.288_876_5e-5,
    -2.270_262_9e-4,
    -3.149_155e-8,
    0.001_263_754_8,
    0.001_284_509_9,
    -0.006_047_487_7,
    -0.008_699_963,
    0.046_062_88,
    -0.037_716_646,
    -0.091_587_48,
    0.494_659_66,
];

/// `c[0] x^(n-1) + ... + c[n-1]` by Horner's rule.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F32, c: &[f32; N]) -> S::F32 {
    let mut sum = s.splat(c[0]);
    for &c in &c[1..] {
        sum = s.fma(sum, x, s.splat(c));
    }
    sum
}

/// `-a`.
#[inline(always)]
fn neg<S: Simd>(s: S, a: S::F32) -> S::F32 {
    s.mul(a, s.splat(-1.0))
}

/// `x` or the bound it has passed; NaN stays.
#[inline(always)]
fn clamp<S: Simd>(s: S, x: S::F32, low: f32, high: f32) -> S::F32 {
    s.min(s.splat(high), s.max(s.splat(low), x))
}

/// Splits `x` (within -150 ln 2 to 150 ln 2) into `n ln 2 + r` and gives `n`, `r` and `(e^r - 1 - r) / r^2`.
#[inline(always)]
fn reduce<S: Simd>(s: S, x: S::F32) -> [S::F32; 3] {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fnma(n, s.splat(LN2_HIGH), x);
    let r = s.fnma(n, s.splat(LN2_LOW), r);
    [n, r, polynomial(s, r, &EXP)]
}

/// `2^n` for integers -126 to 127.
#[inline(always)]
fn power_of_two<S: Simd>(s: S, n: S::F32) -> S::F32 {
    s.from_bits(s.shl_i32::<23>(s.add_i32(s.to_i32(n), s.splat_i32(127))))
}

/// `e^x`, at most 0.91 ulp off; gradual underflow to 0 below -87.3, infinity from 88.73.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // Beyond these the result is 0 or infinity whatever the rest does.
    let [n, r, q] = reduce(s, clamp(s, x, -104.0, 89.0));
    let one = s.splat(1.0);
    s.scale_pow2(s.fma(s.fma(q, r, one), r, one), n)
}

/// Hyperbolic tangent, at most 2.7 ulp off, odd to the bit but for -0, which gives 0.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // (e^2|x| - 1) / (e^2|x| + 1) with e^2|x| - 1 free of cancellation; 1 to the last bit from 9.02 on.
    let a = s.abs(x);
    let [n, r, q] = reduce(s, s.min(s.splat(20.0), s.add(a, a)));
    let scale = power_of_two(s, n);
    let em1 = s.fma(scale, s.fma(q, s.mul(r, r), r), s.sub(scale, s.splat(1.0)));
    let t = s.div(em1, s.add(em1, s.splat(2.0)));
    s.select_lt(x, s.splat(0.0), neg(s, t), t)
}

/// `z` for negative and 1 for other `x`, and `1 + z`, where `z = e^-|x|`: their quotient is the logistic function.
#[inline(always)]
fn logistic<S: Simd>(s: S, x: S::F32) -> (S::F32, S::F32) {
    let z = exp(s, neg(s, s.abs(x)));
    let one = s.splat(1.0);
    (s.select_lt(x, s.splat(0.0), z, one), s.add(one, z))
}

/// `1 / (1 + e^-x)`, at most 2.5 ulp off, with gradual underflow.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let (num, den) = logistic(s, x);
    s.div(num, den)
}

/// `x sigmoid(x)`, at most 3.4 ulp off from -87 on, where `e^x` is a normal number; -0 at minus infinity.
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // Below the bound the result is -0; the bound keeps infinity from meeting 0.
    let x = s.max(s.splat(-128.0), x);
    let (num, den) = logistic(s, x);
    s.div(s.mul(x, num), den)
}

/// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))` (Hendrycks and Gimpel, 2016) as `x sigmoid(z)` with
/// `z = 2 sqrt(2 / pi) (x + 0.044715 x^3)`, free of the cancellation of `1 + tanh`. At most `3 + 3 |z|`
/// ulp off (of the result, which vanishes like `x e^z`) from -10.2 on, where `e^z` is a normal number; -0 at minus
/// infinity.
#[inline(always)]
pub fn gelu_tanh<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let x = s.max(s.splat(-32.0), x);
    let slope = s.fma(s.mul(x, x), s.splat(0.071_354_814), s.splat(1.595_769));
    let (num, den) = logistic(s, s.mul(x, slope));
    s.div(s.mul(x, num), den)
}

/// `x Phi(x)` with Phi the normal distribution function, `(1 + erf(x / sqrt 2)) / 2`. At most 4.7 ulp off
/// from -12.9 on, where the tail is a normal number; -0 at minus infinity.
#[inline(always)]
pub fn gelu_erf<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let x = s.max(s.splat(-32.0), x);
    let (one, a) = (s.splat(1.0), s.min(s.splat(14.5), s.abs(x)));
    let t = s.div(s.sub(a, s.splat(2.5)), s.add(a, s.splat(2.5)));
    let tail = s.div(polynomial(s, t, &PHI), s.add(a, one));
    // e^(-a^2 / 2): what a^2 lost by rounding comes back as a factor.
    let square = s.mul(a, a);
    let lost = s.fma(a, a, neg(s, square));
    let bell = exp(s, s.mul(square, s.splat(-0.5)));
    let bell = s.fnma(s.mul(lost, s.splat(0.5)), bell, bell);
    let tail = s.mul(tail, bell);
    s.mul(x, s.select_lt(x, s.splat(0.0), tail, s.sub(one, tail)))
}
