//! `handmill devices`: what there is is measured, its kernels are tested, and nothing is measured where nobody asks.

use serde_json::Value;
use tests::gpu;
use tests::process::handmill;

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
