//! `bench --kernels` on a GPU: a step with every dispatch between two timestamps, added up by kernel.

use super::super::bed::Bed;
use super::super::model::Model;
use super::super::output::{self, Format};
use super::super::probe::Roof;
use super::super::record::{COMMIT, Cell, Record};
use super::super::stats::Summary;
use super::super::values::Setting;
use super::report::Phase;
use crate::error::{Error, Result};
use engine::backend::{KernelTime, Replay};
use std::collections::BTreeMap;

/// So often is a step timed; medians count.
const STEPS: usize = 9;

/// A kernel's figures in a kind of step.
struct DeviceRow {
    phase: Phase,
    kernel: String,
    calls: usize,
    /// Nanoseconds of a call.
    ns: Summary,
    /// Bytes of weights of a call.
    bytes: f64,
    share: f64,
}

/// Measures the kernels of a model on its adapter and writes them in a format.
///
/// # Errors
/// The adapter has no timestamps, or a step fails.
pub fn run(format: Format, model: &Model, bed: &mut Bed, depth: usize) -> Result<String> {
    let roof = bed.roof()?.unwrap_or_default();
    let setting = bed.setting();
    let mut rows = vec![];
    let mut heads = vec![];
    for phase in [Phase { tokens: 1, start: depth }, Phase { tokens: setting.chunk(), start: 0 }] {
        let mut steps = vec![];
        let mut replays = vec![];
        for _ in 0..STEPS {
            let Some(times) = bed.times(phase.start, phase.start + phase.tokens)? else {
                let name = bed_name(bed);
                return Err(Error::Usage(format!("{name} has no timestamps: its kernels cannot be timed")));
            };
            steps.push(times);
            replays.extend(bed.replay(phase.start, phase.start + phase.tokens)?);
        }
        heads.push(head(phase, &replays));
        rows.extend(summarize(phase, &steps));
    }
    if format != Format::Md {
        let records: Vec<Record> = rows.iter().map(|row| row.record(model, setting, bed, roof)).collect();
        return Ok(output::data(format, "handmill_kernels", &records));
    }
    let left = ["step", "kernel"].map(|name| (name, false));
    let right = ["calls", "us", "GB/s", "roof", "of step"].map(|name| (name, true));
    let table = output::table(&[&left[..], &right].concat(), rows.iter().map(|row| row.cells(roof)).collect());
    let (read, float) = (roof.read / 1e9, roof.float / 1e9);
    let name = bed_name(bed);
    Ok(format!("{}, {name}; roof {read:.1} GB/s, {float:.0} GFLOP/s f32\n{}\n{table}", model.kind, heads.concat()))
}

fn bed_name(bed: &Bed) -> String {
    bed.info().device
}

/// What replaying a kind of step takes.
fn head(phase: Phase, replays: &[Replay]) -> String {
    let encode: Vec<f64> = replays.iter().map(|r| r.encode.as_secs_f64() * 1e3).collect();
    let Some((first, encode)) = replays.first().zip(Summary::of(&encode)) else { return String::new() };
    format!(
        "{}: {} dispatches, {:.1} MB of weights, encoded and submitted in {:.2} ms\n",
        phase.name(),
        first.dispatches,
        first.bytes as f64 / 1e6,
        encode.median
    )
}

/// Each kernel's figures over some steps of one kind.
fn summarize(phase: Phase, steps: &[Vec<KernelTime>]) -> Vec<DeviceRow> {
    let mut kernels: BTreeMap<&str, (usize, u64, Vec<f64>)> = BTreeMap::new();
    for step in steps {
        let mut sums: BTreeMap<&str, (usize, u64, f64)> = BTreeMap::new();
        for time in step {
            let sum = sums.entry(&time.kernel).or_default();
            *sum = (sum.0 + 1, sum.1 + time.bytes, sum.2 + time.ns);
        }
        for (kernel, (calls, bytes, ns)) in sums {
            let all = kernels.entry(kernel).or_insert((calls, bytes, vec![]));
            all.2.push(ns / calls as f64);
        }
    }
    let mut rows: Vec<DeviceRow> = kernels
        .into_iter()
        .filter_map(|(kernel, (calls, bytes, ns))| {
            let (ns, bytes) = (Summary::of(&ns)?, bytes as f64 / calls as f64);
            Some(DeviceRow { phase, kernel: kernel.to_string(), calls, ns, bytes, share: 0.0 })
        })
        .collect();
    let total: f64 = rows.iter().map(|row| row.ns.median * row.calls as f64).sum();
    rows.iter_mut().for_each(|row| row.share = row.ns.median * row.calls as f64 / total);
    rows
}

impl DeviceRow {
    fn read_rate(&self) -> f64 {
        self.bytes / self.ns.median
    }

    /// Least time that reading the weights takes over the time taken.
    fn roof_share(&self, roof: Roof) -> f64 {
        self.read_rate() * 1e9 / roof.read
    }

    fn cells(&self, roof: Roof) -> Vec<String> {
        let read = self.bytes > 0.0;
        vec![
            self.phase.name().into(),
            self.kernel.clone(),
            self.calls.to_string(),
            format!("{:.2}", self.ns.median / 1e3),
            if read { format!("{:.1}", self.read_rate()) } else { String::new() },
            if read { format!("{:.0} %", self.roof_share(roof) * 100.0) } else { String::new() },
            format!("{:.1} %", self.share * 100.0),
        ]
    }

    /// Columns by the names of those of the processor's kernels.
    fn record(&self, model: &Model, setting: Setting, bed: &Bed, roof: Roof) -> Record {
        let cells = vec![
            Cell::text("build_commit", COMMIT),
            Cell::text("model_filename", &model.path.to_string_lossy()),
            Cell::text("model_sha256", &model.sha256.hex()),
            Cell::text("kernels", &bed.info().kernels),
            Cell::text("gpu_info", &bed_name(bed)),
            Cell::text("precision", setting.precision.name()),
            Cell::text("step", self.phase.name()),
            Cell::whole("n_tokens", self.phase.tokens as u64),
            Cell::whole("n_start", self.phase.start as u64),
            Cell::text("kernel", &self.kernel),
            Cell::whole("calls", self.calls as u64),
            Cell::real("median_ns", self.ns.median),
            Cell::real("stddev_ns", self.ns.sd),
            Cell::real("ci_low_ns", self.ns.interval.low),
            Cell::real("ci_high_ns", self.ns.interval.high),
            Cell::whole("bytes", self.bytes as u64),
            Cell::real("gb_per_s", self.read_rate()),
            Cell::real("roof_share", self.roof_share(roof)),
            Cell::real("step_share", self.share),
            Cell::real("roof_read", roof.read),
            Cell::real("roof_f32", roof.float),
        ];
        Record { cells, lists: vec![] }
    }
}
