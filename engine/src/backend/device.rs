//! Which device a model runs on: the words that people choose it by, and what is known of each.

use super::{Reach, Variant};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The device that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The best GPU, which is never an adapter that computes on the processor.
    Gpu,
    /// The adapter at this place of the list.
    Index(usize),
    /// The first adapter whose name has these words, in any case.
    Name(String),
}

impl Device {
    /// Whether it is the processor.
    pub fn is_cpu(&self) -> bool {
        *self == Device::Cpu
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(word: &str) -> Result<Device, String> {
        match word.trim() {
            "" => Err("expected cpu, gpu, a number or a name of `handmill devices`".into()),
            "cpu" => Ok(Device::Cpu),
            "gpu" => Ok(Device::Gpu),
            word => Ok(word.parse().map_or_else(|_| Device::Name(word.to_string()), Device::Index)),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu => f.write_str("gpu"),
            Device::Index(i) => write!(f, "{i}"),
            Device::Name(name) => f.write_str(name),
        }
    }
}

/// How many of a model's layers run on the GPU that is asked for: the last ones, with the output. The rest, with the
/// embeddings, runs on the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GpuLayers {
    /// All, or none where the device is the processor.
    #[default]
    All,
    /// So many; all where the model has no more.
    Count(usize),
    /// As many as it has room for.
    Fitting,
}

impl FromStr for GpuLayers {
    type Err = String;

    fn from_str(word: &str) -> Result<GpuLayers, String> {
        match (word.trim(), word.trim().parse()) {
            ("-1", _) => Ok(GpuLayers::Fitting),
            (_, Ok(n)) => Ok(GpuLayers::Count(n)),
            _ => Err("expected a number of layers, or -1 for as many as there is room for".into()),
        }
    }
}

impl fmt::Display for GpuLayers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GpuLayers::All => f.write_str("all"),
            GpuLayers::Count(n) => write!(f, "{n}"),
            GpuLayers::Fitting => f.write_str("-1"),
        }
    }
}

/// What an adapter is, a GPU or what passes for one.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its place in the list.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// `discrete`, `integrated`, `virtual`, `cpu` or `other`.
    pub kind: &'static str,
    /// `vulkan`, `metal`, `dx12` or `gl`.
    pub api: String,
    /// The driver and its version.
    pub driver: String,
    /// Features that kernels make use of.
    pub features: Vec<&'static str>,
    /// Smallest and largest subgroup.
    pub subgroup: [u32; 2],
    /// Most bytes of a buffer, and of one binding.
    pub buffer: [u64; 2],
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// The variant of the kernels that it gets where nobody asks for another, and after tests that one which passed.
    pub variant: Variant,
    /// Why that one.
    pub why: String,
    /// The variants that it cannot have, and what it lacks.
    pub without: Vec<(Variant, String)>,
    /// Why the kernels cannot run on it; none if they can.
    pub lacks: Option<String>,
}

/// Every adapter of this machine in the order of their numbers, those that compute on the processor included; none
/// where the program was built without GPUs.
pub fn adapters() -> Vec<Description> {
    #[cfg(all(feature = "gpu", not(target_family = "wasm")))]
    return super::gpu::adapter::adapters();
    #[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
    vec![]
}

/// What came of a kernel's test.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The kernel's name.
    pub kernel: String,
    /// Normalized mean square error; infinite where the driver refused it.
    pub error: f64,
    /// Whether it may be used.
    pub good: bool,
    /// Whether it was tested now, not read from the folder.
    pub fresh: bool,
}

/// How tests of kernels went, in words.
pub fn tested(checks: &[Check]) -> String {
    let off: Vec<&str> = checks.iter().filter(|c| !c.good).map(|c| c.kernel.as_str()).collect();
    let worst = checks.iter().filter(|c| c.good).map(|c| c.error).fold(0.0, f64::max);
    let good = format!("{} tested, error at most {worst:.0e}", checks.len() - off.len());
    if off.is_empty() { good } else { format!("{good}; off and not used: {}", off.join(" ")) }
}

/// What an adapter was seen to do.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The variant that it gets, and why, after the tests.
    pub variant: (Variant, String),
    /// What came of the tests of its kernels for Q4_K, Q8_0 and F16.
    pub checks: Vec<Check>,
    /// What it does at most.
    pub reach: Reach,
}

/// Tests the kernels that an adapter would get for common formats, and measures what it does at most: a second or two.
/// Tests that were passed before are read from `folder`.
///
/// # Errors
/// There is no such adapter, it computes even the simplest kernels wrongly, or it is lost.
pub fn measure(wanted: &Device, folder: &Path) -> crate::Result<Measured> {
    #[cfg(all(feature = "gpu", not(target_family = "wasm")))]
    return super::gpu::measure(wanted, folder);
    #[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
    {
        let _ = folder;
        Err(without_gpus(wanted))
    }
}

/// The number of the adapter that is meant.
///
/// # Errors
/// There is no such adapter; for the processor, which has no number, too.
pub fn number(wanted: &Device) -> crate::Result<usize> {
    #[cfg(all(feature = "gpu", not(target_family = "wasm")))]
    return super::gpu::adapter::choose(wanted, &adapters());
    #[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
    Err(without_gpus(wanted))
}

/// What there is to say of a device where the program has no part for GPUs.
#[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
pub(crate) fn without_gpus(wanted: &Device) -> crate::Error {
    crate::Error::Option {
        name: "--device",
        found: wanted.to_string(),
        expected: "cpu: this program was built without GPUs (cargo feature gpu)".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_devices() {
        for (word, device) in [
            ("cpu", Device::Cpu),
            ("gpu", Device::Gpu),
            ("0", Device::Index(0)),
            ("12", Device::Index(12)),
            ("llvmpipe", Device::Name("llvmpipe".into())),
            ("RTX 4090", Device::Name("RTX 4090".into())),
        ] {
            assert_eq!(word.parse(), Ok(device.clone()));
            assert_eq!(device.to_string(), word);
        }
        assert!(" ".parse::<Device>().is_err());
        for (word, layers) in [("-1", GpuLayers::Fitting), ("0", GpuLayers::Count(0)), ("17", GpuLayers::Count(17))] {
            assert_eq!(word.parse(), Ok(layers));
            assert_eq!(layers.to_string(), word);
        }
        assert!("-2".parse::<GpuLayers>().is_err() && "all".parse::<GpuLayers>().is_err());
    }
}
