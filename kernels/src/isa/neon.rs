//! Sixteen lanes in four 128-bit registers of AArch64; dot products by `sdot` where the CPU has it, else in 16-bit
//! pairs.
//!
//! Minimum and maximum are a compare and a select: the instructions of that name return NaN where the lanes'
//! contract wants the second operand.

use super::Token;
use crate::simd::{LANES, Simd};
use std::arch::aarch64::*;
use std::arch::asm;

/// Token of NEON: made only after the instructions were found, those of the dot product among them where `DOT` is
/// true.
#[derive(Clone, Copy, Debug)]
pub struct Neon<const DOT: bool>(());

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];
type C = [uint8x16_t; 4];

/// Running sums: in 32 bits, and without `sdot` the 16-bit pairs that were not carried yet, two lanes a row.
#[derive(Clone, Copy)]
pub struct Dot {
    sums: I,
    pairs: [int16x8_t; 4],
}

impl<const DOT: bool> Token for Neon<DOT> {
    type Float = Neon<false>;

    fn new() -> Option<Self> {
        let base = std::arch::is_aarch64_feature_detected!("neon");
        (base && (!DOT || std::arch::is_aarch64_feature_detected!("dotprod"))).then_some(Self(()))
    }

    fn float(self) -> Neon<false> {
        Neon(())
    }

    unsafe fn assume() -> Self {
        Self(())
    }
}

#[target_feature(enable = "neon")]
fn run<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[target_feature(enable = "neon,dotprod")]
fn run_dot<R>(f: impl FnOnce() -> R) -> R {
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

/// The four registers that the expression gives for the indices 0 to 3.
macro_rules! four {
    ($i:ident => $e:expr) => {
        op!([
            {
                let $i = 0;
                $e
            },
            {
                let $i = 1;
                $e
            },
            {
                let $i = 2;
                $e
            },
            {
                let $i = 3;
                $e
            },
        ])
    };
}

/// `if a < b { a } else { b }` in each lane of one register.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn min4(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
}

/// `if b < a { a } else { b }` in each lane of one register.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn max4(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe { vbslq_f32(vcltq_f32(b, a), a, b) }
}

/// `acc[row] + sum over i of codes[4 row + i] * x[4 row + i]`, signed bytes, four rows. The instruction itself,
/// since its intrinsic is not stable.
///
/// # Safety
/// The CPU has the dot product instructions.
#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's promise; the instruction reads and writes the named registers only. The directive lets
    // a function that was compiled outside `vectorize` assemble.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {acc:v}.4s, {codes:v}.16b, {x:v}.16b",
            acc = inout(vreg) acc,
            codes = in(vreg) codes,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

impl<const DOT: bool> Neon<DOT> {
    /// Adds the products of signed bytes to 16-bit pairs: of each row, codes 0 and 2 into one lane, 1 and 3 into
    /// the other. The codes are sorted by halves of a row first, work that all columns share.
    #[inline(always)]
    fn pairs(self, acc: [int16x8_t; 4], codes: C, x: i32) -> [int16x8_t; 4] {
        op!({
            let x01 = vreinterpretq_s8_s16(vdupq_n_s16(x as i16));
            let x23 = vreinterpretq_s8_s16(vdupq_n_s16((x >> 16) as i16));
            let mut out = acc;
            for h in 0..2 {
                let a = vreinterpretq_s16_u8(codes[2 * h]);
                let b = vreinterpretq_s16_u8(codes[2 * h + 1]);
                let c01 = vreinterpretq_s8_s16(vuzp1q_s16(a, b));
                let c23 = vreinterpretq_s8_s16(vuzp2q_s16(a, b));
                let low = vmlal_s8(acc[2 * h], vget_low_s8(c01), vget_low_s8(x01));
                out[2 * h] = vmlal_s8(low, vget_low_s8(c23), vget_low_s8(x23));
                let high = vmlal_high_s8(acc[2 * h + 1], c01, x01);
                out[2 * h + 1] = vmlal_high_s8(high, c23, x23);
            }
            out
        })
    }

    /// Signed codes times `x` by the dot product instruction.
    #[inline(always)]
    fn quads(self, sums: I, codes: C, x: i32) -> I {
        four!(i => sdot(sums[i], vreinterpretq_s8_u8(codes[i]), vreinterpretq_s8_s32(vdupq_n_s32(x))))
    }
}

impl<const DOT: bool> Simd for Neon<DOT> {
    type F32 = F;
    type I32 = I;
    type Codes = C;
    type Dot = Dot;

    const BIASED_DOT: bool = false;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce(Self) -> R) -> R {
        if DOT {
            op!(run_dot(
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
        op!([vdupq_n_f32(x); 4])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        four!(i => vld1q_f32(x[4 * i..].as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        four!(i => vst1q_f32(out[4 * i..].as_mut_ptr(), v[i]));
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
    fn load_f16(self, x: &[u16; LANES]) -> F {
        four!(i => vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x[4 * i..].as_ptr()))))
    }
    #[inline(always)]
    fn store_f16(self, v: F, out: &mut [u16; LANES]) {
        four!(i => vst1_u16(out[4 * i..].as_mut_ptr(), vreinterpret_u16_f16(vcvt_f16_f32(v[i]))));
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> F {
        four!(i => vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x[4 * i..].as_ptr()))))
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        four!(i => vaddq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        four!(i => vsubq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        four!(i => vmulq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        four!(i => vdivq_f32(a[i], b[i]))
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        four!(i => vfmaq_f32(c[i], a[i], b[i]))
    }
    #[inline(always)]
    fn fnma(self, a: F, b: F, c: F) -> F {
        four!(i => vfmsq_f32(c[i], a[i], b[i]))
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        four!(i => min4(a[i], b[i]))
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        four!(i => max4(a[i], b[i]))
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        four!(i => vabsq_f32(a[i]))
    }
    #[inline(always)]
    fn sqrt(self, a: F) -> F {
        four!(i => vsqrtq_f32(a[i]))
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        four!(i => vrndnq_f32(a[i]))
    }
    #[inline(always)]
    fn select_lt(self, a: F, b: F, t: F, f: F) -> F {
        four!(i => vbslq_f32(vcltq_f32(a[i], b[i]), t[i], f[i]))
    }
    #[inline(always)]
    fn swap_pairs(self, a: F) -> F {
        four!(i => vrev64q_f32(a[i]))
    }
    #[inline(always)]
    fn reduce_add(self, a: F) -> f32 {
        op!({
            let four = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        })
    }
    #[inline(always)]
    fn reduce_max(self, a: F) -> f32 {
        op!({
            let four = max4(max4(a[0], a[2]), max4(a[1], a[3]));
            let two = max4(four, vextq_f32::<2>(four, four));
            vgetq_lane_f32::<0>(max4(two, vextq_f32::<1>(two, two)))
        })
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> I {
        op!([vdupq_n_s32(x); 4])
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8; LANES]) -> I {
        op!({
            let bytes = vld1q_u8(x.as_ptr());
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes));
            [
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))),
                vreinterpretq_s32_u32(vmovl_high_u16(low)),
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
                vreinterpretq_s32_u32(vmovl_high_u16(high)),
            ]
        })
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> I {
        op!({
            let bytes = vreinterpretq_s8_u8(vld1q_u8(x.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
        })
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        four!(i => vaddq_s32(a[i], b[i]))
    }
    #[inline(always)]
    fn sub_i32(self, a: I, b: I) -> I {
        four!(i => vsubq_s32(a[i], b[i]))
    }
    #[inline(always)]
    fn and_i32(self, a: I, b: I) -> I {
        four!(i => vandq_s32(a[i], b[i]))
    }
    #[inline(always)]
    fn shl_i32<const N: i32>(self, a: I) -> I {
        four!(i => vshlq_s32(a[i], vdupq_n_s32(N)))
    }
    // Right shifts are left shifts by a negative count: the immediate forms exclude zero.
    #[inline(always)]
    fn shr_i32<const N: i32>(self, a: I) -> I {
        four!(i => vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[i]), vdupq_n_s32(-N))))
    }
    #[inline(always)]
    fn sar_i32<const N: i32>(self, a: I) -> I {
        four!(i => vshlq_s32(a[i], vdupq_n_s32(-N)))
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> F {
        four!(i => vcvtq_f32_s32(a[i]))
    }
    #[inline(always)]
    fn to_i32(self, a: F) -> I {
        four!(i => vcvtnq_s32_f32(a[i]))
    }
    #[inline(always)]
    fn from_bits(self, a: I) -> F {
        four!(i => vreinterpretq_f32_s32(a[i]))
    }
    #[inline(always)]
    fn i32_array(self, a: I) -> [i32; LANES] {
        let mut out = [0; LANES];
        four!(i => vst1q_s32(out[4 * i..].as_mut_ptr(), a[i]));
        out
    }
    #[inline(always)]
    fn store_i8(self, a: I, out: &mut [i8; LANES]) {
        op!({
            let low = vcombine_s16(vmovn_s32(a[0]), vmovn_s32(a[1]));
            let high = vcombine_s16(vmovn_s32(a[2]), vmovn_s32(a[3]));
            vst1q_s8(out.as_mut_ptr(), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
        });
    }

    #[inline(always)]
    fn load_codes(self, x: &[u8; 64]) -> C {
        four!(i => vld1q_u8(x[16 * i..].as_ptr()))
    }
    #[inline(always)]
    fn prefetch(self, line: &[u8; 64]) {
        op!(asm!("prfm pldl1keep, [{0}]", in(reg) line.as_ptr(), options(nostack, readonly, preserves_flags)));
    }
    #[inline(always)]
    fn store_codes(self, a: C, out: &mut [u8; 64]) {
        for (part, out) in a.into_iter().zip(out.as_chunks_mut::<16>().0) {
            op!(vst1q_u8(out.as_mut_ptr(), part));
        }
    }
    #[inline(always)]
    fn splat_codes(self, x: u8) -> C {
        op!([vdupq_n_u8(x); 4])
    }
    #[inline(always)]
    fn and(self, a: C, b: C) -> C {
        four!(i => vandq_u8(a[i], b[i]))
    }
    #[inline(always)]
    fn or(self, a: C, b: C) -> C {
        four!(i => vorrq_u8(a[i], b[i]))
    }
    #[inline(always)]
    fn xor(self, a: C, b: C) -> C {
        four!(i => veorq_u8(a[i], b[i]))
    }
    #[inline(always)]
    fn shr_codes<const N: i32>(self, a: C) -> C {
        four!(i => vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(a[i]), vdupq_n_s16(-N as i16))))
    }
    #[inline(always)]
    fn shl_codes<const N: i32>(self, a: C) -> C {
        four!(i => vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(a[i]), vdupq_n_s16(N as i16))))
    }
    #[inline(always)]
    fn lut(self, table: &[u8; 16], a: C) -> C {
        four!(i => vqtbl1q_u8(vld1q_u8(table.as_ptr()), a[i]))
    }

    #[inline(always)]
    fn words(self, a: C) -> I {
        four!(i => vreinterpretq_s32_u8(a[i]))
    }

    #[inline(always)]
    fn dot_start(self, init: I) -> Dot {
        Dot { sums: init, pairs: op!([vdupq_n_s16(0); 4]) }
    }
    #[inline(always)]
    fn dot_small(self, acc: Dot, codes: C, x: i32) -> Dot {
        if DOT {
            Dot { sums: self.quads(acc.sums, codes, x), ..acc }
        } else {
            Dot { pairs: self.pairs(acc.pairs, codes, x), ..acc }
        }
    }
    #[inline(always)]
    fn dot_wide(self, acc: Dot, codes: C, x: i32) -> Dot {
        let codes = self.xor(codes, self.splat_codes(128));
        let sums = if DOT {
            self.quads(acc.sums, codes, x)
        } else {
            // A lane is at most 2 * 128 * 127, which 16 bits hold.
            let pairs = self.pairs(op!([vdupq_n_s16(0); 4]), codes, x);
            four!(i => vpadalq_s16(acc.sums[i], pairs[i]))
        };
        Dot { sums, ..acc }
    }
    #[inline(always)]
    fn dot_carry(self, acc: Dot) -> Dot {
        if DOT {
            return acc;
        }
        Dot { sums: four!(i => vpadalq_s16(acc.sums[i], acc.pairs[i])), pairs: op!([vdupq_n_s16(0); 4]) }
    }
    #[inline(always)]
    fn dot_end(self, acc: Dot) -> I {
        self.dot_carry(acc).sums
    }
}
