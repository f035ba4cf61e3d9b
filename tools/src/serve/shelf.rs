//! The models that can be asked for: those of the store, those of folders that Ollama keeps, and files named on the
//! command line. Reads manifests and headers, loads nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use engine::file::ModelFile;
use engine::template::Message;
use serde_json::{Map, Value as Json};

use super::facts::Facts;
use super::fault::{Fault, Result};
use crate::store::{Digest, Entry, Layer, Manifest, Name, Store, media};

/// Host of names in a folder of Ollama's that its own names leave out.
const OLLAMA_HOST: &str = "registry.ollama.ai/";

/// A model with all that its makers say about it.
#[derive(Clone, Debug)]
pub struct Pack {
    /// Its name, with the tag.
    pub name: String,
    /// The GGUF file.
    pub path: PathBuf,
    /// 64 hexadecimal digits that change when anything about the model does.
    pub digest: String,
    /// Low-rank adapters that are put on it, and where they are.
    pub adapters: Vec<(Layer, PathBuf)>,
    /// Digest of the GGUF file, where it is known.
    pub blob: Option<Digest>,
    /// Bytes of all blobs.
    pub size: u64,
    /// When it was made.
    pub modified: SystemTime,
    /// A template in Go's language, which takes the place of that in the file.
    pub template: Option<String>,
    /// A system text for requests that have none.
    pub system: Option<String>,
    /// Options for requests that have none.
    pub parameters: Map<String, Json>,
    /// Messages that stand before those of every request.
    pub messages: Vec<Message>,
    /// Licence texts.
    pub licenses: Vec<String>,
    /// The model that it was made from.
    pub parent: String,
}

/// Facts, and the date of the file that they are of.
type Dated = (Option<SystemTime>, Arc<Facts>);

/// Where models are looked for, in order.
pub struct Shelf {
    store: Store,
    others: Vec<Store>,
    files: Vec<Pack>,
    facts: Mutex<HashMap<PathBuf, Dated>>,
}

impl Shelf {
    /// Models of `store`, of other stores that are only read, and single files.
    pub fn new(store: Store, others: Vec<Store>, files: Vec<Pack>) -> Shelf {
        Shelf { store, others, files, facts: Mutex::default() }
    }

    /// The store that changes are made in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The model of a name.
    ///
    /// # Errors
    /// It is no name, there is no such model, or its manifest is damaged.
    pub fn find(&self, text: &str) -> Result<Pack> {
        let name: Name = text.trim_start_matches("https://").parse()?;
        let shown = name.to_string();
        if let Some(pack) = self.files.iter().find(|p| p.name == shown) {
            return Ok(pack.clone());
        }
        // In folders of Ollama's, names without a host belong to its registry.
        let there: Option<Name> = format!("{OLLAMA_HOST}{}", with_namespace(&shown)).parse().ok();
        for store in std::iter::once(&self.store).chain(&self.others) {
            for name in std::iter::once(&name).chain(&there) {
                if let Some(manifest) = store.manifest(name)? {
                    let modified = store.modified(name);
                    return read(store, &Entry { name: name.clone(), manifest, modified });
                }
            }
        }
        Err(Fault::no_model(text))
    }

    /// All models, newest first; damaged ones are told to the log and left out.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn list(&self) -> Result<Vec<Pack>> {
        let mut packs = self.files.clone();
        for store in std::iter::once(&self.store).chain(&self.others) {
            let (entries, damaged) = store.list()?;
            damaged.iter().for_each(|e| super::log::error(&e.to_string()));
            for entry in entries {
                match read(store, &entry) {
                    Ok(pack) if packs.iter().all(|p| p.name != pack.name) => packs.push(pack),
                    Ok(_) => {}
                    Err(fault) => super::log::error(&format!("{}: {}", entry.name, fault.message)),
                }
            }
        }
        packs.sort_by(|a, b| b.modified.cmp(&a.modified).then_with(|| a.name.cmp(&b.name)));
        Ok(packs)
    }

    /// What the header of a model's file says; read once.
    ///
    /// # Errors
    /// The file cannot be read or is no GGUF.
    pub fn facts(&self, pack: &Pack) -> Result<Arc<Facts>> {
        let modified = std::fs::metadata(&pack.path).and_then(|m| m.modified()).ok();
        let known = self.facts.lock().unwrap_or_else(PoisonError::into_inner).get(&pack.path).cloned();
        if let Some((when, facts)) = known
            && when == modified
        {
            return Ok(facts);
        }
        let file = ModelFile::open(&pack.path)?;
        let facts = Arc::new(Facts::new(&file.parse()?));
        let mut all = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(pack.path.clone(), (modified, facts.clone()));
        Ok(facts)
    }
}

/// A name with its namespace written out: `library/x:latest`.
fn with_namespace(shown: &str) -> String {
    if shown.contains('/') { shown.to_string() } else { format!("library/{shown}") }
}

/// A model of a store.
fn read(store: &Store, entry: &Entry) -> Result<Pack> {
    let shown = entry.name.to_string();
    let name = shown.strip_prefix(OLLAMA_HOST).map(|n| n.strip_prefix("library/").unwrap_or(n)).unwrap_or(&shown);
    let manifest = &entry.manifest;
    let path = store.model(&entry.name)?.ok_or_else(|| Fault::no_model(name))?;
    let layers = |kind: &str| manifest.layers.iter().filter(|l| l.media_type == kind).collect::<Vec<_>>();
    let texts = |kind: &str| -> Result<Vec<String>> {
        let text = |layer| Ok(String::from_utf8_lossy(&store.small(layer)?).into_owned());
        layers(kind).into_iter().map(text).collect()
    };
    let damaged = |what: &str| Fault::internal(&format!("model {name}: the {what} cannot be read"));
    let parameters = match texts(media::PARAMS)?.pop() {
        None => Map::new(),
        Some(text) => serde_json::from_str(&text).map_err(|_| damaged("parameters"))?,
    };
    let messages = match texts(media::MESSAGES)?.pop() {
        None => Vec::new(),
        Some(text) => serde_json::from_str(&text).map_err(|_| damaged("messages"))?,
    };
    Ok(Pack {
        name: name.to_string(),
        path,
        adapters: layers(media::ADAPTER).into_iter().map(|l| (l.clone(), store.blob(&l.digest))).collect(),
        digest: digest(manifest),
        blob: manifest.model().map(|l| l.digest),
        size: manifest.size(),
        modified: entry.modified,
        template: texts(media::TEMPLATE)?.pop(),
        system: texts(media::SYSTEM)?.pop(),
        parameters,
        messages,
        licenses: texts(media::LICENSE)?,
        parent: store.config(manifest).parent,
    })
}

fn digest(manifest: &Manifest) -> String {
    Digest::of(&serde_json::to_vec(manifest).unwrap_or_default()).hex()
}

/// A file, or a folder with an `inference_model.json` and a GGUF beside it, as a model of its own name.
///
/// # Errors
/// There is no such file, no name can be made of its own, or the JSON cannot be used.
pub fn file(path: &Path) -> crate::error::Result<Pack> {
    use crate::error::Error;
    let (path, described) = if path.is_dir() { super::described::folder(path)? } else { (path.to_path_buf(), None) };
    let data = std::fs::metadata(&path).map_err(Error::io("cannot read", &path))?;
    let stem = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
    let wanted = described.as_ref().and_then(|d| d.name.clone()).unwrap_or_else(|| stem.to_string());
    let name: Name = wanted.parse()?;
    let described = described.unwrap_or_default();
    let modified = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    // Whoever changes the file changes its size or its date.
    let identity = format!("{} {} {modified:?}", path.display(), data.len());
    Ok(Pack {
        name: name.to_string(),
        adapters: Vec::new(),
        digest: Digest::of(identity.as_bytes()).hex(),
        blob: None,
        size: data.len(),
        modified,
        path,
        template: described.template,
        system: described.system,
        parameters: described.parameters,
        messages: Vec::new(),
        licenses: Vec::new(),
        parent: String::new(),
    })
}
