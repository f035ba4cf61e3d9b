//! Every case of the benches, in a shape that takes no time, gives the right answer on every instruction set.

use engine::KvType;
use tests::cases::{Attention, Matrix, Product, formats, isas};

#[test]
fn products_are_right() {
    for (format, precision) in formats() {
        let matrix = Matrix::random(format, 40, 768);
        for kernels in isas() {
            // One; tiles in registers, two and one; more than are unpacked in registers.
            for columns in [1, 11, 70] {
                let mut product = Product::new(kernels, &matrix, columns, precision);
                let (error, allowed) = (product.error(), product.allowed());
                assert!(error < allowed, "{format} {} x {columns} on {}: {error}", precision.name(), kernels.isa);
            }
        }
    }
}

#[test]
fn attention_is_right() {
    for kv in [KvType::F16, KvType::F32] {
        for kernels in isas() {
            for depth in [1, 300] {
                let mut attention = Attention::new(kernels, kv, depth);
                let (error, allowed) = (attention.error(), attention.allowed());
                assert!(error < allowed, "{kv:?} at {depth} on {}: {error}, allowed {allowed}", kernels.isa);
            }
        }
    }
}
