//! Compiled kernels on disk, where the driver gives them, so that a later load need not compile them again.
//!
//! A driver trusts what it is given back. So a file is taken only where it is whole and of this very driver: its first line
//! names adapter, interface and driver with its version, the second has the sha256 of the rest. Another file is left out
//! and written anew.

use super::adapter::Opened;
use super::keep;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use wgpu::{Features, PipelineCache, PipelineCacheDescriptor};

/// Kernels that a driver has compiled, and the file that keeps them.
pub struct Kept {
    path: PathBuf,
    driver: String,
    cache: PipelineCache,
    /// The sum of what the file held.
    sum: Option<String>,
    /// Whether there was a file that was of no use.
    dropped: bool,
}

impl Kept {
    /// What a folder has for a device; none where its driver gives nothing.
    pub fn open(gpu: &Opened, folder: &Path) -> Option<Kept> {
        if !gpu.device.features().contains(Features::PIPELINE_CACHE) {
            return None;
        }
        let driver = keep::driver(gpu);
        let path = keep::path(folder, "pipelines", &driver, "bin");
        let file = std::fs::read(&path).ok();
        let found = file.as_deref().and_then(|file| payload(file, &driver));
        let descriptor = PipelineCacheDescriptor { label: None, data: found, fallback: true };
        // SAFETY: `payload` has found the sum that `write` puts before what `PipelineCache::get_data` gave, and the name of
        // this adapter with this version of its driver; nothing else writes such a file.
        let cache = unsafe { gpu.device.create_pipeline_cache(&descriptor) };
        let dropped = file.is_some() && found.is_none();
        Some(Kept { path, sum: found.map(sum), driver, cache, dropped })
    }

    /// What pipelines are made with.
    pub fn cache(&self) -> &PipelineCache {
        &self.cache
    }

    /// Whether there was a file that was not whole, or of another driver.
    pub fn dropped(&self) -> bool {
        self.dropped
    }

    /// Keeps what the driver has compiled, where that is something new and the folder can be written.
    pub fn save(&self) {
        let Some(data) = self.cache.get_data() else { return };
        if self.sum.as_ref() != Some(&sum(&data)) {
            keep::keep(&self.path, &file(&data, &self.driver));
        }
    }
}

fn sum(data: &[u8]) -> String {
    Sha256::digest(data).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The file of what a driver gave.
fn file(data: &[u8], driver: &str) -> Vec<u8> {
    [driver.replace('\n', " ").as_bytes(), b"\n", sum(data).as_bytes(), b"\n", data].concat()
}

/// What a driver gave; none where the file is not whole or of another driver.
fn payload<'a>(file: &'a [u8], driver: &str) -> Option<&'a [u8]> {
    let rest = file.strip_prefix(driver.replace('\n', " ").as_bytes())?.strip_prefix(b"\n")?;
    let (head, data) = rest.split_at_checked(65)?;
    (head.strip_suffix(b"\n")? == sum(data).as_bytes()).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_file_of_the_driver_is_taken() {
        let sound = file(b"kernels", "llvmpipe vulkan 22");
        assert_eq!(payload(&sound, "llvmpipe vulkan 22"), Some(&b"kernels"[..]));
        assert_eq!(payload(&sound, "llvmpipe vulkan 23"), None);
        for cut in 0..sound.len() {
            assert_eq!(payload(&sound[..cut], "llvmpipe vulkan 22"), None, "{cut} bytes of it");
        }
        for at in 0..sound.len() {
            let mut other = sound.clone();
            other[at] ^= 1;
            assert_eq!(payload(&other, "llvmpipe vulkan 22"), None, "another byte {at}");
        }
    }
}
