//! Sixteen lanes in two 256-bit registers; dot products in 16-bit pairs, or by AVX-VNNI where the CPU has it.

use super::{NEAREST, Token};
use crate::simd::{LANES, Simd};
use std::arch::x86_64::*;

/// Token of AVX2 (with FMA and F16C): made only after the instructions were found, AVX-VNNI among them where
/// `VNNI` is true.
#[derive(Clone, Copy, Debug)]
pub struct Avx2<const VNNI: bool>(());

type F = [__m256; 2];
type I = [__m256i; 2];

/// Running sums: in 32 bits, and without VNNI the 16-bit pairs that were not carried yet.
#[derive(Clone, Copy)]
pub struct Dot {
    sums: I,
    pairs: I,
}

impl<const VNNI: bool> Token for Avx2<VNNI> {
    type Float = Avx2<false>;

    fn new() -> Option<Self> {
        let base =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        (base && (!VNNI || is_x86_feature_detected!("avxvnni"))).then_some(Self(()))
    }

    fn float(self) -> Avx2<false> {
        Avx2(())
    }

    unsafe fn assume() -> Self {
        Self(())
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn run<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[target_feature(enable = "avxvnni,avx2,fma,f16c")]
fn run_vnni<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// An intrinsic, or an expression of intrinsics, of the ISA whose token is at hand.
macro_rules! op {
    ($e:expr) => {{
        // SAFETY: `self` exists only where detection found the instructions; memory operands lie inside
        // references to arrays of the full width.
        unsafe { $e }
    }};
}

/// Eight bfloat16 widened.
///
/// # Safety
/// The CPU has AVX2 and `x` points to eight readable values.
#[inline(always)]
unsafe fn widen_bf16(x: *const u16) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// Products of sixteen unsigned and signed bytes, added in pairs and then in quads.
    #[inline(always)]
    fn quads(self, pairs: __m256i) -> __m256i {
        op!(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F32 = F;
    type I32 = I;
    type Codes = I;
    type Dot = Dot;

    const BIASED_DOT: bool = VNNI;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce(Self) -> R) -> R {
        if VNNI {
            op!(run_vnni(
                #[inline(always)]
                move || f(self)
            ))
        } else {
            op!(run(
                #[inline(always)]
                move || f(self)
            ))
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        op!([_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        op!([_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x[8..].as_ptr())])
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        op!({
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out[8..].as_mut_ptr(), v[1]);
        })
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> F {
        op!([
            _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(x[8..].as_ptr().cast()))
        ])
    }
    #[inline(always)]
    fn store_f16(self, v: F, out: &mut [u16; LANES]) {
        op!({
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(out[8..].as_mut_ptr().cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        })
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> F {
        op!([widen_bf16(x.as_ptr()), widen_bf16(x[8..].as_ptr())])
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        op!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        op!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        op!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        op!([_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        op!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn fnma(self, a: F, b: F, c: F) -> F {
        op!([_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        op!([_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        op!([_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        op!({
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        })
    }
    #[inline(always)]
    fn sqrt(self, a: F) -> F {
        op!([_mm256_sqrt_ps(a[0]), _mm256_sqrt_ps(a[1])])
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        op!([_mm256_round_ps::<NEAREST>(a[0]), _mm256_round_ps::<NEAREST>(a[1])])
    }
    #[inline(always)]
    fn select_lt(self, a: F, b: F, t: F, f: F) -> F {
        op!([
            _mm256_blendv_ps(f[0], t[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
            _mm256_blendv_ps(f[1], t[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1]))
        ])
    }
    #[inline(always)]
    fn swap_pairs(self, a: F) -> F {
        op!([_mm256_permute_ps::<0b10_11_00_01>(a[0]), _mm256_permute_ps::<0b10_11_00_01>(a[1])])
    }
    #[inline(always)]
    fn reduce_add(self, a: F) -> f32 {
        op!(super::sum8(_mm256_add_ps(a[0], a[1])))
    }
    #[inline(always)]
    fn reduce_max(self, a: F) -> f32 {
        op!(super::max8(_mm256_max_ps(a[0], a[1])))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> I {
        op!([_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> I {
        op!([
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast())),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(x[8..].as_ptr().cast()))
        ])
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> I {
        op!([
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast())),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(x[8..].as_ptr().cast()))
        ])
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        op!([_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])])
    }
    #[inline(always)]
    fn sub_i32(self, a: I, b: I) -> I {
        op!([_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])])
    }
    #[inline(always)]
    fn and_i32(self, a: I, b: I) -> I {
        op!([_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn shl_i32<const N: i32>(self, a: I) -> I {
        op!([_mm256_slli_epi32::<N>(a[0]), _mm256_slli_epi32::<N>(a[1])])
    }
    #[inline(always)]
    fn shr_i32<const N: i32>(self, a: I) -> I {
        op!([_mm256_srli_epi32::<N>(a[0]), _mm256_srli_epi32::<N>(a[1])])
    }
    #[inline(always)]
    fn sar_i32<const N: i32>(self, a: I) -> I {
        op!([_mm256_srai_epi32::<N>(a[0]), _mm256_srai_epi32::<N>(a[1])])
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        op!([_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])])
    }
    #[inline(always)]
    fn to_i32(self, a: F) -> I {
        op!([_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1])])
    }
    #[inline(always)]
    fn from_bits(self, a: I) -> F {
        op!([_mm256_castsi256_ps(a[0]), _mm256_castsi256_ps(a[1])])
    }

    #[inline(always)]
    fn load_codes(self, x: &[u8; 64]) -> I {
        op!([_mm256_loadu_si256(x.as_ptr().cast()), _mm256_loadu_si256(x[32..].as_ptr().cast())])
    }
    #[inline(always)]
    fn prefetch(self, line: &[u8; 64]) {
        op!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()));
    }
    #[inline(always)]
    fn store_codes(self, a: I, out: &mut [u8; 64]) {
        op!({
            _mm256_storeu_si256(out.as_mut_ptr().cast(), a[0]);
            _mm256_storeu_si256(out[32..].as_mut_ptr().cast(), a[1]);
        })
    }
    #[inline(always)]
    fn splat_codes(self, x: u8) -> I {
        op!([_mm256_set1_epi8(x.cast_signed()); 2])
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        op!([_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        op!([_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn xor(self, a: I, b: I) -> I {
        op!([_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])])
    }
    #[inline(always)]
    fn shr_codes<const N: i32>(self, a: I) -> I {
        op!([_mm256_srli_epi16::<N>(a[0]), _mm256_srli_epi16::<N>(a[1])])
    }
    #[inline(always)]
    fn shl_codes<const N: i32>(self, a: I) -> I {
        op!([_mm256_slli_epi16::<N>(a[0]), _mm256_slli_epi16::<N>(a[1])])
    }
    #[inline(always)]
    fn lut(self, table: &[u8; 16], a: I) -> I {
        op!({
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(table, a[0]), _mm256_shuffle_epi8(table, a[1])]
        })
    }

    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> F {
        let mut lanes = [fill; LANES];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }
    #[inline(always)]
    fn store_partial(self, v: F, out: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        out.copy_from_slice(&lanes[..out.len()]);
    }
    #[inline(always)]
    fn i32_array(self, a: I) -> [i32; LANES] {
        let mut out = [0; LANES];
        op!({
            _mm256_storeu_si256(out.as_mut_ptr().cast(), a[0]);
            _mm256_storeu_si256(out[8..].as_mut_ptr().cast(), a[1]);
        });
        out
    }
    #[inline(always)]
    fn store_i8(self, a: I, out: &mut [i8; LANES]) {
        op!({
            // The low byte of each lane, gathered in each 128-bit half: four words, one of each quarter.
            let low = _mm256_set1_epi32(0xff);
            let words = _mm256_packus_epi32(_mm256_and_si256(a[0], low), _mm256_and_si256(a[1], low));
            let bytes = _mm256_packus_epi16(words, words);
            let order = _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5);
            let bytes = _mm256_permutevar8x32_epi32(bytes, order);
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm256_castsi256_si128(bytes));
        });
    }
    #[inline(always)]
    fn words(self, a: I) -> I {
        a
    }

    #[inline(always)]
    fn dot_start(self, init: I) -> Dot {
        Dot { sums: init, pairs: op!([_mm256_setzero_si256(); 2]) }
    }
    #[inline(always)]
    fn dot_small(self, mut acc: Dot, codes: I, x: i32) -> Dot {
        op!({
            let x = _mm256_set1_epi32(x);
            for (h, &code) in codes.iter().enumerate() {
                if VNNI {
                    acc.sums[h] = _mm256_dpbusd_avx_epi32(acc.sums[h], code, x);
                } else {
                    acc.pairs[h] = _mm256_add_epi16(acc.pairs[h], _mm256_maddubs_epi16(code, x));
                }
            }
            acc
        })
    }
    #[inline(always)]
    fn dot_wide(self, mut acc: Dot, codes: I, x: i32) -> Dot {
        op!({
            let x = _mm256_set1_epi32(x);
            for (h, &code) in codes.iter().enumerate() {
                if VNNI {
                    acc.sums[h] = _mm256_dpbusd_avx_epi32(acc.sums[h], code, x);
                } else {
                    // |code| * (x with the code's sign): a pair is at most 2 * 128 * 127, which 16 bits hold.
                    let code = _mm256_xor_si256(code, _mm256_set1_epi8(i8::MIN));
                    let signed = _mm256_sign_epi8(x, code);
                    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code), signed);
                    acc.sums[h] = _mm256_add_epi32(acc.sums[h], self.quads(pairs));
                }
            }
            acc
        })
    }
    #[inline(always)]
    fn dot_carry(self, mut acc: Dot) -> Dot {
        if VNNI {
            return acc;
        }
        op!({
            for h in 0..2 {
                acc.sums[h] = _mm256_add_epi32(acc.sums[h], self.quads(acc.pairs[h]));
                acc.pairs[h] = _mm256_setzero_si256();
            }
            acc
        })
    }
    #[inline(always)]
    fn dot_end(self, acc: Dot) -> I {
        acc.sums
    }
}
