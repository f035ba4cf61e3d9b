//! The elementary functions against their f64 twins, in ulp, over a dense sample of all floats (all of them with
//! `--ignored`), and the bits of every ISA against those of the scalar one.

use kernels::isa::{Token, scalar::Scalar};
use kernels::math;
use kernels::simd::{LANES, Simd};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// One function on sixteen lanes.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    Tanh,
    Sigmoid,
    Silu,
    GeluTanh,
    GeluErf,
}

use Function::*;

const ALL: [Function; 6] = [Exp, Tanh, Sigmoid, Silu, GeluTanh, GeluErf];

impl Function {
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, x: &[f32; LANES]) -> [f32; LANES] {
        let (v, mut out) = (s.load(x), [0.0; LANES]);
        let y = match self {
            Exp => math::exp(s, v),
            Tanh => math::tanh(s, v),
            Sigmoid => math::sigmoid(s, v),
            Silu => math::silu(s, v),
            GeluTanh => math::gelu_tanh(s, v),
            GeluErf => math::gelu_erf(s, v),
        };
        s.store(y, &mut out);
        out
    }

    /// The function in f64, whose own error is a millionth of what is asserted; its limit at minus infinity.
    fn exact(self, x: f64) -> f64 {
        match self {
            Exp => x.exp(),
            Tanh => x.tanh(),
            Sigmoid => 1.0 / (1.0 + (-x).exp()),
            _ if x == f64::NEG_INFINITY => 0.0,
            Silu => x / (1.0 + (-x).exp()),
            GeluTanh => x / (1.0 + (-inner(x)).exp()),
            GeluErf => x * 0.5 * libm::erfc(-x * FRAC_1_SQRT_2),
        }
    }

    /// The bound that the function's documentation states at `x`, in ulp. Where a factor of the result underflows
    /// before the result does, what is asserted is that the error stays below that factor's last place times `|x|`.
    fn bound(self, x: f64, exact: f64) -> f64 {
        let (ulps, from) = match self {
            Exp => (0.91, f64::NEG_INFINITY),
            Tanh => (2.7, f64::NEG_INFINITY),
            Sigmoid => (2.5, f64::NEG_INFINITY),
            Silu => (3.4, -87.0),
            GeluTanh => (3.0 + 3.0 * inner(x).abs(), -10.2),
            GeluErf => (4.7, -12.9),
        };
        if x < from { ulps * ulp(exact) + 2.0 * ulp(0.0) * x.abs() } else { ulps * ulp(exact) }
    }
}

/// `z` of the tanh form of GELU.
fn inner(x: f64) -> f64 {
    2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)
}

/// Distance of floats at `exact`: the power of two at or below it, 23 places down.
fn ulp(exact: f64) -> f64 {
    let exact = exact.abs().clamp(f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX));
    f64::from_bits(exact.to_bits() & f64::INFINITY.to_bits()) * f64::from(f32::EPSILON)
}

/// The bits, one NaN for all.
fn bits(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

/// Floats by their bits, from 0 upwards in steps of `stride`, in sixteens.
fn floats(stride: usize) -> impl Iterator<Item = [f32; LANES]> {
    (0..1u64 << 32)
        .step_by(stride * LANES)
        .map(move |first| std::array::from_fn(|i| f32::from_bits((first as u32).wrapping_add((i * stride) as u32))))
}

/// Largest error of a function in ulp and where, after checking each value against the bound.
fn walk<S: Simd>(s: S, function: Function, stride: usize) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    for x in floats(stride) {
        let y = s.vectorize(
            #[inline(always)]
            |s| function.lanes(s, &x),
        );
        for (x, y) in x.into_iter().zip(y) {
            let exact = function.exact(f64::from(x));
            if x.is_nan() || (exact as f32).is_infinite() {
                assert_eq!(bits(y), bits(exact as f32), "{function:?}({x:e})");
                continue;
            }
            let error = (f64::from(y) - exact).abs();
            assert!(error <= function.bound(f64::from(x), exact), "{function:?}({x:e}) = {y:e}, exactly {exact:e}");
            if error / ulp(exact) > worst.0 {
                worst = (error / ulp(exact), x);
            }
        }
    }
    worst
}

#[test]
fn errors_are_within_the_stated_bounds() {
    for function in ALL {
        walk(Scalar, function, 16411);
    }
}

#[test]
#[ignore = "all 2^32 floats: minutes a function"]
fn errors_are_within_the_stated_bounds_for_all_floats() {
    for function in ALL {
        #[cfg(target_arch = "x86_64")]
        if let Some(s) = kernels::isa::avx2::Avx2::<false>::new() {
            println!("{function:?}: at most (ulp, at) {:?}", walk(s, function, 1));
            continue;
        }
        println!("{function:?}: at most (ulp, at) {:?}", walk(Scalar, function, 1));
    }
}

fn same_bits_as_scalar<S: Token>(name: &str) {
    let Some(s) = S::new() else { return };
    for function in ALL {
        for x in floats(8209) {
            let expected = Scalar.vectorize(|s| function.lanes(s, &x)).map(bits);
            let found = s
                .vectorize(
                    #[inline(always)]
                    |s| function.lanes(s, &x),
                )
                .map(bits);
            assert_eq!(found, expected, "{function:?} of {x:?} on {name}");
        }
    }
}

#[test]
fn every_isa_gives_the_bits_of_the_scalar_one() {
    #[cfg(target_arch = "x86_64")]
    {
        same_bits_as_scalar::<kernels::isa::avx2::Avx2<false>>("avx2");
        same_bits_as_scalar::<kernels::isa::avx512::Avx512<false>>("avx512");
    }
    #[cfg(target_arch = "aarch64")]
    same_bits_as_scalar::<kernels::isa::neon::Neon<false>>("neon");
}

#[test]
fn edges_are_exact() {
    let of = |function: Function, x: f32| Scalar.vectorize(|s| function.lanes(s, &[x; LANES]))[7];
    let (inf, least) = (f32::INFINITY, f32::from_bits(1));
    for (function, x, y) in [
        (Exp, 0.0, 1.0),
        (Exp, -inf, 0.0),
        (Exp, inf, inf),
        (Exp, 88.8, inf),
        (Exp, -103.3, least),
        (Exp, -104.0, 0.0),
        (Tanh, 0.0, 0.0),
        (Tanh, inf, 1.0),
        (Tanh, -inf, -1.0),
        (Tanh, least, least),
        (Sigmoid, 0.0, 0.5),
        (Sigmoid, inf, 1.0),
        (Sigmoid, -inf, 0.0),
        (Silu, inf, inf),
        (Silu, -inf, -0.0),
        (GeluTanh, inf, inf),
        (GeluTanh, -inf, -0.0),
        (GeluTanh, 1e30, 1e30),
        (GeluErf, inf, inf),
        (GeluErf, -inf, -0.0),
        (GeluErf, 0.0, 0.0),
    ] {
        assert_eq!(of(function, x).to_bits(), y.to_bits(), "{function:?}({x}): {} and {y}", of(function, x));
    }
    for function in ALL {
        assert!(of(function, f32::NAN).is_nan(), "{function:?}");
    }
}
