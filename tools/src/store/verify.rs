//! Checking a store: every manifest can be read, and every blob it names has the size and the sha256 that it says.

use std::collections::HashMap;
use std::fs::File;

use super::{Digest, Entry, Layer, Name, Store};
use crate::error::{Error, Result};
use crate::ui::Ui;

/// Something wrong in a store.
#[derive(Debug)]
pub struct Problem {
    /// The model that is concerned; none where a manifest cannot be read.
    pub name: Option<Name>,
    /// What is wrong.
    pub error: Error,
}

impl Store {
    /// Checks the named model, or all of them. Reads every byte; blobs that several models share are read once.
    /// Returns how many models were checked and what is wrong.
    ///
    /// # Errors
    /// The store has no model of that name, or a folder cannot be read.
    pub fn verify(&self, only: Option<&Name>, ui: Ui) -> Result<(usize, Vec<Problem>)> {
        let (entries, damaged) = self.list()?;
        let mut problems = Vec::new();
        if only.is_none() {
            problems.extend(damaged.into_iter().map(|error| Problem { name: None, error }));
        }
        let entries: Vec<Entry> = entries.into_iter().filter(|e| only.is_none_or(|n| *n == e.name)).collect();
        if let (Some(name), []) = (only, &entries[..]) {
            // A damaged manifest says what is wrong with it here.
            return self.manifest(name).and(Err(Error::NotInStore(name.to_string())));
        }
        let mut seen = HashMap::new();
        for entry in &entries {
            for layer in entry.manifest.blobs() {
                let why = seen.entry(layer.digest).or_insert_with(|| self.check(layer, &entry.name, ui));
                if let Some(why) = why {
                    let error = Error::Blob { name: entry.name.to_string(), digest: layer.digest, why: why.clone() };
                    problems.push(Problem { name: Some(entry.name.clone()), error });
                }
            }
        }
        Ok((entries.len(), problems))
    }

    /// What is wrong with a blob, if anything.
    fn check(&self, layer: &Layer, name: &Name, ui: Ui) -> Option<String> {
        if !self.has(layer) {
            return Some(format!("missing or not a plain file of {} bytes", layer.size));
        }
        let bar = ui.bar(&format!("verifying {name}"), Some(layer.size), 0);
        let read =
            File::open(self.blob(&layer.digest)).and_then(|mut f| Digest::of_reader(&mut f, &mut |n| bar.inc(n)));
        match read {
            Ok((found, _)) if found == layer.digest => None,
            Ok((found, _)) => Some(format!("its content has the checksum {found}")),
            Err(e) => Some(format!("cannot be read: {e}")),
        }
    }
}
