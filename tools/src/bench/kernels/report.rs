//! Figures of kernels as columns and as text.

use super::super::model::Model;
use super::super::output::{self, Format};
use super::super::probe::Roof;
use super::super::record::{COMMIT, Cell, Record};
use super::super::stats::Summary;
use super::super::values::Setting;
use super::super::work::Work;
use super::Shape;
use engine::KvType;

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Tokens that it computes.
    pub tokens: usize,
    /// Positions before them.
    pub start: usize,
}

impl Phase {
    /// `decode` for one token, `prefill` for many.
    pub fn name(&self) -> &'static str {
        if self.tokens == 1 { "decode" } else { "prefill" }
    }
}

/// A kernel's figures.
#[derive(Clone, Debug)]
pub struct KernelRow {
    /// The step that calls it.
    pub phase: Phase,
    /// The kernel and its shape.
    pub shape: Shape,
    /// Calls of it in such a step.
    pub calls: usize,
    /// Nanoseconds of a call.
    pub ns: Summary,
    /// What a call must read and compute.
    pub work: Work,
    /// Relative error against f64.
    pub error: f64,
    /// Its part of the time of all kernels of the step.
    pub share: f64,
    /// The roof to compare with.
    pub roof: Roof,
}

impl KernelRow {
    /// Gigabytes a second.
    pub fn read_rate(&self) -> f64 {
        self.work.bytes as f64 / self.ns.median
    }

    /// Thousand millions of operations a second.
    pub fn op_rate(&self) -> f64 {
        self.work.ops() as f64 / self.ns.median
    }

    /// Least time that the roof allows over the time taken.
    pub fn roof_share(&self) -> f64 {
        self.work.least_time(&self.roof) * 1e9 / self.ns.median
    }

    fn record(&self, model: &Model, setting: Setting) -> Record {
        let Roof { read, int8, float } = self.roof;
        let cells = vec![
            Cell::text("build_commit", COMMIT),
            Cell::text("model_filename", &model.path.to_string_lossy()),
            Cell::text("model_sha256", &model.sha256.hex()),
            Cell::text("kernels", setting.isa.name()),
            Cell::whole("n_threads", setting.threads as u64),
            Cell::text("precision", setting.precision.name()),
            Cell::text("step", self.phase.name()),
            Cell::whole("n_tokens", self.phase.tokens as u64),
            Cell::whole("n_start", self.phase.start as u64),
            Cell::text("kernel", self.shape.kernel()),
            Cell::text("format", &self.shape.format(setting.kv)),
            Cell::text("shape", &self.shape.sizes()),
            Cell::whole("calls", self.calls as u64),
            Cell::real("median_ns", self.ns.median),
            Cell::real("stddev_ns", self.ns.sd),
            Cell::real("ci_low_ns", self.ns.interval.low),
            Cell::real("ci_high_ns", self.ns.interval.high),
            Cell::whole("bytes", self.work.bytes),
            Cell::whole("ops_int8", self.work.int8),
            Cell::whole("ops_f32", self.work.float),
            Cell::real("gb_per_s", self.read_rate()),
            Cell::real("gflop_per_s", self.op_rate()),
            Cell::real("roof_share", self.roof_share()),
            Cell::real("step_share", self.share),
            Cell::real("error_f64", self.error),
            Cell::real("roof_read", read),
            Cell::real("roof_int8", int8),
            Cell::real("roof_f32", float),
        ];
        Record { cells, lists: vec![] }
    }

    fn cells(&self, kv: KvType) -> Vec<String> {
        vec![
            self.phase.name().into(),
            self.shape.kernel().into(),
            self.shape.format(kv),
            self.shape.sizes(),
            self.calls.to_string(),
            format!("{:.2}", self.ns.median / 1e3),
            format!("{:.1}", self.read_rate()),
            format!("{:.1}", self.op_rate()),
            format!("{:.0} %", self.roof_share() * 100.0),
            format!("{:.1} %", self.share * 100.0),
            format!("{:.1e}", self.error),
        ]
    }
}

/// Works out each kernel's part of its step.
pub fn shares(rows: &mut [KernelRow]) {
    let time = |row: &KernelRow| row.ns.median * row.calls as f64;
    let total = |phase| rows.iter().filter(|r| r.phase == phase).map(time).sum::<f64>();
    let shares: Vec<f64> = rows.iter().map(|row| time(row) / total(row.phase)).collect();
    rows.iter_mut().zip(shares).for_each(|(row, share)| row.share = share);
}

/// The figures of one model in a format.
pub fn write(format: Format, model: &Model, setting: Setting, rows: &[KernelRow]) -> String {
    if format != Format::Md {
        return output::data(
            format,
            "handmill_kernels",
            &rows.iter().map(|r| r.record(model, setting)).collect::<Vec<_>>(),
        );
    }
    let left = ["step", "kernel", "format", "shape"].map(|name| (name, false));
    let right = ["calls", "us", "GB/s", "GFLOP/s", "roof", "of step", "error"].map(|name| (name, true));
    let text = output::table(&[&left[..], &right].concat(), rows.iter().map(|r| r.cells(setting.kv)).collect());
    let roof = rows.first().map_or(Roof::default(), |r| r.roof);
    format!(
        "{}, {} threads, {} kernels; roof {:.1} GB/s, {:.0} GOP/s int8, {:.0} GFLOP/s f32\n\n{text}",
        model.kind,
        setting.threads,
        setting.isa.name(),
        roof.read / 1e9,
        roof.int8 / 1e9,
        roof.float / 1e9
    )
}
