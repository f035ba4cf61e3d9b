//! Sixteen lanes in one 512-bit register; dot products by VNNI where the CPU has it, else in 16-bit pairs.

use super::{NEAREST, Token};
use crate::simd::{LANES, Simd};
use std::arch::x86_64::*;

/// Token of AVX-512 (F, BW, DQ, VL): made only after the instructions were found, VNNI among them where `VNNI` is
/// true.
#[derive(Clone, Copy, Debug)]
pub struct Avx512<const VNNI: bool>(());

/// Running sums: in 32 bits, and without VNNI the 16-bit pairs that were not carried yet.
#[derive(Clone, Copy)]
pub struct Dot {
    sums: __m512i,
    pairs: __m512i,
}

impl<const VNNI: bool> Token for Avx512<VNNI> {
    type Float = Avx512<false>;

    fn new() -> Option<Self> {
        let base = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        (base && (!VNNI || is_x86_feature_detected!("avx512vnni"))).then_some(Self(()))
    }

    fn float(self) -> Avx512<false> {
        Avx512(())
    }

    unsafe fn assume() -> Self {
        Self(())
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn run<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn run_vnni<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Bits of the lanes below `n`.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    (u32::MAX >> (32 - n.min(LANES) as u32 - 16) >> 16) as __mmask16
}

/// An intrinsic, or an expression of intrinsics, of the ISA whose token is at hand.
macro_rules! op {
    ($e:expr) => {{
        // SAFETY: `self` exists only where detection found the instructions; memory operands are references to
        // arrays of the full width, or masked to the length of the slice.
        unsafe { $e }
    }};
}

impl<const VNNI: bool> Simd for Avx512<VNNI> {
    type F32 = __m512;
    type I32 = __m512i;
    type Codes = __m512i;
    type Dot = Dot;

    const BIASED_DOT: bool = VNNI;
    const REGISTERS: usize = 32;

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
    fn splat(self, x: f32) -> __m512 {
        op!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        op!(_mm512_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        op!(_mm512_storeu_ps(out.as_mut_ptr(), v))
    }
    #[inline(always)]
    fn load_partial(self, x: &[f32], fill: f32) -> __m512 {
        op!(_mm512_mask_loadu_ps(_mm512_set1_ps(fill), first(x.len()), x.as_ptr()))
    }
    #[inline(always)]
    fn store_partial(self, v: __m512, out: &mut [f32]) {
        op!(_mm512_mask_storeu_ps(out.as_mut_ptr(), first(out.len()), v))
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> __m512 {
        op!(_mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn store_f16(self, v: __m512, out: &mut [u16; LANES]) {
        op!(_mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtps_ph::<NEAREST>(v)))
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> __m512 {
        op!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast())))))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        op!(_mm512_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        op!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        op!(_mm512_abs_ps(a))
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        op!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        op!(_mm512_roundscale_ps::<NEAREST>(a))
    }
    #[inline(always)]
    fn scale_pow2(self, a: __m512, n: __m512) -> __m512 {
        op!(_mm512_scalef_ps(a, n))
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, t: __m512, f: __m512) -> __m512 {
        op!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), f, t))
    }
    #[inline(always)]
    fn swap_pairs(self, a: __m512) -> __m512 {
        op!(_mm512_permute_ps::<0b10_11_00_01>(a))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        op!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> __m512i {
        op!(_mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> __m512i {
        op!(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast())))
    }
    #[inline(always)]
    fn store_i8(self, a: __m512i, out: &mut [i8; LANES]) {
        op!(_mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(a)))
    }
    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_i32(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn and_i32(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn shl_i32<const N: i32>(self, a: __m512i) -> __m512i {
        op!(_mm512_sllv_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn shr_i32<const N: i32>(self, a: __m512i) -> __m512i {
        op!(_mm512_srlv_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn sar_i32<const N: i32>(self, a: __m512i) -> __m512i {
        op!(_mm512_srav_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        op!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn to_i32(self, a: __m512) -> __m512i {
        op!(_mm512_cvtps_epi32(a))
    }
    #[inline(always)]
    fn from_bits(self, a: __m512i) -> __m512 {
        op!(_mm512_castsi512_ps(a))
    }

    #[inline(always)]
    fn load_codes(self, x: &[u8; 64]) -> __m512i {
        op!(_mm512_loadu_si512(x.as_ptr().cast()))
    }
    #[inline(always)]
    fn prefetch(self, line: &[u8; 64]) {
        op!(_mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()));
    }
    #[inline(always)]
    fn store_codes(self, a: __m512i, out: &mut [u8; 64]) {
        op!(_mm512_storeu_si512(out.as_mut_ptr().cast(), a))
    }
    #[inline(always)]
    fn splat_codes(self, x: u8) -> __m512i {
        op!(_mm512_set1_epi8(x.cast_signed()))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        op!(_mm512_xor_si512(a, b))
    }
    #[inline(always)]
    fn shr_codes<const N: i32>(self, a: __m512i) -> __m512i {
        op!(_mm512_srl_epi16(a, _mm_cvtsi32_si128(N)))
    }
    #[inline(always)]
    fn shl_codes<const N: i32>(self, a: __m512i) -> __m512i {
        op!(_mm512_sll_epi16(a, _mm_cvtsi32_si128(N)))
    }
    #[inline(always)]
    fn lut(self, table: &[u8; 16], a: __m512i) -> __m512i {
        op!(_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), a))
    }

    #[inline(always)]
    fn reduce_add(self, a: __m512) -> f32 {
        op!({
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            super::sum8(eight)
        })
    }
    #[inline(always)]
    fn reduce_max(self, a: __m512) -> f32 {
        op!({
            let eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            super::max8(eight)
        })
    }
    #[inline(always)]
    fn i32_array(self, a: __m512i) -> [i32; LANES] {
        let mut out = [0; LANES];
        op!(_mm512_storeu_si512(out.as_mut_ptr().cast(), a));
        out
    }
    #[inline(always)]
    fn words(self, a: __m512i) -> __m512i {
        a
    }

    #[inline(always)]
    fn dot_start(self, init: __m512i) -> Dot {
        Dot { sums: init, pairs: op!(_mm512_setzero_si512()) }
    }
    #[inline(always)]
    fn dot_small(self, acc: Dot, codes: __m512i, x: i32) -> Dot {
        op!({
            let x = _mm512_set1_epi32(x);
            if VNNI {
                let sums = _mm512_dpbusd_epi32(acc.sums, codes, x);
                Dot { sums, ..acc }
            } else {
                let pairs = _mm512_add_epi16(acc.pairs, _mm512_maddubs_epi16(codes, x));
                Dot { pairs, ..acc }
            }
        })
    }
    #[inline(always)]
    fn dot_wide(self, acc: Dot, codes: __m512i, x: i32) -> Dot {
        op!({
            let x = _mm512_set1_epi32(x);
            if VNNI {
                let sums = _mm512_dpbusd_epi32(acc.sums, codes, x);
                return Dot { sums, ..acc };
            }
            // |code| * (x with the code's sign): a pair is at most 2 * 128 * 127, which 16 bits hold.
            let codes = _mm512_xor_si512(codes, _mm512_set1_epi8(i8::MIN));
            let negative = _mm512_movepi8_mask(codes);
            let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
            let pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(codes), x);
            let quads = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
            let sums = _mm512_add_epi32(acc.sums, quads);
            Dot { sums, ..acc }
        })
    }
    #[inline(always)]
    fn dot_carry(self, acc: Dot) -> Dot {
        if VNNI {
            return acc;
        }
        op!({
            let quads = _mm512_madd_epi16(acc.pairs, _mm512_set1_epi16(1));
            Dot { sums: _mm512_add_epi32(acc.sums, quads), pairs: _mm512_setzero_si512() }
        })
    }
    #[inline(always)]
    fn dot_end(self, acc: Dot) -> __m512i {
        acc.sums
    }
}
