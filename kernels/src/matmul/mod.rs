//! The one matmul: `out[column][row] = sum over k of weight[row][k] * x[column][k]`, for every format, ISA and number
//! of columns.
//!
//! Each output is one lane of one accumulator. Its sum runs over k in ascending sub-groups (32 values, or 16 where a
//! format scales by 16), whatever the tile it is computed in, so its bits depend on its own row and column alone:
//! - [`q8`], codes times codes: the integer dot of a sub-group is exact (of both planes where activations have two), then `acc = fma(dot, scale * xscale, acc)`,
//!   and for a format with minimums `acc = fnma(min, xscale * xsum, acc)`.
//! - [`f32`], any format times f32: `t = fma(code - zero, x, t)` within the sub-group from 0, then
//!   `acc = fma(scale, t, acc)`, and `acc = fnma(min, xsum, acc)` with the sum of x in the same order.
//!
//! A tile is some panels times some columns that stay in registers: several columns for each load of weights when
//! there are many. Sums that wait for the next chunk of k lie in memory as
//! f32, which changes no bit.

pub mod f32;
pub mod q8;

use crate::Columns;
use crate::acts::Layout;
use crate::isa::Token;
use crate::panel::Weights;
use crate::simd::{LANES, Simd, get, put};
use crate::unpack::Table;
use crate::unpack::expand::Lanes;
use std::ops::Range;

/// Groups of 32 along k that the matmul takes at a time.
pub const CHUNK: usize = 8;

/// Activations, `[column][k]`.
#[derive(Clone, Copy)]
pub enum Acts<'a> {
    /// Row-major f32.
    F32(&'a [f32]),
    /// The units of [`crate::acts::quantize`], all of them.
    Q8(&'a [u8]),
    /// The units of both planes.
    Q16(&'a [u8]),
}

/// What happens to a sum before it is stored: `residual + (scale * sum + bias)`, each step only where it is asked
/// for, each rounded.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Factor of all sums.
    pub scale: Option<f32>,
    /// Added to every column, one value a row of the matrix.
    pub bias: Option<&'a [f32]>,
    /// Added last.
    pub residual: Residual<'a>,
}

/// What is added to the result.
#[derive(Clone, Copy, Default)]
pub enum Residual<'a> {
    /// Nothing.
    #[default]
    None,
    /// What the output holds: `out += result`.
    Output,
    /// Row-major `[column][row]` values, as many as the matrix has rows in each column.
    From(&'a [f32]),
}

/// Lanes in memory, none of which crosses a line of the cache.
#[repr(align(64))]
struct Aligned<T>(T);

/// A matmul.
#[derive(Clone, Copy)]
pub struct MatMul<'a> {
    /// The matrix.
    pub weights: Weights<'a>,
    /// The activations, of [`Weights::k`] values a column and as many columns as the output.
    pub acts: Acts<'a>,
    /// What is done to the sums.
    pub epilogue: Epilogue<'a>,
}

/// Computes the rows of a range of panels: `out` has the rows `16 * panels.start ..` up to `16 * panels.end` or the
/// last row of the matrix.
///
/// # Panics
/// If shapes do not fit each other, the format has no kernels, or it has no codes and the activations are quantized.
pub fn matmul<S: Token>(s: S, args: &MatMul<'_>, panels: Range<usize>, out: &mut Columns<'_>) {
    let Weights { format, rows, k, .. } = args.weights;
    let row = S::row(format).expect("a format with kernels");
    assert!(panels.start <= panels.end && panels.end <= args.weights.panels());
    let range = panels.start * LANES..(panels.end * LANES).min(rows);
    assert_eq!(out.rows(), range.len(), "rows of the output");
    assert!(args.epilogue.bias.is_none_or(|bias| bias.len() == rows), "one bias a row");
    if let Residual::From(residual) = args.epilogue.residual {
        assert_eq!(residual.len(), rows * out.len(), "values of the residual");
    }
    if out.is_empty() || range.is_empty() {
        return;
    }
    match args.acts {
        Acts::F32(x) => {
            assert_eq!(x.len(), k * out.len(), "values of the activations");
            (row.f32)(s.float(), args, panels, out);
        }
        Acts::Q8(units) | Acts::Q16(units) => {
            let layout = Layout::new(k, out.len());
            let layout = if matches!(args.acts, Acts::Q16(_)) { layout.in_two_planes() } else { layout };
            assert_eq!(units.len(), layout.bytes(), "bytes of the activations");
            let run = row.q8.expect("a format with integer codes");
            run(s, args, (units, layout), panels, out);
        }
    }
}

/// Stores the sums of one panel and column.
#[inline(always)]
fn store<S: Simd>(s: S, sum: S::F32, args: &MatMul<'_>, panel: usize, column: usize, out: &mut [f32]) {
    let mut value = sum;
    let rows = panel * LANES..panel * LANES + out.len();
    let Epilogue { scale, bias, residual } = args.epilogue;
    if let Some(scale) = scale {
        value = s.mul(s.splat(scale), value);
    }
    if let Some(bias) = bias {
        value = s.add(value, get(s, &bias[rows.clone()], 0, 0.0));
    }
    match residual {
        Residual::None => {}
        Residual::Output => value = s.add(get(s, out, 0, 0.0), value),
        Residual::From(residual) => {
            let residual = &residual[column * args.weights.rows..][rows];
            value = s.add(get(s, residual, 0, 0.0), value);
        }
    }
    put(s, out, 0, value);
}

/// [`store`] of sums that lie in memory, one row a column from `column` on, one place in it a panel from `panel` on: as
/// many as `out`, which starts at panel `panels.start`, still has.
#[inline(never)]
fn store_all<S: Simd, const P: usize>(
    s: S,
    sums: &[[Lanes; P]],
    args: &MatMul<'_>,
    panels: Range<usize>,
    (panel, column): (usize, usize),
    out: &mut Columns<'_>,
) {
    let columns = column..out.len().min(column + sums.len());
    s.vectorize(
        #[inline(always)]
        |s| {
            let first = (panel - panels.start) * LANES;
            for (column, sums) in columns.zip(sums) {
                let out = &mut out.column(column)[first..];
                for ((p, sum), out) in (panel..).zip(sums).zip(out.chunks_mut(LANES)) {
                    store(s, s.load(sum), args, p, column, out);
                }
            }
        },
    );
}
