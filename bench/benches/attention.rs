//! A token's attention over caches of several depths, on every instruction set.

use bench::{fast, group};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::kv::KvType;
use tests::cases::{Attention, DEPTHS};

fn attention(c: &mut Criterion) {
    for (kv, word) in [(KvType::F16, "f16"), (KvType::F32, "f32")] {
        for depth in DEPTHS {
            for kernels in fast() {
                let mut attention = Attention::new(kernels, kv, depth);
                let (error, allowed) = (attention.error(), attention.allowed());
                assert!(error < allowed, "an error of {error} on {} allows no comparison", kernels.isa);
                let mut group = group(c, &format!("attention {word} @ {depth}"), Throughput::Bytes(attention.bytes()));
                group.bench_function(BenchmarkId::from_parameter(kernels.isa), |b| b.iter(|| attention.run()));
                group.finish();
            }
        }
    }
}

criterion_group!(benches, attention);
criterion_main!(benches);
