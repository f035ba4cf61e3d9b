//! `handmill devices`: what there is is measured, its kernels are tested, and nothing is measured where nobody asks.

use engine::Device;
use engine::backend::Backend;
use engine::backend::gpu::adapter::open;
use serde_json::Value;
use tests::gpu;
use tests::process::handmill;
use tests::tiny::Model;

fn listed(flags: &[&str]) -> Vec<Value> {
    let store = tempfile::tempdir().expect("a folder");
    let run = handmill(&[&["devices", "--json"], flags].concat()).environment("HANDMILL_HOME", store.path());
    let json: Value = serde_json::from_str(&run.run().success()).expect("JSON");
    json["adapters"].as_array().expect("a list").clone()
}

#[test]
fn adapters_are_measured_and_their_kernels_tested() {
    let (there, _busy) = gpu::obtain();
    if there.is_empty() {
        return;
    }
    let able: Vec<Value> = listed(&[]).into_iter().filter(|a| a["lacks"].is_null()).collect();
    assert!(!able.is_empty(), "an adapter that kernels can run on");
    for a in able {
        assert!(a["fault"].is_null(), "{a}");
        assert!(a["read_bytes_per_second"].as_f64() > Some(1e8), "{a}");
        assert!(a["f32_flops_per_second"].as_f64() > Some(1e8), "{a}");
        let tests = a["tests"].as_array().expect("tests");
        assert!(tests.len() > 5, "{a}");
        for test in tests {
            assert!(test["used"] == false || test["nmse"].as_f64() < Some(1e-10), "{test}");
        }
    }
    for a in listed(&["--quick"]) {
        assert!(a["tests"].is_null() && a["read_bytes_per_second"].is_null(), "{a}");
    }
}

/// What shows whether a GPU is as fast as it was is work on that GPU, made once; an adapter that computes on the processor
/// leaves that to the processor.
#[test]
fn the_anchor_of_a_gpu_is_work_of_its_own() {
    let (adapters, _busy) = gpu::obtain();
    let bytes = Model::llama(3).bytes();
    for a in &adapters {
        // Every adapter as one that is a processor, and as one that is none.
        for kind in ["cpu", "discrete"] {
            let mut opened = open(&Device::Index(a.index)).unwrap_or_else(|error| panic!("{error}"));
            opened.description.kind = kind;
            let backend = gpu::load(opened, &bytes, 2).unwrap_or_else(|error| panic!("{error}"));
            let anchor = backend.anchor();
            assert_eq!(anchor.is_some(), kind != "cpu", "{} as {kind}", a.name);
            let Some(mut anchor) = anchor else { continue };
            let taken = || backend.opened().taken()[0];
            let model = taken();
            let first = anchor().unwrap_or_else(|error| panic!("{error}"));
            let made = taken();
            assert!(made >= model + (64 << 20), "{}: {model} bytes before, then {made}", a.name);
            let second = anchor().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(taken(), made, "{}: the second time takes no memory", a.name);
            for ns in [first.memory, first.arithmetic, second.memory, second.arithmetic] {
                assert!((1e6..1e10).contains(&ns), "{}: {first:?}, {second:?}", a.name);
            }
        }
    }
}
