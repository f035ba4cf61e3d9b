//! A row whose figures are known, and its figures.

use super::super::measure::{Level, Sample};
use super::*;
use crate::store::Digest;
use engine::{GpuLayers, Isa, Precision};

/// A sitting on a machine with round figures.
pub fn sitting() -> Sitting {
    Sitting {
        machine: Machine { cpu: "A \"fast\" one".into(), features: "a,b".into(), cache: None },
        roof: Roof { read: 10e9, int8: 1000e9, float: 100e9 },
        device: None,
        time: "2026-01-31T08:15:00Z".into(),
    }
}

/// A model.
pub fn model() -> Model {
    Model {
        path: "/somewhere/it's.gguf".into(),
        kind: "llama 135M Q4_1".into(),
        size: 90 << 20,
        params: 134_515_008,
        sha256: Digest::of(b"model"),
    }
}

/// A run of so many milliseconds.
pub fn run(ms: u64, drifted: bool) -> Run {
    let sample =
        Sample { ns: ms * 1_000_000, first: None, steps: vec![ms * 500_000; 2], hash: Some(Digest::of(b"logits")) };
    Run { sample, level: Level { memory: 1.0, arithmetic: 1.0 }, drifted }
}

/// Two tokens that each read 100 MB, in 20, 25 and 40 milliseconds, and once, drifted, in 400.
pub fn row<'a>(sitting: &'a Sitting, model: &'a Model) -> Row<'a> {
    Row {
        sitting,
        model,
        setting: Setting {
            model: 0,
            batch: 2048,
            ubatch: 512,
            threads: 2,
            kv: KvType::F16,
            precision: Precision::Q8,
            isa: Isa::best(),
            gpu: None,
            layers: GpuLayers::All,
            gpu_precision: Precision::F32,
            variant: None,
        },
        cost: Cost { load: 5_000_000, peak: None },
        test: Test { prompt: 0, generated: 2, depth: 16 },
        work: vec![Work { bytes: 100_000_000, int8: 0, float: 0 }; 2],
        runs: vec![run(20, false), run(400, true), run(25, false), run(40, false)],
    }
}

#[test]
fn figures() {
    let (sitting, model) = (sitting(), model());
    let f = row(&sitting, &model).figures().unwrap();
    assert_eq!(f.ns, [20e6, 25e6, 40e6]);
    assert_eq!(f.ts, [100.0, 80.0, 50.0]);
    assert_eq!((f.ts_summary.median, f.ts_summary.interval.low, f.ts_summary.interval.high), (80.0, 50.0, 100.0));
    assert_eq!((f.drifted, f.unreliable), (1, false));
    assert_eq!((f.ttft, f.gaps), (None, Some([12.5e6, 20e6, 20e6])));
    // 10 ms for each token at 10 GB/s.
    assert_eq!((f.bytes_per_token, f.roof_share), (1e8, 0.8));
    assert_eq!(f.hash, Some(Digest::of(b"logits").hex()));
}

#[test]
fn what_cannot_be_trusted_says_so() {
    let (sitting, model) = (sitting(), model());
    let mut row = row(&sitting, &model);
    row.runs[2].sample.hash = Some(Digest::of(b"others"));
    assert_eq!(row.figures().unwrap().hash, None);
    row.runs.iter_mut().for_each(|r| r.drifted = true);
    assert!(row.figures().unwrap().unreliable);
    row.runs.clear();
    assert!(row.figures().is_none());
}

#[test]
fn columns_have_their_types_and_are_listed_once() {
    let (sitting, model) = (sitting(), model());
    let row = row(&sitting, &model);
    let f = row.figures().unwrap();
    for (i, c) in COLUMNS.iter().enumerate() {
        assert!(COLUMNS[..i].iter().all(|d| d.name != c.name), "{} twice", c.name);
        let fits = match (c.value)(&row, &f) {
            Value::Null => true,
            Value::String(_) => c.kind == Kind::Text,
            Value::Bool(_) => c.kind == Kind::Bool,
            Value::Number(n) => c.kind == Kind::Real || c.kind == Kind::Integer && !n.is_f64(),
            _ => false,
        };
        assert!(fits, "{}", c.name);
    }
}

/// The names that llama-bench has, all of them and in its order; `use_mmap` is from before it had load modes.
#[test]
fn llama_bench_columns_come_first() {
    let theirs = "build_commit build_number cpu_info gpu_info backends model_filename model_type model_size model_n_params n_batch \
        n_ubatch n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers n_cpu_moe split_mode main_gpu no_kv_offload flash_attn \
        devices tensor_split tensor_buft_overrides load_mode lazy_mode use_mmap embeddings no_op_offload no_host repack fit_target \
        fit_min_ctx n_prompt n_gen n_depth test_time avg_ns stddev_ns avg_ts stddev_ts";
    let ours: Vec<&str> = COLUMNS.iter().map(|c| c.name).collect();
    let theirs: Vec<&str> = theirs.split_whitespace().collect();
    assert_eq!(ours[..theirs.len()], theirs);
}
