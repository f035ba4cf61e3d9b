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
//!
//! Eight groups are searched at a time, each in a lane of its own, so that sums need no shuffles. Where a format has one
//! group a block, its values lie in all lanes and the lanes' sums are added up ([`Place::settle`]).

use std::marker::PhantomData;

use super::super::Block;
use super::lanes::{L, Lanes, farther, larger, smaller};
use super::{f16, inverse};

/// Elements of a block of two levels.
pub const LEN: usize = 256;
/// Rounds of fitting a block.
const ROUNDS: usize = 3;
/// Starting grids of a group on either side of the obvious one.
const STEPS: i32 = 5;
/// Grids from each start, each but the first the least-squares fit to the codes of the one before.
const FITS: usize = 3;

/// Adding and subtracting 1.5 * 2^23 leaves no bits for a fraction: it rounds to the nearest whole number, ties to even.
const SHIFT: f32 = 12_582_912.0;

/// The nearest whole number from `low` to `high`, for the small bounds of codes.
#[inline(always)]
fn wholes<V: Lanes>(v: V, low: f32, high: f32) -> V {
    let shift = v.like(SHIFT);
    v.max(v.like(low)).min(v.like(high)) + shift - shift
}

/// As [`wholes`], one as a byte: the lowest bits of the shifted number are the whole one, negative ones in two's complement.
#[inline(always)]
pub fn code(v: f32, low: f32, high: f32) -> u8 {
    (smaller(larger(v, low), high) + SHIFT).to_bits() as u8
}

/// A number rounded to binary16, as the decoder will see it.
#[inline(always)]
fn rounded(x: f32) -> f32 {
    half::f16::from_le_bytes(f16(x)).to_f32()
}

/// The values that codes of a format stand for, before the scale.
pub trait Codes {
    /// The least and the largest.
    const ENDS: [f32; 2];
    /// Starting grids on either side of the obvious one.
    const STEPS: i32 = 2;
    /// The nearest value, in lanes.
    fn nearest<V: Lanes>(v: V) -> V;
}

/// Whole numbers between two.
pub struct Whole<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Codes for Whole<LOW, HIGH> {
    const ENDS: [f32; 2] = [LOW as f32, HIGH as f32];

    #[inline(always)]
    fn nearest<V: Lanes>(v: V) -> V {
        wholes(v, LOW as f32, HIGH as f32)
    }
}

/// Where the values of groups lie.
pub trait Place {
    /// The index of a value among the `8 * n` of all lanes.
    fn at(i: usize, lane: usize, n: usize) -> usize;
    /// What a group has of a quantity of which each lane has its part.
    fn settle<V: Lanes>(v: V, f: impl Fn(f32, f32) -> f32) -> V;

    /// The sum of the parts.
    #[inline(always)]
    fn sum<V: Lanes>(v: V) -> V {
        Self::settle(v, |a, b| a + b)
    }
}

/// A group a lane.
#[derive(Clone, Copy)]
pub struct Eight;
/// One group in all lanes.
#[derive(Clone, Copy)]
pub struct One;

impl Place for Eight {
    #[inline(always)]
    fn at(i: usize, lane: usize, n: usize) -> usize {
        n * lane + i
    }

    #[inline(always)]
    fn settle<V: Lanes>(v: V, _: impl Fn(f32, f32) -> f32) -> V {
        v
    }
}

impl Place for One {
    #[inline(always)]
    fn at(i: usize, lane: usize, _: usize) -> usize {
        L * i + lane
    }

    #[inline(always)]
    fn settle<V: Lanes>(v: V, f: impl Fn(f32, f32) -> f32) -> V {
        v.like(v.fold(f))
    }
}

/// Values of groups with their weights, `N` in each lane, and the sums of a fit that do not depend on codes.
#[derive(Clone, Copy)]
pub struct Groups<V: Lanes, P, const N: usize> {
    v: [V; N],
    w: [V; N],
    /// Of the weights, and of the weighted values.
    sums: (V, V),
    zero: V,
    place: PhantomData<P>,
}

impl<V: Lanes, P: Place, const N: usize> Groups<V, P, N> {
    /// The groups of `8 * N` values and the importance of their columns.
    #[inline(always)]
    pub fn new(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self {
        let v: [V; N] = lay::<V, P, N>(cpu, x);
        let zero = V::all(cpu, 0.0);
        let (mut squares, mut values) = (zero, zero);
        for &v in &v {
            (squares, values) = (squares + v * v, values + zero.like(1.0));
        }
        let rms = (P::sum(squares) / P::sum(values)).sqrt();
        let floor = zero.less(rms, rms, zero.like(1.0));
        let mut w = v;
        for w in &mut w {
            *w = floor + w.abs();
        }
        if let Some(importance) = importance {
            for (w, by) in w.iter_mut().zip(lay::<V, P, N>(cpu, importance)) {
                *w = *w * by;
            }
        }
        let mut sums = (zero, zero);
        for (&v, &w) in v.iter().zip(&w) {
            sums = (sums.0 + w, sums.1 + v * w);
        }
        Groups { v, w, sums: (P::sum(sums.0), P::sum(sums.1)), zero, place: PhantomData }
    }

    /// The weighted squared error of a block that stands for these values.
    #[inline(always)]
    pub fn error<B: Block>(&self, cpu: V::Token, block: &B) -> f32 {
        let mut y = [0.0; LEN];
        block.decode(&mut y[..L * N]);
        let mut error = self.zero;
        for ((&x, &w), y) in self.v.iter().zip(&self.w).zip(lay::<V, P, N>(cpu, &y)) {
            error = error + w * (x - y) * (x - y);
        }
        error.total()
    }

    /// The value of each group that is before all others, beginning with `from`.
    #[inline(always)]
    fn first(&self, from: f32, lanes: impl Fn(V, V) -> V, f: impl Fn(f32, f32) -> f32) -> V {
        let mut all = self.zero.like(from);
        for &v in &self.v {
            all = lanes(all, v);
        }
        P::settle(all, f)
    }
}

/// Values in their places.
#[inline(always)]
pub fn lay<V: Lanes, P: Place, const N: usize>(cpu: V::Token, x: &[f32]) -> [V; N] {
    let x = &x[..L * N];
    let mut lanes = [V::all(cpu, 0.0); N];
    for (i, lanes) in lanes.iter_mut().enumerate() {
        let mut v = [0.0; L];
        for (lane, v) in v.iter_mut().enumerate() {
            *v = x[P::at(i, lane, N)];
        }
        *lanes = V::load(cpu, v);
    }
    lanes
}

/// A grid of codes a lane: `scale * q - min`.
#[derive(Clone, Copy)]
struct Grid<V> {
    scale: V,
    min: V,
}

/// What grids do to their groups: the weighted squared error, and the weighted sums of a least-squares fit to the codes.
struct Sums<V> {
    error: V,
    q: V,
    qq: V,
    qx: V,
}

/// Sums of affine grids.
#[inline(always)]
fn sums<V: Lanes, P: Place, const N: usize>(g: &Groups<V, P, N>, grid: Grid<V>, top: f32) -> Sums<V> {
    let inverse = grid.scale.inverse();
    let [mut error, mut q, mut qq, mut qx] = [g.zero; 4];
    for (&x, &w) in g.v.iter().zip(&g.w) {
        let shifted = x + grid.min;
        let code = wholes(shifted * inverse, 0.0, top);
        let e = grid.scale * code - shifted;
        let wq = w * code;
        error = error + w * e * e;
        q = q + wq;
        qq = qq + wq * code;
        qx = qx + wq * x;
    }
    Sums { error: P::sum(error), q: P::sum(q), qq: P::sum(qq), qx: P::sum(qx) }
}

/// The weighted squared error of grids. Half the work of [`sums`], where no fit follows.
#[inline(always)]
fn error<V: Lanes, P: Place, const N: usize>(g: &Groups<V, P, N>, grid: Grid<V>, top: f32) -> V {
    let inverse = grid.scale.inverse();
    let mut error = g.zero;
    for (&x, &w) in g.v.iter().zip(&g.w) {
        let shifted = x + grid.min;
        let e = grid.scale * wholes(shifted * inverse, 0.0, top) - shifted;
        error = error + w * e * e;
    }
    P::sum(error)
}

/// The grids of least error for given codes; a negative minimum only where `free`.
#[inline(always)]
fn least_squares<V: Lanes>((w, x): (V, V), s: &Sums<V>, free: bool) -> Grid<V> {
    let zero = w.like(0.0);
    let det = w * s.qq - s.q * s.q;
    let scale = (w * s.qx - s.q * x) / det;
    let min = (s.q * s.qx - s.qq * x) / det;
    let without = Grid { scale: zero.less(s.qq, (s.qx / s.qq).max(zero), zero), min: zero };
    // The least of what must be positive; a minimum that need not be is taken as one.
    let sound = zero.less(det, if free { scale } else { min.less(zero, min, scale) }, zero);
    Grid { scale: zero.less(sound, scale, without.scale), min: zero.less(sound, min, without.min) }
}

/// The grids of least error seen so far.
struct Best<V> {
    grid: Grid<V>,
    error: V,
}

impl<V: Lanes> Best<V> {
    #[inline(always)]
    fn new(grid: Grid<V>) -> Best<V> {
        Best { grid, error: grid.scale.like(f32::INFINITY) }
    }

    #[inline(always)]
    fn see(&mut self, grid: Grid<V>, error: V) {
        self.grid.scale = error.less(self.error, grid.scale, self.grid.scale);
        self.grid.min = error.less(self.error, grid.min, self.grid.min);
        self.error = error.less(self.error, error, self.error);
    }
}

/// Real scales and minimums of groups; a minimum is negative only where `free`.
#[inline(always)]
fn fit_affine<V: Lanes, P: Place, const N: usize>(g: &Groups<V, P, N>, top: f32, free: bool) -> Grid<V> {
    let low = g.first(if free { f32::MAX } else { 0.0 }, V::min, smaller);
    let range = (g.first(f32::MIN, V::max, larger) - low).max(g.zero);
    let min = g.zero - low;
    let mut best = Best::new(Grid { scale: g.zero, min });
    for step in -STEPS..=STEPS {
        // Grids finer and coarser than the range of the values, by up to one code.
        let mut grid = Grid { scale: range / range.like(top + step as f32 / STEPS as f32), min };
        for _ in 1..FITS {
            let s = sums(g, grid, top);
            best.see(grid, s.error);
            grid = least_squares(g.sums, &s, free);
        }
        best.see(grid, error(g, grid, top));
    }
    best.grid
}

/// Real scale and minimum of one group.
#[inline(always)]
pub fn fit_one_affine<V: Lanes, const N: usize>(g: &Groups<V, One, N>, top: f32) -> (f32, f32) {
    let grid = fit_affine(g, top, true);
    (grid.scale.array()[0], grid.min.array()[0])
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

/// The block of least error, of `E` times eight groups of `N` values.
#[inline(always)]
pub fn affine<V: Lanes, const G: usize, const E: usize, const N: usize>(
    cpu: V::Token,
    x: &[f32],
    importance: Option<&[f32]>,
    tops: Tops,
) -> Affine<G> {
    const { assert!(G == E * L && G * N == LEN) };
    let groups = eights::<V, E, N>(cpu, x, importance);
    let zero = Grid { scale: groups[0].zero, min: groups[0].zero };
    let mut fits = [zero; E];
    for (fit, g) in fits.iter_mut().zip(&groups) {
        *fit = fit_affine(g, tops.code, false);
    }
    let largest = |of: fn(&Grid<V>) -> V| fits.iter().fold(zero.min, |max, g| of(g).max(max)).fold(larger);
    let (mut d, mut dmin) = (largest(|g| g.scale) / tops.scale, largest(|g| g.min) / tops.scale);
    let (mut best, mut least) = ((0.0, 0.0, [zero; E]), f32::INFINITY);
    for round in 0..ROUNDS {
        (d, dmin) = (rounded(d), rounded(dmin));
        let mut near = fits;
        let mut error = 0.0;
        for (near, g) in near.iter_mut().zip(&groups) {
            let found = nearest_affine(g, *near, (d, dmin), tops);
            *near = found.grid;
            error += found.error.total();
        }
        if error < least {
            (best, least) = ((d, dmin, near), error);
        }
        if round + 1 < ROUNDS {
            (d, dmin) = refit(&groups, &near, (d, dmin), tops.code);
        }
    }
    let (d, dmin, near) = best;
    let mut block = Affine { d, dmin, scales: [0; G], mins: [0; G], codes: [0; LEN] };
    for (g, (codes, x)) in block.codes.chunks_exact_mut(N).zip(x.chunks_exact(N)).enumerate() {
        let (scale, min) = (near[g / L].scale.array()[g % L], near[g / L].min.array()[g % L]);
        (block.scales[g], block.mins[g]) = (scale as u8, min as u8);
        let (inverse, min) = (inverse(d * scale), dmin * min);
        for (q, x) in codes.iter_mut().zip(x) {
            *q = code((x + min) * inverse, 0.0, tops.code);
        }
    }
    block
}

/// All groups of a block.
#[inline(always)]
fn eights<V: Lanes, const E: usize, const N: usize>(
    cpu: V::Token,
    x: &[f32],
    importance: Option<&[f32]>,
) -> [Groups<V, Eight, N>; E] {
    let range = |e: usize| L * N * e..L * N * (e + 1);
    let mut all = [Groups::new(cpu, &x[range(0)], importance.map(|w| &w[range(0)])); E];
    for (e, groups) in all.iter_mut().enumerate().skip(1) {
        *groups = Groups::new(cpu, &x[range(e)], importance.map(|w| &w[range(e)]));
    }
    all
}

/// Integer scales and minimums near the real ones with the least error.
#[inline(always)]
fn nearest_affine<V: Lanes, const N: usize>(
    g: &Groups<V, Eight, N>,
    fit: Grid<V>,
    (d, dmin): (f32, f32),
    tops: Tops,
) -> Best<V> {
    let (zero, top) = (g.zero, g.zero.like(tops.scale));
    let center = Grid {
        scale: wholes(fit.scale * zero.like(inverse(d)), 0.0, tops.scale),
        min: wholes(fit.min * zero.like(inverse(dmin)), 0.0, tops.scale),
    };
    let mut best = Best::new(Grid { scale: zero, min: zero });
    for by in [-1.0, 0.0, 1.0] {
        let scale = (center.scale + zero.like(by)).max(zero).min(top);
        for by in [-1.0, 0.0, 1.0] {
            let min = (center.min + zero.like(by)).max(zero).min(top);
            let real = Grid { scale: scale * zero.like(d), min: min * zero.like(dmin) };
            best.see(Grid { scale, min }, error(g, real, tops.code));
        }
    }
    best
}

/// The block's scales of least error for the groups' scales, minimums and their codes.
#[inline(always)]
fn refit<V: Lanes, const N: usize>(
    groups: &[Groups<V, Eight, N>],
    near: &[Grid<V>],
    (d, dmin): (f32, f32),
    top: f32,
) -> (f32, f32) {
    // Normal equations of `d * a - dmin * b = x` with `a = scale * q` and `b = min`.
    let zero = groups[0].zero;
    let [mut aa, mut ab, mut bb, mut ax, mut bx] = [zero; 5];
    for (g, &Grid { scale, min }) in groups.iter().zip(near) {
        let s = sums(g, Grid { scale: scale * zero.like(d), min: min * zero.like(dmin) }, top);
        aa = aa + scale * scale * s.qq;
        ab = ab + scale * min * s.q;
        bb = bb + min * min * g.sums.0;
        ax = ax + scale * s.qx;
        bx = bx + min * g.sums.1;
    }
    let (aa, ab, bb, ax, bx) = (aa.total(), ab.total(), bb.total(), ax.total(), bx.total());
    let det = aa * bb - ab * ab;
    if det > 0.0 {
        let (d, dmin) = ((ax * bb - ab * bx) / det, (ax * ab - aa * bx) / det);
        if d > 0.0 && dmin > 0.0 {
            return (d, dmin);
        }
    }
    if aa > 0.0 && bb == 0.0 { (ax / aa, 0.0) } else { (d, dmin) }
}

/// A block of `scale * q` with scales of either sign.
pub struct Symmetric<const G: usize> {
    /// Scale of the scales.
    pub d: f32,
    /// The groups' scales.
    pub scales: [i8; G],
}

/// Weighted sums of groups and their best codes, and the squared error.
#[derive(Clone, Copy)]
struct Fit<V> {
    scale: V,
    qq: V,
    qx: V,
    error: V,
}

impl<V: Lanes> Fit<V> {
    #[inline(always)]
    fn none(zero: V) -> Fit<V> {
        Fit { scale: zero, qq: zero, qx: zero, error: zero.like(f32::INFINITY) }
    }

    #[inline(always)]
    fn of<C: Codes, P: Place, const N: usize>(g: &Groups<V, P, N>, scale: V) -> Fit<V> {
        let inverse = scale.inverse();
        let [mut error, mut qq, mut qx] = [g.zero; 3];
        for (&x, &w) in g.v.iter().zip(&g.w) {
            let code = C::nearest(x * inverse);
            let e = scale * code - x;
            let wq = w * code;
            error = error + w * e * e;
            qq = qq + wq * code;
            qx = qx + wq * x;
        }
        Fit { scale, qq: P::sum(qq), qx: P::sum(qx), error: P::sum(error) }
    }

    /// The better of two.
    #[inline(always)]
    fn or(self, b: Fit<V>) -> Fit<V> {
        let pick = |of: fn(&Fit<V>) -> V| b.error.less(self.error, of(&b), of(&self));
        Fit { scale: pick(|f| f.scale), qq: pick(|f| f.qq), qx: pick(|f| f.qx), error: pick(|f| f.error) }
    }
}

/// Real scales of groups.
#[inline(always)]
fn fit_symmetric<V: Lanes, C: Codes, P: Place, const N: usize>(g: &Groups<V, P, N>) -> V {
    let zero = g.zero;
    let extreme = g.first(0.0, |a, b| a.abs().less(b.abs(), b, a), farther);
    let mut best = Fit::none(zero);
    let [low, high] = C::ENDS;
    // A sixteenth of the way from end to end, at most one whole number.
    let reach = ((high - low) / 16.0).max(1.0);
    for step in -C::STEPS..=C::STEPS {
        // The extreme value goes to either end, give or take some.
        for end in [low, high] {
            let mut scale = extreme / zero.like(end + reach * step as f32 / C::STEPS as f32);
            for _ in 0..FITS {
                let fit = Fit::of::<C, P, N>(g, scale);
                best = best.or(fit);
                scale = zero.less(fit.qq, fit.qx / fit.qq, zero);
            }
        }
    }
    best.scale
}

/// Real scale of one group.
#[inline(always)]
pub fn fit_one_symmetric<V: Lanes, C: Codes, const N: usize>(g: &Groups<V, One, N>) -> f32 {
    fit_symmetric::<V, C, One, N>(g).array()[0]
}

/// The scales of least error, of `E` times eight groups of `N` values, those of groups from `low` to `-low - 1`.
#[inline(always)]
pub fn symmetric<V: Lanes, C: Codes, const G: usize, const E: usize, const N: usize>(
    cpu: V::Token,
    x: &[f32],
    importance: Option<&[f32]>,
    low: f32,
) -> Symmetric<G> {
    const { assert!(G == E * L && G * N == LEN) };
    let groups = eights::<V, E, N>(cpu, x, importance);
    let zero = groups[0].zero;
    let mut fits = [zero; E];
    for (fit, g) in fits.iter_mut().zip(&groups) {
        *fit = fit_symmetric::<V, C, Eight, N>(g);
    }
    let mut d = fits.iter().fold(0.0, |max, fit| farther(max, fit.fold(farther))) / low;
    let (mut best, mut least) = ((0.0, [zero; E]), f32::INFINITY);
    for _ in 0..ROUNDS {
        d = rounded(d);
        let mut near = fits;
        let [mut aa, mut ax, mut error] = [zero; 3];
        for (near, g) in near.iter_mut().zip(&groups) {
            let found = nearest_symmetric::<V, C, N>(g, *near, d, low);
            *near = found.0;
            aa = aa + found.0 * found.0 * found.1.qq;
            ax = ax + found.0 * found.1.qx;
            error = error + found.1.error;
        }
        let (aa, ax, error) = (aa.total(), ax.total(), error.total());
        if error < least {
            (best, least) = ((d, near), error);
        }
        d = if aa > 0.0 { ax / aa } else { d };
    }
    let mut scales = [0; G];
    for (g, scale) in scales.iter_mut().enumerate() {
        *scale = best.1[g / L].array()[g % L] as i8;
    }
    Symmetric { d: best.0, scales }
}

/// Integer scales near the real ones with the least error, and the fits with them.
#[inline(always)]
fn nearest_symmetric<V: Lanes, C: Codes, const N: usize>(
    g: &Groups<V, Eight, N>,
    fit: V,
    d: f32,
    low: f32,
) -> (V, Fit<V>) {
    let high = -low - 1.0;
    let center = wholes(fit * fit.like(inverse(d)), low, high);
    let mut best = (g.zero, Fit::none(g.zero));
    for by in [-1.0, 0.0, 1.0] {
        let scale = (center + fit.like(by)).max(fit.like(low)).min(fit.like(high));
        let fit = Fit::of::<C, Eight, N>(g, scale * fit.like(d));
        best = (fit.error.less(best.1.error, scale, best.0), best.1.or(fit));
    }
    best
}

impl<const G: usize> Symmetric<G> {
    /// The codes of the values, `nearest` of each over the scale of its group.
    #[inline(always)]
    pub fn codes(&self, x: &[f32], nearest: impl Fn(f32) -> u8) -> [u8; LEN] {
        let mut codes = [0; LEN];
        let n = LEN / G;
        for (g, (codes, x)) in codes.chunks_exact_mut(n).zip(x.chunks_exact(n)).enumerate() {
            let inverse = inverse(self.d * f32::from(self.scales[g]));
            for (q, x) in codes.iter_mut().zip(x) {
                *q = nearest(x * inverse);
            }
        }
        codes
    }
}
