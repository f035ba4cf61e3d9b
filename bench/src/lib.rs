//! What the kernel benches share: groups of one case on every instruction set. The cases are those of the tests, in
//! [`tests::cases`]. `cargo bench -p bench` prints bytes or operations a second; `-- q4_k` picks the benches of that
//! name; `-- --test` runs each once.
#![forbid(unsafe_code)]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use kernels::{Isa, Kernels};
use std::time::Duration;

/// The kernels of this processor that are meant to be fast: the scalar ones are there for their answers.
pub fn fast() -> impl Iterator<Item = &'static Kernels> {
    tests::cases::isas().filter(|kernels| kernels.isa != Isa::Scalar)
}

/// A group of benches that each take about a second.
pub fn group<'a>(c: &'a mut Criterion, name: &str, done: Throughput) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800)).sample_size(10);
    group.throughput(done);
    group
}

/// Benches `run` on every instruction set; a run does `done`.
pub fn on_all(c: &mut Criterion, name: &str, done: Throughput, mut run: impl FnMut(&'static Kernels)) {
    let mut group = group(c, name, done);
    for kernels in fast() {
        group.bench_function(BenchmarkId::from_parameter(kernels.isa), |b| b.iter(|| run(kernels)));
    }
    group.finish();
}
