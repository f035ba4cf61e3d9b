//! K-quants by search. A block has two levels of scales, and rounding the lower one moves the best
//! codes, so the levels are fitted in turn:
//!
//! 1. each group alone: real scale (and minimum) of least weighted squared error, from several
//!    starting grids, each refined by a least-squares fit to its codes;
//! 2. rounds over the block: with the block's scale (and its scale of minimums) rounded to
//!    binary16, each group takes the integer scale (and minimum) of least error near its real one;
//!    then the block's scales are fitted anew to all codes. The best round is kept.
//!
//! Weights are `rms + |x|` of the group, so that large values, which matter more to a product,
//! count up to a few times as much as small ones.

use wide::f32x8;

use super::super::Encode;
use super::super::kquant::{Q4K, Q5K, Q6K};
use super::{f16, inverse};

/// Elements a block.
const LEN: usize = 256;
/// Rounds of fitting a block, starting grids of a group on either side of the obvious one, and
/// least-squares fits from each. Twice as much of each lowers the error by 0.2 % more and takes
/// seven times as long.
const ROUNDS: usize = 3;
const STEPS: i32 = 5;
const FITS: usize = 3;

impl Encode for Q4K {
    fn encode(x: &[f32]) -> Self {
        let block = affine(&x[..LEN], 15.0);
        let q = &block.codes;
        Q4K {
            d: f16(block.d),
            dmin: f16(block.dmin),
            scales: pack_scales(&block.scales, &block.mins),
            qs: std::array::from_fn(|i| low_nibbles(q, i)),
        }
    }
}

impl Encode for Q5K {
    fn encode(x: &[f32]) -> Self {
        let block = affine(&x[..LEN], 31.0);
        let q = &block.codes;
        let fifth = |i: usize| (0..8).fold(0, |bits, g| bits | (q[32 * g + i] >> 4 & 1) << g);
        Q5K {
            d: f16(block.d),
            dmin: f16(block.dmin),
            scales: pack_scales(&block.scales, &block.mins),
            qh: std::array::from_fn(fifth),
            qs: std::array::from_fn(|i| low_nibbles(q, i)),
        }
    }
}

/// Byte `i` of the nibbles of [`Q4K`] and [`Q5K`].
fn low_nibbles(q: &[u8; LEN], i: usize) -> u8 {
    let at = i / 32 * 64 + i % 32;
    q[at] & 15 | q[at + 32] << 4
}

/// The inverse of [`super::super::scales_and_mins`].
fn pack_scales(scales: &[u8; 8], mins: &[u8; 8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => scales[i] | scales[i + 4] >> 4 << 6,
        4..8 => mins[i - 4] | mins[i] >> 4 << 6,
        _ => scales[i - 4] & 15 | mins[i - 4] << 4,
    })
}

impl Encode for Q6K {
    fn encode(x: &[f32]) -> Self {
        let block = symmetric(&x[..LEN]);
        let q = |i: usize| (block.codes[i] + 32) as u8;
        let low = |i: usize| {
            let at = i / 64 * 128 + i % 64;
            q(at) & 15 | q(at + 64) << 4
        };
        let high = |i: usize| {
            let at = i / 32 * 128 + i % 32;
            (0..4).fold(0, |bits, s| bits | q(at + 32 * s) >> 4 << (2 * s))
        };
        Q6K {
            ql: std::array::from_fn(low),
            qh: std::array::from_fn(high),
            scales: block.scales.map(|s| s as u8),
            d: f16(block.d),
        }
    }
}

/// Adding and subtracting 1.5 * 2^23 leaves no bits for a fraction: it rounds to the nearest whole number, ties to even.
const SHIFT: f32 = 12_582_912.0;

/// The nearest whole number from `low` to `high`, for the small bounds of codes.
fn whole(v: f32, low: f32, high: f32) -> f32 {
    v.max(low).min(high) + SHIFT - SHIFT
}

/// As [`whole`], eight at a time.
fn whole8(v: f32x8, low: f32, high: f32) -> f32x8 {
    let shift = f32x8::splat(SHIFT);
    v.fast_max(f32x8::splat(low)).fast_min(f32x8::splat(high)) + shift - shift
}

/// A number rounded to binary16, as the decoder will see it.
fn rounded(x: f32) -> f32 {
    half::f16::from_le_bytes(f16(x)).to_f32()
}

/// `rms + |x|` of a group; all ones where the group is zero.
fn weights<const N: usize>(x: &[f32x8; N]) -> [f32x8; N] {
    let rms = (total(x.map(|v| v * v)) / (8 * N) as f32).sqrt();
    let floor = f32x8::splat(if rms == 0.0 { 1.0 } else { rms });
    x.map(|v| floor + v.abs())
}

/// Fits of `scale * q - min`, with `min` not negative.
struct Affine {
    d: f32,
    dmin: f32,
    scales: [u8; 8],
    mins: [u8; 8],
    codes: [u8; LEN],
}

/// A group of values with their weights, eight to an element, and the sums of a fit that do not depend on codes.
struct Group<const N: usize> {
    v: [f32x8; N],
    w: [f32x8; N],
    /// Of the weights, and of the weighted values.
    sums: (f32, f32),
}

impl<const N: usize> Group<N> {
    fn new(x: &[f32]) -> Self {
        let v: [f32x8; N] = std::array::from_fn(|i| f32x8::from(&x[8 * i..8 * i + 8]));
        let w = weights(&v);
        let weighted = v.iter().zip(&w).map(|(&v, &w)| v * w);
        Group { v, w, sums: (total(w), total(weighted)) }
    }

    fn values(&self) -> impl Iterator<Item = f32> {
        self.v.iter().flat_map(|v| v.to_array())
    }
}

fn total(all: impl IntoIterator<Item = f32x8>) -> f32 {
    all.into_iter().fold(f32x8::ZERO, |sum, v| sum + v).reduce_add()
}

/// The weighted squared error of a grid of codes. Half the work of [`sums`], where no fit follows.
fn error(g: &Group<4>, (scale, min): (f32, f32), top: f32) -> f32 {
    let inverse = f32x8::splat(inverse(scale));
    let (scale, min) = (f32x8::splat(scale), f32x8::splat(min));
    total(g.v.iter().zip(&g.w).map(|(&x, &w)| {
        let e = scale * whole8((x + min) * inverse, 0.0, top) - min - x;
        w * e * e
    }))
}

/// What a grid of codes does to a group: the weighted squared error, and the weighted sums of a
/// least-squares fit to the codes.
struct Sums {
    error: f32,
    q: f32,
    qq: f32,
    qx: f32,
}

fn sums(g: &Group<4>, (scale, min): (f32, f32), top: f32) -> Sums {
    let inverse = f32x8::splat(inverse(scale));
    let (scale, min) = (f32x8::splat(scale), f32x8::splat(min));
    let [mut error, mut q, mut qq, mut qx] = [f32x8::ZERO; 4];
    for (&x, &w) in g.v.iter().zip(&g.w) {
        let code = whole8((x + min) * inverse, 0.0, top);
        let e = scale * code - min - x;
        let wq = w * code;
        error += w * e * e;
        q += wq;
        qq += wq * code;
        qx += wq * x;
    }
    Sums { error: error.reduce_add(), q: q.reduce_add(), qq: qq.reduce_add(), qx: qx.reduce_add() }
}

/// The scale and minimum of least error for given codes.
fn least_squares((w, x): (f32, f32), s: &Sums) -> (f32, f32) {
    let det = w * s.qq - s.q * s.q;
    if det > 0.0 {
        let scale = (w * s.qx - s.q * x) / det;
        let min = (s.q * s.qx - s.qq * x) / det;
        if min >= 0.0 && scale > 0.0 {
            return (scale, min);
        }
    }
    (if s.qq > 0.0 { (s.qx / s.qq).max(0.0) } else { 0.0 }, 0.0)
}

/// Real scale and minimum of a group.
fn fit_affine(g: &Group<4>, top: f32) -> (f32, f32) {
    let low = g.values().fold(0.0, f32::min);
    let high = g.values().fold(f32::MIN, f32::max);
    if high <= low {
        return (0.0, -low);
    }
    let (mut best, mut least) = ((0.0, 0.0), f32::INFINITY);
    for step in -STEPS..=STEPS {
        // Grids finer and coarser than the range of the values, by up to one code.
        let mut fit = ((high - low) / (top + step as f32 / STEPS as f32), -low);
        for _ in 1..FITS {
            let s = sums(g, fit, top);
            if s.error < least {
                (best, least) = (fit, s.error);
            }
            fit = least_squares(g.sums, &s);
        }
        let last = error(g, fit, top);
        if last < least {
            (best, least) = (fit, last);
        }
    }
    best
}

fn affine(x: &[f32], top: f32) -> Affine {
    let groups: [Group<4>; 8] = std::array::from_fn(|g| Group::new(&x[32 * g..32 * g + 32]));
    let fits: [(f32, f32); 8] = std::array::from_fn(|g| fit_affine(&groups[g], top));
    let largest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let (mut d, mut dmin) = (largest(|f| f.0) / 63.0, largest(|f| f.1) / 63.0);
    let mut best = Affine { d: 0.0, dmin: 0.0, scales: [0; 8], mins: [0; 8], codes: [0; LEN] };
    let mut least = f32::INFINITY;
    for _ in 0..ROUNDS {
        (d, dmin) = (rounded(d), rounded(dmin));
        let mut round = Affine { d, dmin, scales: [0; 8], mins: [0; 8], codes: [0; LEN] };
        let mut error = 0.0;
        for (g, group) in groups.iter().enumerate() {
            let (scale, min, e) = nearest_affine(group, fits[g], (d, dmin), top);
            (round.scales[g], round.mins[g]) = (scale, min);
            error += e;
        }
        if error < least {
            least = error;
            (best.d, best.dmin, best.scales, best.mins) = (d, dmin, round.scales, round.mins);
        }
        (d, dmin) = refit(&groups, &round, top);
    }
    for (g, group) in groups.iter().enumerate() {
        let (scale, min) = (best.d * f32::from(best.scales[g]), best.dmin * f32::from(best.mins[g]));
        let inverse = inverse(scale);
        for (q, x) in best.codes[32 * g..].iter_mut().zip(group.values()) {
            *q = whole((x + min) * inverse, 0.0, top) as u8;
        }
    }
    best
}

/// The integer scale and minimum near the real ones with the least error, and that error.
fn nearest_affine(g: &Group<4>, fit: (f32, f32), by: (f32, f32), top: f32) -> (u8, u8, f32) {
    let near = |real: f32, unit: f32, reach: i32| {
        let center = whole(real * inverse(unit), 0.0, 63.0) as i32;
        (center - reach).max(0)..=(center + reach).min(63)
    };
    let mut best = (0, 0, f32::INFINITY);
    for scale in near(fit.0, by.0, 1) {
        for min in near(fit.1, by.1, 1) {
            let error = error(g, (by.0 * scale as f32, by.1 * min as f32), top);
            if error < best.2 {
                best = (scale as u8, min as u8, error);
            }
        }
    }
    best
}

/// The block's scales of least error for the groups' scales, minimums and their codes.
fn refit(groups: &[Group<4>; 8], block: &Affine, top: f32) -> (f32, f32) {
    // Normal equations of `d * a - dmin * b = x` with `a = scale * q` and `b = min`.
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (g, group) in groups.iter().enumerate() {
        let (scale, min) = (f32::from(block.scales[g]), f32::from(block.mins[g]));
        let s = sums(group, (block.d * scale, block.dmin * min), top);
        aa += scale * scale * s.qq;
        ab += scale * min * s.q;
        bb += min * min * group.sums.0;
        ax += scale * s.qx;
        bx += min * group.sums.1;
    }
    let det = aa * bb - ab * ab;
    if det > 0.0 {
        let (d, dmin) = ((ax * bb - ab * bx) / det, (ax * ab - aa * bx) / det);
        if d > 0.0 && dmin > 0.0 {
            return (d, dmin);
        }
    }
    if aa > 0.0 && bb == 0.0 { (ax / aa, 0.0) } else { (block.d, block.dmin) }
}

/// Fits of `scale * q` with codes from -32 to 31 and scales of either sign.
struct Symmetric {
    d: f32,
    scales: [i8; 16],
    codes: [i8; LEN],
}

/// Weighted sums `(q q, q x)` of a group and its best codes, and the squared error.
fn symmetric_sums(g: &Group<2>, scale: f32) -> (f32, f32, f32) {
    let (inverse, scale) = (f32x8::splat(inverse(scale)), f32x8::splat(scale));
    let [mut error, mut qq, mut qx] = [f32x8::ZERO; 3];
    for (&x, &w) in g.v.iter().zip(&g.w) {
        let code = whole8(x * inverse, -32.0, 31.0);
        let e = scale * code - x;
        let wq = w * code;
        error += w * e * e;
        qq += wq * code;
        qx += wq * x;
    }
    (qq.reduce_add(), qx.reduce_add(), error.reduce_add())
}

/// Real scale of a group.
fn fit_symmetric(g: &Group<2>) -> f32 {
    let extreme = g.values().fold(0f32, |max, v| if v.abs() > max.abs() { v } else { max });
    let (mut best, mut least) = (0.0, f32::INFINITY);
    for step in -STEPS..=STEPS {
        // The extreme value goes to code -32 or to 31, give or take one.
        for top in [-32.0 + step as f32 / STEPS as f32, 31.0 + step as f32 / STEPS as f32] {
            let mut scale = extreme / top;
            for _ in 0..FITS {
                let (qq, qx, error) = symmetric_sums(g, scale);
                if error < least {
                    (best, least) = (scale, error);
                }
                scale = if qq > 0.0 { qx / qq } else { 0.0 };
            }
        }
    }
    best
}

fn symmetric(x: &[f32]) -> Symmetric {
    let groups: [Group<2>; 16] = std::array::from_fn(|g| Group::new(&x[16 * g..16 * g + 16]));
    let fits: [f32; 16] = std::array::from_fn(|g| fit_symmetric(&groups[g]));
    let extreme = fits.iter().fold(0f32, |max, &v| if v.abs() > max.abs() { v } else { max });
    let mut d = extreme / -128.0;
    let mut best = Symmetric { d: 0.0, scales: [0; 16], codes: [0; LEN] };
    let mut least = f32::INFINITY;
    for _ in 0..ROUNDS {
        d = rounded(d);
        let mut scales = [0i8; 16];
        let (mut aa, mut ax, mut error) = (0.0, 0.0, 0.0);
        for (g, values) in groups.iter().enumerate() {
            let center = whole(fits[g] * inverse(d), -128.0, 127.0) as i32;
            let mut group = (0, 0.0, 0.0, f32::INFINITY);
            for scale in (center - 1).max(-128)..=(center + 1).min(127) {
                let (qq, qx, e) = symmetric_sums(values, d * scale as f32);
                if e < group.3 {
                    group = (scale, qq, qx, e);
                }
            }
            let scale = group.0 as f32;
            scales[g] = group.0 as i8;
            aa += scale * scale * group.1;
            ax += scale * group.2;
            error += group.3;
        }
        if error < least {
            least = error;
            (best.d, best.scales) = (d, scales);
        }
        d = if aa > 0.0 { ax / aa } else { d };
    }
    for (g, values) in groups.iter().enumerate() {
        let inverse = inverse(best.d * f32::from(best.scales[g]));
        for (q, x) in best.codes[16 * g..].iter_mut().zip(values.values()) {
            *q = whole(x * inverse, -32.0, 31.0) as i8;
        }
    }
    best
}
