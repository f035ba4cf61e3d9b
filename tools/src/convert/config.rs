//! `config.json` and its neighbours: values by name, and errors that name the file and the key.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::ui::format::printable;

/// Most bytes of a JSON file: tokenizers of 262,144 tokens take 33 MB.
const LONGEST: u64 = 512 << 20;

/// Reads a JSON file.
///
/// # Errors
/// It cannot be read, is too long, or is no JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let file = File::open(path).map_err(Error::io("cannot read", path))?;
    let mut text = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut text).map_err(Error::io("cannot read", path))?;
    if text.len() as u64 > LONGEST {
        return Err(Error::Folder { path: path.into(), why: format!("has more than {LONGEST} bytes") });
    }
    serde_json::from_slice(&text).map_err(|e| Error::Folder { path: path.into(), why: format!("is no JSON: {e}") })
}

/// Reads a JSON file that need not be there.
///
/// # Errors
/// As [`read_json`] where it is.
pub fn opt_json(path: &Path) -> Result<Option<Value>> {
    if path.is_file() { read_json(path).map(Some) } else { Ok(None) }
}

/// The object of a key.
pub fn object<'a>(json: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    json.get(key).and_then(Value::as_object)
}

/// The hyperparameters of a model.
pub struct Config {
    path: PathBuf,
    map: Map<String, Value>,
}

impl Config {
    /// Reads the configuration of a folder. Where it describes a model that sees as well, the part of the text counts.
    ///
    /// # Errors
    /// There is none, or it is no object.
    pub fn read(folder: &Path) -> Result<Config> {
        let path = folder.join("config.json");
        let Value::Object(mut map) = read_json(&path)? else {
            return Err(Error::Folder { path, why: "is no object".into() });
        };
        if let Some(Value::Object(text)) = map.remove("text_config") {
            let outer = ["architectures", "quantization_config", "_name_or_path"];
            map.retain(|key, _| outer.contains(&key.as_str()) || key.ends_with("_token_id"));
            for (key, value) in text {
                if !outer.contains(&key.as_str()) {
                    map.insert(key, value);
                }
            }
        }
        Ok(Config { path, map })
    }

    /// An error about this file.
    pub fn fault(&self, why: impl Into<String>) -> Error {
        Error::Folder { path: self.path.clone(), why: why.into() }
    }

    /// What a key says is not what is read.
    pub fn unexpected(&self, key: &str, expected: &str) -> Error {
        let found = self.get(key).map_or("missing".to_string(), |v| printable(&v.to_string()));
        self.fault(format!("{key} is {found}: expected {expected}"))
    }

    /// A value that is there and is not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The classes that the model is made for.
    pub fn architectures(&self) -> Vec<&str> {
        let list = self.get("architectures").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A count.
    ///
    /// # Errors
    /// It is missing, or no number of 32 bits.
    pub fn count(&self, key: &str) -> Result<u32> {
        self.opt_count(key)?.ok_or_else(|| self.unexpected(key, "a count"))
    }

    /// A count where there is one.
    ///
    /// # Errors
    /// It is no number of 32 bits.
    pub fn opt_count(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|v| u32::try_from(v).ok());
        count.map(Some).ok_or_else(|| self.unexpected(key, "a count"))
    }

    /// A number where there is one.
    ///
    /// # Errors
    /// It is none.
    pub fn opt_float(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.unexpected(key, "a number"))
    }

    /// A text where there is one.
    pub fn opt_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// Whether a key says true; `default` where it says nothing.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    /// The base of the rotary embedding and how it is stretched, wherever this version of the file keeps them.
    ///
    /// # Errors
    /// The base is no number.
    pub fn rope(&self) -> Result<(Option<f64>, Option<Stretch<'_>>)> {
        let nested = |key: &str| self.get(key).and_then(Value::as_object);
        let all = nested("rope_parameters");
        // Where layers of two kinds have two embeddings, those that see everything have the main one.
        let all = all.map(|map| map.get("full_attention").and_then(Value::as_object).unwrap_or(map));
        let base = match all.and_then(|map| map.get("rope_theta")) {
            Some(value) => Some(value.as_f64().ok_or_else(|| self.unexpected("rope_parameters", "a rope_theta"))?),
            None => self.opt_float("rope_theta")?,
        };
        let stretch = nested("rope_scaling").or(all).map(|map| Stretch { config: self, map });
        Ok((base, stretch.filter(|s| s.kind() != "default")))
    }
}

/// How a rotary embedding is stretched beyond the context that it was trained for.
#[derive(Clone, Copy)]
pub struct Stretch<'a> {
    config: &'a Config,
    map: &'a Map<String, Value>,
}

impl Stretch<'_> {
    /// The kind, `default` where there is none.
    pub fn kind(&self) -> &str {
        let kind = self.map.get("rope_type").or_else(|| self.map.get("type"));
        kind.and_then(Value::as_str).unwrap_or("default")
    }

    /// A number of it.
    ///
    /// # Errors
    /// It is missing or none.
    pub fn float(&self, key: &str) -> Result<f64> {
        let value = self.map.get(key).and_then(Value::as_f64);
        value.ok_or_else(|| self.config.fault(format!("rope scaling of kind {} has no number {key}", self.kind())))
    }

    /// A list of numbers of it.
    ///
    /// # Errors
    /// It is missing or something else.
    pub fn floats(&self, key: &str) -> Result<Vec<f32>> {
        let list = self.map.get(key).and_then(Value::as_array);
        let numbers = list.and_then(|l| l.iter().map(|v| v.as_f64().map(|v| v as f32)).collect());
        numbers.ok_or_else(|| self.config.fault(format!("rope scaling of kind {} has no list {key}", self.kind())))
    }

    /// It is of a kind that the family does not have.
    pub fn unknown(&self, known: &str) -> Error {
        self.config.fault(format!("rope scaling is of kind {}: expected {known}", self.kind()))
    }
}
