//! The matmul against the exact product in f64.
#![allow(
    clippy::needless_range_loop,
    clippy::single_range_in_vec_init,
    reason = "indexes as in the documented layout; ranges of bytes"
)]

use super::*;
use kernels::acts::{Group, SCALE};

/// The values that quantized activations stand for, `[column][k]`: read from the units by their documented layout.
fn dequantized(units: &[u8], layout: Layout) -> Vec<f64> {
    fn read<const T: usize>(units: &[u8], layout: Layout) -> Vec<f64> {
        let groups: &[Group<T>] = bytemuck::cast_slice(units);
        let mut values = vec![0.0; layout.n * layout.k];
        let mut next = groups.iter();
        for chunk in (0..layout.groups()).step_by(8) {
            for tile in 0..layout.tiles() {
                for g in chunk..layout.groups().min(chunk + 8) {
                    let group = next.next().expect("all groups");
                    for c in 0..T {
                        for i in 0..32 {
                            let (column, k) = ((tile * T + c) / layout.planes, g * 32 + i);
                            if column < layout.n && k < layout.k {
                                let code = group[i / 4][c].to_ne_bytes()[i % 4].cast_signed();
                                let scale = f32::from_bits(group[SCALE][c].cast_unsigned());
                                // The first of two planes is the high one.
                                let weight = if layout.planes == 2 && c % 2 == 0 { 128.0 } else { 1.0 };
                                values[column * layout.k + k] += f64::from(scale) * f64::from(code) * weight;
                            }
                        }
                    }
                }
            }
        }
        assert!(next.next().is_none());
        values
    }
    match layout.tile() {
        1 => read::<1>(units, layout),
        2 => read::<2>(units, layout),
        _ => read::<4>(units, layout),
    }
}

/// The same matrix with codes of zero: what is left are the minimums, or the scales times the code's zero.
fn without_codes(matrix: &Matrix) -> Matrix {
    let codes: &[std::ops::Range<usize>] = match matrix.format {
        Format::Q4_0 | Format::Q8_0 => &[2..usize::MAX],
        Format::Q5_0 => &[2..usize::MAX],
        Format::Q4_1 | Format::Q5_1 => &[4..usize::MAX],
        Format::Q2K => &[16..80],
        Format::Q3K => &[0..96],
        Format::Q4K | Format::Q5K => &[16..usize::MAX],
        Format::Q6K => &[0..192],
        _ => &[0..usize::MAX],
    };
    let mut file = matrix.file.clone();
    for block in file.chunks_exact_mut(matrix.format.block_bytes()) {
        for range in codes {
            let end = range.end.min(block.len());
            block[range.start.min(end)..end].fill(0);
        }
    }
    Matrix::new(matrix.format, matrix.k, file)
}

#[test]
fn close_to_the_exact_product() {
    let mut random = Random::new(3);
    let kernels = Kernels::best();
    for (format, precision) in cases() {
        for n in [1, 6] {
            let (rows, k) = (37, 4 * odd_k(format));
            let matrix = Matrix::random(format, rows, k, &mut random);
            let x = random.floats(n * k);
            let exact_x: Vec<f64> = match precision {
                Precision::F32 => x.iter().copied().map(f64::from).collect(),
                _ => {
                    let layout = layout(precision, k, n).expect("quantized activations");
                    dequantized(quantized(kernels, &x, layout).bytes(), layout)
                }
            };
            // What quantization itself changes: half a step of a group's largest value, here at most 1. Inverse and
            // product are rounded, each by up to 2^-24 of a code of up to 16319: 0.002 steps more.
            let step = match precision {
                Precision::F32 => 0.0,
                Precision::Q8 => 1.0 / 127.0,
                Precision::Q16 => 1.0 / 16319.0,
            };
            for (x, q) in x.iter().zip(&exact_x) {
                assert!((f64::from(*x) - q).abs() <= step * 0.503, "{precision:?}: {q} for {x}");
            }
            let (w, offsets) = (matrix.decoded(), without_codes(&matrix).decoded());
            let found = product(kernels, &matrix, &x, precision, &[]);
            for (i, found) in found.into_iter().enumerate() {
                let (column, row) = (i / rows, i % rows);
                let (mut exact, mut norm) = (0.0, 0.0);
                for j in 0..k {
                    let (w, offset) = (f64::from(w[row * k + j]), f64::from(offsets[row * k + j]));
                    let x = exact_x[column * k + j];
                    exact += w * x;
                    norm += ((w - offset).abs() + offset.abs()) * x.abs();
                }
                // Each product and each sum of a sub-group of 16 is rounded once, and so is each value within it
                // where activations are f32; a decoded weight was rounded once as well.
                let roundings = 4 * k.div_ceil(16) + 40;
                let tolerance = norm * f64::from(f32::EPSILON) / 2.0 * (roundings as f64).sqrt() * 2.0;
                let error = (f64::from(found) - exact).abs();
                assert!(error <= tolerance, "{format} {precision:?}: {found} for {exact}, {error} > {tolerance}");
            }
        }
    }
}
