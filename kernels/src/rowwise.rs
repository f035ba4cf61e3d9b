//! Kernels over the rows of a matrix: norms, rotary embedding, activations, softmax and their small kin.
//!
//! A row is a slice of floats of any length; a row's result depends on that row alone. Sums over a row go through
//! sixteen lanes, each adding every sixteenth element ascending, which are then added by halves
//! ([`Simd::reduce_add`]). Infinities and NaN follow IEEE arithmetic: they poison what they flow into and nothing
//! else. The module knows neither tokens nor tensors nor threads. Slices whose lengths do not fit each other are
//! the caller's bug and panic.

use crate::math;
use crate::simd::{LANES, Simd, get, put};

/// What a norm does to each slice of `width` elements: whole rows, or the heads of a row.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Elements that are normalized together.
    pub width: usize,
    /// Added to the mean square or the variance.
    pub eps: f32,
    /// Factors of the result, `width` of them.
    pub weight: Option<&'a [f32]>,
    /// Summands of the result, `width` of them.
    pub bias: Option<&'a [f32]>,
}

/// Which elements of a head make a pair that rotary embedding turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pairing {
    /// Elements `2i` and `2i + 1`.
    Adjacent,
    /// Elements `i` and `i + n`, for `n` pairs.
    Halves,
}

/// Rotary embedding at one position: pair `i` turns by the angle of `cos[i]` and `sin[i]`. Elements beyond the
/// pairs stay as they are.
#[derive(Clone, Copy, Debug)]
pub struct Rotation<'a> {
    /// Which elements make a pair.
    pub pairing: Pairing,
    /// Cosines, one a pair.
    pub cos: &'a [f32],
    /// Sines, one a pair.
    pub sin: &'a [f32],
}

/// An activation function; the formulas are in [`crate::math`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)^2`.
    ReluSquared,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 6] = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::Relu,
        Activation::ReluSquared,
        Activation::Sigmoid,
    ];
}

/// `out = f(out, x)`, sixteen elements at a time.
#[inline(always)]
fn update<S: Simd>(s: S, out: &mut [f32], x: &[f32], f: impl Fn(S::F32, S::F32) -> S::F32) {
    assert_eq!(out.len(), x.len(), "rows of one length");
    for at in (0..x.len()).step_by(LANES) {
        put(s, out, at, f(get(s, out, at, 0.0), get(s, x, at, 0.0)));
    }
}

/// `x = f(x)`, sixteen elements at a time.
#[inline(always)]
fn map<S: Simd>(s: S, x: &mut [f32], f: impl Fn(S::F32) -> S::F32) {
    for at in (0..x.len()).step_by(LANES) {
        put(s, x, at, f(get(s, x, at, 0.0)));
    }
}

/// The sum of `f(x)` over a row, where `f(fill)` is 0.
#[inline(always)]
fn sum<S: Simd>(s: S, x: &[f32], fill: f32, f: impl Fn(S::F32, S::F32) -> S::F32) -> f32 {
    let mut sum = s.splat(0.0);
    for at in (0..x.len()).step_by(LANES) {
        sum = f(get(s, x, at, fill), sum);
    }
    s.reduce_add(sum)
}

/// `out (+)= (x - shift) * scale * weight + bias`.
#[inline(always)]
fn affine<S: Simd, const ADD: bool>(s: S, norm: &Norm, x: &[f32], out: &mut [f32], [shift, scale]: [f32; 2]) {
    let (shift, scale) = (s.splat(shift), s.splat(scale));
    for at in (0..x.len()).step_by(LANES) {
        let mut y = s.mul(s.sub(get(s, x, at, 0.0), shift), scale);
        if let Some(w) = norm.weight {
            y = s.mul(y, get(s, w, at, 0.0));
        }
        if let Some(b) = norm.bias {
            y = s.add(y, get(s, b, at, 0.0));
        }
        if ADD {
            y = s.add(get(s, out, at, 0.0), y);
        }
        put(s, out, at, y);
    }
}

/// The slices of `width` elements that a norm works on.
#[inline(always)]
fn slices<'a>(norm: &Norm, x: &'a [f32], out: &'a mut [f32]) -> impl Iterator<Item = (&'a [f32], &'a mut [f32])> {
    let fits = |v: Option<&[f32]>| v.is_none_or(|v| v.len() == norm.width);
    assert!(norm.width > 0 && fits(norm.weight) && fits(norm.bias), "weight and bias of a norm of {}", norm.width);
    assert!(x.len().is_multiple_of(norm.width) && out.len() == x.len(), "rows of slices of {}", norm.width);
    x.chunks_exact(norm.width).zip(out.chunks_exact_mut(norm.width))
}

#[inline(always)]
fn rms_norm_to<S: Simd, const ADD: bool>(s: S, norm: &Norm, x: &[f32], out: &mut [f32]) {
    for (x, out) in slices(norm, x, out) {
        let squares = sum(
            s,
            x,
            0.0,
            #[inline(always)]
            |x, sum| s.fma(x, x, sum),
        );
        let scale = 1.0 / (squares / norm.width as f32 + norm.eps).sqrt();
        affine::<S, ADD>(s, norm, x, out, [0.0, scale]);
    }
}

/// `out = x / sqrt(mean(x^2) + eps) * weight + bias` (Zhang and Sennrich, 2019) for each slice of `x`.
#[inline(always)]
pub fn rms_norm<S: Simd>(s: S, norm: &Norm, x: &[f32], out: &mut [f32]) {
    rms_norm_to::<S, false>(s, norm, x, out);
}

/// [`rms_norm`] added to `out`: the norm of a branch that ends in a residual.
#[inline(always)]
pub fn rms_norm_add<S: Simd>(s: S, norm: &Norm, x: &[f32], out: &mut [f32]) {
    rms_norm_to::<S, true>(s, norm, x, out);
}

/// `out = (x - mean) / sqrt(variance + eps) * weight + bias` (Ba et al., 2016) for each slice of `x`. The variance
/// is taken around the mean in a second pass.
#[inline(always)]
pub fn layer_norm<S: Simd>(s: S, norm: &Norm, x: &[f32], out: &mut [f32]) {
    for (x, out) in slices(norm, x, out) {
        let n = norm.width as f32;
        let mean = sum(
            s,
            x,
            0.0,
            #[inline(always)]
            |x, sum| s.add(sum, x),
        ) / n;
        let squares = sum(
            s,
            x,
            mean,
            #[inline(always)]
            |x, sum| {
                let d = s.sub(x, s.splat(mean));
                s.fma(d, d, sum)
            },
        );
        let scale = 1.0 / (squares / n + norm.eps).sqrt();
        affine::<S, false>(s, norm, x, out, [mean, scale]);
    }
}

/// Turns the pairs of every head of a row in place: `(a, b)` becomes `(a cos - b sin, b cos + a sin)`
/// (Su et al., 2021). `x` is heads of `head_dim` elements.
#[inline(always)]
pub fn rope<S: Simd>(s: S, rotation: &Rotation, head_dim: usize, x: &mut [f32]) {
    let pairs = rotation.cos.len();
    assert!(rotation.sin.len() == pairs && 2 * pairs <= head_dim, "{pairs} pairs in heads of {head_dim}");
    assert!(x.len().is_multiple_of(head_dim), "a row of heads of {head_dim}");
    match rotation.pairing {
        Pairing::Adjacent => rope_adjacent(s, rotation, head_dim, x),
        Pairing::Halves => rope_halves(s, rotation, head_dim, x),
    }
}

#[inline(always)]
fn rope_halves<S: Simd>(s: S, rotation: &Rotation, head_dim: usize, x: &mut [f32]) {
    let pairs = rotation.cos.len();
    for at in (0..pairs).step_by(LANES) {
        let (cos, sin) = (get(s, rotation.cos, at, 0.0), get(s, rotation.sin, at, 0.0));
        for head in x.chunks_exact_mut(head_dim) {
            let (low, high) = head[..2 * pairs].split_at_mut(pairs);
            let (a, b) = (get(s, low, at, 0.0), get(s, high, at, 0.0));
            put(s, low, at, s.fnma(b, sin, s.mul(a, cos)));
            put(s, high, at, s.fma(a, sin, s.mul(b, cos)));
        }
    }
}

#[inline(always)]
fn rope_adjacent<S: Simd>(s: S, rotation: &Rotation, head_dim: usize, x: &mut [f32]) {
    let pairs = rotation.cos.len();
    for at in (0..pairs).step_by(LANES / 2) {
        // Each pair's cosine twice; its sine once negative, for the element that loses.
        let (mut cos, mut sin) = ([0.0; LANES], [0.0; LANES]);
        for (i, pair) in (at..pairs.min(at + LANES / 2)).enumerate() {
            cos[2 * i..][..2].fill(rotation.cos[pair]);
            sin[2 * i..][..2].copy_from_slice(&[-rotation.sin[pair], rotation.sin[pair]]);
        }
        let (cos, sin) = (s.load(&cos), s.load(&sin));
        for head in x.chunks_exact_mut(head_dim) {
            let head = &mut head[..2 * pairs];
            let v = get(s, head, 2 * at, 0.0);
            put(s, head, 2 * at, s.fma(s.swap_pairs(v), sin, s.mul(v, cos)));
        }
    }
}

/// `$kernel($args, f)` with `f` the function of an activation; the choice is made once, outside of the loop.
macro_rules! with_activation {
    ($s:ident, $act:expr, $kernel:ident($($arg:expr),*)) => {
        match $act {
            Activation::Silu => $kernel($($arg,)* #[inline(always)] |x| math::silu($s, x)),
            Activation::GeluTanh => $kernel($($arg,)* #[inline(always)] |x| math::gelu_tanh($s, x)),
            Activation::GeluErf => $kernel($($arg,)* #[inline(always)] |x| math::gelu_erf($s, x)),
            Activation::Relu => $kernel($($arg,)* #[inline(always)] |x| relu($s, x)),
            Activation::ReluSquared => $kernel($($arg,)* #[inline(always)] |x| $s.mul(relu($s, x), relu($s, x))),
            Activation::Sigmoid => $kernel($($arg,)* #[inline(always)] |x| math::sigmoid($s, x)),
        }
    };
}

#[inline(always)]
fn relu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    s.max(s.splat(0.0), x)
}

/// `x = act(x)`.
#[inline(always)]
pub fn activate<S: Simd>(s: S, act: Activation, x: &mut [f32]) {
    with_activation!(s, act, map(s, x))
}

#[inline(always)]
fn gated_by<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32], f: impl Fn(S::F32) -> S::F32) {
    for at in (0..out.len()).step_by(LANES) {
        put(s, out, at, s.mul(f(get(s, gate, at, 0.0)), get(s, up, at, 0.0)));
    }
}

/// `out = act(gate) * up`.
#[inline(always)]
pub fn gated<S: Simd>(s: S, act: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len(), "rows of one length");
    with_activation!(s, act, gated_by(s, gate, up, out))
}

/// `out = g / (1 + e^(-1.702 g)) * (u + 1)` with `g = min(gate, 7)` and `u = up` cut at 7 and -7: the gate of gpt-oss.
#[inline(always)]
pub fn clamped_glu<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == out.len() && up.len() == out.len(), "rows of one length");
    let limit = s.splat(7.0);
    for at in (0..out.len()).step_by(LANES) {
        let g = s.min(limit, get(s, gate, at, 0.0));
        let u = s.min(limit, s.max(s.splat(-7.0), get(s, up, at, 0.0)));
        let swish = s.mul(g, math::sigmoid(s, s.mul(g, s.splat(1.702))));
        put(s, out, at, s.mul(swish, s.add(u, s.splat(1.0))));
    }
}

/// `out += x`.
#[inline(always)]
pub fn add<S: Simd>(s: S, x: &[f32], out: &mut [f32]) {
    update(
        s,
        out,
        x,
        #[inline(always)]
        |out, x| s.add(out, x),
    );
}

/// `out += factor * x`, rounded once.
#[inline(always)]
pub fn add_scaled<S: Simd>(s: S, factor: f32, x: &[f32], out: &mut [f32]) {
    update(
        s,
        out,
        x,
        #[inline(always)]
        |out, x| s.fma(x, s.splat(factor), out),
    );
}

/// `x *= factor`.
#[inline(always)]
pub fn scale<S: Simd>(s: S, factor: f32, x: &mut [f32]) {
    map(
        s,
        x,
        #[inline(always)]
        |x| s.mul(x, s.splat(factor)),
    );
}

/// `x = cap * tanh(x / cap)`, which keeps `x` within `cap` of 0.
#[inline(always)]
pub fn softcap<S: Simd>(s: S, cap: f32, x: &mut [f32]) {
    let (cap, inverse) = (s.splat(cap), s.splat(1.0 / cap));
    map(
        s,
        x,
        #[inline(always)]
        |x| s.mul(cap, math::tanh(s, s.mul(x, inverse))),
    );
}

/// `x = e^(x - max) / sum`. An element of minus infinity becomes 0; a row with NaN, with plus infinity or of
/// nothing but minus infinities becomes NaN.
#[inline(always)]
pub fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let mut max = s.splat(f32::NEG_INFINITY);
    for at in (0..x.len()).step_by(LANES) {
        max = s.max(max, get(s, x, at, f32::NEG_INFINITY));
    }
    let max = s.splat(s.reduce_max(max));
    map(
        s,
        x,
        #[inline(always)]
        |x| math::exp(s, s.sub(x, max)),
    );
    let total = s.splat(sum(
        s,
        x,
        0.0,
        #[inline(always)]
        |x, sum| s.add(sum, x),
    ));
    map(
        s,
        x,
        #[inline(always)]
        |x| s.div(x, total),
    );
}

/// Index of the largest element, the first of equals. NaN is never the largest; 0 if nothing else is there.
#[inline(always)]
pub fn argmax<S: Simd>(s: S, x: &[f32]) -> usize {
    const BLOCK: usize = 16 * LANES;
    let (mut best, mut best_block) = (f32::NEG_INFINITY, 0);
    for (i, block) in x.chunks(BLOCK).enumerate() {
        let mut max = s.splat(f32::NEG_INFINITY);
        for at in (0..block.len()).step_by(LANES) {
            let v = get(s, block, at, f32::NEG_INFINITY);
            max = s.select_lt(max, v, v, max);
        }
        let max = s.reduce_max(max);
        if best < max {
            (best, best_block) = (max, i * BLOCK);
        }
    }
    x[best_block..].iter().position(|&v| v == best).map_or(0, |i| best_block + i)
}
