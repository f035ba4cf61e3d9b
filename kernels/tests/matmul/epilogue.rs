//! What happens to a sum before it is stored.

use super::*;
use kernels::matmul::Residual;

#[test]
fn steps_in_their_order() {
    let mut random = Random::new(10);
    for (format, precision) in
        [(Format::Q8_0, Precision::Q8), (Format::Q4K, Precision::F32), (Format::F16, Precision::F32)]
    {
        let (rows, k) = (41, 256);
        let matrix = Matrix::random(format, rows, k, &mut random);
        let bias = random.floats(rows);
        for n in [1, 2, 7] {
            let x = random.floats(n * k);
            let before = random.floats(n * rows);
            for kernels in isas() {
                let sums = product(kernels, &matrix, &x, precision, &[]);
                for choice in 0..8 {
                    let scale = (choice & 1 > 0).then_some(0.3f32);
                    let bias = (choice & 2 > 0).then_some(&bias[..]);
                    let residual = choice & 4 > 0;
                    let expected: Vec<f32> = (0..n * rows)
                        .map(|i| {
                            let mut y = sums[i];
                            y = scale.map_or(y, |scale| scale * y);
                            y = bias.map_or(y, |bias| y + bias[i % rows]);
                            if residual { before[i] + y } else { y }
                        })
                        .collect();
                    let from = if residual { Residual::From(&before) } else { Residual::None };
                    let epilogue = Epilogue { scale, bias, residual: from };
                    let found = product_with(kernels, &matrix, &x, precision, &[1, 2], epilogue, None);
                    assert_eq!(bits(&found), bits(&expected), "{format} {} choice {choice}", kernels.isa);
                    if residual {
                        let epilogue = Epilogue { scale, bias, residual: Residual::Output };
                        let found = product_with(kernels, &matrix, &x, precision, &[2], epilogue, Some(&before));
                        assert_eq!(bits(&found), bits(&expected), "{format} {} in place", kernels.isa);
                    }
                }
            }
        }
    }
}
