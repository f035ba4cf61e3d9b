//! A result depends on its row and its column: not on the instruction set, the other columns, or where panels are cut.

use super::*;
use proptest::prelude::*;

const COLUMNS: [usize; 14] = [1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 25, 32, 33];

#[test]
fn same_bits_everywhere() {
    let mut random = Random::new(1);
    for (format, precision) in cases() {
        let k = odd_k(format);
        let matrix = Matrix::random(format, 41, k, &mut random);
        let x = random.floats(33 * k);
        let expected: Vec<f32> = x
            .chunks_exact(k)
            .flat_map(|column| product(Kernels::for_isa(Isa::Scalar).expect("scalar"), &matrix, column, precision, &[]))
            .collect();
        for kernels in isas() {
            for n in COLUMNS {
                let found = product(kernels, &matrix, &x[..n * k], precision, if n % 2 == 0 { &[1] } else { &[] });
                assert_eq!(
                    bits(&found),
                    bits(&expected[..n * 41]),
                    "{format} {precision:?} {} {n} columns",
                    kernels.isa
                );
            }
        }
    }
}

#[test]
fn many_columns() {
    // More than the sums that a kernel keeps at a time.
    let mut random = Random::new(2);
    for (format, precision) in [
        (Format::Q4K, Precision::Q8),
        (Format::Q8_0, Precision::Q8),
        (Format::Q6K, Precision::Q16),
        (Format::F16, Precision::F32),
    ] {
        let matrix = Matrix::random(format, 20, 512, &mut random);
        let x = random.floats(530 * 512);
        for kernels in isas().skip(1) {
            let alone = x.chunks_exact(512).map(|column| product(kernels, &matrix, column, precision, &[]));
            let alone: Vec<u32> = alone.flat_map(|y| bits(&y)).collect();
            for n in [100, 203, 530] {
                let found = product(kernels, &matrix, &x[..n * 512], precision, &[]);
                assert_eq!(bits(&found), alone[..n * 20], "{format} {} {n} columns", kernels.isa);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_shape(case in 0usize..100, rows in 1usize..70, blocks in 1usize..5, n in 1usize..20, seed: u64, cuts in prop::collection::vec(0usize..5, 0..3)) {
        let cases: Vec<_> = cases().collect();
        let (format, precision) = cases[case % cases.len()];
        let mut random = Random::new(seed);
        let k = if format.block_len() == 1 { blocks * 29 } else { blocks * format.block_len() };
        let matrix = Matrix::random(format, rows, k, &mut random);
        let x = random.floats(n * k);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.div_ceil(16))).collect();
        cuts.sort_unstable();
        let expected = product(Kernels::for_isa(Isa::Scalar).expect("scalar"), &matrix, &x, precision, &[]);
        for kernels in isas() {
            let found = product(kernels, &matrix, &x, precision, &cuts);
            prop_assert_eq!(bits(&found), bits(&expected), "{} {:?} {}", format, precision, kernels.isa);
        }
    }
}
