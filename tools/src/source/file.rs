//! A model file on this machine, copied into the store.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Job, Source, assembling};
use crate::error::{Error, Result};
use crate::store::{Digest, Expected, Manifest};
use crate::ui::Ui;

/// A file. It is copied, not linked: a blob must not change when its original does.
pub struct LocalFile {
    path: PathBuf,
    expected: Expected,
}

impl LocalFile {
    /// The file at `path`, which is read once to know its digest; where a digest is given, the file must have it.
    ///
    /// # Errors
    /// There is no such file, it has another digest, or it is one part of a model split over several files.
    pub fn new(path: &Path, digest: Option<Digest>, ui: Ui) -> Result<LocalFile> {
        let path = fs::canonicalize(path).map_err(Error::io("cannot read", path))?;
        let size = fs::metadata(&path).map_err(Error::io("cannot read", &path))?.len();
        if !path.is_file() {
            return Err(Error::Usage(format!("{} is no file", path.display())));
        }
        refuse_split(&path.to_string_lossy())?;
        let bar = ui.bar("reading", Some(size), 0);
        let mut file = File::open(&path).map_err(Error::io("cannot read", &path))?;
        let (found, size) =
            Digest::of_reader(&mut file, &mut |n| bar.inc(n)).map_err(Error::io("cannot read", &path))?;
        if let Some(expected) = digest.filter(|d| *d != found) {
            return Err(Error::Checksum { what: path.display().to_string(), found, expected });
        }
        Ok(LocalFile { path, expected: Expected { digest: Some(found), size: Some(size) } })
    }
}

/// Refuses the file names of split models, which the store cannot hold as one blob.
///
/// # Errors
/// The name ends as in `-00001-of-00003.gguf`.
pub(super) fn refuse_split(file: &str) -> Result<()> {
    let part = |stem: &str| {
        let (rest, total) = stem.rsplit_once("-of-")?;
        let (_, number) = rest.rsplit_once('-')?;
        let digits = |t: &str| t.len() == 5 && t.bytes().all(|b| b.is_ascii_digit());
        (digits(total) && digits(number)).then_some(())
    };
    match file.strip_suffix(".gguf").and_then(part) {
        None => Ok(()),
        Some(()) => Err(Error::Usage(format!(
            "{file} is one part of a split model, which the store does not hold; give the path of the first part instead of a name"
        ))),
    }
}

impl Source for LocalFile {
    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn expected(&self) -> Expected {
        self.expected.clone()
    }

    fn fetch(&self, job: &Job) -> Result<Manifest> {
        if let Some(layer) = job.known(&self.expected) {
            return job.manifest(layer, self, None, None);
        }
        let what = self.path.display().to_string();
        job.room(&what, self.expected.size.unwrap_or(0))?;
        let mut file = File::open(&self.path).map_err(Error::io("cannot read", &self.path))?;
        let mut blob = job.writer.blob(self.expected.clone(), &what)?;
        let bar = assembling(job, &what, self.expected.size);
        blob.copy(&mut file, &bar, Error::io("cannot read", &self.path))?;
        drop(bar);
        let layer = job.model(blob, &what)?;
        job.manifest(layer, self, None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_names() {
        for (file, split) in [
            ("m-00001-of-00003.gguf", true),
            ("m-00002-of-00003.gguf", true),
            ("m.gguf", false),
            ("m-1-of-3.gguf", false),
            ("one-of-00003.gguf", false),
            ("m-00001-of-00003", false),
        ] {
            assert_eq!(refuse_split(file).is_err(), split, "{file}");
        }
    }
}
