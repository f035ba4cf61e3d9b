//! What GPU tests share: every adapter there is, software ones included, and one kernel at a time on made-up memory.

use crate::random::Random;
use crate::tiny::weights;
use engine::backend::gpu::adapter::{Opened, open};
use engine::backend::gpu::probe::{self, After, Memory, run};
use engine::backend::gpu::{GpuBackend, GpuOptions};
use engine::backend::{Backend, Description, Logits, adapters};
use engine::batch::Batch;
use engine::graph::Builder;
use engine::kv::PAGE;
use engine::plan::Plan;
use engine::spec::Spec;
use engine::{Device, KvType, Precision};
use gguf::Format;
use shaders::layout::{LANES, Layout};
use shaders::{Act, Kernel};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Set to 1, a machine without an adapter fails the tests instead of skipping them.
const REQUIRE: &str = "HANDMILL_REQUIRE_GPU";

/// Words that a name, interface or driver of an adapter must have for tests to run on it, in any case: `vulkan`, `gl`,
/// `swiftshader`.
const ONLY: &str = "HANDMILL_TEST_ADAPTER";

/// One test at a time has the adapters: drivers that compute on the processor share its memory and cores.
static BUSY: Mutex<()> = Mutex::new(());

/// Every adapter that the kernels can run on, for one test. Where there is none, the test is named on standard error
/// and should end.
///
/// # Panics
/// If there is none and `HANDMILL_REQUIRE_GPU` is 1.
pub fn obtain() -> (Vec<Description>, MutexGuard<'static, ()>) {
    let busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let all = adapters();
    let only = std::env::var(ONLY).unwrap_or_default().to_lowercase();
    let meant = |a: &&Description| format!("{} {} {}", a.name, a.api, a.driver).to_lowercase().contains(&only);
    let usable: Vec<Description> = all.iter().filter(|a| a.lacks.is_none()).filter(meant).cloned().collect();
    if usable.is_empty() {
        let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
        assert!(!required, "{REQUIRE} is 1 and no adapter can run the kernels, of {all:?}");
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        // Written past the capture of test output: a skipped test passes, and must say so all the same.
        let _ = writeln!(std::io::stderr(), "skipped: {test}: there is no adapter");
    }
    (usable, busy)
}

/// Normalized mean square error: of the difference to what is expected.
pub fn nmse(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values as expected");
    let error: f64 = found.iter().zip(expected).map(|(f, e)| (f - e) * (f - e)).sum();
    let power: f64 = expected.iter().map(|e| e * e).sum();
    if power == 0.0 { error } else { error / power }
}

/// Products of up to some hundred terms in f32.
pub const PRODUCT: f64 = 1e-11;
/// The same of numbers that are rounded to 11 bits first.
pub const HALVES: f64 = 1e-6;
/// Functions of a driver's own exp and tanh, which may be off by some 1e-6.
pub const FUNCTION: f64 = 1e-10;
/// Stands where nothing may write.
pub const SENTINEL: f32 = -7.25e30;

/// A model on an opened device, for batches of up to `tokens` tokens, all of whose logits are wanted.
///
/// # Errors
/// The backend's.
pub fn load(gpu: Opened, bytes: &[u8], tokens: usize) -> engine::Result<GpuBackend> {
    let gguf = gguf::Gguf::parse(bytes).expect("a sound model");
    let mut spec = Spec::from_meta(gguf.meta())?;
    spec.n_ctx = tokens;
    let graph = (spec.arch.build)(&spec, Builder::new(&spec, &gguf)?)?;
    GpuBackend::check(&graph)?;
    let limits = engine::plan::Limits { tokens, outputs: tokens, precision: Precision::F32 };
    let plan = Plan::compile(graph, limits, &|_, _, _| 0);
    let pages = tokens.div_ceil(PAGE);
    let options = GpuOptions {
        device: Device::Gpu,
        variant: None,
        kv: KvType::F32,
        pages,
        page_entries: pages,
        check_tensors: true,
        checks: None,
    };
    GpuBackend::load_on(gpu, plan, &gguf, &options, &mut |_, _| ())
}

/// The logits of all of some tokens.
///
/// # Errors
/// The backend's.
pub fn logits(backend: &mut GpuBackend, tokens: &[u32]) -> engine::Result<Vec<f32>> {
    let pages: Vec<u32> = (0..tokens.len().div_ceil(PAGE) as u32).collect();
    let mut batch = Batch::with_capacity(tokens.len(), pages.len());
    batch.push(tokens, 0, &pages, 0..tokens.len());
    match backend.run(&batch) {
        Logits::Ready(result) => result.expect("taken once").map(<[f32]>::to_vec),
        Logits::Later(_) => panic!("a step that waits for nobody"),
    }
}

/// Runs `check` on every adapter; what it returns are its failures.
///
/// # Panics
/// If there are some, or an adapter cannot be opened.
pub fn on_every_adapter(check: &dyn Fn(&Opened) -> Vec<String>) {
    let (adapters, _busy) = obtain();
    let mut failures = Vec::new();
    for a in &adapters {
        let gpu = open(&Device::Index(a.index)).unwrap_or_else(|error| panic!("{error}"));
        failures.extend(check(&gpu).into_iter().map(|row| format!("{} ({}): {row}", a.name, a.api)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Random numbers of [-1, 1).
pub fn floats(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.signed()).collect()
}

/// The head of an upload with `tokens` tokens, all of them wanted, and tables after it.
pub fn step(tokens: usize, tables: &[(usize, Vec<u32>)]) -> Vec<u32> {
    let mut words = vec![0; 64];
    (words[0], words[1]) = (tokens as u32, tokens as u32);
    for (field, table) in tables {
        words[*field] = (words.len() - 64) as u32;
        words.extend(table);
    }
    words
}

/// What of a result is off: its error, and sentinels that are gone.
pub fn compare(name: &str, found: &After, at: usize, expected: &[f64], allowed: f64) -> Option<String> {
    let (own, rest) = found.arena[at..].split_at(expected.len());
    let found: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
    let off = nmse(&found, expected);
    if !matches!(off.partial_cmp(&allowed), Some(std::cmp::Ordering::Less)) {
        return Some(format!("{name}: NMSE {off:.1e}, allowed {allowed:.0e}"));
    }
    rest.iter().any(|&v| v != SENTINEL).then(|| format!("{name}: wrote behind its output"))
}

/// What a kernel leaves.
///
/// # Panics
/// If the driver refuses it.
pub fn done(gpu: &Opened, kernel: Kernel, memory: &Memory, grid: [u32; 2]) -> After {
    run(gpu, kernel, memory, grid).unwrap_or_else(|error| panic!("{error}"))
}

/// Whether an adapter has what a kernel needs.
pub fn can(gpu: &Opened, kernel: Kernel) -> bool {
    let has = |feature| gpu.description.features.contains(&feature);
    let lanes = gpu.description.subgroup.map(|n| n as usize);
    (!kernel.needs_subgroups() || has("subgroups") && kernel.fits(lanes)) && (!kernel.needs_halves() || has("f16"))
}

/// [`probe::quantized`] where there is memory.
///
/// # Panics
/// If `k` is no multiple of 32.
pub fn quantized(x: &[f32], k: usize) -> (Vec<u32>, Vec<f64>) {
    probe::quantized(x, k).expect("memory")
}

/// A random matrix in the layout of the device, and its values.
pub struct Matrix {
    /// Quads, then words.
    pub packed: Vec<u32>,
    /// Where words begin.
    pub words: usize,
    /// Panels.
    pub panels: usize,
    /// The values.
    pub values: Vec<f32>,
}

/// A random matrix of `rows` rows for each of `experts`, which begin panels of their own.
///
/// # Panics
/// If the format has no layout, or `k` is no multiple of its blocks.
pub fn matrices(random: &mut Random, format: Format, [experts, rows, k]: [usize; 3]) -> Matrix {
    let layout = Layout::of(format).expect("a layout");
    let row = format.row_bytes(k as u64).expect("whole blocks") as usize;
    let bytes = weights(format, experts * rows * k, 1.0, random);
    let mut values = vec![0.0; experts * rows * k];
    format.decoder().expect("a decoder")(&bytes, &mut values);
    let panels = experts * rows.div_ceil(LANES);
    let (quads, words) = (layout.panel_quads(k), layout.panel_words(k));
    let mut packed = vec![0; panels * (quads + words)];
    let (all_quads, all_words) = packed.split_at_mut(panels * quads);
    let of_panels = bytes.chunks(rows * row).flat_map(|expert| expert.chunks(row * LANES));
    for (p, rows) in of_panels.enumerate() {
        layout.pack(k, rows, &mut all_quads[p * quads..][..quads], &mut all_words[p * words..][..words]);
    }
    Matrix { packed, words: panels * quads, panels, values }
}

/// A random matrix.
pub fn matrix(random: &mut Random, format: Format, rows: usize, k: usize) -> Matrix {
    matrices(random, format, [1, rows, k])
}

/// An activation function in f64.
pub fn activation(act: Act, x: f64) -> f64 {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    match act {
        Act::Silu => x * logistic(x),
        Act::GeluTanh => x * logistic(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)),
        Act::GeluErf => {
            // The error function by its series where that converges fast, and by its limit elsewhere.
            let z = x / 2f64.sqrt();
            let mut term = z;
            let mut sum = z;
            for n in 1..200 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            let erf = if z.abs() > 5.0 { z.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() };
            0.5 * x * (1.0 + erf)
        }
        Act::Relu => x.max(0.0),
        Act::ReluSquared => x.max(0.0).powi(2),
        Act::Sigmoid => logistic(x),
    }
}
