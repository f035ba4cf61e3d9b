//! Integer codes times quantized activations.

use super::{Acts, CHUNK, MatMul, PanelRange, Tile, store_tile};
use crate::Columns;
use crate::acts::{self, Group, Layout, TILE, Units};
use crate::simd::{Simd, small_steps};
use crate::unpack::{Coded, GROUP, each_step};
use std::ops::Range;

/// Bytes of activations that a core's second-level cache keeps while panel after panel passes over them.
const RESIDENT: usize = 1 << 20;

/// All columns of a range of panels.
#[inline(always)]
pub fn run<S: Simd, U: Coded>(s: S, args: &MatMul<'_>, panels: Range<usize>, out: &mut Columns<'_>) {
    let Acts::Q8(bytes) = args.acts else {
        unreachable!("quantized activations");
    };
    let layout = Layout::new(args.weights.k, out.len());
    let panels = PanelRange { start: panels.start, end: panels.end };
    if layout.tile() == 1 {
        let units = Units::<1>::new(bytes, layout);
        if S::REGISTERS >= 32 {
            sweep::<S, U, 4, 1, 1>(s, args, units, panels, 0..1, out);
        } else {
            sweep::<S, U, 2, 1, 1>(s, args, units, panels, 0..1, out);
        }
        return;
    }
    let units = Units::<TILE>::new(bytes, layout);
    let tiles = layout.tiles();
    let resident = (RESIDENT / (layout.bytes() / tiles)).max(4).next_multiple_of(3);
    for first in (0..tiles).step_by(resident) {
        let end = tiles.min(first + resident);
        if S::REGISTERS >= 32 {
            let mid = end - (end - first) % 3;
            sweep::<S, U, 1, 3, TILE>(s, args, units, panels, first..mid, out);
            sweep::<S, U, 2, 1, TILE>(s, args, units, panels, mid..end, out);
        } else {
            sweep::<S, U, 1, 1, TILE>(s, args, units, panels, first..end, out);
        }
    }
}

/// A range of tiles for every panel: `P` panels and `Q` tiles of `T` columns at a time.
#[inline(always)]
fn sweep<S: Simd, U: Coded, const P: usize, const Q: usize, const T: usize>(
    s: S,
    args: &MatMul<'_>,
    units: Units<'_, T>,
    panels: PanelRange,
    tiles: Range<usize>,
    out: &mut Columns<'_>,
) {
    for panel in (panels.start..panels.end).step_by(P) {
        let mut blocks: [&[U::Block]; P] = [&[]; P];
        for (p, blocks) in blocks.iter_mut().enumerate() {
            // Beyond the last panel the last one again: its sums are not stored.
            *blocks = args.weights.panel::<U>((panel + p).min(panels.end - 1));
        }
        for first in tiles.clone().step_by(Q) {
            let mut sums = [[[s.splat(0.0); T]; P]; Q];
            let per_chunk = CHUNK * GROUP / U::K;
            for chunk in 0..blocks[0].len().div_ceil(per_chunk) {
                let mut x: [&[Group<T>]; Q] = [&[]; Q];
                for (q, x) in x.iter_mut().enumerate() {
                    *x = units.get(chunk, first + q);
                }
                let count = x[0].len() * GROUP / U::K;
                for b in 0..count {
                    let mut w = [&blocks[0][0]; P];
                    for (p, w) in w.iter_mut().enumerate() {
                        *w = &blocks[p][chunk * per_chunk + b];
                    }
                    block::<S, U, P, Q, T>(s, w, x, b, &mut sums);
                }
            }
            for (q, sums) in sums.iter().enumerate() {
                let at = Tile { panel, column: (first + q) * T, panels };
                store_tile(s, sums, args, at, out);
            }
        }
    }
}

/// Adds block `b` of a chunk to the sums.
#[inline(always)]
fn block<S: Simd, U: Coded, const P: usize, const Q: usize, const T: usize>(
    s: S,
    w: [&U::Block; P],
    x: [&[Group<T>]; Q],
    b: usize,
    sums: &mut Sums<S, P, Q, T>,
) {
    let groups = U::K / GROUP;
    let mut of_block = x;
    for (q, x) in x.iter().enumerate() {
        of_block[q] = &x[b * groups..(b + 1) * groups];
    }
    for g in 0..groups {
        let mut x = [&of_block[0][g]; Q];
        for q in 0..Q {
            x[q] = &of_block[q][g];
        }
        let mut dots = start::<S, U, P, Q, T>(s, &x, 0);
        each_step!(STEP, {
            if STEP > 0 && STEP * 4 % U::SUB == 0 {
                dots = start::<S, U, P, Q, T>(s, &x, 1);
            }
            for p in 0..P {
                let codes = U::codes(s, w[p], g, STEP);
                for q in 0..Q {
                    for c in 0..T {
                        dots[q][p][c] = step::<S, U>(s, dots[q][p][c], codes, x[q][STEP][c], STEP);
                    }
                }
            }
            if (STEP + 1) * 4 % U::SUB == 0 {
                let half = STEP * 4 / U::SUB;
                finish::<S, U, P, Q, T>(s, w, g * (GROUP / U::SUB) + half, &x, &dots, sums);
            }
        });
    }
}

type Sums<S, const P: usize, const Q: usize, const T: usize> = [[[<S as Simd>::F32; T]; P]; Q];
type Dots<S, const P: usize, const Q: usize, const T: usize> = [[[<S as Simd>::Dot; T]; P]; Q];

/// Where the dots of a sub-group start: at what makes the code of zero count as zero.
#[inline(always)]
fn start<S: Simd, U: Coded, const P: usize, const Q: usize, const T: usize>(
    s: S,
    x: &[&Group<T>; Q],
    half: usize,
) -> Dots<S, P, Q, T> {
    let mut dots = [[[s.dot_start(s.splat_i32(0)); T]; P]; Q];
    if U::ZERO == 0 || U::MAX == 255 && !S::BIASED_DOT {
        return dots;
    }
    for q in 0..Q {
        for c in 0..T {
            let init = match (U::SUB, U::ZERO) {
                (GROUP, 128) => s.splat_i32(x[q][acts::SUM][c]),
                (GROUP, 16) => s.sar_i32::<3>(s.splat_i32(x[q][acts::SUM][c])),
                (GROUP, 8) => s.splat_i32(x[q][acts::SUM_8][c]),
                (16, 32) => s.splat_i32(x[q][acts::HALF_SUMS + half][c]),
                (16, 4) => s.sar_i32::<3>(s.splat_i32(x[q][acts::HALF_SUMS + half][c])),
                _ => unreachable!("a zero that no format has"),
            };
            for p in 0..P {
                dots[q][p][c] = s.dot_start(init);
            }
        }
    }
    dots
}

/// One step of one dot.
#[inline(always)]
fn step<S: Simd, U: Coded>(s: S, dot: S::Dot, codes: S::Codes, x: i32, step: usize) -> S::Dot {
    if U::MAX == 255 {
        return s.dot_wide(dot, codes, x);
    }
    let dot = s.dot_small(dot, codes, x);
    if (step + 1).is_multiple_of(small_steps(U::MAX)) { s.dot_carry(dot) } else { dot }
}

/// Adds the dots of a sub-group, scaled, to the sums.
#[inline(always)]
fn finish<S: Simd, U: Coded, const P: usize, const Q: usize, const T: usize>(
    s: S,
    w: [&U::Block; P],
    sub: usize,
    x: &[&Group<T>; Q],
    dots: &Dots<S, P, Q, T>,
    sums: &mut Sums<S, P, Q, T>,
) {
    let scaled_sum = match U::SUB {
        GROUP => acts::SCALED_SUM,
        _ => acts::SCALED_HALF_SUMS + sub % 2,
    };
    for p in 0..P {
        let scale = U::scale(s, w[p], sub);
        for q in 0..Q {
            for c in 0..T {
                let xscale = s.splat(from_bits(x[q][acts::SCALE][c]));
                let dot = s.to_f32(s.dot_end(dots[q][p][c]));
                sums[q][p][c] = s.fma(dot, s.mul(scale, xscale), sums[q][p][c]);
            }
        }
        if U::MINS {
            let min = U::min(s, w[p], sub);
            for q in 0..Q {
                for c in 0..T {
                    let xsum = s.splat(from_bits(x[q][scaled_sum][c]));
                    sums[q][p][c] = s.fnma(min, xsum, sums[q][p][c]);
                }
            }
        }
    }
}

#[inline(always)]
fn from_bits(word: i32) -> f32 {
    f32::from_bits(word.cast_unsigned())
}
