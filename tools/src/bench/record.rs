//! A result and its columns: one table that every machine-readable format loops over.
//!
//! The first columns are llama-bench's, with its names and types, so that scripts which read its output read this; a
//! column for what does not exist here holds llama-bench's default. Ours follow.

use super::bed::Cost;
use super::machine::Machine;
use super::measure::{Run, counted};
use super::model::Model;
use super::probe::Roof;
use super::stats::{Summary, quantile, sorted};
use super::values::{Setting, Test};
use super::work::Work;
use engine::backend::Info;
use engine::{GpuLayers, KvType};
use serde_json::{Value, json};

/// What all results of a sitting share.
#[derive(Clone, Debug)]
pub struct Sitting {
    /// The machine.
    pub machine: Machine,
    /// What it can do at most.
    pub roof: Roof,
    /// The adapter and its kernels; none for the processor.
    pub device: Option<Info>,
    /// When the sitting began, as RFC 3339 has it.
    pub time: String,
}

/// A measured case.
pub struct Row<'a> {
    /// The sitting.
    pub sitting: &'a Sitting,
    /// The model.
    pub model: &'a Model,
    /// What it was loaded with.
    pub setting: Setting,
    /// What loading took.
    pub cost: Cost,
    /// What was timed.
    pub test: Test,
    /// What each step had to read and compute.
    pub work: Vec<Work>,
    /// Every run.
    pub runs: Vec<Run>,
}

/// The figures of a row, worked out once.
pub struct Figures {
    /// Nanoseconds of each run that counts.
    pub ns: Vec<f64>,
    /// Tokens a second of each run that counts.
    pub ts: Vec<f64>,
    /// Their summaries.
    pub ns_summary: Summary,
    /// Their summaries.
    pub ts_summary: Summary,
    /// Runs that drifted.
    pub drifted: usize,
    /// All runs drifted: the figures are not to be trusted.
    pub unreliable: bool,
    /// Median nanoseconds until the logits of the prompt's last token.
    pub ttft: Option<f64>,
    /// Nanoseconds between generated tokens: quantiles 0.5, 0.95 and 0.99.
    pub gaps: Option<[f64; 3]>,
    /// Bytes read a token.
    pub bytes_per_token: f64,
    /// Least time that the roof allows over median time.
    pub roof_share: f64,
    /// The hash of the last logits, where all runs had the same.
    pub hash: Option<String>,
}

impl Row<'_> {
    /// What it ran on, in the words of llama-bench's column.
    pub fn backend(&self) -> &'static str {
        if self.sitting.device.is_some() { "WebGPU" } else { "CPU" }
    }

    /// The kernels that it ran.
    pub fn kernels(&self) -> &str {
        self.sitting.device.as_ref().map_or(self.setting.isa.name(), |device| &device.kernels)
    }

    /// Works out the figures; none if nothing ran.
    pub fn figures(&self) -> Option<Figures> {
        let (samples, unreliable) = counted(&self.runs);
        let tokens = self.test.tokens() as f64;
        let ns: Vec<f64> = samples.iter().map(|s| s.ns.max(1) as f64).collect();
        let ts: Vec<f64> = ns.iter().map(|ns| tokens * 1e9 / ns).collect();
        let (ns_summary, ts_summary) = (Summary::of(&ns)?, Summary::of(&ts)?);
        let firsts: Vec<f64> = samples.iter().filter_map(|s| s.first).map(|ns| ns as f64).collect();
        let steps = sorted(&samples.iter().flat_map(|s| &s.steps).map(|&ns| ns as f64).collect::<Vec<_>>());
        let roof = &self.sitting.roof;
        let least: f64 = self.work.iter().map(|w| w.least_time(roof)).sum();
        let bytes: u64 = self.work.iter().map(|w| w.bytes).sum();
        let mut hashes = self.runs.iter().map(|r| r.sample.hash);
        let first = hashes.next().flatten();
        Some(Figures {
            drifted: self.runs.iter().filter(|r| r.drifted).count(),
            unreliable,
            ttft: Summary::of(&firsts).map(|s| s.median),
            gaps: (!steps.is_empty()).then(|| [0.5, 0.95, 0.99].map(|q| quantile(&steps, q))),
            bytes_per_token: bytes as f64 / tokens,
            roof_share: least * 1e9 / ns_summary.median,
            hash: first.filter(|_| hashes.all(|h| h == first)).map(|h| h.hex()),
            ns,
            ts,
            ns_summary,
            ts_summary,
        })
    }
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A truth value.
    Bool,
    /// A whole number.
    Integer,
    /// A number.
    Real,
}

/// A column of results.
struct Column {
    name: &'static str,
    kind: Kind,
    /// Null where there is none.
    value: fn(&Row, &Figures) -> Value,
}

/// A value with its column.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Name of the column.
    pub name: &'static str,
    /// Type of the column.
    pub kind: Kind,
    /// The value; null where there is none.
    pub value: Value,
}

impl Cell {
    /// A text.
    pub fn text(name: &'static str, value: &str) -> Cell {
        Cell { name, kind: Kind::Text, value: json!(value) }
    }

    /// A whole number.
    pub fn whole(name: &'static str, value: u64) -> Cell {
        Cell { name, kind: Kind::Integer, value: json!(value) }
    }

    /// A number.
    pub fn real(name: &'static str, value: f64) -> Cell {
        Cell { name, kind: Kind::Real, value: json!(value) }
    }
}

/// A line of any table, ready for every machine-readable format.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// One cell a column.
    pub cells: Vec<Cell>,
    /// Lists, which only JSON can hold.
    pub lists: Vec<(&'static str, Vec<Value>)>,
}

impl Row<'_> {
    /// All columns and samples.
    pub fn record(&self, figures: &Figures) -> Record {
        let cell = |c: &Column| Cell { name: c.name, kind: c.kind, value: (c.value)(self, figures) };
        let drifted = self.runs.iter().filter(|r| r.drifted).map(|r| json!(r.sample.ns));
        Record {
            cells: COLUMNS.iter().map(cell).collect(),
            lists: vec![
                ("samples_ns", figures.ns.iter().map(|&ns| json!(ns as u64)).collect()),
                ("samples_ts", figures.ts.iter().map(|ts| json!(ts)).collect()),
                ("drifted_ns", drifted.collect()),
            ],
        }
    }
}

/// The commit that this program was built from, or `unknown`.
pub const COMMIT: &str = match option_env!("HANDMILL_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// How many commits led to it.
const BUILD: &str = match option_env!("HANDMILL_BUILD") {
    Some(number) => number,
    None => "0",
};

/// The number of this build.
pub fn build_number() -> u64 {
    BUILD.parse().unwrap_or(0)
}

/// How many layers run on a GPU, as llama-bench has it: -1 where none stays behind that has room.
fn layers(layers: GpuLayers) -> i64 {
    match layers {
        GpuLayers::Count(n) => n as i64,
        GpuLayers::All | GpuLayers::Fitting => -1,
    }
}

/// The word for the type of a KV cache.
pub fn kv_name(kv: KvType) -> &'static str {
    match kv {
        KvType::F16 => "f16",
        KvType::F32 => "f32",
    }
}

macro_rules! columns {
    ($($name:ident: $kind:ident = $value:expr;)*) => {
        &[$(Column { name: stringify!($name), kind: Kind::$kind, value: $value }),*]
    };
}

/// All columns, in order.
const COLUMNS: &[Column] = columns! {
    build_commit: Text = |_, _| json!(COMMIT);
    build_number: Integer = |_, _| json!(build_number());
    cpu_info: Text = |r, _| json!(r.sitting.machine.cpu);
    gpu_info: Text = |r, _| json!(r.sitting.device.as_ref().map_or("", |d| &d.device));
    backends: Text = |r, _| json!(r.backend());
    model_filename: Text = |r, _| json!(r.model.path.to_string_lossy());
    model_type: Text = |r, _| json!(r.model.kind);
    model_size: Integer = |r, _| json!(r.model.size);
    model_n_params: Integer = |r, _| json!(r.model.params);
    n_batch: Integer = |r, _| json!(r.setting.batch);
    n_ubatch: Integer = |r, _| json!(r.setting.ubatch);
    n_threads: Integer = |r, _| json!(r.setting.threads);
    cpu_mask: Text = |_, _| json!("0x0");
    cpu_strict: Bool = |_, _| json!(false);
    poll: Integer = |_, _| json!(50);
    type_k: Text = |r, _| json!(kv_name(r.setting.kv));
    type_v: Text = |r, _| json!(kv_name(r.setting.kv));
    n_gpu_layers: Integer = |r, _| json!(layers(r.setting.layers));
    n_cpu_moe: Integer = |_, _| json!(0);
    split_mode: Text = |_, _| json!("layer");
    main_gpu: Integer = |_, _| json!(0);
    no_kv_offload: Bool = |_, _| json!(false);
    flash_attn: Integer = |_, _| json!(1);
    devices: Text = |_, _| json!("auto");
    tensor_split: Text = |_, _| json!("0.00");
    tensor_buft_overrides: Text = |_, _| json!("none");
    load_mode: Text = |_, _| json!("none");
    lazy_mode: Text = |_, _| json!("none");
    use_mmap: Bool = |_, _| json!(false);
    embeddings: Bool = |_, _| json!(false);
    no_op_offload: Integer = |_, _| json!(0);
    no_host: Bool = |_, _| json!(false);
    repack: Bool = |_, _| json!(true);
    fit_target: Integer = |_, _| json!(0);
    fit_min_ctx: Integer = |_, _| json!(0);
    n_prompt: Integer = |r, _| json!(r.test.prompt);
    n_gen: Integer = |r, _| json!(r.test.generated);
    n_depth: Integer = |r, _| json!(r.test.depth);
    test_time: Text = |r, _| json!(r.sitting.time);
    avg_ns: Integer = |_, f| json!(f.ns_summary.mean.round() as u64);
    stddev_ns: Integer = |_, f| json!(f.ns_summary.sd.round() as u64);
    avg_ts: Real = |_, f| json!(f.ts_summary.mean);
    stddev_ts: Real = |_, f| json!(f.ts_summary.sd);
    engine: Text = |_, _| json!(concat!("handmill ", env!("CARGO_PKG_VERSION")));
    precision: Text = |r, _| json!(r.setting.precision.name());
    kernels: Text = |r, _| json!(r.kernels());
    cpu_features: Text = |r, _| json!(r.sitting.machine.features);
    model_sha256: Text = |r, _| json!(r.model.sha256.hex());
    logits_sha256: Text = |_, f| json!(f.hash);
    n_runs: Integer = |r, _| json!(r.runs.len());
    n_drifted: Integer = |_, f| json!(f.drifted);
    unreliable: Bool = |_, f| json!(f.unreliable);
    median_ns: Integer = |_, f| json!(f.ns_summary.median.round() as u64);
    median_ts: Real = |_, f| json!(f.ts_summary.median);
    ci_low_ts: Real = |_, f| json!(f.ts_summary.interval.low);
    ci_high_ts: Real = |_, f| json!(f.ts_summary.interval.high);
    ci_coverage: Real = |_, f| json!(f.ts_summary.interval.coverage);
    ttft_ns: Real = |_, f| json!(f.ttft);
    gap_p50_ns: Real = |_, f| json!(f.gaps.map(|g| g[0]));
    gap_p95_ns: Real = |_, f| json!(f.gaps.map(|g| g[1]));
    gap_p99_ns: Real = |_, f| json!(f.gaps.map(|g| g[2]));
    load_ns: Integer = |r, _| json!(r.cost.load);
    peak_memory: Integer = |r, _| json!(r.cost.peak);
    bytes_per_token: Real = |_, f| json!(f.bytes_per_token);
    roof_share: Real = |_, f| json!(f.roof_share);
    roof_read: Real = |r, _| json!(r.sitting.roof.read);
    roof_int8: Real = |r, _| json!(r.sitting.roof.int8);
    roof_f32: Real = |r, _| json!(r.sitting.roof.float);
};

#[cfg(test)]
#[path = "record_tests.rs"]
pub mod tests;
