//! Scales without minimums, of either sign, of least error, by the method of [`super::search`].

use super::lanes::{L, Lanes, farther};
use super::search::{Codes, Eight, FITS, Groups, LEN, One, Place, ROUNDS, eights, wholes};
use super::{inverse, rounded};

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
