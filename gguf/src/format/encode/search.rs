//! Fits of groups of values by search: what [`super::affine`] and [`super::symmetric`] have in common.
//!
//! A block has two levels of scales, and rounding the lower one moves the best
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
use super::lanes::{L, Lanes, larger, smaller};

/// Elements of a block of two levels.
pub const LEN: usize = 256;
/// Rounds of fitting a block.
pub const ROUNDS: usize = 3;
/// Grids from each start, each but the first the least-squares fit to the codes of the one before.
pub const FITS: usize = 3;

/// Adding and subtracting 1.5 * 2^23 leaves no bits for a fraction: it rounds to the nearest whole number, ties to even.
const SHIFT: f32 = 12_582_912.0;

/// The nearest whole number from `low` to `high`, for the small bounds of codes.
#[inline(always)]
pub fn wholes<V: Lanes>(v: V, low: f32, high: f32) -> V {
    let shift = v.like(SHIFT);
    v.max(v.like(low)).min(v.like(high)) + shift - shift
}

/// As [`wholes`], one as a byte: the lowest bits of the shifted number are the whole one, negative ones in two's complement.
#[inline(always)]
pub fn code(v: f32, low: f32, high: f32) -> u8 {
    (smaller(larger(v, low), high) + SHIFT).to_bits() as u8
}

/// The values that codes of a format stand for, before the scale.
pub trait Codes {
    /// The least and the largest.
    const ENDS: [f32; 2];
    /// Starting grids on either side of the obvious one.
    const STEPS: i32;
    /// The nearest value, in lanes.
    fn nearest<V: Lanes>(v: V) -> V;
}

/// Whole numbers between two.
pub struct Whole<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Codes for Whole<LOW, HIGH> {
    const ENDS: [f32; 2] = [LOW as f32, HIGH as f32];
    // Between few codes more grids are hardly different.
    const STEPS: i32 = if HIGH - LOW < 8 { 1 } else { 2 };

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
    /// The values.
    pub v: [V; N],
    /// Their weights.
    pub w: [V; N],
    /// Of the weights, and of the weighted values.
    pub sums: (V, V),
    /// Zeros.
    pub zero: V,
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
    pub fn first(&self, from: f32, lanes: impl Fn(V, V) -> V, f: impl Fn(f32, f32) -> f32) -> V {
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

/// All groups of a block.
#[inline(always)]
pub fn eights<V: Lanes, const E: usize, const N: usize>(
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
