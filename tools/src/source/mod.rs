//! Where models come from. A [`Source`] brings a model's blobs into the store; [`obtain`] does what is common to all:
//! locks, room on the disk, the name, and cleaning up.

pub mod catalogue;
mod file;
mod http;
mod pip;
mod python;
mod reach;
mod registry;
mod url;

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::store::{Blob, Config, Expected, Kind, Layer, Manifest, Name, Store, Writer, media};
use crate::ui::{Bar, Ui};
pub use file::LocalFile;
pub use reach::Reach;
pub use registry::Registry;
pub use url::Url;

/// Something that models can be obtained from.
pub trait Source {
    /// The source in words, unique to it: also the key of its unfinished download.
    fn describe(&self) -> String;

    /// What is known of the model file beforehand.
    fn expected(&self) -> Expected;

    /// Whether the source may have something else today, so that it is asked even where the store has its model.
    fn may_change(&self) -> bool {
        false
    }

    /// Brings the blobs into the store, going on from what an earlier attempt left in the job's folder.
    ///
    /// # Errors
    /// Whatever stands in the way. What was fetched may stay in the folder for the next attempt.
    fn fetch(&self, job: &Job) -> Result<Manifest>;
}

/// One run of a source.
pub struct Job<'a> {
    /// The store.
    pub writer: &'a Writer<'a>,
    /// A folder of the source's own that survives interruptions.
    pub folder: &'a Path,
    /// Where progress is shown.
    pub ui: Ui,
}

impl Job<'_> {
    /// The model file's layer where the store has that very file already, under whatever name.
    pub fn known(&self, expected: &Expected) -> Option<Layer> {
        let layer = Layer { media_type: media::MODEL.into(), digest: expected.digest?, size: expected.size? };
        self.writer.store().has(&layer).then_some(layer)
    }

    /// Checks that the store's disk has room for this many more bytes.
    ///
    /// # Errors
    /// It has not.
    pub fn room(&self, what: &str, needed: u64) -> Result<()> {
        let path = self.writer.store().root();
        let free = fs4::available_space(path).map_err(Error::io("cannot measure the disk of", path))?;
        if needed > free {
            return Err(Error::Space { what: what.into(), path: path.into(), needed, free });
        }
        Ok(())
    }

    /// Names a finished model blob, if it is a GGUF.
    ///
    /// # Errors
    /// It is no GGUF, or not what was expected.
    pub fn model(&self, blob: Blob, what: &str) -> Result<Layer> {
        check_magic(blob.head(), what)?;
        let layer = blob.finish(media::MODEL)?;
        self.ui.say(&format!("checksum {}", layer.digest));
        Ok(layer)
    }

    /// The manifest of a model file with what else is known about it.
    ///
    /// # Errors
    /// The small blobs cannot be written.
    pub fn manifest(
        &self,
        model: Layer,
        source: &dyn Source,
        kind: Option<Kind>,
        licence: Option<&str>,
    ) -> Result<Manifest> {
        let config = Config { model_format: "gguf".into(), source: source.describe(), kind, parent: String::new() };
        let json = serde_json::to_vec(&config).expect("a configuration is plain data");
        let config = self.writer.add_bytes(&json, media::CONFIG)?;
        let mut layers = vec![model];
        if let Some(text) = licence {
            layers.push(self.writer.add_bytes(text.as_bytes(), media::LICENSE)?);
        }
        Ok(Manifest::new(config, layers))
    }
}

/// Refuses what does not begin as a GGUF does, such as a web page that came in its place.
fn check_magic(head: &[u8], what: &str) -> Result<()> {
    match head {
        b"GGUF" => Ok(()),
        _ => Err(Error::NotGguf { what: what.into(), found: format!("\"{}\"", head.escape_ascii()) }),
    }
}

/// How [`obtain`] found things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store had the model already.
    Present,
    /// It was brought in.
    Obtained,
}

/// Makes sure that the store has the source's model under `name`. Of several processes that do so at once, one fetches and
/// the others wait for it.
///
/// # Errors
/// The store cannot be written, or the source fails. What was fetched stays for the next attempt, unless it was wrong.
pub fn obtain(store: &Store, name: &Name, source: &dyn Source, ui: Ui) -> Result<(PathBuf, Outcome)> {
    if let Some(path) = present(store, name, source) {
        return Ok((path, Outcome::Present));
    }
    store.tidy()?;
    let writer = Writer::open(store, ui)?;
    let words = source.describe();
    let download = writer.download(&words, ui)?;
    if let Some(path) = present(store, name, source) {
        download.discard()?;
        return Ok((path, Outcome::Present));
    }
    let job = Job { writer: &writer, folder: &download.folder, ui };
    match source.fetch(&job) {
        Ok(manifest) => {
            writer.publish(name, &manifest)?;
            download.discard()?;
        }
        Err(e) => {
            if matches!(e, Error::Checksum { .. } | Error::Size { .. } | Error::Wheel { .. } | Error::NotGguf { .. }) {
                download.discard()?;
            }
            return Err(e);
        }
    }
    drop((download, writer));
    // A replaced manifest may have left blobs that nothing names.
    store.tidy()?;
    let path = store.model(name)?.ok_or_else(|| Error::NotInStore(name.to_string()))?;
    Ok((path, Outcome::Obtained))
}

/// The model's file where the name stands for what the source would bring. A damaged entry counts as absent.
fn present(store: &Store, name: &Name, source: &dyn Source) -> Option<PathBuf> {
    if source.may_change() {
        return None;
    }
    let manifest = store.manifest(name).ok().flatten()?;
    let same = match source.expected().digest {
        Some(digest) => manifest.model()?.digest == digest,
        None => store.config(&manifest).source == source.describe(),
    };
    if same { store.model(name).ok().flatten() } else { None }
}

/// A bar for a file whose parts are put together.
fn assembling(job: &Job, what: &str, size: Option<u64>) -> Bar {
    job.ui.bar(&format!("storing {what}"), size, 0)
}
