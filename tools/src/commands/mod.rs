//! The subcommands, a module each, and how they find a model.

pub mod create;
pub mod devices;
pub mod embed;
pub mod health;
pub mod list;
pub mod pull;
pub mod rm;
pub mod run;
pub mod score;
pub mod show;
pub mod tokenize;
pub mod verify;

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};

use engine::file::ModelFile;
use engine::{Engine, Options, Progress};

use crate::error::{Error, Result};
use crate::source::{Outcome, Source, catalogue};
use crate::store::{Name, Store, media};
use crate::ui::Ui;

/// The file of the model that an argument stands for: a path, a name of the store, or a name of the catalogue, which
/// is obtained on first use.
///
/// # Errors
/// There is no such model, or it cannot be obtained.
pub fn find(model: &str, ui: Ui) -> Result<PathBuf> {
    let path = Path::new(model);
    if is_path(model) {
        return match path.try_exists() {
            Ok(true) => Ok(path.to_path_buf()),
            Ok(false) => Err(Error::io("cannot read", path)(std::io::ErrorKind::NotFound.into())),
            Err(e) => Err(Error::io("cannot read", path)(e)),
        };
    }
    let name: Name = model.parse()?;
    let store = Store::of_user()?;
    let stored = store.model(&name);
    if let Ok(Some(found)) = stored {
        let manifest = store.manifest(&name)?;
        if manifest.is_some_and(|m| m.layers.iter().any(|l| l.media_type == media::ADAPTER)) {
            return Err(Error::Usage(format!(
                "{name} has an adapter, which only handmill serve puts on it: name its model and --lora FILE instead"
            )));
        }
        return Ok(found);
    }
    // A damaged copy of a catalogue's model is replaced by a good one.
    if let Some(source) = catalogue::find(&name)? {
        let size = crate::ui::format::bytes(source.model().download);
        ui.say(&format!("{} is not in the store; obtaining it once ({size})", source.model().name));
        return obtain(&store, &name, &source, ui).map(|(path, _)| path);
    }
    match stored? {
        None if path.is_file() => Ok(path.to_path_buf()),
        _ => Err(Error::NotFound { name: model.into(), known: catalogue::names() }),
    }
}

/// [`crate::source::obtain`], and once, when a model has just come, a look at all its weights: a checksum says that the
/// file is what its maker made, not that it is sound.
///
/// # Errors
/// As that, and weights that are NaN or infinite.
fn obtain(store: &Store, name: &Name, source: &dyn Source, ui: Ui) -> Result<(PathBuf, Outcome)> {
    let (path, outcome) = crate::source::obtain(store, name, source, ui)?;
    if outcome == Outcome::Obtained {
        match check_weights(&path, ui) {
            Err(engine::Error::Gguf(error)) => ui.say(&format!("warning: {name} cannot be run: {error}")),
            Err(error) => {
                ui.say(&format!("{name} is in the store all the same; handmill rm {name} removes it"));
                return Err(error.into());
            }
            Ok(()) => (),
        }
    }
    Ok((path, outcome))
}

fn check_weights(path: &Path, ui: Ui) -> engine::Result<()> {
    let file = ModelFile::open(path)?;
    let gguf = file.parse()?;
    let mut bar = None;
    let mut seen = 0;
    engine::source::check_finite(&file.source(&gguf), &mut |done, total| {
        bar.get_or_insert_with(|| ui.bar("checking weights", Some(total), 0)).inc(done - seen);
        seen = done;
    })
}

/// All JSON lines of a file (`-`: standard input), so that a mistake in the last one is found before anything is
/// computed. Empty lines are skipped.
///
/// # Errors
/// The file cannot be read, or a line is not what `expected` says.
pub fn lines<T: serde::de::DeserializeOwned>(path: &Path, expected: &str) -> Result<Vec<T>> {
    let reader: Box<dyn BufRead> = match path.to_str() {
        Some("-") => Box::new(stdin().lock()),
        _ => Box::new(BufReader::new(File::open(path).map_err(Error::io("cannot read", path))?)),
    };
    let mut found = Vec::new();
    for (i, line) in reader.lines().enumerate() {
        let line = line.map_err(Error::io("cannot read", path))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |_| Error::Line { path: path.into(), line: i + 1, why: expected.into() };
        found.push(serde_json::from_str(&line).map_err(wrong)?);
    }
    Ok(found)
}

/// Brings a model of the catalogue into a store.
///
/// # Errors
/// There is no such model, or it cannot be obtained.
pub fn obtain_into(store: &Store, model: &str) -> Result<()> {
    let name: Name = model.parse()?;
    let unknown = || Error::NotFound { name: model.into(), known: catalogue::names() };
    let source = catalogue::find(&name)?.ok_or_else(unknown)?;
    obtain(store, &name, &source, Ui::stderr()).map(|_| ())
}

/// Whether an argument can only be meant as a path, or is one that exists.
pub fn is_path(model: &str) -> bool {
    let path = Path::new(model);
    let marked = path.is_absolute() || model.starts_with('.') || model.contains('\\') || model.ends_with(".gguf");
    marked || (model.contains('/') && path.is_file())
}

/// Opens a model with its progress on standard error.
///
/// # Errors
/// Whatever the engine says.
pub fn open(path: &Path, options: &Options, ui: Ui) -> Result<Engine> {
    let engine = Engine::open(path, options, &mut loading(ui))?;
    if !options.device.is_cpu() {
        ui.say(&format!("runs on {} ({})", engine.info().device, engine.info().kernels));
    }
    Ok(engine)
}

/// Shows the progress of a load.
pub fn loading(ui: Ui) -> impl FnMut(Progress) {
    let mut bar = None;
    let mut seen = 0;
    move |Progress::Weights { done, total }| {
        // Small models load faster than a bar can be read.
        if total > 1 << 28 {
            let bar = bar.get_or_insert_with(|| ui.bar("loading", Some(total), 0));
            bar.inc(done.saturating_sub(seen));
            seen = done;
        }
    }
}
