//! Fits of groups of values by search. A block has two levels of scales, and rounding the lower one moves the best
//! codes, so the levels are fitted in turn:
//!
//! 1. each group alone: real scale (and minimum) of least weighted squared error, from several starting grids, each
//!    refined by a least-squares fit to its codes;
//! 2. rounds over the block: with the block's scale (and its scale of minimums) rounded to binary16, each group takes the
//!    integer scale (and minimum) of least error near its real one; then the block's scales are fitted anew to all codes.
//!    The best round is kept.
//!
//! Weights are `rms + |x|` of the group, so that large values, which matter more to a product, count up to a few times as
//! much as small ones; times the importance of their columns where that is known.

use wide::f32x8;

use super::super::Block;
use super::{f16, inverse};

/// Elements a block of two levels.
pub const LEN: usize = 256;
/// Rounds of fitting a block, starting grids of a group on either side of the obvious one, and least-squares fits from
/// each. Twice as much of each lowers the error by 0.2 % more and takes seven times as long.
const ROUNDS: usize = 3;
const STEPS: i32 = 5;
const FITS: usize = 3;

/// Adding and subtracting 1.5 * 2^23 leaves no bits for a fraction: it rounds to the nearest whole number, ties to even.
const SHIFT: f32 = 12_582_912.0;

/// The nearest whole number from `low` to `high`, for the small bounds of codes.
pub fn whole(v: f32, low: f32, high: f32) -> f32 {
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

/// The values that codes of a format stand for, before the scale.
pub trait Codes {
    /// The least and the largest.
    const ENDS: [f32; 2];
    /// Starting grids on either side of the obvious one.
    const STEPS: i32 = STEPS;
    /// The nearest value to each of eight.
    fn nearest(v: f32x8) -> f32x8;
    /// The nearest value to one: what [`Codes::nearest`] gives.
    fn one(v: f32) -> f32;
}

/// Whole numbers between two.
pub struct Whole<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Codes for Whole<LOW, HIGH> {
    const ENDS: [f32; 2] = [LOW as f32, HIGH as f32];

    fn nearest(v: f32x8) -> f32x8 {
        whole8(v, LOW as f32, HIGH as f32)
    }

    fn one(v: f32) -> f32 {
        whole(v, LOW as f32, HIGH as f32)
    }
}

/// A group of values with their weights, eight to an element, and the sums of a fit that do not depend on codes.
pub struct Group<const N: usize> {
    v: [f32x8; N],
    w: [f32x8; N],
    /// Of the weights, and of the weighted values.
    sums: (f32, f32),
}

impl<const N: usize> Group<N> {
    /// A group of values and the importance of their columns.
    pub fn new(x: &[f32], importance: Option<&[f32]>) -> Self {
        let eight = |x: &[f32], i: usize| f32x8::from(&x[8 * i..8 * i + 8]);
        let v: [f32x8; N] = std::array::from_fn(|i| eight(x, i));
        let rms = (total(v.map(|v| v * v)) / (8 * N) as f32).sqrt();
        let floor = f32x8::splat(if rms == 0.0 { 1.0 } else { rms });
        let mut w = v.map(|v| floor + v.abs());
        if let Some(importance) = importance {
            for (i, w) in w.iter_mut().enumerate() {
                *w *= eight(importance, i);
            }
        }
        let weighted = v.iter().zip(&w).map(|(&v, &w)| v * w);
        Group { v, w, sums: (total(w), total(weighted)) }
    }

    /// All groups of a block.
    pub fn all<const G: usize>(x: &[f32], importance: Option<&[f32]>) -> [Self; G] {
        let range = |g: usize| 8 * N * g..8 * N * (g + 1);
        std::array::from_fn(|g| Group::new(&x[range(g)], importance.map(|w| &w[range(g)])))
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = f32> {
        self.v.iter().flat_map(|v| v.to_array())
    }

    /// The weighted squared error of a block that stands for these values.
    pub fn error<B: Block>(&self, block: &B) -> f32 {
        let mut y = [0.0; LEN];
        block.decode(&mut y[..8 * N]);
        let terms = self.values().zip(self.w.iter().flat_map(|w| w.to_array())).zip(y);
        terms.map(|((x, w), y)| w * (x - y) * (x - y)).sum()
    }
}

/// The value farthest from zero; of two the first.
fn extreme(values: impl Iterator<Item = f32>) -> f32 {
    values.fold(0.0, |max, v| if v.abs() > max.abs() { v } else { max })
}

fn total(all: impl IntoIterator<Item = f32x8>) -> f32 {
    all.into_iter().fold(f32x8::ZERO, |sum, v| sum + v).reduce_add()
}

/// A block of `scale * q - min`, with `min` not negative.
pub struct Affine<const G: usize> {
    /// Scale of the scales.
    pub d: f32,
    /// Scale of the minimums.
    pub dmin: f32,
    /// The groups' scales.
    pub scales: [u8; G],
    /// The groups' minimums.
    pub mins: [u8; G],
    /// The codes.
    pub codes: [u8; LEN],
}

/// Most that codes, and scales of groups, can be.
#[derive(Clone, Copy)]
pub struct Tops {
    /// The largest code.
    pub code: f32,
    /// The largest scale and minimum of a group.
    pub scale: f32,
}

/// The weighted squared error of a grid of codes. Half the work of [`sums`], where no fit follows.
fn error<const N: usize>(g: &Group<N>, (scale, min): (f32, f32), top: f32) -> f32 {
    let inverse = f32x8::splat(inverse(scale));
    let (scale, min) = (f32x8::splat(scale), f32x8::splat(min));
    total(g.v.iter().zip(&g.w).map(|(&x, &w)| {
        let e = scale * whole8((x + min) * inverse, 0.0, top) - min - x;
        w * e * e
    }))
}

/// What a grid of codes does to a group: the weighted squared error, and the weighted sums of a least-squares fit to the
/// codes.
struct Sums {
    error: f32,
    q: f32,
    qq: f32,
    qx: f32,
}

fn sums<const N: usize>(g: &Group<N>, (scale, min): (f32, f32), top: f32) -> Sums {
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

/// The scale and minimum of least error for given codes; a negative minimum only where `free`.
fn least_squares((w, x): (f32, f32), s: &Sums, free: bool) -> (f32, f32) {
    let det = w * s.qq - s.q * s.q;
    if det > 0.0 {
        let scale = (w * s.qx - s.q * x) / det;
        let min = (s.q * s.qx - s.qq * x) / det;
        if (free || min >= 0.0) && scale > 0.0 {
            return (scale, min);
        }
    }
    (if s.qq > 0.0 { (s.qx / s.qq).max(0.0) } else { 0.0 }, 0.0)
}

/// Real scale and minimum of a group; the minimum is negative only where `free`.
pub fn fit_affine<const N: usize>(g: &Group<N>, top: f32, free: bool) -> (f32, f32) {
    let low = g.values().fold(if free { f32::MAX } else { 0.0 }, f32::min);
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
            fit = least_squares(g.sums, &s, free);
        }
        let last = error(g, fit, top);
        if last < least {
            (best, least) = (fit, last);
        }
    }
    best
}

/// The block of least error.
pub fn affine<const G: usize, const N: usize>(groups: &[Group<N>; G], tops: Tops) -> Affine<G> {
    let fits: [(f32, f32); G] = std::array::from_fn(|g| fit_affine(&groups[g], tops.code, false));
    let largest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let (mut d, mut dmin) = (largest(|f| f.0) / tops.scale, largest(|f| f.1) / tops.scale);
    let empty = |d, dmin| Affine { d, dmin, scales: [0; G], mins: [0; G], codes: [0; LEN] };
    let mut best = empty(0.0, 0.0);
    let mut least = f32::INFINITY;
    for _ in 0..ROUNDS {
        (d, dmin) = (rounded(d), rounded(dmin));
        let mut round = empty(d, dmin);
        let mut error = 0.0;
        for (g, group) in groups.iter().enumerate() {
            let (scale, min, e) = nearest_affine(group, fits[g], (d, dmin), tops);
            (round.scales[g], round.mins[g]) = (scale, min);
            error += e;
        }
        if error < least {
            least = error;
            (best.d, best.dmin, best.scales, best.mins) = (d, dmin, round.scales, round.mins);
        }
        (d, dmin) = refit(groups, &round, tops.code);
    }
    for (g, group) in groups.iter().enumerate() {
        let (scale, min) = (best.d * f32::from(best.scales[g]), best.dmin * f32::from(best.mins[g]));
        let inverse = inverse(scale);
        for (q, x) in best.codes[8 * N * g..].iter_mut().zip(group.values()) {
            *q = whole((x + min) * inverse, 0.0, tops.code) as u8;
        }
    }
    best
}

/// The integer scale and minimum near the real ones with the least error, and that error.
fn nearest_affine<const N: usize>(g: &Group<N>, fit: (f32, f32), by: (f32, f32), tops: Tops) -> (u8, u8, f32) {
    let near = |real: f32, unit: f32| {
        let center = whole(real * inverse(unit), 0.0, tops.scale) as i32;
        (center - 1).max(0)..=(center + 1).min(tops.scale as i32)
    };
    let mut best = (0, 0, f32::INFINITY);
    for scale in near(fit.0, by.0) {
        for min in near(fit.1, by.1) {
            let error = error(g, (by.0 * scale as f32, by.1 * min as f32), tops.code);
            if error < best.2 {
                best = (scale as u8, min as u8, error);
            }
        }
    }
    best
}

/// The block's scales of least error for the groups' scales, minimums and their codes.
fn refit<const G: usize, const N: usize>(groups: &[Group<N>; G], block: &Affine<G>, top: f32) -> (f32, f32) {
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

/// A block of `scale * q` with scales of either sign.
pub struct Symmetric<const G: usize> {
    /// Scale of the scales.
    pub d: f32,
    /// The groups' scales.
    pub scales: [i8; G],
    /// The values that the codes stand for.
    pub values: [f32; LEN],
}

/// Weighted sums `(q q, q x)` of a group and its best codes, and the squared error.
fn symmetric_sums<C: Codes, const N: usize>(g: &Group<N>, scale: f32) -> (f32, f32, f32) {
    let (inverse, scale) = (f32x8::splat(inverse(scale)), f32x8::splat(scale));
    let [mut error, mut qq, mut qx] = [f32x8::ZERO; 3];
    for (&x, &w) in g.v.iter().zip(&g.w) {
        let code = C::nearest(x * inverse);
        let e = scale * code - x;
        let wq = w * code;
        error += w * e * e;
        qq += wq * code;
        qx += wq * x;
    }
    (qq.reduce_add(), qx.reduce_add(), error.reduce_add())
}

/// Real scale of a group.
pub fn fit_symmetric<C: Codes, const N: usize>(g: &Group<N>) -> f32 {
    let extreme = extreme(g.values());
    let (mut best, mut least) = (0.0, f32::INFINITY);
    let [low, high] = C::ENDS;
    // A sixteenth of the way from end to end, at most one whole number.
    let reach = ((high - low) / 16.0).max(1.0);
    for step in -C::STEPS..=C::STEPS {
        // The extreme value goes to either end, give or take some.
        for top in [low, high].map(|end| end + reach * step as f32 / C::STEPS as f32) {
            let mut scale = extreme / top;
            for _ in 0..FITS {
                let (qq, qx, error) = symmetric_sums::<C, N>(g, scale);
                if error < least {
                    (best, least) = (scale, error);
                }
                scale = if qq > 0.0 { qx / qq } else { 0.0 };
            }
        }
    }
    best
}

/// The block of least error, with scales of groups from `low` to `-low - 1`.
pub fn symmetric<C: Codes, const G: usize, const N: usize>(groups: &[Group<N>; G], low: f32) -> Symmetric<G> {
    let high = -low - 1.0;
    let fits: [f32; G] = std::array::from_fn(|g| fit_symmetric::<C, N>(&groups[g]));
    let mut d = extreme(fits.into_iter()) / low;
    let mut best = Symmetric { d: 0.0, scales: [0; G], values: [0.0; LEN] };
    let mut least = f32::INFINITY;
    for _ in 0..ROUNDS {
        d = rounded(d);
        let mut scales = [0i8; G];
        let (mut aa, mut ax, mut error) = (0.0, 0.0, 0.0);
        for (g, values) in groups.iter().enumerate() {
            let center = whole(fits[g] * inverse(d), low, high) as i32;
            let mut group = (0, 0.0, 0.0, f32::INFINITY);
            for scale in (center - 1).max(low as i32)..=(center + 1).min(high as i32) {
                let (qq, qx, e) = symmetric_sums::<C, N>(values, d * scale as f32);
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
        for (q, x) in best.values[8 * N * g..].iter_mut().zip(values.values()) {
            *q = C::one(x * inverse);
        }
    }
    best
}
