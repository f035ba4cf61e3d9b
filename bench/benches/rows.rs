//! The kernels over rows and the loops of the roof, on every instruction set.

use bench::{fast, group, on_all};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::acts::Layout;
use kernels::roof;
use kernels::rowwise::{Activation, Norm, Pairing, Rotation};
use std::hint::black_box;
use tests::cases::Aligned;
use tests::random::Random;

/// Values of a row, as in a model of a thousand million parameters.
const WIDTH: usize = 2048;
/// Values of a head.
const HEAD: usize = 64;

fn floats(n: usize) -> Vec<f32> {
    let mut random = Random::new(3);
    (0..n).map(|_| random.signed()).collect()
}

fn rows(c: &mut Criterion) {
    let (x, weight) = (floats(WIDTH), floats(WIDTH));
    let mut out = vec![0.0; WIDTH];
    let done = Throughput::Elements(WIDTH as u64);
    let norm = Norm { width: WIDTH, eps: 1e-5, weight: Some(&weight), bias: None };
    on_all(c, "rms_norm", done.clone(), |k| (k.rms_norm)(&norm, &x, &mut out));
    on_all(c, "gated silu", done.clone(), |k| (k.gated)(Activation::Silu, &x, &weight, &mut out));
    on_all(c, "gated gelu", done.clone(), |k| (k.gated)(Activation::GeluTanh, &x, &weight, &mut out));
    on_all(c, "softmax", done.clone(), |k| {
        out.copy_from_slice(&x);
        (k.softmax)(&mut out);
    });
    let angles = floats(HEAD / 2);
    for pairing in [Pairing::Adjacent, Pairing::Halves] {
        let rotation = Rotation { pairing, cos: &angles, sin: &angles };
        on_all(c, &format!("rope {pairing:?}"), done.clone(), |k| {
            out.copy_from_slice(&x);
            (k.rope)(&rotation, HEAD, &mut out);
        });
    }
    let layouts = [1, 4].map(|columns| Layout::new(WIDTH / columns, columns));
    for layout in layouts.into_iter().flat_map(|l| [l, l.in_two_planes()]) {
        let mut units = Aligned::zeroed(layout.bytes());
        on_all(c, &format!("quantize x {} in {} planes", layout.n, layout.planes), done.clone(), |k| {
            (k.quantize)(&x, layout, 0..layout.units(), units.bytes_mut());
        });
    }
}

fn roofs(c: &mut Criterion) {
    const ROUNDS: usize = 1000;
    // Within a core's second-level cache: how fast lines can be taken in, not how fast memory gives them.
    let memory = vec![1u8; 512 << 10];
    on_all(c, "read from cache", Throughput::Bytes(memory.len() as u64), |k| {
        black_box((k.roof.read)(&memory));
    });
    let (codes, x) = (black_box([[3; 64]; roof::STEPS]), black_box([0x01ff_01ff; roof::STEPS]));
    let (w, y) = (black_box([[0.5; 16]; roof::STEPS]), black_box([1e-3; roof::STEPS]));
    for kernels in fast() {
        let mut group = group(c, "arithmetic", Throughput::Elements(kernels.roof.dot_ops(ROUNDS)));
        group.bench_function(BenchmarkId::new("dot", kernels.isa), |b| {
            b.iter(|| (kernels.roof.dot)(&codes, &x, ROUNDS))
        });
        group.throughput(Throughput::Elements(kernels.roof.fma_ops(ROUNDS)));
        group.bench_function(BenchmarkId::new("fma", kernels.isa), |b| b.iter(|| (kernels.roof.fma)(&w, &y, ROUNDS)));
        group.finish();
    }
}

criterion_group!(benches, rows, roofs);
criterion_main!(benches);
