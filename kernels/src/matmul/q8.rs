//! Integer codes times quantized activations.
//!
//! A few columns ([`few`]): decode, of one sequence or of many. The format's blocks are unpacked in registers. Many columns
//! ([`many`]): a chunk of some panels is unpacked to memory once, then tile after tile of columns passes over it
//! ([`add_tile`]), in loops that know only the [`Shape`] of the format.
//!
//! Where activations have two planes, `PLANES` is 2: a tile of `T` columns of bytes is one of `T / 2` columns of values,
//! whose two dots become one integer, `128 * high + low`, before anything is rounded.

use super::{Aligned, CHUNK, MatMul, store, store_all};
use crate::Columns;
use crate::acts::{self, Group, LOW_BITS, Layout, TILE, Units};
use crate::simd::{LANES, Simd, small_steps};
use crate::unpack::ahead::{prefetch, soon};
use crate::unpack::expand::{self, Bytes, Lanes, ToBytes, panels_at_a_time};
use crate::unpack::{Coded, GROUP, Shape, each_step};
use std::ops::Range;

/// Bytes of activations that a core's second-level cache keeps while panel after panel passes over them.
const RESIDENT: usize = 1 << 19;
/// Tiles of columns whose sums and dots stay in registers beside the codes of one panel.
const fn tiles_at_a_time<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 2 } else { 1 }
}
/// Most tiles for which panels are unpacked in registers, again for every few tiles. Where all fit, two at a time, this
/// is faster than unpacking to memory as long as the second-level cache keeps the activations: 8 columns cost little
/// more than 4, where they cost twice as much.
const fn few_tiles<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 16 } else { 1 }
}
/// Tiles that one unpacking of a chunk serves, their sums in the second-level cache: a prompt of 512. Matrices are read
/// from memory once for as many, and unpacking is 2 % of the time instead of 10. (1B Q8_0, 8,192 x 2,048, GOP/s of 945: 24
/// tiles, whose activations stay in the second-level cache, 534; 43 584; 64 600; 128 620.)
const MAX_TILES: usize = 128;
/// A number of tiles for which the room of [`MAX_TILES`] would cost more time to clear than it saves.
const SOME_TILES: usize = MAX_TILES / 4;
/// Most of [`panels_at_a_time`].
const MAX_PANELS: usize = 3;

/// The matmul of a format.
pub fn run<S: Simd, U: Coded>(
    s: S,
    args: &MatMul<'_>,
    (bytes, layout): (&[u8], Layout),
    panels: Range<usize>,
    out: &mut Columns<'_>,
) {
    if layout.tiles() > few_tiles::<S>() || layout.tiles() > 1 && layout.bytes() > RESIDENT {
        let units = Units::new(bytes, layout);
        return match layout.planes {
            1 => many::<S, U::Shape, 1>(s, args, (expand::bytes::<S, U>, units), panels, out),
            _ => many::<S, U::Shape, 2>(s, args, (expand::bytes::<S, U>, units), panels, out),
        };
    }
    s.vectorize(
        #[inline(always)]
        |s| match (layout.tile(), layout.planes) {
            (1, _) => few::<S, U, 1, 1>(s, args, Units::new(bytes, layout), panels, out),
            (2, _) => few::<S, U, 2, 2>(s, args, Units::new(bytes, layout), panels, out),
            (_, 1) => few::<S, U, TILE, 1>(s, args, Units::new(bytes, layout), panels, out),
            _ => few::<S, U, TILE, 2>(s, args, Units::new(bytes, layout), panels, out),
        },
    );
}

/// A few tiles of columns, panel after panel: where there are more tiles than stay in registers, a panel is unpacked
/// again for the next of them, from the first-level cache.
#[inline(always)]
fn few<S: Simd, U: Coded, const T: usize, const PLANES: usize>(
    s: S,
    args: &MatMul<'_>,
    units: Units<'_, T>,
    panels: Range<usize>,
    out: &mut Columns<'_>,
) {
    for panel in panels.clone() {
        let mut tile = 0;
        while tile < units.tiles() {
            let sums: &mut [_] = match units.tiles() - tile {
                2.. if const { tiles_at_a_time::<S>() == 2 } => {
                    &mut tiles::<S, U, T, PLANES, 2>(s, args, units, (panel, tile))
                }
                _ => &mut tiles::<S, U, T, PLANES, 1>(s, args, units, (panel, tile)),
            };
            for sums in sums {
                let columns = tile * T / PLANES..out.len();
                for (column, &sum) in columns.zip(&sums[..T / PLANES]) {
                    store(s, sum, args, panel, column, out.panel(column, panel - panels.start));
                }
                tile += 1;
            }
        }
    }
}

/// The sums of one panel and `N` tiles.
#[inline(always)]
fn tiles<S: Simd, U: Coded, const T: usize, const PLANES: usize, const N: usize>(
    s: S,
    args: &MatMul<'_>,
    units: Units<'_, T>,
    (panel, tile): (usize, usize),
) -> [[S::F32; T]; N] {
    let (all, len) = (args.weights.all::<U>(), args.weights.blocks::<U>());
    let mut sums = [[s.splat(0.0); T]; N];
    let mut at = panel * len;
    for chunk in 0..units.chunks() {
        let mut x = [&[][..]; N];
        for (n, x) in x.iter_mut().enumerate() {
            *x = units.get(chunk, tile + n);
        }
        for first in (0..x[0].len()).step_by(U::K / GROUP) {
            let (w, soon) = (&all[at], soon::<U>(all, at));
            for g in 0..U::K / GROUP {
                prefetch::<S, U>(s, soon, g);
                let mut of_group = [&x[0][first + g]; N];
                for n in 0..N {
                    of_group[n] = &x[n][first + g];
                }
                add_group::<S, U, T, PLANES, N>(s, w, g, of_group, &mut sums);
            }
            at += 1;
        }
    }
    sums
}

/// Adds group `g` of a panel, times some tiles of columns, to the sums.
#[inline(always)]
fn add_group<S: Simd, U: Coded, const T: usize, const PLANES: usize, const N: usize>(
    s: S,
    w: &U::Block,
    g: usize,
    x: [&Group<T>; N],
    sums: &mut [[S::F32; T]; N],
) {
    let sub = U::Shape::SUB;
    let mut dots = [[s.dot_start(s.splat_i32(0)); T]; N];
    each_step!(STEP, {
        if 4 * STEP % sub == 0 {
            for n in 0..N {
                dots[n] = start::<S, U::Shape, T>(s, x[n], 4 * STEP / sub);
            }
        }
        let codes = U::codes(s, w, g, STEP);
        for n in 0..N {
            for c in 0..T {
                dots[n][c] = dot::<S, U::Shape>(s, dots[n][c], codes, x[n][STEP][c]);
                if (STEP + 1).is_multiple_of(until_carry::<U::Shape>()) {
                    dots[n][c] = s.dot_carry(dots[n][c]);
                }
            }
        }
        if 4 * (STEP + 1) % sub == 0 {
            let half = 4 * STEP / sub;
            let at = g * (GROUP / sub) + half;
            let (scale, min) = (U::scale(s, w, at), U::min(s, w, at));
            for n in 0..N {
                finish::<S, U::Shape, T, PLANES>(s, &dots[n], [scale, min], (x[n], half), &mut sums[n]);
            }
        }
    });
}

/// Many columns. A function of its own, so that it is compiled once for all formats of a shape.
#[inline(never)]
fn many<S: Simd, F: Shape, const PLANES: usize>(
    s: S,
    args: &MatMul<'_>,
    (to_bytes, units): (ToBytes<S>, Units<'_, TILE>),
    panels: Range<usize>,
    out: &mut Columns<'_>,
) {
    let sweep = Sweep { args, to_bytes, units, panels: panels.clone() };
    let tiles = units.tiles();
    let (mut some, mut most);
    let sums: &mut [Lanes] = if tiles <= SOME_TILES {
        some = Aligned([[0.0; LANES]; SOME_TILES * TILE * MAX_PANELS]);
        &mut some.0
    } else {
        most = Aligned([[0.0; LANES]; MAX_TILES * TILE * MAX_PANELS]);
        &mut most.0
    };
    let mut scratch = Scratch { weights: [[Bytes::ZERO; CHUNK]; MAX_PANELS], sums };
    for first in (0..tiles).step_by(MAX_TILES) {
        let tiles = first..tiles.min(first + MAX_TILES);
        let mut panel = panels.start;
        while panel < panels.end {
            let (tiles, left) = (tiles.clone(), panels.end - panel);
            panel += match left {
                3.. if const { panels_at_a_time::<S>() == 3 } => {
                    sweep.run::<F, 3, PLANES>(s, &mut scratch, panel, tiles, out)
                }
                2 if const { panels_at_a_time::<S>() == 3 } => {
                    sweep.run::<F, 2, PLANES>(s, &mut scratch, panel, tiles, out)
                }
                _ => sweep.run::<F, 1, PLANES>(s, &mut scratch, panel, tiles, out),
            }
        }
    }
}

/// What is kept between loops: unpacked chunks of some panels, and sums `[column][panel]`.
struct Scratch<'a> {
    weights: [[Bytes; CHUNK]; MAX_PANELS],
    sums: &'a mut [Lanes],
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
    fn run<F: Shape, const P: usize, const PLANES: usize>(
        &self,
        s: S,
        scratch: &mut Scratch<'_>,
        panel: usize,
        tiles: Range<usize>,
        out: &mut Columns<'_>,
    ) -> usize {
        let weights: &mut [_; P] = scratch.weights.first_chunk_mut().expect("at most the most panels");
        let sums: &mut [[Lanes; P]] = &mut scratch.sums.as_chunks_mut().0[..tiles.len() * TILE / PLANES];
        let chunks = self.units.chunks();
        for chunk in 0..chunks {
            for (p, weights) in weights.iter_mut().enumerate() {
                (self.to_bytes)(s, &self.args.weights, panel + p, chunk, weights);
            }
            for (tile, sums) in tiles.clone().zip(sums.chunks_exact_mut(TILE / PLANES)) {
                if chunk == 0 {
                    sums.fill([[0.0; LANES]; P]);
                }
                add_tile::<S, F, P, PLANES>(s, weights, self.units.get(chunk, tile), sums);
                // At once, between products: their lines of the output are far apart and come slowly.
                if chunk + 1 == chunks {
                    store_all(s, sums, self.args, self.panels.clone(), (panel, tile * TILE / PLANES), out);
                }
            }
        }
        P
    }
}

/// Adds a chunk of `P` panels, times a tile of columns, to their sums.
#[inline(never)]
fn add_tile<S: Simd, F: Shape, const P: usize, const PLANES: usize>(
    s: S,
    w: &[[Bytes; CHUNK]; P],
    x: &[Group<TILE>],
    sums: &mut [[Lanes; P]],
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let mut acc = [[s.splat(0.0); TILE]; P];
            for p in 0..P {
                for c in 0..TILE / PLANES {
                    acc[p][c] = s.load(&sums[c][p]);
                }
            }
            for (g, x) in x.iter().enumerate().take(CHUNK) {
                let mut of_group = [&w[0][0]; P];
                for p in 0..P {
                    of_group[p] = &w[p][g];
                }
                for half in 0..GROUP / F::SUB {
                    add_sub::<S, F, P, PLANES>(s, of_group, x, half, &mut acc);
                }
            }
            for p in 0..P {
                for c in 0..TILE / PLANES {
                    s.store(acc[p][c], &mut sums[c][p]);
                }
            }
        },
    );
}

/// Adds one sub-group to the sums of a tile.
#[inline(always)]
fn add_sub<S: Simd, F: Shape, const P: usize, const PLANES: usize>(
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
        finish::<S, F, TILE, PLANES>(s, &dots[p], [scale, min], (x, half), &mut acc[p]);
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
            (16, 128) => s.shl_i32::<2>(s.splat_i32(x[acts::HALF_SUMS + half][c])),
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
fn finish<S: Simd, F: Shape, const T: usize, const PLANES: usize>(
    s: S,
    dots: &[S::Dot; T],
    [scale, min]: [S::F32; 2],
    (x, half): (&Group<T>, usize),
    sums: &mut [S::F32; T],
) {
    for c in 0..T / PLANES {
        let xscale = s.splat(from_bits(x[acts::SCALE][c * PLANES]));
        let mut dot = s.dot_end(dots[c * PLANES]);
        if PLANES == 2 {
            // At most 2^27: 32 products of 128 and 127, times 128.
            dot = s.add_i32(s.shl_i32::<LOW_BITS>(dot), s.dot_end(dots[c * PLANES + 1]));
        }
        sums[c] = s.fma(s.to_f32(dot), s.mul(scale, xscale), sums[c]);
    }
    if F::MINS {
        let field = if F::SUB == GROUP { acts::SCALED_SUM } else { acts::SCALED_HALF_SUMS + half };
        for c in 0..T / PLANES {
            sums[c] = s.fnma(min, s.splat(from_bits(x[field][c * PLANES])), sums[c]);
        }
    }
}

#[inline(always)]
fn from_bits(word: i32) -> f32 {
    f32::from_bits(word.cast_unsigned())
}
