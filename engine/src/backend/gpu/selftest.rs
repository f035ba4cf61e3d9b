//! Whether this driver computes what the kernels say: every variant that a model would use, on small random input,
//! against f64 arithmetic of the processor. A variant that is off is not used.
//!
//! What was found is kept in a folder, by adapter, driver with its version, and the kernel's text, so that it is computed
//! once for each of them.

mod measure;

use super::adapter::Opened;
use super::{GpuOptions, keep};
use crate::backend::{Check, Variant};
use crate::error::{Error, Result};
use crate::graph::Op;
use crate::plan::{Plan, integer_product};
use gguf::Format;
use shaders::{BLOCKS, Kernel, Reducing, Walk, Way};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Sums of some hundred products in f32.
const ALLOWED: f64 = 1e-10;
/// The same of numbers that are rounded to 11 bits first.
const ALLOWED_HALVES: f64 = 1e-6;

/// Takes the variant that a model's options ask for and tests its kernels.
///
/// # Errors
/// The adapter lacks what the variant needs, a kernel that there is no other for is off, or the device is lost.
pub fn prepare(gpu: &mut Opened, plan: &Plan, options: &GpuOptions) -> Result<Vec<Check>> {
    if let Some(variant) = options.variant {
        gpu.take(variant)?;
    }
    let Some(folder) = &options.checks else { return Ok(vec![]) };
    let graph = plan.graph();
    let mut formats: [Vec<Format>; 2] = [vec![], vec![]];
    for op in &graph.ops {
        if let Op::MatMul { weight, .. } = op {
            let format = graph.weights[weight.0 as usize].format;
            let own = &mut formats[usize::from(integer_product(format, plan.limits().precision))];
            if !own.contains(&format) {
                own.push(format);
            }
        }
    }
    let [floats, codes] = formats;
    let mut checks = choose(gpu, &floats, options.half(), folder)?;
    checks.extend(dots(gpu, &codes, folder)?);
    match options.variant {
        Some(asked) if asked != gpu.description.variant => {
            let detail = format!("{asked} kernels cannot be used: {}", gpu.description.why);
            Err(gpu.error(detail, "update the driver, or leave --variant away"))
        }
        _ => Ok(checks),
    }
}

/// Tests what an adapter would get for common formats.
///
/// # Errors
/// As [`prepare`].
pub fn common(gpu: &mut Opened, folder: &Path) -> Result<Vec<Check>> {
    let mut checks = choose(gpu, &[Format::Q4K, Format::Q8_0, Format::F16], true, folder)?;
    checks.extend(dots(gpu, &[Format::Q4K, Format::Q8_0], folder)?);
    Ok(checks)
}

/// Tests the kernels of the variant that an adapter has for some formats and for a cache of half floats or of
/// floats, and takes the next simpler one where one is off.
fn choose(gpu: &mut Opened, formats: &[Format], half: bool, folder: &Path) -> Result<Vec<Check>> {
    let mut kept = Kept::open(gpu, folder);
    let mut all = vec![];
    loop {
        let before = all.len();
        for &format in formats {
            for &columns in gpu.way.columns() {
                all.push(kept.check(gpu, Kernel::MatMul { format, columns, way: gpu.way })?);
            }
        }
        let Some(bad) = all[before..].iter().find(|check| !check.good) else { break };
        let simpler = match gpu.description.variant {
            Variant::NarrowSubgroup => Variant::Narrow,
            Variant::Narrow | Variant::Subgroup | Variant::F16 => Variant::Baseline,
            Variant::Baseline => return Err(wrong(gpu, bad, "or use another device (--device cpu)")),
        };
        let why = format!("its driver computes {} wrongly, error {:.1e}", bad.kernel, bad.error);
        gpu.change(simpler, why)?;
    }
    let before = all.len();
    for kernel in beside_products(gpu, half) {
        all.push(kept.check(gpu, kernel)?);
    }
    gpu.rows_in_subgroups = all[before..].iter().all(|check| check.good);
    kept.save();
    Ok(all)
}

/// The kernels beside products that use subgroups on an adapter.
fn beside_products(gpu: &Opened, half: bool) -> Vec<Kernel> {
    match gpu.subgroup() {
        Some(subgroup) => {
            let attention = BLOCKS.map(|blocks| Kernel::AttentionNarrow { half, subgroup, blocks });
            [Kernel::RmsNormNarrow(subgroup)].into_iter().chain(attention).collect()
        }
        None if gpu.eights() => {
            let norms = Walk::ALL.into_iter().flat_map(|walk| [Reducing::RmsNorm(walk), Reducing::LayerNorm(walk)]);
            norms.chain([Reducing::Best { merge: false }]).map(Kernel::Eights).collect()
        }
        None => vec![],
    }
}

/// Tests the integer products of some formats.
fn dots(gpu: &Opened, formats: &[Format], folder: &Path) -> Result<Vec<Check>> {
    let (mut kept, mut all) = (Kept::open(gpu, folder), vec![]);
    if !formats.is_empty() {
        all.push(kept.check(gpu, Kernel::Quantize)?);
    }
    let way = Way::Dot;
    for (&format, &columns) in formats.iter().flat_map(|f| way.columns().iter().map(move |columns| (f, columns))) {
        all.push(kept.check(gpu, Kernel::MatMul { format, columns, way })?);
    }
    kept.save();
    match all.iter().find(|check| !check.good) {
        Some(bad) => Err(wrong(gpu, bad, "or use --precision f32")),
        None => Ok(all),
    }
}

fn wrong(gpu: &Opened, bad: &Check, hint: &'static str) -> Error {
    let detail = format!("its driver computes {} wrongly: error {:.1e}; update the driver", bad.kernel, bad.error);
    gpu.error(detail, hint)
}

/// Results of earlier tests.
struct Kept {
    path: PathBuf,
    errors: BTreeMap<String, f64>,
    changed: bool,
}

impl Kept {
    fn open(gpu: &Opened, folder: &Path) -> Kept {
        let path = keep::path(folder, "checks", &keep::driver(gpu), "json");
        let errors = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Kept { path, errors: errors.unwrap_or_default(), changed: false }
    }

    fn check(&mut self, gpu: &Opened, kernel: Kernel) -> Result<Check> {
        let key = format!("{} {:016x}", kernel.name(), keep::hash(&kernel.wgsl()));
        let known = self.errors.get(&key).copied();
        let error = match known {
            Some(error) => error,
            None => measure::error(gpu, kernel)?,
        };
        // JSON has no infinity; a kernel that was refused is tried again.
        if known.is_none() && error.is_finite() {
            self.errors.insert(key, error);
            self.changed = true;
        }
        let allowed = if kernel.needs_halves() { ALLOWED_HALVES } else { ALLOWED };
        Ok(Check { kernel: kernel.name(), error, good: error < allowed, fresh: known.is_none() })
    }

    /// Keeps what is new.
    fn save(&self) {
        if self.changed
            && let Ok(text) = serde_json::to_vec_pretty(&self.errors)
        {
            keep::keep(&self.path, &text);
        }
    }
}
