//! The model store: a folder of blobs named by their sha256, and manifests that say which blobs make a model.
//!
//! ```text
//! ROOT/blobs/sha256-HEX                          immutable; a file gets this name only after its digest was checked
//! ROOT/manifests/HOST/NAMESPACE/MODEL/TAG        JSON, replaced atomically
//! ROOT/downloads/KEY/                            what a source has fetched so far; survives a crash, so that it resumes
//! ROOT/downloads/KEY.lock, ROOT/lock             file locks between processes
//! ```
//! Readers need no lock: whatever has a final name is whole. Writers ([`Writer`]) share one lock; removing what nothing
//! names needs that lock alone. The store knows nothing of where models come from.

mod digest;
mod manifest;
mod name;
mod verify;
mod writer;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use etcetera::BaseStrategy;

use crate::error::{Error, Result};
pub use digest::{Digest, Hasher};
pub use manifest::{Config, Kind, Layer, Manifest, media};
pub use name::Name;
pub use writer::{Blob, Expected, Writer, folder_of, place, temporary, write_whole};

/// Prefix of files that are still being written; whoever holds the lock alone may delete them.
const TEMPORARY: &str = ".tmp-";
/// A larger manifest or configuration is damaged.
const LARGEST_JSON: u64 = 1 << 20;
/// Unfinished downloads that nobody has touched for so long are removed.
const DOWNLOAD_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A store's folder. Making one touches no disk.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A model in the store.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its manifest.
    pub manifest: Manifest,
    /// When the manifest was written.
    pub modified: SystemTime,
}

impl Store {
    /// The user's store: `HANDMILL_HOME`, else `handmill` in the XDG data folder.
    ///
    /// # Errors
    /// No home folder is known.
    pub fn of_user() -> Result<Store> {
        if let Some(root) = std::env::var_os("HANDMILL_HOME").filter(|v| !v.is_empty()) {
            return Ok(Store::at(PathBuf::from(root)));
        }
        let base = etcetera::choose_base_strategy()
            .map_err(|_| Error::Usage("no home folder is known; set HANDMILL_HOME to the folder for models".into()))?;
        Ok(Store::at(base.data_dir().join("handmill")))
    }

    /// The store in this folder, which need not exist yet.
    pub fn at(root: PathBuf) -> Store {
        Store { root }
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where results of tests of GPUs' kernels are kept; none where the user has no store.
    pub fn checks_of_user() -> Option<PathBuf> {
        Store::of_user().ok().map(|store| store.root.join("gpu"))
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// Where a blob is, or would be.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.file_name())
    }

    /// Where a blob that was uploaded waits for a model to take it, or would wait. It goes as abandoned downloads do.
    pub fn upload(&self, digest: &Digest) -> PathBuf {
        self.downloads().join(format!("upload-{}", digest.hex())).join("blob")
    }

    /// Whether the blob is there as a plain file of the right size.
    pub fn has(&self, layer: &Layer) -> bool {
        fs::symlink_metadata(self.blob(&layer.digest)).is_ok_and(|m| m.is_file() && m.len() == layer.size)
    }

    /// The manifest of a name; none where the store has no such model.
    ///
    /// # Errors
    /// The manifest cannot be read or is damaged.
    pub fn manifest(&self, name: &Name) -> Result<Option<Manifest>> {
        let path = self.manifests().join(name.path());
        match fs::symlink_metadata(&path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(Error::io("cannot read", &path)(e)),
            Ok(m) if !m.is_file() => return Err(Error::Manifest { path, why: "is no plain file".into() }),
            Ok(_) => {}
        }
        let text = read_bounded(&path)?;
        Manifest::parse(&text).map(Some).map_err(|why| Error::Manifest { path, why })
    }

    /// The file of a model; none where the store has no such model.
    ///
    /// # Errors
    /// The manifest is damaged, or the blob it names is missing or of another size.
    pub fn model(&self, name: &Name) -> Result<Option<PathBuf>> {
        let Some(manifest) = self.manifest(name)? else { return Ok(None) };
        let Some(layer) = manifest.model() else {
            let path = self.manifests().join(name.path());
            return Err(Error::Manifest { path, why: format!("has no layer of type {}", media::MODEL) });
        };
        if !self.has(layer) {
            let why = format!("missing or not a plain file of {} bytes", layer.size);
            return Err(Error::Blob { name: name.to_string(), digest: layer.digest, why });
        }
        Ok(Some(self.blob(&layer.digest)))
    }

    /// When a name's manifest was written.
    pub fn modified(&self, name: &Name) -> SystemTime {
        let path = self.manifests().join(name.path());
        fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// A small blob's bytes.
    ///
    /// # Errors
    /// It is missing, of another size, or too large to be small.
    pub fn small(&self, layer: &Layer) -> Result<Vec<u8>> {
        let path = self.blob(&layer.digest);
        if !self.has(layer) {
            let why = format!("missing or not a plain file of {} bytes", layer.size);
            return Err(Error::Blob { name: layer.media_type.clone(), digest: layer.digest, why });
        }
        read_bounded(&path)
    }

    /// The configuration of a manifest; the default where it is missing or was written by another program.
    pub fn config(&self, manifest: &Manifest) -> Config {
        let read = || read_bounded(&self.blob(&manifest.config.digest)).ok();
        let text = if self.has(&manifest.config) { read() } else { None };
        text.and_then(|t| serde_json::from_slice(&t).ok()).unwrap_or_default()
    }

    /// All models, by name; and what among the manifests cannot be read.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn list(&self) -> Result<(Vec<Entry>, Vec<Error>)> {
        let (mut entries, mut damaged) = (Vec::new(), Vec::new());
        for path in files_below(&self.manifests(), 4)? {
            let below = path.strip_prefix(self.manifests()).unwrap_or(&path);
            let parts: Option<Vec<&str>> = below.iter().map(OsStr::to_str).collect();
            let Some(name) = parts.and_then(|p| Name::from_path(p.try_into().ok()?)) else {
                if !is_temporary(&path) {
                    damaged.push(Error::Manifest { path, why: "is not at a path that a model name stands for".into() });
                }
                continue;
            };
            match self.manifest(&name) {
                Ok(Some(manifest)) => {
                    let modified = fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                    entries.push(Entry { name, manifest, modified });
                }
                // Removed by another process since the folder was read.
                Ok(None) => {}
                Err(e) => damaged.push(e),
            }
        }
        entries.sort_by_cached_key(|e| e.name.to_string());
        Ok((entries, damaged))
    }

    /// Removes a model's manifest, and its blobs unless another model or a running writer may need them; those go later.
    ///
    /// # Errors
    /// The store has no such model, or a file cannot be removed.
    pub fn remove(&self, name: &Name) -> Result<()> {
        let path = self.manifests().join(name.path());
        match fs::remove_file(&path) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(Error::NotInStore(name.to_string()));
            }
            other => other.map_err(Error::io("cannot remove", &path))?,
        }
        self.tidy()
    }

    /// Deletes what nothing needs: blobs that no manifest names, files of writers that died, empty folders, downloads
    /// long abandoned.
    /// Does nothing while another process writes. Where a manifest cannot be read, no blob is deleted.
    ///
    /// # Errors
    /// A folder cannot be read, or a file cannot be removed.
    pub fn tidy(&self) -> Result<()> {
        let path = self.root.join("lock");
        let lock = match File::options().read(true).write(true).open(&path) {
            Ok(lock) => lock,
            // Nothing was ever written.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("cannot open", &path)(e)),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(()),
            Err(fs::TryLockError::Error(e)) => return Err(Error::io("cannot lock", &path)(e)),
        }
        for path in files_below(&self.manifests(), 4)?.into_iter().filter(|p| is_temporary(p)) {
            remove_file(&path)?;
        }
        let (entries, damaged) = self.list()?;
        let needed: Vec<Digest> = entries.iter().flat_map(|e| e.manifest.blobs()).map(|l| l.digest).collect();
        for path in files_below(&self.blobs(), 1)? {
            let digest = path.file_name().and_then(OsStr::to_str).and_then(Digest::from_file_name);
            let orphan = digest.is_some_and(|d| damaged.is_empty() && !needed.contains(&d));
            if orphan || is_temporary(&path) {
                remove_file(&path)?;
            }
        }
        for folder in read_folder(&self.manifests())? {
            remove_empty(&folder.path());
        }
        self.tidy_downloads()
    }

    /// Removes abandoned downloads and the locks of downloads that are gone. The caller holds the store's lock alone.
    fn tidy_downloads(&self) -> Result<()> {
        let folder = self.downloads();
        for entry in read_folder(&folder)? {
            let path = entry.path();
            if path.is_dir() {
                let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
                if age.is_some_and(|a| a > DOWNLOAD_LIFE) {
                    fs::remove_dir_all(&path).map_err(Error::io("cannot remove", &path))?;
                }
            } else if path.extension().is_some_and(|e| e == "lock") && !path.with_extension("").exists() {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Reads a small file; one that is too large is an error, not an allocation.
fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::io("cannot read", path))?;
    let mut text = Vec::new();
    file.take(LARGEST_JSON + 1).read_to_end(&mut text).map_err(Error::io("cannot read", path))?;
    if text.len() as u64 > LARGEST_JSON {
        return Err(Error::Manifest { path: path.to_path_buf(), why: format!("is larger than {LARGEST_JSON} bytes") });
    }
    Ok(text)
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("cannot remove", path)),
    }
}

/// The entries of a folder; none where it does not exist.
fn read_folder(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        other => other.and_then(Iterator::collect).map_err(Error::io("cannot read", folder)),
    }
}

/// All files at most `depth` folders below `folder`. Symbolic links are not followed and not listed.
fn files_below(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in read_folder(folder)? {
        let kind = entry.file_type().map_err(Error::io("cannot read", folder))?;
        if kind.is_file() {
            found.push(entry.path());
        } else if kind.is_dir() && depth > 1 {
            found.extend(files_below(&entry.path(), depth - 1)?);
        }
    }
    Ok(found)
}

/// Removes folders that hold nothing but empty folders. One that is not empty refuses, which is what is wanted.
fn remove_empty(folder: &Path) {
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            remove_empty(&entry.path());
        }
        let _ = fs::remove_dir(folder);
    }
}

/// Makes a renamed or removed name survive a power cut, where the system can.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("cannot sync", folder))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
