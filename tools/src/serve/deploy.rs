//! A deployment file: which model runs how, as the deployment and performance JSON of local-inference guides write it.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::config::size;
use crate::error::{Error, Result};

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deployment {
    /// The model to load at once.
    pub model: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Positions of a sequence.
    pub context: Option<usize>,
    /// Tokens of a prompt in one step.
    pub batch: Option<usize>,
    /// Answers at once.
    pub parallel: Option<usize>,
    /// Bytes that models may take.
    pub memory: Option<u64>,
}

impl Deployment {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or holds a key that is not known or a value of the wrong type: the path of the key is named.
    pub fn read(path: &Path) -> Result<Deployment> {
        let text = std::fs::read(path).map_err(Error::io("cannot read", path))?;
        let json: Json =
            serde_json::from_slice(&text).map_err(|e| Error::Usage(format!("{} is no JSON: {e}", path.display())))?;
        let mut deployment = Deployment::default();
        let mut rows = Vec::new();
        flatten("", &json, &mut rows);
        for (key, value) in rows {
            deployment.set(&key, value).map_err(|why| Error::Usage(format!("{}: {key} {why}", path.display())))?;
        }
        Ok(deployment)
    }

    fn set(&mut self, key: &str, value: &Json) -> Result<(), String> {
        let whole = || value.as_u64().filter(|n| *n > 0).map(|n| n as usize).ok_or("must be an integer above 0");
        match key {
            "model" | "model.name" => self.model = Some(value.as_str().ok_or("must be a string")?.to_string()),
            "api.port" => self.port = Some(whole()?.try_into().map_err(|_| "is no port")?),
            "api.openai_compatible" => return yes(value, "the OpenAI routes cannot be switched off"),
            "optimization.max_context" => self.context = Some(whole()?),
            "optimization.batch_size" => {
                whole()?;
                super::log::info("optimization.batch_size has no effect: batches are filled as requests come");
            }
            "optimization.quantization" => {
                super::log::info("optimization.quantization has no effect: a model runs in the format of its file");
            }
            "hardware.preferred" | "hardware.fallback" => hardware(key, value)?,
            "performance.batch_processing.parallel_requests"
            | "batch_processing.parallel_requests"
            | "parallel_requests" => self.parallel = Some(whole()?),
            "batch_processing.enabled" | "batch_processing" => return yes(value, "batches cannot be switched off"),
            "memory_optimization.enable_kv_cache" => return yes(value, "the KV cache cannot be switched off"),
            "memory_optimization.max_cache_size" => {
                let text = value.as_str().map(String::from).unwrap_or_else(|| value.to_string());
                self.memory = Some(size(&text).ok_or("must be a size such as 4GB")?);
            }
            "hardware_scheduling.enable_dynamic_batching" => return yes(value, "batches cannot be switched off"),
            "hardware_scheduling.max_batch_size" => self.parallel = Some(whole()?),
            _ => return Err("is not known".into()),
        }
        Ok(())
    }
}

/// What is always so and can only be confirmed.
fn yes(value: &Json, otherwise: &str) -> Result<(), String> {
    match value {
        Json::Bool(true) => Ok(()),
        Json::Bool(false) => Err(format!("is false, but {otherwise}")),
        _ => Err("must be a boolean".into()),
    }
}

fn hardware(key: &str, value: &Json) -> Result<(), String> {
    let words = match value {
        Json::String(word) => vec![word.as_str()],
        Json::Array(words) => words.iter().filter_map(Json::as_str).collect(),
        _ => return Err("must be a string or a list of them".into()),
    };
    if let Some(word) = words.iter().find(|w| !matches!(w.to_ascii_lowercase().as_str(), "cpu" | "auto")) {
        super::log::info(&format!("{key} names {word}: the processor computes everything"));
    }
    Ok(())
}

/// Paths and values of all leaves.
fn flatten<'j>(path: &str, json: &'j Json, rows: &mut Vec<(String, &'j Json)>) {
    let each = |map: &'j Map<String, Json>, rows: &mut Vec<(String, &'j Json)>| {
        for (key, value) in map {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            flatten(&path, value, rows);
        }
    };
    match json {
        Json::Object(map) => each(map, rows),
        leaf => rows.push((path.to_string(), leaf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Deployment> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Deployment::read(file.path())
    }

    #[test]
    fn known_keys_arrive_and_unknown_ones_are_named() {
        let found = read(
            r#"{"model": "smollm2", "hardware": {"preferred": "npu", "fallback": ["gpu", "cpu"]},
                "optimization": {"quantization": "int4", "batch_size": 1, "max_context": 2048},
                "api": {"port": 8080, "openai_compatible": true},
                "batch_processing": {"parallel_requests": 4},
                "memory_optimization": {"enable_kv_cache": true, "max_cache_size": "4GB"}}"#,
        );
        let expected = Deployment {
            model: Some("smollm2".into()),
            port: Some(8080),
            context: Some(2048),
            batch: None,
            parallel: Some(4),
            memory: Some(4 << 30),
        };
        assert_eq!(found.unwrap(), expected);
        for (text, word) in [
            (r#"{"api": {"prot": 1}}"#, "api.prot"),
            (r#"{"api": {"port": 99999}}"#, "api.port"),
            (r#"{"memory_optimization": {"enable_kv_cache": false}}"#, "enable_kv_cache"),
            ("[", "JSON"),
        ] {
            assert!(read(text).unwrap_err().to_string().contains(word), "{text}");
        }
    }
}
