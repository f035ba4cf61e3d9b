//! Extreme codes, zero scales, NaN and infinity.

use super::*;

fn is_scalar(kernels: &Kernels) -> bool {
    kernels.isa == Isa::Scalar
}

/// Every block all of one byte but for its scales: all codes 0, or all at their largest, or -128 and -127 of Q8_0.
#[test]
fn extreme_codes() {
    for (format, precision) in cases().filter(|(format, _)| panel::is_coded(*format)) {
        for byte in [0x00, 0xff, 0x80, 0x81, 0x7f] {
            let k = odd_k(format);
            let mut file = vec![byte; 17 * k / format.block_len() * format.block_bytes()];
            for block in file.chunks_exact_mut(format.block_bytes()) {
                format.set_factor(block, 0.25);
            }
            let matrix = Matrix::new(format, k, file);
            // Codes of 127 and -127 in every mixture that a pair of products can meet.
            let x: Vec<f32> = (0..5 * k).map(|i| if i / k == 0 || i % (1 + i / k) > 0 { 1.0 } else { -1.0 }).collect();
            let decoded = matrix.decoded();
            let expected: Vec<f64> = (0..5 * 17)
                .map(|i| (0..k).map(|j| f64::from(decoded[i % 17 * k + j]) * f64::from(x[i / 17 * k + j])).sum())
                .collect();
            let reference = isas().find(|kernels| is_scalar(kernels)).expect("scalar");
            let reference = product(reference, &matrix, &x, precision, &[]);
            for kernels in isas() {
                let found = product(kernels, &matrix, &x, precision, &[]);
                assert_eq!(bits(&found), bits(&reference), "{format} {precision:?} {}", kernels.isa);
            }
            for (found, expected) in reference.iter().zip(expected) {
                // 1 becomes 127 * (1 / 127), which is 1 within one rounding; sums here are below 2^24.
                let most = decoded.iter().fold(1.0, |most: f64, w| most.max(f64::from(w.abs()))) * k as f64;
                assert!(
                    (f64::from(*found) - expected).abs() <= 1e-5 * most,
                    "{format} {byte:#x}: {found} for {expected}"
                );
            }
        }
    }
}

#[test]
fn zero_scales_and_zero_columns() {
    let mut random = Random::new(6);
    for (format, precision) in cases() {
        let k = odd_k(format);
        let zeros = Matrix::new(format, k, vec![0; 3 * k / format.block_len() * format.block_bytes()]);
        let matrix = Matrix::random(format, 19, k, &mut random);
        let x = random.floats(2 * k);
        for kernels in isas() {
            assert!(product(kernels, &zeros, &x, precision, &[]).iter().all(|y| *y == 0.0), "{format}");
            assert!(product(kernels, &matrix, &vec![0.0; 2 * k], precision, &[]).iter().all(|y| *y == 0.0), "{format}");
        }
    }
}

#[test]
fn nan_and_infinity_show_in_their_column_alone() {
    let mut random = Random::new(7);
    for (format, precision) in cases() {
        let k = odd_k(format);
        let matrix = Matrix::random(format, 21, k, &mut random);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let good = random.floats(6 * k);
            let mut x = good.clone();
            x[2 * k + k / 2] = bad;
            for kernels in isas() {
                let expected = product(kernels, &matrix, &good, precision, &[]);
                for (i, found) in product(kernels, &matrix, &x, precision, &[]).into_iter().enumerate() {
                    if i / 21 == 2 {
                        assert!(!found.is_finite(), "{format} {precision:?} {}", kernels.isa);
                    } else {
                        assert_eq!(found.to_bits(), expected[i].to_bits(), "{format} {precision:?} {}", kernels.isa);
                    }
                }
                let alone = product(kernels, &matrix, &x[2 * k..3 * k], precision, &[]);
                assert!(alone.iter().all(|y| !y.is_finite()), "{format} {precision:?} {}", kernels.isa);
            }
        }
    }
}

#[test]
fn bad_scales_show_in_their_row_alone() {
    let mut random = Random::new(8);
    let with_halves = |&(format, _): &(Format, Precision)| panel::is_coded(format) && !format.factors().is_empty();
    for (format, precision) in cases().filter(with_halves) {
        let k = odd_k(format);
        let row = k / format.block_len() * format.block_bytes();
        let good = Matrix::random(format, 18, k, &mut random);
        let x = random.floats(3 * k);
        for bad in [half::f16::NAN, half::f16::INFINITY] {
            let mut file = good.file.clone();
            let field = format.factors()[0].at;
            file[5 * row + field..][..2].copy_from_slice(&bad.to_le_bytes());
            let matrix = Matrix::new(format, k, file);
            for kernels in isas() {
                let expected = product(kernels, &good, &x, precision, &[]);
                for (i, found) in product(kernels, &matrix, &x, precision, &[]).into_iter().enumerate() {
                    if i % 18 == 5 {
                        assert!(!found.is_finite(), "{format} {precision:?} {}", kernels.isa);
                    } else {
                        assert_eq!(found.to_bits(), expected[i].to_bits(), "{format} {precision:?} {}", kernels.isa);
                    }
                }
            }
        }
    }
}
