//! Row-wise kernels on every instruction set of this CPU: against f64 twins, against each other's bits, around the
//! edges of their outputs, and at infinities and NaN.

use kernels::rowwise::{Activation, Norm, Pairing, Rotation};
use kernels::{Isa, Kernels};
use proptest::prelude::*;

/// Half an ulp relative to a number: the error of one rounding.
const ROUND: f64 = 1.0 / (1 << 24) as f64;

/// What surrounds every output.
const SENTINEL: f32 = 12345.678;

fn all() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().map(|isa| Kernels::for_isa(isa).expect("available"))
}

/// Reproducible numbers in -1..1.
struct Random(u64);

impl Random {
    fn one(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    fn row(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.one() * scale).collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Runs `f` on a copy of `row` that lies between sentinels, on every ISA; the bits must be the same.
fn run(row: &[f32], f: impl Fn(&Kernels, &mut [f32])) -> Vec<f32> {
    let mut expected: Option<Vec<f32>> = None;
    for kernels in all() {
        let mut memory = vec![SENTINEL; row.len() + 32];
        memory[16..16 + row.len()].copy_from_slice(row);
        f(kernels, &mut memory[16..16 + row.len()]);
        let out = memory.drain(16..16 + row.len()).collect::<Vec<_>>();
        assert!(memory.iter().all(|&x| x == SENTINEL), "{:?} wrote outside of its output", kernels.isa);
        let expected = expected.get_or_insert_with(|| out.clone());
        assert_eq!(bits(&out), bits(expected), "{:?}", kernels.isa);
    }
    expected.expect("the scalar ISA is always there")
}

fn close(found: f32, exact: f64, tolerance: f64, what: &str) {
    assert!((f64::from(found) - exact).abs() <= tolerance, "{what}: {found:e}, exactly {exact:e} within {tolerance:e}");
}

fn optional(random: &mut Random, n: usize, present: bool) -> Option<Vec<f32>> {
    present.then(|| random.row(n, 2.0))
}

/// `(slice, index within)` applied over slices of a row: `(x - shift) * scale * w + b`.
fn norm_twin(norm: &Norm, x: &[f32], centred: bool) -> Vec<(f64, f64)> {
    let mut out = vec![];
    for x in x.chunks(norm.width) {
        let n = x.len() as f64;
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let mean = if centred { x.iter().sum::<f64>() / n } else { 0.0 };
        let square = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (square + f64::from(norm.eps)).sqrt();
        let largest = x.iter().fold(0.0f64, |a, b| a.max(b.abs()));
        for (i, x) in x.iter().enumerate() {
            let w = norm.weight.map_or(1.0, |w| f64::from(w[i]));
            let b = norm.bias.map_or(0.0, |b| f64::from(b[i]));
            // Each lane adds n / 16 squares, four more additions join the lanes; the root halves the error. Six
            // roundings follow. A mean that is off by so many roundings of the largest element shifts all of them.
            let roundings = n / 16.0 + 10.0;
            let shift = if centred { largest } else { 0.0 };
            let y = (x - mean) * scale * w + b;
            out.push((y, roundings * ROUND * ((x.abs() + shift) * scale * w.abs() + b.abs() + y.abs())));
        }
    }
    out
}

fn check_norms(width: usize, slices: usize, weight: bool, bias: bool, seed: u64) {
    let mut random = Random(seed);
    let (w, b) = (optional(&mut random, width, weight), optional(&mut random, width, bias));
    let norm = Norm { width, eps: 1e-5, weight: w.as_deref(), bias: b.as_deref() };
    let x: Vec<f32> = random.row(width * slices, 3.0).iter().map(|x| x + 0.5).collect();
    let start = random.row(x.len(), 1.0);
    let what = format!("{slices} slices of {width}");

    let rms = run(&vec![0.0; x.len()], |k, out| (k.rms_norm)(&norm, &x, out));
    for (found, (exact, tolerance)) in rms.iter().zip(norm_twin(&norm, &x, false)) {
        close(*found, exact, tolerance, &what);
    }
    let layer = run(&vec![0.0; x.len()], |k, out| (k.layer_norm)(&norm, &x, out));
    for (found, (exact, tolerance)) in layer.iter().zip(norm_twin(&norm, &x, true)) {
        close(*found, exact, tolerance, &what);
    }
    let added = run(&start, |k, out| (k.rms_norm_add)(&norm, &x, out));
    let sum: Vec<f32> = start.iter().zip(&rms).map(|(a, b)| a + b).collect();
    assert_eq!(bits(&added), bits(&sum), "{what}");
    // A slice knows nothing of the others.
    for (i, x) in x.chunks(width).enumerate() {
        let alone = run(&vec![0.0; width], |k, out| (k.rms_norm)(&norm, x, out));
        assert_eq!(bits(&alone), bits(&rms[i * width..][..width]), "{what}");
    }
}

#[test]
fn norms_of_common_widths() {
    for width in [1, 2, 7, 8, 15, 16, 17, 24, 40, 64, 100, 128, 256, 576, 640, 2048, 4097] {
        for (slices, weight, bias) in [(0, true, true), (1, true, false), (3, false, false), (2, true, true)] {
            check_norms(width, slices, weight, bias, width as u64);
        }
    }
}

#[test]
fn norms_of_zeros_and_infinities() {
    let norm = Norm { width: 20, eps: 1e-6, weight: None, bias: None };
    let run_both =
        |x: &[f32]| [run(x, |k, out| (k.rms_norm)(&norm, x, out)), run(x, |k, out| (k.layer_norm)(&norm, x, out))];
    assert_eq!(run_both(&[0.0; 20]), [[0.0; 20]; 2], "eps keeps zeros from dividing by zero");
    let mut x = [1.0; 40];
    x[3] = f32::INFINITY;
    for y in run_both(&x) {
        assert!(y[3].is_nan() && y[20..].iter().all(|y| y.is_finite()), "only its own slice is poisoned: {y:?}");
    }
    x[3] = f32::NAN;
    for y in run_both(&x) {
        assert!(y[..20].iter().all(|y| y.is_nan()) && y[20..].iter().all(|y| y.is_finite()));
    }
}

fn check_rope(head_dim: usize, pairs: usize, heads: usize, seed: u64) {
    let mut random = Random(seed);
    let x = random.row(head_dim * heads, 2.0);
    let angles = random.row(pairs, 3.0);
    let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
    let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
    for pairing in [Pairing::Adjacent, Pairing::Halves] {
        let rotation = Rotation { pairing, cos: &cos, sin: &sin };
        let y = run(&x, |k, x| (k.rope)(&rotation, head_dim, x));
        for (x, y) in x.chunks(head_dim).zip(y.chunks(head_dim)) {
            for i in 0..pairs {
                let (at_a, at_b) = match pairing {
                    Pairing::Adjacent => (2 * i, 2 * i + 1),
                    Pairing::Halves => (i, i + pairs),
                };
                let [a, b, c, s] = [x[at_a], x[at_b], cos[i], sin[i]].map(f64::from);
                // One rounding of a product, one of the sum.
                let tolerance = 2.0 * ROUND * (a.abs() + b.abs());
                close(y[at_a], a * c - b * s, tolerance, "first of a pair");
                close(y[at_b], b * c + a * s, tolerance, "second of a pair");
            }
            assert_eq!(x[2 * pairs..], y[2 * pairs..], "elements beyond the pairs stay");
        }
    }
}

#[test]
fn rope_of_common_heads() {
    for (head_dim, pairs) in [(8, 4), (24, 12), (40, 20), (64, 32), (80, 10), (80, 40), (96, 48), (128, 64), (256, 128)]
    {
        for heads in [0, 1, 3, 9] {
            check_rope(head_dim, pairs, heads, head_dim as u64);
        }
    }
    check_rope(16, 0, 2, 1);
    check_rope(7, 3, 2, 1);
}

#[test]
fn activations_do_not_depend_on_where_an_element_lies() {
    let mut random = Random(5);
    for n in [0, 1, 8, 15, 16, 17, 40, 100] {
        let (gate, up) = (random.row(n, 8.0), random.row(n, 2.0));
        for act in Activation::ALL {
            let y = run(&gate, |k, x| (k.activate)(act, x));
            for (&x, &y) in gate.iter().zip(&y) {
                let alone = run(&[x], |k, x| (k.activate)(act, x));
                assert_eq!(alone[0].to_bits(), y.to_bits(), "{act:?}({x})");
            }
            let gated = run(&vec![0.0; n], |k, out| (k.gated)(act, &gate, &up, out));
            let product: Vec<f32> = y.iter().zip(&up).map(|(a, b)| a * b).collect();
            assert_eq!(bits(&gated), bits(&product), "{act:?}");
        }
    }
}

#[test]
fn activations_are_the_functions_that_they_are_named_after() {
    let one = |act, x: f32| f64::from(run(&[x], |k, x| (k.activate)(act, x))[0]);
    for x in [-3.0f32, -0.5, 0.0, 0.25, 2.0, 9.0] {
        let e = f64::from(x);
        let logistic = 1.0 / (1.0 + (-e).exp());
        let tanh = (0.797_884_560_802_865_4 * (e + 0.044715 * e.powi(3))).tanh();
        for (act, exact) in [
            (Activation::Silu, e * logistic),
            (Activation::Sigmoid, logistic),
            (Activation::GeluTanh, e / 2.0 * (1.0 + tanh)),
            (Activation::GeluErf, e / 2.0 * libm::erfc(-e / 2f64.sqrt())),
            (Activation::Relu, e.max(0.0)),
            (Activation::ReluSquared, e.max(0.0).powi(2)),
        ] {
            // Their bounds in ulp are asserted where they are defined; this is about which is which.
            assert!((one(act, x) - exact).abs() <= 1e-6 * (1.0 + e.abs()), "{act:?}({x})");
        }
    }
}

#[test]
fn sums_and_factors_are_rounded_once() {
    let mut random = Random(6);
    for n in [0, 1, 15, 16, 33, 64] {
        let (a, b) = (random.row(n, 2.0), random.row(n, 2.0));
        let each = |f: &dyn Fn(f32, f32) -> f32| a.iter().zip(&b).map(|(&a, &b)| f(a, b)).collect::<Vec<_>>();
        assert_eq!(run(&a, |k, out| (k.add)(&b, out)), each(&|a, b| a + b));
        assert_eq!(run(&a, |k, out| (k.add_scaled)(0.3, &b, out)), each(&|a, b| b.mul_add(0.3, a)));
        assert_eq!(run(&a, |k, x| (k.scale)(0.3, x)), each(&|a, _| a * 0.3));
    }
}

#[test]
fn softcap_of_ordinary_and_extreme_values() {
    let mut random = Random(7);
    for cap in [30.0f32, 50.0, 1.5] {
        let mut x = random.row(75, 200.0);
        x[0] = 0.0;
        for (&x, y) in x.iter().zip(run(&x, |k, x| (k.softcap)(cap, x))) {
            let exact = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
            // tanh is within 2.5 ulp, which are 5 roundings; the reciprocal and three products round once each.
            close(y, exact, 9.0 * ROUND * exact.abs(), "softcap");
        }
        let edges = run(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN], |k, x| (k.softcap)(cap, x));
        assert_eq!(edges[..2], [cap, -cap]);
        assert!(edges[2].is_nan());
    }
}

#[test]
fn the_clamped_gate_of_ordinary_and_extreme_values() {
    let mut random = Random(17);
    for n in [1, 16, 75] {
        let (gate, up) = (random.row(n, 12.0), random.row(n, 12.0));
        let found = run(&vec![0.0; n], |k, out| (k.clamped_glu)(&gate, &up, out));
        for ((y, &g), &u) in found.into_iter().zip(&gate).zip(&up) {
            let (g, u) = (f64::from(g.min(7.0)), f64::from(u.clamp(-7.0, 7.0)));
            let exact = g / (1.0 + (-1.702 * g).exp()) * (u + 1.0);
            // The constant and its product with g round once each, which the logistic function takes over as far as
            // it falls; it is 2.5 ulp off itself; two products and a sum, which cancels near -1, round once each.
            let tolerance = (10.0 + 4.0 * g.abs()) * ROUND * exact.abs() + ROUND * g.abs();
            close(y, exact, tolerance, "clamped_glu");
        }
    }
    let edges = run(&[0.0; 3], |k, out| (k.clamped_glu)(&[f32::INFINITY, f32::NEG_INFINITY, f32::NAN], &[1.0; 3], out));
    assert!(edges[0] > 13.9 && edges[0] <= 14.0 && edges[1..].iter().all(|y| y.is_nan()), "{edges:?}");
}

fn check_softmax(x: &[f32]) {
    let exact: Vec<f64> = {
        let max = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x)));
        let e: Vec<f64> = x.iter().map(|&x| (f64::from(x) - max).exp()).collect();
        let sum: f64 = e.iter().sum();
        e.iter().map(|e| e / sum).collect()
    };
    let max = x.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let y = run(x, |k, x| (k.softmax)(x));
    for (i, &y) in y.iter().enumerate() {
        // The difference to the maximum rounds once, and exp carries that over as a relative error; exp itself is two
        // roundings off, the sum n / 16 + 4 of terms that carry errors alike, the quotient one.
        let distance = if x[i] == f32::NEG_INFINITY { 0.0 } else { f64::from((max - x[i]).abs()) };
        let roundings = x.len() as f64 / 16.0 + 12.0 + 2.0 * distance;
        close(y, exact[i], roundings * ROUND * exact[i] + f64::from(f32::from_bits(1)), "softmax");
    }
}

#[test]
fn softmax_of_ordinary_and_extreme_rows() {
    let mut random = Random(8);
    for n in [0, 1, 2, 8, 15, 16, 17, 60, 256, 1000] {
        for scale in [0.0, 1.0, 30.0] {
            check_softmax(&random.row(n, scale));
        }
    }
    let inf = f32::INFINITY;
    check_softmax(&[1.0, -inf, 2.0, -inf]);
    assert_eq!(run(&[5.0, -inf], |k, x| (k.softmax)(x)), [1.0, 0.0]);
    for poison in [vec![1.0, f32::NAN, 2.0], vec![1.0, inf], vec![-inf; 20]] {
        assert!(run(&poison, |k, x| (k.softmax)(x)).iter().all(|y| y.is_nan()), "{poison:?}");
    }
}

fn argmax(x: &[f32]) -> usize {
    let mut found: Vec<usize> = all().map(|k| (k.argmax)(x)).collect();
    found.dedup();
    assert_eq!(found.len(), 1, "every ISA finds the same: {found:?}");
    found[0]
}

#[test]
fn argmax_finds_the_first_of_the_largest() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    assert_eq!(argmax(&[]), 0);
    assert_eq!(argmax(&[nan, nan]), 0);
    assert_eq!(argmax(&[nan, -inf]), 1);
    assert_eq!(argmax(&[nan, 1.0, nan, 3.0, 3.0, nan]), 3);
    assert_eq!(argmax(&[-0.0, 0.0]), 0);
    assert_eq!(argmax(&[1.0, inf, inf]), 1);
    let mut random = Random(9);
    for n in [1, 16, 255, 256, 257, 513, 5000] {
        let x = random.row(n, 1.0);
        let naive = (0..n).fold(0, |best, i| if x[i] > x[best] { i } else { best });
        assert_eq!(argmax(&x), naive);
    }
    let mut x = vec![-1.0; 700];
    (x[300], x[650]) = (2.0, 2.0);
    assert_eq!(argmax(&x), 300);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn norms_of_any_shape(width in 1usize..300, slices in 0usize..4, weight: bool, bias: bool, seed: u64) {
        check_norms(width, slices, weight, bias, seed);
    }

    #[test]
    fn rope_of_any_shape(head_dim in 1usize..140, cut in 0.0f64..=1.0, heads in 0usize..4, seed: u64) {
        check_rope(head_dim, ((head_dim / 2) as f64 * cut) as usize, heads, seed);
    }

    #[test]
    fn softmax_of_any_row(n in 0usize..400, scale in 0.0f32..100.0, seed: u64) {
        check_softmax(&Random(seed).row(n, scale));
    }
}
