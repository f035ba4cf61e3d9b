//! Any weights times activations in f32.
//!
//! One column of plain floats ([`one`]): decode, widened in registers. Else ([`run`]) a few groups of some panels are
//! unpacked to memory once, then tile after tile of columns passes over them ([`tile`]). These loops know no format, so
//! they are compiled once an ISA.

use super::{Acts, Aligned, MatMul, store, store_all};
use crate::Columns;
use crate::simd::{LANES, Simd};
use crate::unpack::ahead::{prefetch, soon};
use crate::unpack::expand::{Lanes, ToValues, Values, values};
use crate::unpack::{GROUP, Shape, Unpack, each_step};
use std::ops::Range;

/// Columns whose sums are kept at a time: for so many weights are unpacked once.
const COLUMNS: usize = 192;
/// Groups along k that are unpacked at a time.
const DEPTH: usize = 4;

/// The matmul of plain floats: one column has a kernel of its own.
pub fn dense<S: Simd, U: Unpack>(s: S, args: &MatMul<'_>, panels: Range<usize>, out: &mut Columns<'_>) {
    if out.len() > 1 {
        return several::<S, U, true>(s, args, panels, out);
    }
    s.vectorize(
        #[inline(always)]
        |s| one::<S, U>(s, args, panels, out),
    );
}

/// The matmul of any format.
pub fn run<S: Simd, U: Unpack>(s: S, args: &MatMul<'_>, panels: Range<usize>, out: &mut Columns<'_>) {
    match out.len() {
        1 => sweep::<S, 2, 1, false>(s, args, &Unpacked::of::<U>(), panels, out),
        _ => several::<S, U, false>(s, args, panels, out),
    }
}

/// Several columns. `PLAIN` weights have neither scales nor minimums: a loop that knows it keeps all sums in registers.
fn several<S: Simd, U: Unpack, const PLAIN: bool>(
    s: S,
    args: &MatMul<'_>,
    panels: Range<usize>,
    out: &mut Columns<'_>,
) {
    match S::REGISTERS {
        32.. => sweep::<S, 2, 6, PLAIN>(s, args, &Unpacked::of::<U>(), panels, out),
        _ => sweep::<S, 1, 4, PLAIN>(s, args, &Unpacked::of::<U>(), panels, out),
    }
}

/// How weights are unpacked, and what they are then.
struct Unpacked<S> {
    expand: ToValues<S>,
    /// Values that share a scale, and a minimum if there are some.
    sub: usize,
    mins: bool,
}

impl<S: Simd> Unpacked<S> {
    /// As a format has it.
    fn of<U: Unpack>() -> Self {
        Unpacked { expand: values::<S, U>, sub: U::Shape::SUB, mins: U::Shape::MINS }
    }
}

/// One column, weights without scales or minimums.
#[inline(always)]
fn one<S: Simd, U: Unpack>(s: S, args: &MatMul<'_>, panels: Range<usize>, out: &mut Columns<'_>) {
    let (x, all, len) = (activations(args), args.weights.all::<U>(), args.weights.blocks::<U>());
    for panel in panels.clone() {
        let mut sum = s.splat(0.0);
        for (g, x) in x.chunks(GROUP).enumerate() {
            let mut padded = [0.0; GROUP];
            let x = match x.first_chunk() {
                Some(x) => x,
                None => {
                    padded[..x.len()].copy_from_slice(x);
                    &padded
                }
            };
            let at = panel * len + g;
            prefetch::<S, U>(s, soon::<U>(all, at), 0);
            let mut part = s.splat(0.0);
            each_step!(STEP, {
                let values = U::values(s, &all[at], 0, STEP);
                for i in 0..4 {
                    part = s.fma(values[i], s.splat(x[4 * STEP + i]), part);
                }
            });
            sum = s.add(part, sum);
        }
        store(s, sum, args, panel, 0, out.panel(0, panel - panels.start));
    }
}

/// `P` panels and `C` columns at a time.
#[inline(never)]
fn sweep<S: Simd, const P: usize, const C: usize, const PLAIN: bool>(
    s: S,
    args: &MatMul<'_>,
    unpacked: &Unpacked<S>,
    panels: Range<usize>,
    out: &mut Columns<'_>,
) {
    let (x, k, n) = (activations(args), args.weights.k, out.len());
    let groups = k.div_ceil(GROUP);
    let mut weights = [[Values::ZERO; DEPTH]; P];
    let mut sums = Aligned([[[0.0; LANES]; P]; COLUMNS]);
    // For a k that is no multiple of 32: the last groups of a row, then zeros.
    let mut padded = [[0.0; DEPTH * GROUP]; C];
    for first in (0..n).step_by(COLUMNS) {
        let columns = first..n.min(first + COLUMNS);
        for panel in panels.clone().step_by(P) {
            let sums = &mut sums.0[..columns.len().next_multiple_of(C)];
            for start in (0..groups).step_by(DEPTH) {
                let depth = DEPTH.min(groups - start);
                for (p, weights) in weights.iter_mut().enumerate() {
                    // Beyond the last panel, and the last column, the last one again: their sums are not stored.
                    let panel = (panel + p).min(panels.end - 1);
                    for (g, weights) in weights.iter_mut().enumerate().take(depth) {
                        (unpacked.expand)(s, &args.weights, panel, start + g, weights);
                    }
                }
                let ks = start * GROUP..k.min((start + depth) * GROUP);
                for (tile_of, sums) in columns.clone().step_by(C).zip(sums.as_chunks_mut::<C>().0) {
                    let mut rows: [&[f32]; C] = [&[]; C];
                    for (c, (row, padded)) in rows.iter_mut().zip(&mut padded).enumerate() {
                        let column = (tile_of + c).min(n - 1);
                        *row = &x[column * k..][ks.clone()];
                        if !row.len().is_multiple_of(GROUP) {
                            padded[..row.len()].copy_from_slice(row);
                            *row = &padded[..depth * GROUP];
                        }
                    }
                    if start == 0 {
                        sums.fill([[0.0; LANES]; P]);
                    }
                    tile::<S, P, C, PLAIN>(s, &weights, unpacked, rows, sums);
                    if start + depth == groups {
                        store_all(s, sums, args, panels.clone(), (panel, tile_of), out);
                    }
                }
            }
        }
    }
}

/// Adds some groups of `P` panels times `C` columns to their sums.
#[inline(never)]
fn tile<S: Simd, const P: usize, const C: usize, const PLAIN: bool>(
    s: S,
    w: &[[Values; DEPTH]; P],
    unpacked: &Unpacked<S>,
    x: [&[f32]; C],
    sums: &mut [[Lanes; P]; C],
) {
    s.vectorize(
        #[inline(always)]
        |s| {
            let mut acc = [[s.splat(0.0); C]; P];
            for p in 0..P {
                for c in 0..C {
                    acc[p][c] = s.load(&sums[c][p]);
                }
            }
            for g in 0..DEPTH.min(x[0].len() / GROUP) {
                let mut columns = [&[0.0; GROUP]; C];
                for c in 0..C {
                    columns[c] = x[c][g * GROUP..].first_chunk().expect("whole groups");
                }
                match PLAIN {
                    true => add_plain::<S, P, C>(s, w, g, columns, &mut acc),
                    false => add_scaled::<S, P, C>(s, w, (unpacked, g), columns, &mut acc),
                }
            }
            for p in 0..P {
                for c in 0..C {
                    s.store(acc[p][c], &mut sums[c][p]);
                }
            }
        },
    );
}

/// Adds a group of weights without scales or minimums.
#[inline(always)]
fn add_plain<S: Simd, const P: usize, const C: usize>(
    s: S,
    w: &[[Values; DEPTH]; P],
    g: usize,
    x: [&[f32; GROUP]; C],
    acc: &mut [[S::F32; C]; P],
) {
    let mut parts = [[s.splat(0.0); C]; P];
    for i in 0..GROUP {
        add_row::<S, P, C>(s, w, (g, i), x, &mut parts);
    }
    for p in 0..P {
        for c in 0..C {
            acc[p][c] = s.add(parts[p][c], acc[p][c]);
        }
    }
}

/// Adds a group of weights with a scale, and perhaps a minimum, for every sub-group.
#[inline(always)]
fn add_scaled<S: Simd, const P: usize, const C: usize>(
    s: S,
    w: &[[Values; DEPTH]; P],
    (unpacked, g): (&Unpacked<S>, usize),
    x: [&[f32; GROUP]; C],
    acc: &mut [[S::F32; C]; P],
) {
    let (mut parts, mut xsums) = ([[s.splat(0.0); C]; P], [0.0; C]);
    for half in 0..2 {
        let rows = half * GROUP / 2..(half + 1) * GROUP / 2;
        for i in rows.clone() {
            add_row::<S, P, C>(s, w, (g, i), x, &mut parts);
        }
        if unpacked.mins {
            for c in 0..C {
                xsums[c] = sum_on(xsums[c], &x[c][rows.clone()]);
            }
        }
        if half == 0 && unpacked.sub == GROUP {
            continue;
        }
        let at = half * (GROUP / 2) / unpacked.sub;
        for p in 0..P {
            let (scale, min) = (s.load(&w[p][g].scales[at]), s.load(&w[p][g].mins[at]));
            for c in 0..C {
                acc[p][c] = s.fma(scale, parts[p][c], acc[p][c]);
                if unpacked.mins {
                    acc[p][c] = s.fnma(min, s.splat(xsums[c]), acc[p][c]);
                }
            }
        }
        (parts, xsums) = ([[s.splat(0.0); C]; P], [0.0; C]);
    }
}

/// Adds the products of row `i` of a group.
#[inline(always)]
fn add_row<S: Simd, const P: usize, const C: usize>(
    s: S,
    w: &[[Values; DEPTH]; P],
    (g, i): (usize, usize),
    x: [&[f32; GROUP]; C],
    parts: &mut [[S::F32; C]; P],
) {
    for c in 0..C {
        let x = s.splat(x[c][i]);
        for p in 0..P {
            parts[p][c] = s.fma(s.load(&w[p][g].values[i]), x, parts[p][c]);
        }
    }
}

/// `from` and then `x`, added one after the other.
#[inline(always)]
fn sum_on(from: f32, x: &[f32]) -> f32 {
    x.iter().fold(from, |sum, x| sum + x)
}

/// The activations.
#[inline(always)]
fn activations<'a>(args: &MatMul<'a>) -> &'a [f32] {
    match args.acts {
        Acts::F32(x) => x,
        _ => unreachable!("activations in f32"),
    }
}
