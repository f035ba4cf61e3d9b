//! The two products of attention, queries with keys and weights with values: blocks of rows whose sums stay in registers.
//!
//! How many rows share a load decides the speed: half floats are widened at each load. (Zen 4, GFLOP/s of one core in a
//! prompt of 512 with heads of 64, of 118 that it can: AVX-512 8 rows 67, 12 rows 72; AVX2 4 rows 68, 6 rows 71. Values
//! in one stretch over all pages, where sums stay in registers, 72 to 76; at a depth of 3,584, 74 to 85.)

use crate::kv::Element;
use crate::simd::{LANES, Simd};

/// Rows of floats times rows of lanes: `out[r] += x[r][i] * y[i]` for all i ascending, from 0 where `out` is fresh.
/// Scores and values are both.
pub struct Product<'a, E> {
    /// Rows of `out`.
    pub rows: usize,
    /// `[rows][x_stride]`, of which as many count as `y` has rows.
    pub x: &'a [f32],
    pub x_stride: usize,
    /// `[][columns]`, in stretches that follow each other.
    pub y: &'a [&'a [[E; LANES]]],
    pub columns: usize,
    /// `[rows][out_stride]`, of which the first `columns` are added to, or written where `fresh`.
    pub out: &'a mut [[f32; LANES]],
    pub out_stride: usize,
    pub fresh: bool,
}

impl<E: Element> Product<'_, E> {
    /// A function of its own, compiled once for each ISA and element.
    pub fn compute<S: Simd>(mut self, s: S) {
        s.vectorize(
            #[inline(always)]
            |s| {
                let mut row = 0;
                while row < self.rows {
                    row += match self.rows - row {
                        12.. if S::REGISTERS >= 32 => self.add_rows::<S, 12>(s, row),
                        8.. if S::REGISTERS >= 32 => self.add_rows::<S, 8>(s, row),
                        6.. if S::REGISTERS < 32 => self.add_rows::<S, 6>(s, row),
                        4.. => self.add_rows::<S, 4>(s, row),
                        3 => self.add_rows::<S, 3>(s, row),
                        2 => self.add_rows::<S, 2>(s, row),
                        _ => self.add_rows::<S, 1>(s, row),
                    };
                }
            },
        );
    }

    /// Computes `R` rows from `row` on, in blocks as wide as registers allow.
    #[inline(always)]
    fn add_rows<S: Simd, const R: usize>(&mut self, s: S, row: usize) -> usize {
        let mut column = 0;
        while column < self.columns {
            column += match self.columns - column {
                4.. if fit::<S>(R, 4) => self.add_block::<S, R, 4>(s, row, column),
                2.. if fit::<S>(R, 2) => self.add_block::<S, R, 2>(s, row, column),
                _ => self.add_block::<S, R, 1>(s, row, column),
            };
        }
        R
    }

    /// A block of sums that stays in registers.
    #[inline(always)]
    fn add_block<S: Simd, const R: usize, const C: usize>(&mut self, s: S, row: usize, column: usize) -> usize {
        let mut sums = [[s.splat(0.0); C]; R];
        let mut out = self.out[row * self.out_stride + column..].chunks_mut(self.out_stride);
        let out: [&mut [_; C]; R] =
            std::array::from_fn(|_| out.next().and_then(<[_]>::first_chunk_mut).expect("a row of sums"));
        if !self.fresh {
            for r in 0..R {
                for c in 0..C {
                    sums[r][c] = s.load(&out[r][c]);
                }
            }
        }
        let mut x = &self.x[row * self.x_stride..];
        for y in self.y {
            let n = y.len() / self.columns;
            let mut of_row = [&x[..n]; R];
            for r in 1..R {
                of_row[r] = &x[r * self.x_stride..][..n];
            }
            for (i, y) in (0..n).zip(y.chunks_exact(self.columns)) {
                let mut lanes = [s.splat(0.0); C];
                for (lanes, y) in lanes.iter_mut().zip(&y[column..column + C]) {
                    *lanes = E::load(s, y);
                }
                for r in 0..R {
                    let x = s.splat(of_row[r][i]);
                    for c in 0..C {
                        sums[r][c] = s.fma(x, lanes[c], sums[r][c]);
                    }
                }
            }
            x = &x[n..];
        }
        for r in 0..R {
            for c in 0..C {
                s.store(sums[r][c], &mut out[r][c]);
            }
        }
        C
    }
}

/// Whether a block of sums stays in registers, beside the lanes of a row of `y` and one of `x`.
const fn fit<S: Simd>(rows: usize, columns: usize) -> bool {
    rows == 1 || (rows + 1) * columns < S::REGISTERS
}
