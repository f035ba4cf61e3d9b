//! The instruction sets: the only home of intrinsics. [`Isa`] names them and finds those of this CPU; a token
//! ([`scalar::Scalar`], `avx2::Avx2`, `avx512::Avx512`, `neon::Neon`) carries one into the kernels as a `Simd` value.
//!
//! To add an ISA: a file with a token that implements `Simd` and [`Token`], a variant of [`Isa`], and a line in
//! each of the two matches below and in [`crate::Kernels::for_isa`].

pub mod scalar;

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;

use crate::simd::Simd;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::fmt;
use std::str::FromStr;

/// A zero-sized proof that this CPU has the instructions of an ISA.
pub trait Token: Simd {
    /// The same lanes without instructions for integer dot products: float kernels are compiled once for both.
    type Float: Token;

    /// The proof, if detection finds the instructions.
    fn new() -> Option<Self>;

    /// What is proved for floats.
    fn float(self) -> Self::Float;

    /// The proof without looking.
    ///
    /// # Safety
    /// [`Token::new`] has returned `Some` in this process.
    unsafe fn assume() -> Self;
}

/// Rounding to nearest even, no exceptions.
#[cfg(target_arch = "x86_64")]
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// Sum by halves: lane i takes lane i + 4, then i + 2, i + 1.
///
/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn sum8(a: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// Largest lane by the same halves.
///
/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn max8(a: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}

impl Token for scalar::Scalar {
    type Float = Self;

    fn new() -> Option<Self> {
        Some(Self)
    }

    fn float(self) -> Self {
        self
    }

    unsafe fn assume() -> Self {
        Self
    }
}

/// An instruction set that kernels are compiled for. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, for any CPU.
    Scalar,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX2 with the 256-bit VNNI instructions.
    Avx2Vnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with VNNI.
    Avx512Vnni,
    /// NEON of AArch64.
    Neon,
    /// NEON with the dot product instructions.
    NeonDot,
}

impl Isa {
    /// All of them, slowest first.
    pub const ALL: [Isa; 7] =
        [Isa::Scalar, Isa::Avx2, Isa::Avx2Vnni, Isa::Avx512, Isa::Avx512Vnni, Isa::Neon, Isa::NeonDot];

    /// The name by which [`FromStr`] finds exactly this one.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx2Vnni => "avxvnni",
            Isa::Avx512 => "avx512bw",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Neon => "neon",
            Isa::NeonDot => "neondot",
        }
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::Avx2::<false>::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Vnni => avx2::Avx2::<true>::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::Avx512::<false>::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => avx512::Avx512::<true>::new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::Neon::<false>::new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => neon::Neon::<true>::new().is_some(),
            _ => false,
        }
    }

    /// Those of this CPU, slowest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The fastest of this CPU.
    pub fn best() -> Isa {
        Self::available().last().unwrap_or(Isa::Scalar)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no ISA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa(
    /// The name found.
    pub String,
);

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown instruction set `{}`: expected avx512", self.0)?;
        Isa::ALL.iter().try_for_each(|isa| write!(f, ", {}", isa.name()))
    }
}

impl std::error::Error for UnknownIsa {}

/// Takes an exact [`Isa::name`], or `avx512` for the better of the two that this CPU has. `avx2` is exact: what a
/// CPU without VNNI runs.
impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Isa, UnknownIsa> {
        if name == "avx512" {
            let vnni = Isa::Avx512Vnni;
            return Ok(if vnni.is_available() { vnni } else { Isa::Avx512 });
        }
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or_else(|| UnknownIsa(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!("avx1".parse::<Isa>().is_err());
        assert!(matches!("avx512".parse(), Ok(Isa::Avx512 | Isa::Avx512Vnni)));
    }

    #[test]
    fn best_is_available() {
        assert!(Isa::best().is_available());
        assert_eq!(Isa::available().next(), Some(Isa::Scalar));
    }
}
