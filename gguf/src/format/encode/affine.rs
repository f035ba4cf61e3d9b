//! Scales and minimums of least error, by the method of [`super::search`].

use super::lanes::{L, Lanes, larger, smaller};
use super::search::{Eight, FITS, Groups, LEN, One, Place, ROUNDS, code, eights, wholes};
use super::{inverse, rounded};

/// Starting grids of a group on either side of the obvious one.
const STEPS: i32 = 5;

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
