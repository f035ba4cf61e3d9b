//! Any weights times activations in f32.

use super::{Acts, MatMul, PanelRange, Tile, store_tile};
use crate::Columns;
use crate::simd::Simd;
use crate::unpack::{GROUP, Unpack, each_step};
use std::ops::Range;

/// All columns of a range of panels.
#[inline(always)]
pub fn run<S: Simd, U: Unpack>(s: S, args: &MatMul<'_>, panels: Range<usize>, out: &mut Columns<'_>) {
    let panels = PanelRange { start: panels.start, end: panels.end };
    match (out.len(), S::REGISTERS >= 32) {
        (1, true) => sweep::<S, U, 4, 1>(s, args, panels, out),
        (1, false) => sweep::<S, U, 2, 1>(s, args, panels, out),
        (_, true) => sweep::<S, U, 2, 6>(s, args, panels, out),
        (_, false) => sweep::<S, U, 1, 4>(s, args, panels, out),
    }
}

/// Every panel: `P` panels and `C` columns at a time.
#[inline(always)]
fn sweep<S: Simd, U: Unpack, const P: usize, const C: usize>(
    s: S,
    args: &MatMul<'_>,
    panels: PanelRange,
    out: &mut Columns<'_>,
) {
    let Acts::F32(x) = args.acts else {
        unreachable!("activations in f32");
    };
    let (k, n) = (args.weights.k, out.len());
    for panel in (panels.start..panels.end).step_by(P) {
        let mut blocks: [&[U::Block]; P] = [&[]; P];
        for (p, blocks) in blocks.iter_mut().enumerate() {
            // Beyond the last panel the last one again: its sums are not stored. So with columns.
            *blocks = args.weights.panel::<U>((panel + p).min(panels.end - 1));
        }
        for column in (0..n).step_by(C) {
            let mut columns: [&[f32]; C] = [&[]; C];
            for (c, columns) in columns.iter_mut().enumerate() {
                *columns = &x[(column + c).min(n - 1) * k..][..k];
            }
            let mut sums = [[s.splat(0.0); C]; P];
            for g in 0..k / GROUP {
                let mut x: [&[f32; GROUP]; C] = [&[0.0; GROUP]; C];
                for (c, x) in x.iter_mut().enumerate() {
                    *x = columns[c][g * GROUP..].first_chunk().unwrap_or(x);
                }
                group::<S, U, P, C>(s, blocks, g, x, &mut sums);
            }
            if !k.is_multiple_of(GROUP) {
                let mut tail = [[0.0; GROUP]; C];
                for (c, tail) in tail.iter_mut().enumerate() {
                    let rest = &columns[c][k / GROUP * GROUP..];
                    tail[..rest.len()].copy_from_slice(rest);
                }
                group::<S, U, P, C>(s, blocks, k / GROUP, tail.each_ref(), &mut sums);
            }
            let at = Tile { panel, column, panels };
            store_tile(s, &sums, args, at, out);
        }
    }
}

/// Adds group `g` of the row to the sums.
#[inline(always)]
fn group<S: Simd, U: Unpack, const P: usize, const C: usize>(
    s: S,
    blocks: [&[U::Block]; P],
    g: usize,
    x: [&[f32; GROUP]; C],
    sums: &mut [[S::F32; C]; P],
) {
    let (block, g) = (g / (U::K / GROUP), g % (U::K / GROUP));
    let mut w = [&blocks[0][0]; P];
    for p in 0..P {
        w[p] = &blocks[p][block];
    }
    let zero = s.splat(0.0);
    let (mut parts, mut xsums) = ([[zero; C]; P], [zero; C]);
    each_step!(STEP, {
        if STEP * 4 % U::SUB == 0 {
            parts = [[zero; C]; P];
            xsums = [zero; C];
        }
        let mut values = [[zero; 4]; P];
        for p in 0..P {
            values[p] = U::values(s, w[p], g, STEP);
        }
        for i in 0..4 {
            for c in 0..C {
                let x = s.splat(x[c][4 * STEP + i]);
                for p in 0..P {
                    parts[p][c] = s.fma(values[p][i], x, parts[p][c]);
                }
                if U::MINS {
                    xsums[c] = s.add(xsums[c], x);
                }
            }
        }
        if (STEP + 1) * 4 % U::SUB == 0 {
            let sub = g * (GROUP / U::SUB) + STEP * 4 / U::SUB;
            for p in 0..P {
                let (scale, min) = (U::scale(s, w[p], sub), U::min(s, w[p], sub));
                for c in 0..C {
                    sums[p][c] = s.fma(scale, parts[p][c], sums[p][c]);
                    if U::MINS {
                        sums[p][c] = s.fnma(min, xsums[c], sums[p][c]);
                    }
                }
            }
        }
    });
}
