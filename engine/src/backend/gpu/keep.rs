//! Small files that are kept in a folder for a driver: what its kernels' tests gave, what it has compiled. Another adapter, or
//! another version of the driver, has files of its own.

use super::adapter::Opened;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

/// What tells a driver from others: adapter, interface, driver with its version.
pub fn driver(gpu: &Opened) -> String {
    let d = &gpu.description;
    format!("{} {} {}", d.name, d.api, d.driver)
}

/// The file of a kind that is kept for a driver; `end` is the end of its name.
pub fn path(folder: &Path, kind: &str, driver: &str, end: &str) -> PathBuf {
    folder.join(format!("{kind}-{:016x}.{end}", hash(driver)))
}

/// Writes a file whole or not at all. What cannot be kept is made again: a folder that can only be read is no reason not to
/// run a model.
pub fn keep(path: &Path, bytes: &[u8]) {
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let part = path.with_extension(format!("{}.part", std::process::id()));
        std::fs::write(&part, bytes)?;
        std::fs::rename(&part, path)
    };
    let _ = write();
}

/// A number for a text, for names.
pub fn hash(text: &str) -> u64 {
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(text.as_bytes());
    hasher.finish()
}
