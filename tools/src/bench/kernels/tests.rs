//! Every kernel of a tiny model, against f64 and at all thread counts.

use super::super::output::Format;
use super::super::tiny;
use super::super::values::Setting;
use super::*;
use engine::kv::PAGE;
use engine::{GpuLayers, Isa, KvType, Precision};
use gguf::Gguf;

fn setting(precision: Precision, kv: KvType, isa: Isa) -> Setting {
    Setting {
        model: 0,
        batch: 2048,
        ubatch: 40,
        threads: 2,
        kv,
        precision,
        isa,
        gpu: None,
        layers: GpuLayers::All,
        gpu_precision: precision,
        variant: None,
    }
}

/// Calls `f` with the shapes of both kinds of steps of a tiny model.
fn with_cases(setting: Setting, mut f: impl FnMut(&Context, Phase, &Shape, usize)) {
    let bytes = tiny::model();
    let gguf = Gguf::parse(&bytes).unwrap();
    let spec = Spec::from_meta(gguf.meta()).unwrap();
    let graph = (spec.arch.build)(&spec, Builder::new(&spec, &gguf).unwrap()).unwrap();
    let kernels = Kernels::for_isa(setting.isa).unwrap();
    let context = Context { graph: &graph, source: &gguf, kernels, setting, spread: 10_000 };
    for phase in [Phase { tokens: 1, start: 2 * PAGE + 3 }, Phase { tokens: setting.chunk(), start: 0 }] {
        for (shape, calls) in cases::list(&graph, phase, setting) {
            f(&context, phase, &shape, calls);
        }
    }
}

/// What rounding allows, 128 times less for the 15 bits of two planes. 8-bit activations of values spread evenly over -1 to 1: steps of 1/127, so an error of
/// 1/127/sqrt(12) against a root mean square of 1/sqrt(3) is 0.4 %. A half float has 11 bits: 2^-12 at most, less on
/// average. Sums of hundreds of f32 products err by a few of their 2^-24.
fn allowed(shape: &Shape, setting: Setting) -> f64 {
    match (shape, setting.precision, setting.kv) {
        (Shape::MatMul { format, .. }, Precision::Q8, _) if *format != gguf::Format::F16 => 8e-3,
        (Shape::MatMul { format, .. }, Precision::Q16, _) if *format != gguf::Format::F16 => 8e-3 / 128.0,
        (Shape::Quantize { .. }, Precision::Q16, _) => 8e-3 / 128.0,
        (Shape::Quantize { .. }, ..) => 8e-3,
        (Shape::StoreKv { .. } | Shape::Attention { .. }, _, KvType::F16) => 5e-4,
        (Shape::Embed { .. }, ..) => 0.0,
        _ => 1e-6,
    }
}

#[test]
fn errors_are_those_of_rounding() {
    for isa in [Isa::Scalar, Isa::best()] {
        for (precision, kv) in
            [(Precision::Q8, KvType::F16), (Precision::Q16, KvType::F16), (Precision::F32, KvType::F32)]
        {
            let setting = setting(precision, kv, isa);
            with_cases(setting, |context, phase, shape, _| {
                let case = shape.build(context, phase).unwrap();
                let (error, most) = (case.error(), allowed(shape, setting));
                assert!(error <= most, "{} {} on {isa}: {error} is more than {most}", phase.name(), shape.name());
                let exact =
                    matches!(shape, Shape::Embed { .. }) || matches!(shape, Shape::StoreKv { .. }) && kv == KvType::F32;
                assert!(exact || error > 0.0, "{} {} on {isa} has no error at all", phase.name(), shape.name());
            });
        }
    }
}

#[test]
fn shares_run_with_any_number_of_workers() {
    let setting = setting(Precision::Q8, KvType::F16, Isa::best());
    for workers in [1, 3] {
        let pool = Pool::new(workers).unwrap();
        with_cases(setting, |context, phase, shape, _| {
            let case = shape.build(context, phase).unwrap();
            batch(&pool, &shares(&pool, &*case), 5, 3).unwrap();
            let work = case.work();
            assert!(work.bytes + work.ops() > 0, "{}", shape.name());
        });
    }
}

#[test]
fn a_step_calls_what_its_graph_says() {
    let mut found = vec![];
    with_cases(setting(Precision::Q8, KvType::F16, Isa::best()), |_, phase, shape, calls| {
        found.push(format!("{} {} {} {calls}", phase.name(), shape.format(KvType::F16), shape.name()));
    });
    let has = |line: &str| assert!(found.iter().any(|f| f == line), "{line} is not in {found:#?}");
    // Two layers; queries and outputs of one shape, keys and values of another.
    has("decode q8_0 matmul 64x64 x 1 2");
    has("decode q4_1 matmul 32x64 x 1 2");
    has("decode f16 matmul 64x96 x 1 1");
    has("decode f32 rms_norm 64 x 1 5");
    has("decode f16 attention 4/2 x 16 x 1 @ 67 2");
    has("prefill q8_0 matmul 32x64 x 40 2");
    // The last layer's feed-forward and the logits are wanted for one token alone.
    has("prefill q8_0 matmul 40x64 x 1 1");
    has("prefill f32 gated 96 x 40 1");
    has("prefill f32 gated 96 x 1 1");
    assert!(!found.iter().any(|f| f.contains("quantize 96 x 1 2")), "F16 weights meet activations as they are");
}

#[test]
fn figures_of_kernels() {
    let row = |calls, ns| KernelRow {
        phase: Phase { tokens: 1, start: 512 },
        shape: Shape::Quantize { k: 64, columns: 1 },
        calls,
        ns: Summary::of(&[ns]).unwrap(),
        work: Work { bytes: 4000, int8: 1000, float: 1000 },
        error: f64::NAN,
        share: 0.0,
        roof: Roof { read: 4e9, int8: 1e12, float: 1e12 },
    };
    let mut rows = vec![row(1, 2000.0), row(3, 2000.0)];
    report::shares(&mut rows);
    assert_eq!((rows[0].share, rows[1].share), (0.25, 0.75));
    assert_eq!((rows[0].read_rate(), rows[0].op_rate(), rows[0].roof_share()), (2.0, 1.0, 0.5));
    let model = super::super::record::tests::model();
    let setting = setting(Precision::Q8, KvType::F16, Isa::best());
    let text = write(Format::Md, &model, setting, &rows);
    assert!(text.contains("| decode | quantize | f32") && text.contains("50 %") && text.contains("75.0 %"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&write(Format::Json, &model, setting, &rows)).unwrap();
    assert_eq!((&json[1]["calls"], &json[1]["error_f64"]), (&serde_json::json!(3), &serde_json::Value::Null));
    assert!(write(Format::Sql, &model, setting, &rows).contains("CREATE TABLE IF NOT EXISTS handmill_kernels"));
}

#[test]
fn the_error_function_is_that_of_tables() {
    for (x, erf) in
        [(0.0, 0.0), (0.5, 0.520_499_877_8), (1.0, 0.842_700_792_9), (2.0, 0.995_322_265_0), (-1.0, -0.842_700_792_9)]
    {
        let found = rows::error_function(x);
        // The table's ten digits.
        assert!((found - erf).abs() < 1e-10, "{x}: {found}");
    }
}
