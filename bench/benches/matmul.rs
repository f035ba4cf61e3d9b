//! Every format's matmul, on every instruction set, for one column and for many.

use bench::{fast, group};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tests::cases::{COLUMNS, Matrix, Product, SHAPES, formats};

fn matmul(c: &mut Criterion) {
    for (rows, k) in SHAPES {
        for (format, precision) in formats().filter(|(format, _)| k.is_multiple_of(format.block_len())) {
            let matrix = Matrix::random(format, rows, k);
            for columns in COLUMNS {
                let name = format!("matmul {format} {} {rows}x{k} x {columns}", precision.name());
                for kernels in fast() {
                    let mut product = Product::new(kernels, &matrix, columns, precision);
                    let (error, allowed) = (product.error(), product.allowed());
                    assert!(error < allowed, "{format} on {}: an error of {error} allows no comparison", kernels.isa);
                    // One column lives from reading, many from arithmetic.
                    let done = if columns == 1 {
                        Throughput::Bytes(product.bytes())
                    } else {
                        Throughput::Elements(product.ops())
                    };
                    let mut group = group(c, &name, done);
                    group.bench_function(BenchmarkId::from_parameter(kernels.isa), |b| b.iter(|| product.run()));
                    group.finish();
                }
            }
        }
    }
}

criterion_group!(benches, matmul);
criterion_main!(benches);
