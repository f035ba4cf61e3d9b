//! What the operating system says about this machine and this process. Where it says nothing, there is nothing: no
//! number is guessed.

use std::fs;

/// The processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub cpu: String,
    /// Its instruction set extensions that kernels may use, with commas between.
    pub features: String,
    /// Bytes of its largest cache.
    pub cache: Option<u64>,
}

impl Machine {
    /// This machine.
    pub fn this() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu_name(&cpuinfo).unwrap_or_else(|| std::env::consts::ARCH.to_string());
        Machine { cpu, features: features().join(","), cache: largest_cache() }
    }
}

/// The name in the text of `/proc/cpuinfo`; ARM machines have several keys for it, or none.
fn cpu_name(cpuinfo: &str) -> Option<String> {
    let keys = ["model name", "Model", "Hardware", "Processor", "cpu model", "uarch"];
    let value = |key: &str| {
        let mut pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(k, v)| k.trim() == key && !v.trim().is_empty()).map(|(_, v)| v.trim().to_string())
    };
    keys.iter().find_map(|key| value(key))
}

/// The extensions found.
#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    macro_rules! found {
        ($($name:tt),*) => { [$(($name, is_x86_feature_detected!($name))),*] };
    }
    let all = found![
        "sse4.2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avxvnni",
        "avx512f",
        "avx512bw",
        "avx512dq",
        "avx512vl",
        "avx512vnni",
        "avx512vbmi",
        "avx512bf16",
        "avx512fp16",
        "avxvnniint8"
    ];
    all.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect()
}

/// The extensions found.
#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    macro_rules! found {
        ($($name:tt),*) => { [$(($name, std::arch::is_aarch64_feature_detected!($name))),*] };
    }
    let all = found!["neon", "dotprod", "fp16", "i8mm", "bf16", "sve", "sve2"];
    all.into_iter().filter(|(_, found)| *found).map(|(name, _)| name).collect()
}

/// None known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    vec![]
}

fn largest_cache() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|c| fs::read_to_string(c.ok()?.path().join("size")).ok());
    sizes.filter_map(|text| cache_bytes(text.trim())).max()
}

/// Bytes of `105M`, `2048K` or `512`.
fn cache_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Bytes of this process in memory: now, and at most since the start or [`forget_peak`].
pub fn memory() -> Option<(u64, u64)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some((kilobytes(&status, "VmRSS")?, kilobytes(&status, "VmHWM")?))
}

/// Lets the peak start again from what is in memory now. False where the system cannot.
pub fn forget_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The bytes that a line `KEY: N kB` gives.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let intel =
            "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 143\nmodel name\t: Some(R) Processor @ 2 GHz\n";
        assert_eq!(cpu_name(intel).as_deref(), Some("Some(R) Processor @ 2 GHz"));
        let arm = "processor\t: 0\nBogoMIPS\t: 108\nCPU implementer\t: 0x41\n\nModel\t\t: Raspberry Pi 5 Model B\n";
        assert_eq!(cpu_name(arm).as_deref(), Some("Raspberry Pi 5 Model B"));
        assert_eq!(cpu_name("model name :\n"), None);
        assert!(!Machine::this().cpu.is_empty());
    }

    #[test]
    fn sizes() {
        let cases = [
            ("105M", Some(105 << 20)),
            ("2048K", Some(2 << 20)),
            ("512", Some(512)),
            ("1G", Some(1 << 30)),
            ("", None),
            ("12X", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(cache_bytes(text), bytes, "{text}");
        }
        let status = "VmPeak:\t  300 kB\nVmHWM:\t    120 kB\nVmRSS:\t     80 kB\n";
        assert_eq!(
            (kilobytes(status, "VmHWM"), kilobytes(status, "VmRSS"), kilobytes(status, "Vm")),
            (Some(122_880), Some(81_920), None)
        );
    }

    /// Where the system can forget the peak, memory that was given back no longer counts.
    #[test]
    fn the_peak_can_be_forgotten() {
        let Some((_, before)) = memory() else { return };
        let big = std::hint::black_box(vec![1u8; 128 << 20]);
        let (_, with) = memory().expect("it was there before");
        assert!(with >= before, "{with} {before}");
        drop(big);
        if forget_peak() {
            let (now, peak) = memory().expect("it was there before");
            assert!(peak < with && peak >= now, "{peak} {now} {with}");
        }
    }
}
