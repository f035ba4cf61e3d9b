//! Adding to the store. Everything is written to a temporary file beside its final place, checked, synced and renamed:
//! at any moment a crash leaves either nothing or the whole file under the final name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::{Digest, Hasher, Layer, Manifest, Name, Store, TEMPORARY, sync_folder};
use crate::error::{Error, Result};
use crate::ui::{Bar, Ui};

/// What is known of a blob before it arrives.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Its sha256.
    pub digest: Option<Digest>,
    /// Its size in bytes; more is never written.
    pub size: Option<u64>,
}

/// A store open for writing. While one lives, no process deletes blobs.
#[derive(Debug)]
pub struct Writer<'a> {
    store: &'a Store,
    _shared: File,
}

/// The folder of one download, which no other process touches while this lives.
#[derive(Debug)]
pub struct Download {
    /// What the source has fetched so far.
    pub folder: PathBuf,
    _lock: File,
}

impl<'a> Writer<'a> {
    /// Opens the store for writing, making its folders. Waits, saying so, while another process cleans it up.
    ///
    /// # Errors
    /// The folders cannot be made or locked.
    pub fn open(store: &'a Store, ui: Ui) -> Result<Writer<'a>> {
        for folder in [store.blobs(), store.manifests(), store.downloads()] {
            fs::create_dir_all(&folder).map_err(Error::io("cannot make the folder", &folder))?;
        }
        let path = store.root.join("lock");
        let file = open_lock(&path)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                ui.say("another handmill is cleaning up the store; waiting for it");
                file.lock_shared().map_err(Error::io("cannot lock", &path))?;
            }
            Err(fs::TryLockError::Error(e)) => return Err(Error::io("cannot lock", &path)(e)),
        }
        Ok(Writer { store, _shared: file })
    }

    /// The store.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// The download folder of the source with these words, made if need be. Waits, saying so, while another process
    /// fetches the same.
    ///
    /// # Errors
    /// The folder cannot be made or locked.
    pub fn download(&self, source: &str, ui: Ui) -> Result<Download> {
        let key = &Digest::of(source.as_bytes()).hex()[..16];
        let folder = self.store.downloads().join(key);
        let path = folder.with_extension("lock");
        let lock = open_lock(&path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                ui.say(&format!("another handmill is obtaining {source}; waiting for it"));
                lock.lock().map_err(Error::io("cannot lock", &path))?;
            }
            Err(fs::TryLockError::Error(e)) => return Err(Error::io("cannot lock", &path)(e)),
        }
        fs::create_dir_all(&folder).map_err(Error::io("cannot make the folder", &folder))?;
        Ok(Download { folder, _lock: lock })
    }

    /// Starts a blob; `what` names it in errors.
    ///
    /// # Errors
    /// The temporary file cannot be made.
    pub fn blob(&self, expected: Expected, what: &str) -> Result<Blob<'a>> {
        let file = temporary(&self.store.blobs())?;
        Ok(Blob {
            store: self.store,
            file,
            hasher: Hasher::default(),
            len: 0,
            head: Vec::new(),
            expected,
            what: what.into(),
        })
    }

    /// Starts a blob that waits beside the store until a model takes it ([`Store::upload`]).
    ///
    /// # Errors
    /// The temporary file cannot be made.
    pub fn upload(&self, digest: Digest) -> Result<Upload<'a>> {
        let target = self.store.upload(&digest);
        let folder = target.parent().expect("an upload lies in a folder").to_path_buf();
        fs::create_dir_all(&folder).map_err(Error::io("cannot make the folder", &folder))?;
        let mut blob = self.blob(Expected { digest: Some(digest), size: None }, "the blob")?;
        blob.file = temporary(&folder)?;
        Ok(Upload { blob, target })
    }

    /// Adds a small blob.
    ///
    /// # Errors
    /// Writing fails.
    pub fn add_bytes(&self, bytes: &[u8], media_type: &str) -> Result<Layer> {
        let mut blob = self.blob(Expected::default(), media_type)?;
        blob.write(bytes)?;
        blob.finish(media_type)
    }

    /// Makes a file of the store's downloads a blob, without copying it.
    ///
    /// # Errors
    /// The file cannot be read or renamed, or its bytes are not the expected ones; then it stays where it is.
    pub fn adopt(&self, path: &Path, media_type: &str, expected: &Expected, what: &str, bar: &Bar) -> Result<Layer> {
        let mut file = File::open(path).map_err(Error::io("cannot read", path))?;
        let (digest, size) =
            Digest::of_reader(&mut file, &mut |n| bar.inc(n)).map_err(Error::io("cannot read", path))?;
        expected.check(what, digest, size)?;
        file.sync_all().map_err(Error::io("cannot sync", path))?;
        let target = self.store.blob(&digest);
        fs::rename(path, &target).map_err(Error::io("cannot rename to", &target))?;
        sync_folder(&self.store.blobs())?;
        Ok(Layer { media_type: media_type.into(), digest, size })
    }

    /// Gives a name to blobs that are in the store already; a manifest of that name is replaced.
    ///
    /// # Errors
    /// A blob is missing, or writing fails.
    pub fn publish(&self, name: &Name, manifest: &Manifest) -> Result<()> {
        if let Some(layer) = manifest.blobs().find(|l| !self.store.has(l)) {
            return Err(Error::Blob { name: name.to_string(), digest: layer.digest, why: "not in the store".into() });
        }
        let path = self.store.manifests().join(name.path());
        let folder = path.parent().expect("a name's path has four parts");
        let text = serde_json::to_vec(manifest).expect("a manifest has no maps with keys other than strings");
        fs::create_dir_all(folder).map_err(Error::io("cannot make the folder", folder))?;
        write_whole(&path, &text)
    }
}

impl Expected {
    fn check(&self, what: &str, digest: Digest, size: u64) -> Result<()> {
        if let Some(expected) = self.size.filter(|s| *s != size) {
            return Err(Error::Size { what: what.into(), found: size.to_string(), expected });
        }
        if let Some(expected) = self.digest.filter(|d| *d != digest) {
            return Err(Error::Checksum { what: what.into(), found: digest, expected });
        }
        Ok(())
    }
}

/// A blob on its way into the store. Dropping it deletes what was written.
pub struct Blob<'a> {
    store: &'a Store,
    file: NamedTempFile,
    hasher: Hasher,
    len: u64,
    head: Vec<u8>,
    expected: Expected,
    what: String,
}

impl Blob<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// Writing fails, or there are more bytes than expected.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        if let Some(size) = self.expected.size.filter(|s| self.len > *s) {
            return Err(Error::Size { what: self.what.clone(), found: format!("more than {size}"), expected: size });
        }
        let missing = 4 - self.head.len().min(4);
        self.head.extend(bytes.iter().take(missing));
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(Error::io("cannot write", self.file.path()))
    }

    /// Appends all that `reader` gives; `bar` hears of every piece, `broken` wraps the reader's errors.
    ///
    /// # Errors
    /// As [`Blob::write`], or what `broken` makes.
    pub fn copy(&mut self, reader: &mut dyn Read, bar: &Bar, broken: impl FnOnce(io::Error) -> Error) -> Result<()> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(broken(e)),
            };
            self.write(&buffer[..n])?;
            bar.inc(n as u64);
        }
    }

    /// The first four bytes, or as many as there are.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Gives the blob its final name.
    ///
    /// # Errors
    /// The bytes are not the expected ones, or the file cannot be synced or renamed; then nothing is kept.
    pub fn finish(self, media_type: &str) -> Result<Layer> {
        let (digest, size) = self.hasher.finish();
        self.expected.check(&self.what, digest, size)?;
        place(self.file, &self.store.blob(&digest))?;
        Ok(Layer { media_type: media_type.into(), digest, size })
    }
}

/// A blob that is being uploaded. Dropping it deletes what was written.
pub struct Upload<'a> {
    blob: Blob<'a>,
    target: std::path::PathBuf,
}

impl Upload<'_> {
    /// Appends bytes.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.blob.write(bytes)
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// The bytes are not the expected ones, or the file cannot be synced or renamed; then nothing is kept.
    pub fn keep(self) -> Result<()> {
        let (digest, size) = self.blob.hasher.finish();
        self.blob.expected.check(&self.blob.what, digest, size)?;
        place(self.blob.file, &self.target)
    }
}

impl Download {
    /// Deletes what was fetched: it is in the store now, or it was wrong.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub fn discard(&self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(Error::io("cannot remove", &self.folder))
    }
}

fn open_lock(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Error::io("cannot open", path))
}

/// A new file of a name that [`Store::tidy`] recognises, with the permissions of any other file. It goes when it is
/// dropped.
///
/// # Errors
/// The folder cannot be written in.
pub fn temporary(folder: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder).map_err(Error::io("cannot write in", folder))
}

/// Syncs a finished file, renames it and syncs the folder.
///
/// # Errors
/// Any of these fails; then the file is gone.
pub fn place(file: NamedTempFile, path: &Path) -> Result<()> {
    file.as_file().sync_all().map_err(Error::io("cannot sync", file.path()))?;
    file.persist(path).map_err(|e| Error::io("cannot rename to", path)(e.error))?;
    sync_folder(folder_of(path))
}

/// Writes a file that is whole or not there.
///
/// # Errors
/// The folder cannot be written in, or there is no room.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = temporary(folder_of(path))?;
    file.write_all(bytes).map_err(Error::io("cannot write", path))?;
    place(file, path)
}

/// The folder that a path lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
