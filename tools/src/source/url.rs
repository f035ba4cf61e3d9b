//! A model file behind an http or https address.

use std::fs::File;
use std::io::Read;

use super::file::refuse_split;
use super::http::{Client, Request, Settings, shown};
use super::{Job, Reach, Source, check_magic};
use crate::error::{Error, Result};
use crate::store::{Expected, Manifest, media};

/// An address.
pub struct Url {
    url: String,
    expected: Expected,
    reach: Reach,
}

impl Url {
    /// The file at `url`; where a digest is given, the file must have it.
    ///
    /// # Errors
    /// The file is one part of a split model.
    pub fn new(url: &str, expected: Expected) -> Result<Url> {
        refuse_split(file_name(url))?;
        Ok(Url { url: url.into(), expected, reach: Reach::All })
    }

    /// The same, from nowhere else than there.
    pub fn within(self, reach: Reach) -> Url {
        Url { reach, ..self }
    }

    /// The last part of the address's path.
    pub fn file_name(&self) -> &str {
        file_name(&self.url)
    }

    /// Whether a model argument is an address.
    pub fn is_one(text: &str) -> bool {
        text.starts_with("http://") || text.starts_with("https://")
    }
}

/// The last part of an address's path.
pub fn file_name(url: &str) -> &str {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    path.rsplit('/').next().unwrap_or(path)
}

impl Source for Url {
    fn describe(&self) -> String {
        shown(&self.url)
    }

    fn expected(&self) -> Expected {
        self.expected.clone()
    }

    fn fetch(&self, job: &Job) -> Result<Manifest> {
        let what = shown(&self.url);
        if let Some(layer) = job.known(&self.expected) {
            return job.manifest(layer, self, None, None);
        }
        // A fixed name: the address's own text never becomes part of a path.
        let path = job.folder.join("model.gguf");
        let client = Client::new(&Settings { reach: self.reach, ..Settings::of_environment() })?;
        let request = Request {
            url: &self.url,
            target: &path,
            size: self.expected.size,
            checked: self.expected.digest.is_some(),
        };
        client.download(&request, job)?;
        let mut head = Vec::new();
        let file = File::open(&path).map_err(Error::io("cannot read", &path))?;
        file.take(4).read_to_end(&mut head).map_err(Error::io("cannot read", &path))?;
        check_magic(&head, &what)?;
        let bar = job.ui.bar("verifying sha256", file_size(&path), 0);
        let layer = job.writer.adopt(&path, media::MODEL, &self.expected, &what, &bar)?;
        drop(bar);
        job.ui.say(&format!("checksum {}", layer.digest));
        job.manifest(layer, self, None, None)
    }
}

fn file_size(path: &std::path::Path) -> Option<u64> {
    path.metadata().ok().map(|m| m.len())
}
