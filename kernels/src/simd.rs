//! Sixteen virtual lanes: the one vocabulary that every kernel is written in.
//!
//! A lane is a row of a panel, a key of a KV tile or an element of a row. One register of AVX-512, two of AVX2,
//! four of NEON or an array of sixteen floats hold the lanes; every implementation performs **the same operations,
//! rounded the same way, in the same order**, so a kernel gives equal bits on all of them. Nothing here may be
//! faster and different: no fast reciprocal, no fused operation on one ISA that is two roundings on another.
//!
//! The implementations are in [`crate::isa`], the only home of intrinsics. Kernels are generic over `S: Simd`
//! and safe. An implementation is a zero-sized token that only detection can make, so holding one proves that
//! this CPU has the instructions.

/// Lanes of a virtual register.
pub const LANES: usize = 16;

/// Operations on sixteen lanes. See the module's documentation for the contract on equal bits.
///
/// NaN: `min`, `max` and `select_lt` follow the comparison `a < b`, which is false for NaN; see each.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Sixteen `f32`.
    type F32: Copy;
    /// Sixteen `i32`.
    type I32: Copy;
    /// Sixty-four bytes: four consecutive codes along k for each of sixteen rows (byte `4 * row + i`).
    type Codes: Copy;
    /// Sixteen running integer dot products. Some ISAs gather them in 16 bits for a while, see [`Simd::dot_carry`].
    type Dot: Copy;

    /// Whether [`Simd::dot_wide`] multiplies codes biased by 128 (unsigned times signed) instead of signed
    /// codes. Where true, a sum must start from `-128 * sum(x)` to be the signed product.
    const BIASED_DOT: bool;

    /// How many values of sixteen lanes the register file holds: kernels choose their tiles by it.
    const REGISTERS: usize;

    /// Runs `f` compiled with this ISA's instructions. The feature list of an ISA is written only there.
    ///
    /// `f` and all that it calls with vectors must be inlined, or they are compiled without the instructions and every
    /// operation becomes a call: write `vectorize(#[inline(always)] |s| ...)` over functions that are `inline(always)`.
    fn vectorize<R>(self, f: impl FnOnce(Self) -> R) -> R;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F32;
    /// Sixteen floats from memory.
    fn load(self, x: &[f32; LANES]) -> Self::F32;
    /// Sixteen floats to memory.
    fn store(self, v: Self::F32, out: &mut [f32; LANES]);
    /// Up to sixteen floats from memory, the lanes beyond them `fill`.
    fn load_partial(self, x: &[f32], fill: f32) -> Self::F32;
    /// The first `out.len()` (at most sixteen) lanes to memory.
    fn store_partial(self, v: Self::F32, out: &mut [f32]);
    /// Sixteen half floats, widened exactly.
    fn load_f16(self, x: &[u16; LANES]) -> Self::F32;
    /// Rounds to half floats, ties to even, overflow to infinity.
    fn store_f16(self, v: Self::F32, out: &mut [u16; LANES]);
    /// Sixteen bfloat16, widened exactly.
    fn load_bf16(self, x: &[u16; LANES]) -> Self::F32;

    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`, correctly rounded.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c` with one rounding.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `c - a * b` with one rounding.
    fn fnma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`, so `b` where either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if b < a { a } else { b }`, so `b` where either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `|a|`, the sign bit cleared.
    fn abs(self, a: Self::F32) -> Self::F32;
    /// Square root, correctly rounded.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::F32) -> Self::F32;
    /// `a * 2^n`, rounded once, for `a` of 0.5 to 2 and integers `n` of -151 to 129: gradual underflow, overflow to
    /// infinity, NaN in `a` kept.
    #[inline(always)]
    fn scale_pow2(self, a: Self::F32, n: Self::F32) -> Self::F32 {
        // Two powers that are normal numbers: the first product is exact.
        let half = self.round(self.mul(n, self.splat(0.5)));
        let bias = self.splat_i32(127);
        let p = self.add_i32(self.to_i32(half), bias);
        let q = self.add_i32(self.to_i32(self.sub(n, half)), bias);
        let a = self.mul(a, self.from_bits(self.shl_i32::<23>(p)));
        self.mul(a, self.from_bits(self.shl_i32::<23>(q)))
    }
    /// `if a < b { t } else { f }` in each lane.
    fn select_lt(self, a: Self::F32, b: Self::F32, t: Self::F32, f: Self::F32) -> Self::F32;
    /// Swaps lanes 2i and 2i + 1.
    fn swap_pairs(self, a: Self::F32) -> Self::F32;
    /// Sum of the lanes by halves: lane i takes lane i + 8, then i + 4, i + 2, i + 1.
    fn reduce_add(self, a: Self::F32) -> f32;
    /// Largest lane (of no NaN), by the same halves and the rule of [`Simd::max`].
    fn reduce_max(self, a: Self::F32) -> f32;

    /// All lanes `x`.
    fn splat_i32(self, x: i32) -> Self::I32;
    /// Sixteen bytes from memory, zero-extended.
    fn load_u8(self, x: &[u8; LANES]) -> Self::I32;
    /// Sixteen bytes from memory, sign-extended.
    fn load_i8(self, x: &[u8; LANES]) -> Self::I32;
    /// `a + b`, wrapping.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a - b`, wrapping.
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `a & b`.
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Shifts each lane left by `N` bits.
    fn shl_i32<const N: i32>(self, a: Self::I32) -> Self::I32;
    /// Shifts each lane right by `N` bits, zeros coming in.
    fn shr_i32<const N: i32>(self, a: Self::I32) -> Self::I32;
    /// Shifts each lane right by `N` bits, copies of the sign coming in.
    fn sar_i32<const N: i32>(self, a: Self::I32) -> Self::I32;
    /// To `f32`, rounded to nearest even.
    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// To `i32`, rounded to nearest even. Lanes out of range or NaN are unspecified: clamp before.
    fn to_i32(self, a: Self::F32) -> Self::I32;
    /// Reinterprets bits.
    fn from_bits(self, a: Self::I32) -> Self::F32;
    /// Lanes as an array, for tails and tests.
    fn i32_array(self, a: Self::I32) -> [i32; LANES];
    /// The low byte of each lane to memory.
    fn store_i8(self, a: Self::I32, out: &mut [i8; LANES]);

    /// Sixty-four codes from memory.
    fn load_codes(self, x: &[u8; 64]) -> Self::Codes;
    /// Asks for a line of memory that is soon read, into the cache that [`crate::unpack::ahead`] found best. Only a hint.
    fn prefetch(self, line: &[u8; 64]);
    /// Sixty-four codes to memory.
    fn store_codes(self, a: Self::Codes, out: &mut [u8; 64]);
    /// All bytes `x`.
    fn splat_codes(self, x: u8) -> Self::Codes;
    /// `a & b`.
    fn and(self, a: Self::Codes, b: Self::Codes) -> Self::Codes;
    /// `a | b`.
    fn or(self, a: Self::Codes, b: Self::Codes) -> Self::Codes;
    /// `a ^ b`.
    fn xor(self, a: Self::Codes, b: Self::Codes) -> Self::Codes;
    /// Shifts 16-bit pairs right: the bits that cross from one byte into the next must be masked by the caller.
    fn shr_codes<const N: i32>(self, a: Self::Codes) -> Self::Codes;
    /// Shifts 16-bit pairs left: the bits that cross from one byte into the next must be masked by the caller.
    fn shl_codes<const N: i32>(self, a: Self::Codes) -> Self::Codes;
    /// Each byte (below 16) replaced by `table[byte]`.
    fn lut(self, table: &[u8; 16], a: Self::Codes) -> Self::Codes;

    /// The four bytes of each row as one integer, the first byte lowest.
    fn words(self, a: Self::Codes) -> Self::I32;

    /// Sums that start at `init`.
    fn dot_start(self, init: Self::I32) -> Self::Dot;
    /// `acc[row] + sum over i of codes[4 row + i] * x[i]`, where `x` is four bytes in -127..=127 as they lie in
    /// memory. Exact as long as the codes are at most 127 and [`Simd::dot_carry`] is called at least once every
    /// [`small_steps`] calls and before [`Simd::dot_end`].
    fn dot_small(self, acc: Self::Dot, codes: Self::Codes, x: i32) -> Self::Dot;
    /// The same for codes biased by 128 (a signed code c stored as c + 128), exact for all 256 of them, no carry
    /// needed: the product of the signed code where [`Simd::BIASED_DOT`] is false, of the biased one where it is
    /// true.
    fn dot_wide(self, acc: Self::Dot, codes: Self::Codes, x: i32) -> Self::Dot;
    /// Moves what was gathered in 16 bits to 32 bits.
    fn dot_carry(self, acc: Self::Dot) -> Self::Dot;
    /// The sums in 32 bits.
    fn dot_end(self, acc: Self::Dot) -> Self::I32;
}

/// How many calls of [`Simd::dot_small`] with codes up to `max` may pass between two carries: a 16-bit lane takes
/// two products of at most `127 * max` a call.
pub const fn small_steps(max: u8) -> usize {
    i16::MAX as usize / (2 * 127 * max as usize)
}

/// Up to sixteen elements of `x` from `at` on, missing ones as `fill`.
#[inline(always)]
pub(crate) fn get<S: Simd>(s: S, x: &[f32], at: usize, fill: f32) -> S::F32 {
    match x[at..].first_chunk() {
        Some(x) => s.load(x),
        None => s.load_partial(&x[at..], fill),
    }
}

/// Writes up to sixteen elements of `x` from `at` on.
#[inline(always)]
pub(crate) fn put<S: Simd>(s: S, x: &mut [f32], at: usize, v: S::F32) {
    match x[at..].first_chunk_mut() {
        Some(x) => s.store(v, x),
        None => s.store_partial(v, &mut x[at..]),
    }
}
