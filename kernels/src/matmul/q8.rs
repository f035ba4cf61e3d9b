//! Integer codes times quantized activations.
//!
//! A few columns ([`few`]): decode. The format's blocks are unpacked in registers, several panels in flight. Many columns
//! ([`many`]): a chunk of some panels is unpacked to memory once, then tile after tile of columns passes over it
//! ([`add_tile`]), in loops that know only the [`Shape`] of the format.

use super::{Acts, CHUNK, MatMul, store, store_all};
use crate::Columns;
use crate::acts::{self, Group, Layout, TILE, Units};
use crate::simd::{LANES, Simd, small_steps};
use crate::unpack::expand::{self, Bytes, Lanes, ToBytes, panels_at_a_time};
use crate::unpack::flight::{Flight, prefetch};
use crate::unpack::{Coded, GROUP, Shape, each_step};
use std::ops::Range;

/// Bytes of activations that a core's second-level cache keeps while panel after panel passes over them.
const RESIDENT: usize = 1 << 20;
/// Most tiles for which weights are unpacked in registers.
const FEW_TILES: usize = 1;
/// Tiles whose sums are kept at a time: with the unpacked chunk of three panels they fill the first-level cache.
const MAX_TILES: usize = 24;
/// Most of [`panels_at_a_time`].
const MAX_PANELS: usize = 3;

/// The matmul of a format.
pub fn run<S: Simd, U: Coded>(s: S, args: &MatMul<'_>, panels: Range<usize>, out: &mut Columns<'_>) {
    let Acts::Q8(bytes) = args.acts else {
        unreachable!("quantized activations");
    };
    let layout = Layout::new(args.weights.k, out.len());
    if layout.tiles() > FEW_TILES {
        return many::<S, U::Shape>(s, args, expand::bytes::<S, U>, panels, out);
    }
    // Constant conditions keep the tiles of other register files from being compiled.
    s.vectorize(
        #[inline(always)]
        |s| match layout.tile() {
            1 if const { S::REGISTERS >= 32 } => few::<S, U, 4, 1>(s, args, Units::new(bytes, layout), panels, out),
            1 => few::<S, U, 2, 1>(s, args, Units::new(bytes, layout), panels, out),
            _ if const { S::REGISTERS >= 32 } => few::<S, U, 2, TILE>(s, args, Units::new(bytes, layout), panels, out),
            _ => few::<S, U, 1, TILE>(s, args, Units::new(bytes, layout), panels, out),
        },
    );
}

/// A few columns, in tiles of `T`: `P` panels in flight.
#[inline(always)]
fn few<S: Simd, U: Coded, const P: usize, const T: usize>(
    s: S,
    args: &MatMul<'_>,
    units: Units<'_, T>,
    panels: Range<usize>,
    out: &mut Columns<'_>,
) {
    let per_chunk = CHUNK * GROUP / U::K;
    for panel in panels.clone().step_by(P) {
        let flight = Flight::<U, P>::new(&args.weights, panel, panels.end);
        for tile in 0..units.tiles() {
            let mut sums = [[s.splat(0.0); T]; P];
            for chunk in 0..units.chunks() {
                for (b, x) in units.get(chunk, tile).chunks_exact(U::K / GROUP).enumerate() {
                    let (w, soon) = flight.at(chunk * per_chunk + b);
                    for (g, x) in x.iter().enumerate() {
                        for soon in soon {
                            prefetch::<S, U>(s, soon, g);
                        }
                        add_group::<S, U, P, T>(s, w, g, x, &mut sums);
                    }
                }
            }
            for (p, panel) in (panel..panels.end.min(panel + P)).enumerate() {
                for (c, column) in (tile * T..out.len().min((tile + 1) * T)).enumerate() {
                    store(s, sums[p][c], args, panel, column, out.panel(column, panel - panels.start));
                }
            }
        }
    }
}

/// Adds group `g` of `P` panels, times a tile of columns, to the sums.
#[inline(always)]
fn add_group<S: Simd, U: Coded, const P: usize, const T: usize>(
    s: S,
    w: [&U::Block; P],
    g: usize,
    x: &Group<T>,
    sums: &mut [[S::F32; T]; P],
) {
    let sub = U::Shape::SUB;
    let mut dots = [[s.dot_start(s.splat_i32(0)); T]; P];
    each_step!(STEP, {
        if 4 * STEP % sub == 0 {
            dots = [start::<S, U::Shape, T>(s, x, 4 * STEP / sub); P];
        }
        for p in 0..P {
            let codes = U::codes(s, w[p], g, STEP);
            for c in 0..T {
                dots[p][c] = dot::<S, U::Shape>(s, dots[p][c], codes, x[STEP][c]);
                if (STEP + 1).is_multiple_of(until_carry::<U::Shape>()) {
                    dots[p][c] = s.dot_carry(dots[p][c]);
                }
            }
        }
        if 4 * (STEP + 1) % sub == 0 {
            let half = 4 * STEP / sub;
            for p in 0..P {
                let at = g * (GROUP / sub) + half;
                let (scale, min) = (U::scale(s, w[p], at), U::min(s, w[p], at));
                finish::<S, U::Shape, T>(s, &dots[p], [scale, min], (x, half), &mut sums[p]);
            }
        }
    });
}

/// Many columns. A function of its own, so that it is compiled once for all formats of a shape.
#[inline(never)]
fn many<S: Simd, F: Shape>(s: S, args: &MatMul<'_>, to_bytes: ToBytes<S>, panels: Range<usize>, out: &mut Columns<'_>) {
    let Acts::Q8(bytes) = args.acts else {
        unreachable!("quantized activations");
    };
    let units = Units::new(bytes, Layout::new(args.weights.k, out.len()));
    let sweep = Sweep { args, to_bytes, units, panels: panels.clone() };
    let resident = (RESIDENT / units.tile_bytes()).clamp(MAX_TILES / 2, MAX_TILES);
    let mut scratch =
        Scratch { weights: [[Bytes::ZERO; CHUNK]; MAX_PANELS], sums: [[0.0; LANES]; MAX_TILES * TILE * MAX_PANELS] };
    let tiles = out.len().div_ceil(TILE);
    for first in (0..tiles).step_by(resident) {
        let tiles = first..tiles.min(first + resident);
        let mut panel = panels.start;
        while panel < panels.end {
            panel += match panels.end - panel {
                3.. if const { panels_at_a_time::<S>() == 3 } => sweep.run::<F, 3>(s, &mut scratch, panel, tiles.clone(), out),
                2 if const { panels_at_a_time::<S>() == 3 } => sweep.run::<F, 2>(s, &mut scratch, panel, tiles.clone(), out),
                _ => sweep.run::<F, 1>(s, &mut scratch, panel, tiles.clone(), out),
            }
        }
    }
}

/// What is kept between loops: unpacked chunks of some panels, and sums `[column][panel]`.
struct Scratch {
    weights: [[Bytes; CHUNK]; MAX_PANELS],
    sums: [Lanes; MAX_TILES * TILE * MAX_PANELS],
}

/// What all parts of a matmul share.
struct Sweep<'a, S> {
    args: &'a MatMul<'a>,
    to_bytes: ToBytes<S>,
    units: Units<'a, TILE>,
    panels: Range<usize>,
}

impl<S: Simd> Sweep<'_, S> {
    /// `P` panels from `panel` on, a range of tiles. Returns `P`.
    fn run<F: Shape, const P: usize>(
        &self,
        s: S,
        scratch: &mut Scratch,
        panel: usize,
        tiles: Range<usize>,
        out: &mut Columns<'_>,
    ) -> usize {
        let weights: &mut [_; P] = scratch.weights.first_chunk_mut().expect("at most the most panels");
        let sums: &mut [[Lanes; P]] = &mut scratch.sums.as_chunks_mut().0[..tiles.len() * TILE];
        sums.fill([[0.0; LANES]; P]);
        for chunk in 0..self.units.chunks() {
            for (p, weights) in weights.iter_mut().enumerate() {
                (self.to_bytes)(s, &self.args.weights, panel + p, chunk, weights);
            }
            for (tile, sums) in tiles.clone().zip(sums.as_chunks_mut().0) {
                add_tile::<S, F, P>(s, weights, self.units.get(chunk, tile), sums);
            }
        }
        store_all(s, sums, self.args, self.panels.clone(), (panel, tiles.start * TILE), out);
        P
    }
}

/// Adds a chunk of `P` panels, times a tile of columns, to their sums.
#[inline(never)]
fn add_tile<S: Simd, F: Shape, const P: usize>(
    s: S,
    w: &[[Bytes; CHUNK]; P],
    x: &[Group<TILE>],
    sums: &mut [[Lanes; P]; TILE],
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let mut acc = [[s.splat(0.0); TILE]; P];
            for p in 0..P {
                for c in 0..TILE {
                    acc[p][c] = s.load(&sums[c][p]);
                }
            }
            for (g, x) in x.iter().enumerate().take(CHUNK) {
                let mut of_group = [&w[0][0]; P];
                for p in 0..P {
                    of_group[p] = &w[p][g];
                }
                for half in 0..GROUP / F::SUB {
                    add_sub::<S, F, P>(s, of_group, x, half, &mut acc);
                }
            }
            for p in 0..P {
                for c in 0..TILE {
                    s.store(acc[p][c], &mut sums[c][p]);
                }
            }
        },
    );
}

/// Adds one sub-group to the sums of a tile.
#[inline(always)]
fn add_sub<S: Simd, F: Shape, const P: usize>(
    s: S,
    w: [&Bytes; P],
    x: &Group<TILE>,
    half: usize,
    acc: &mut [[S::F32; TILE]; P],
) {
    let mut dots = [start::<S, F, TILE>(s, x, half); P];
    let (steps, until_carry) = (F::SUB / 4, until_carry::<F>());
    for part in 0..steps / until_carry {
        for i in part * until_carry..(part + 1) * until_carry {
            let step = half * steps + i;
            let mut codes = [s.splat_codes(0); P];
            for p in 0..P {
                codes[p] = s.load_codes(&w[p].codes[step]);
            }
            for c in 0..TILE {
                for p in 0..P {
                    dots[p][c] = dot::<S, F>(s, dots[p][c], codes[p], x[step][c]);
                }
            }
        }
        for dot in dots.as_flattened_mut() {
            *dot = s.dot_carry(*dot);
        }
    }
    for p in 0..P {
        let (scale, min) = (s.load(&w[p].scales[half]), s.load(&w[p].mins[half]));
        finish::<S, F, TILE>(s, &dots[p], [scale, min], (x, half), &mut acc[p]);
    }
}

/// Where the dots of a sub-group start: at what makes the code of zero count as zero.
#[inline(always)]
fn start<S: Simd, F: Shape, const T: usize>(s: S, x: &Group<T>, half: usize) -> [S::Dot; T] {
    let mut dots = [s.dot_start(s.splat_i32(0)); T];
    if F::ZERO == 0 || F::MAX == 255 && !S::BIASED_DOT {
        return dots;
    }
    for c in 0..T {
        let init = match (F::SUB, F::ZERO) {
            (GROUP, 128) => s.splat_i32(x[acts::SUM][c]),
            (GROUP, 16) => s.sar_i32::<3>(s.splat_i32(x[acts::SUM][c])),
            (GROUP, 8) => s.splat_i32(x[acts::SUM_8][c]),
            (16, 32) => s.splat_i32(x[acts::HALF_SUMS + half][c]),
            (16, 4) => s.sar_i32::<3>(s.splat_i32(x[acts::HALF_SUMS + half][c])),
            _ => unreachable!("a zero that no format has"),
        };
        dots[c] = s.dot_start(init);
    }
    dots
}

/// One step of a dot.
#[inline(always)]
fn dot<S: Simd, F: Shape>(s: S, dot: S::Dot, codes: S::Codes, x: i32) -> S::Dot {
    if F::MAX == 255 { s.dot_wide(dot, codes, x) } else { s.dot_small(dot, codes, x) }
}

/// Steps of a sub-group until its dots must be carried: a power of two.
const fn until_carry<F: Shape>() -> usize {
    let (steps, most) = (F::SUB / 4, if F::MAX == 255 { usize::MAX } else { small_steps(F::MAX) });
    if steps <= most { steps } else { 1 << most.ilog2() }
}

/// Adds the dots of a half group, scaled, to the sums, and takes the minimums off.
#[inline(always)]
fn finish<S: Simd, F: Shape, const T: usize>(
    s: S,
    dots: &[S::Dot; T],
    [scale, min]: [S::F32; 2],
    (x, half): (&Group<T>, usize),
    sums: &mut [S::F32; T],
) {
    for c in 0..T {
        let xscale = s.splat(from_bits(x[acts::SCALE][c]));
        sums[c] = s.fma(s.to_f32(s.dot_end(dots[c])), s.mul(scale, xscale), sums[c]);
    }
    if F::MINS {
        let field = if F::SUB == GROUP { acts::SCALED_SUM } else { acts::SCALED_HALF_SUMS + half };
        for c in 0..T {
            sums[c] = s.fnma(min, s.splat(from_bits(x[field][c])), sums[c]);
        }
    }
}

#[inline(always)]
fn from_bits(word: i32) -> f32 {
    f32::from_bits(word.cast_unsigned())
}
