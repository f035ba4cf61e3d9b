//! Integer codes times quantized activations.
//!
//! One column ([`one`]): decode. The format's blocks are unpacked in registers, several panels in flight. Many columns
//! ([`many`]): a chunk of a panel is unpacked to memory once, then tile after tile of columns passes over it
//! ([`tile`]), in a loop that knows only the [`Shape`] of the format.

use super::{Acts, CHUNK, MatMul, store, store_all};
use crate::Columns;
use crate::acts::{self, Group, Layout, TILE, Units};
use crate::simd::{LANES, Simd, small_steps};
use crate::unpack::expand::{self, Bytes, Lanes, ToBytes};
use crate::unpack::{Coded, GROUP, Shape, each_step};
use std::ops::Range;

/// Bytes of activations that a core's second-level cache keeps while panel after panel passes over them.
const RESIDENT: usize = 1 << 20;
/// Tiles whose sums are kept at a time, a multiple of 3.
const MAX_TILES: usize = 48;

/// The sums of a tile of columns and a panel.
type Sums = [Lanes; TILE];

/// The matmul of a format.
pub fn run<S: Simd, U: Coded>(s: S, args: &MatMul<'_>, panels: Range<usize>, out: &mut Columns<'_>) {
    let Acts::Q8(bytes) = args.acts else {
        unreachable!("quantized activations");
    };
    let layout = Layout::new(args.weights.k, out.len());
    if layout.tile() == TILE {
        return many::<S, U::Shape>(s, args, expand::bytes::<S, U>, panels, out);
    }
    let units = Units::new(bytes, layout);
    s.vectorize(
        #[inline(always)]
        |s| {
            if S::REGISTERS >= 32 {
                one::<S, U, 4>(s, args, units, panels, out);
            } else {
                one::<S, U, 2>(s, args, units, panels, out);
            }
        },
    );
}

/// One column, `P` panels in flight.
#[inline(always)]
fn one<S: Simd, U: Coded, const P: usize>(
    s: S,
    args: &MatMul<'_>,
    units: Units<'_, 1>,
    panels: Range<usize>,
    out: &mut Columns<'_>,
) {
    let groups = units.all();
    for panel in panels.clone().step_by(P) {
        let mut blocks: [&[U::Block]; P] = [&[]; P];
        for (p, blocks) in blocks.iter_mut().enumerate() {
            // Beyond the last panel the last one again: its sums are not stored.
            *blocks = args.weights.panel::<U>((panel + p).min(panels.end - 1));
        }
        let len = blocks[0].len();
        for p in 1..P {
            blocks[p] = &blocks[p][..len];
        }
        let mut sums = [s.splat(0.0); P];
        for (b, x) in groups.chunks_exact(U::K / GROUP).enumerate().take(len) {
            let mut w = [&blocks[0][0]; P];
            for p in 0..P {
                w[p] = &blocks[p][b];
            }
            for (g, x) in x.iter().enumerate() {
                group::<S, U, P>(s, w, g, x, &mut sums);
            }
        }
        for (p, panel) in (panel..panels.end.min(panel + P)).enumerate() {
            store(s, sums[p], args, panel, 0, out.panel(0, panel - panels.start));
        }
    }
}

/// Adds group `g` of `P` panels, times one column, to the sums.
#[inline(always)]
fn group<S: Simd, U: Coded, const P: usize>(s: S, w: [&U::Block; P], g: usize, x: &Group<1>, sums: &mut [S::F32; P]) {
    let sub = U::Shape::SUB;
    let mut dots = [s.dot_start(s.splat_i32(0)); P];
    each_step!(STEP, {
        if 4 * STEP % sub == 0 {
            dots = [start::<S, U::Shape, 1>(s, x, 4 * STEP / sub)[0]; P];
        }
        for p in 0..P {
            let codes = U::codes(s, w[p], g, STEP);
            dots[p] = step::<S, U::Shape>(s, dots[p], codes, x[STEP][0]);
            if (STEP + 1).is_multiple_of(until_carry::<U::Shape>()) {
                dots[p] = s.dot_carry(dots[p]);
            }
        }
        if 4 * (STEP + 1) % sub == 0 {
            let half = 4 * STEP / sub;
            let at = g * (GROUP / sub) + half;
            for p in 0..P {
                let scale = U::scale(s, w[p], at);
                sums[p] = scaled::<S, 1>(s, dots[p], scale, x, 0, sums[p]);
                if U::Shape::MINS {
                    sums[p] = shifted::<S, U::Shape, 1>(s, U::min(s, w[p], at), x, half, 0, sums[p]);
                }
            }
        }
    });
}

/// Two columns or more. A function of its own, so that it is compiled once for all formats of a shape.
#[inline(never)]
fn many<S: Simd, F: Shape>(s: S, args: &MatMul<'_>, to_bytes: ToBytes<S>, panels: Range<usize>, out: &mut Columns<'_>) {
    let Acts::Q8(bytes) = args.acts else {
        unreachable!("quantized activations");
    };
    let units = Units::new(bytes, Layout::new(args.weights.k, out.len()));
    let tiles = out.len().div_ceil(TILE);
    let resident = (RESIDENT / units.tile_bytes()).clamp(12, MAX_TILES).next_multiple_of(3);
    let mut chunk = [Bytes::ZERO; CHUNK];
    let mut sums: [Sums; MAX_TILES] = [[[0.0; LANES]; TILE]; MAX_TILES];
    for first in (0..tiles).step_by(resident) {
        let count = resident.min(tiles - first);
        let sums = &mut sums[..count];
        for panel in panels.clone() {
            sums.fill([[0.0; LANES]; TILE]);
            for c in 0..units.chunks() {
                to_bytes(s, &args.weights, panel, c, &mut chunk);
                tiles_of::<S, F>(s, &chunk, |tile| units.get(c, first + tile), sums);
            }
            let sums = sums.as_flattened().as_chunks::<1>().0;
            store_all(s, sums, args, panels.clone(), (panel, first * TILE), out);
        }
    }
}

/// Adds a chunk of a panel, times all tiles, to their sums.
fn tiles_of<'a, S: Simd, F: Shape>(
    s: S,
    chunk: &[Bytes; CHUNK],
    x: impl Fn(usize) -> &'a [Group<TILE>],
    sums: &mut [Sums],
) {
    let together = if S::REGISTERS >= 32 { sums.len() / 3 } else { 0 };
    for t in 0..together {
        let sums = sums[3 * t..].first_chunk_mut().expect("three tiles");
        tile::<S, F, 3>(s, chunk, [x(3 * t), x(3 * t + 1), x(3 * t + 2)], sums);
    }
    for t in 3 * together..sums.len() {
        tile::<S, F, 1>(s, chunk, [x(t)], std::array::from_mut(&mut sums[t]));
    }
}

/// Adds a chunk of a panel, times `Q` tiles of columns, to their sums.
#[inline(never)]
fn tile<S: Simd, F: Shape, const Q: usize>(s: S, w: &[Bytes; CHUNK], x: [&[Group<TILE>]; Q], sums: &mut [Sums; Q]) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let mut acc = [[s.splat(0.0); TILE]; Q];
            for q in 0..Q {
                for c in 0..TILE {
                    acc[q][c] = s.load(&sums[q][c]);
                }
            }
            for (g, w) in w.iter().enumerate().take(x[0].len()) {
                let mut of_group = [&x[0][0]; Q];
                for q in 0..Q {
                    of_group[q] = &x[q][g];
                }
                for half in 0..GROUP / F::SUB {
                    tile_sub::<S, F, Q>(s, w, of_group, half, &mut acc);
                }
            }
            for q in 0..Q {
                for c in 0..TILE {
                    s.store(acc[q][c], &mut sums[q][c]);
                }
            }
        },
    );
}

/// Adds one sub-group to the sums of a tile.
#[inline(always)]
fn tile_sub<S: Simd, F: Shape, const Q: usize>(
    s: S,
    w: &Bytes,
    x: [&Group<TILE>; Q],
    half: usize,
    acc: &mut [[S::F32; TILE]; Q],
) {
    let mut dots = [[s.dot_start(s.splat_i32(0)); TILE]; Q];
    for q in 0..Q {
        dots[q] = start::<S, F, TILE>(s, x[q], half);
    }
    let (steps, until_carry) = (F::SUB / 4, until_carry::<F>());
    for part in 0..steps / until_carry {
        for i in part * until_carry..(part + 1) * until_carry {
            let codes = s.load_codes(&w.codes[half * steps + i]);
            for q in 0..Q {
                for c in 0..TILE {
                    dots[q][c] = step::<S, F>(s, dots[q][c], codes, x[q][half * steps + i][c]);
                }
            }
        }
        for q in 0..Q {
            for c in 0..TILE {
                dots[q][c] = s.dot_carry(dots[q][c]);
            }
        }
    }
    let scale = s.load(&w.scales[half]);
    for q in 0..Q {
        for c in 0..TILE {
            acc[q][c] = scaled::<S, TILE>(s, dots[q][c], scale, x[q], c, acc[q][c]);
        }
    }
    if F::MINS {
        let min = s.load(&w.mins[half]);
        for q in 0..Q {
            for c in 0..TILE {
                acc[q][c] = shifted::<S, F, TILE>(s, min, x[q], half, c, acc[q][c]);
            }
        }
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
fn step<S: Simd, F: Shape>(s: S, dot: S::Dot, codes: S::Codes, x: i32) -> S::Dot {
    if F::MAX == 255 { s.dot_wide(dot, codes, x) } else { s.dot_small(dot, codes, x) }
}

/// Steps of a sub-group until its dots must be carried: a power of two.
const fn until_carry<F: Shape>() -> usize {
    let (steps, most) = (F::SUB / 4, if F::MAX == 255 { usize::MAX } else { small_steps(F::MAX) });
    if steps <= most { steps } else { 1 << most.ilog2() }
}

/// `acc + dot * (scale * xscale)` for column `c`.
#[inline(always)]
fn scaled<S: Simd, const T: usize>(s: S, dot: S::Dot, scale: S::F32, x: &Group<T>, c: usize, acc: S::F32) -> S::F32 {
    let xscale = s.splat(from_bits(x[acts::SCALE][c]));
    s.fma(s.to_f32(s.dot_end(dot)), s.mul(scale, xscale), acc)
}

/// `acc - min * (xscale * xsum)` for column `c`.
#[inline(always)]
fn shifted<S: Simd, F: Shape, const T: usize>(
    s: S,
    min: S::F32,
    x: &Group<T>,
    half: usize,
    c: usize,
    acc: S::F32,
) -> S::F32 {
    let field = if F::SUB == GROUP { acts::SCALED_SUM } else { acts::SCALED_HALF_SUMS + half };
    s.fnma(min, s.splat(from_bits(x[field][c])), acc)
}

#[inline(always)]
fn from_bits(word: i32) -> f32 {
    f32::from_bits(word.cast_unsigned())
}
