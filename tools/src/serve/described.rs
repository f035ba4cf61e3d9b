//! `inference_model.json`: how a folder of an ONNX toolchain describes a model, read beside a GGUF file.
//!
//! ```json
//! {"Name": "mine", "PromptTemplate": {"system": "...{Content}...", "user": "...", "assistant": "...", "prompt": "..."},
//!  "ModelConfig": {"max_length": 4096, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}}
//! ```

use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use crate::error::{Error, Result};

const FILE: &str = "inference_model.json";

/// What the file says, in this program's terms.
#[derive(Debug, Default)]
pub struct Described {
    /// The model's name.
    pub name: Option<String>,
    /// A template in Go's language.
    pub template: Option<String>,
    /// A system text.
    pub system: Option<String>,
    /// Options.
    pub parameters: Map<String, Json>,
}

/// The GGUF file of a folder, and what its description says.
///
/// # Errors
/// There is not exactly one GGUF file, or the description holds what is not known.
pub fn folder(folder: &Path) -> Result<(PathBuf, Option<Described>)> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("cannot read", folder))?;
    let is_model = |p: &PathBuf| p.extension().is_some_and(|e| e == "gguf");
    let models: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(is_model).collect();
    let [model] = &models[..] else {
        return Err(Error::Usage(format!("{} has {} GGUF files, expected one", folder.display(), models.len())));
    };
    let path = folder.join(FILE);
    if !path.exists() {
        return Ok((model.clone(), None));
    }
    let text = std::fs::read(&path).map_err(Error::io("cannot read", &path))?;
    let described = parse(&text).map_err(|why| Error::Manifest { path, why })?;
    Ok((model.clone(), Some(described)))
}

fn parse(text: &[u8]) -> Result<Described, String> {
    let json: Map<String, Json> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let mut described = Described::default();
    for (key, value) in &json {
        match key.as_str() {
            "Name" => described.name = Some(value.as_str().ok_or("Name must be a string")?.to_lowercase()),
            "Description" | "Version" => {}
            "PromptTemplate" => described.template = Some(template(value)?),
            "ModelConfig" => described.parameters = parameters(value)?,
            other => {
                return Err(format!(
                    "unknown key {other}; known are Name, Description, Version, PromptTemplate, ModelConfig"
                ));
            }
        }
    }
    Ok(described)
}

/// The parts of a prompt as a Go template over messages.
fn template(value: &Json) -> Result<String, String> {
    let parts = value.as_object().ok_or("PromptTemplate must be an object")?;
    let known = ["system", "user", "assistant", "prompt"];
    if let Some(key) = parts.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(format!("unknown key PromptTemplate.{key}; known are {}", known.join(", ")));
    }
    let part = |name: &str| -> Result<Option<&str>, String> {
        match parts.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) if text.contains("{{") => Err(format!("PromptTemplate.{name} contains {{{{")),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("PromptTemplate.{name} must be a string")),
        }
    };
    let with = |text: &str, content: &str| text.replace("{Content}", content);
    let assistant = part("assistant")?.unwrap_or("{Content}");
    let (before, after) = assistant.split_once("{Content}").unwrap_or((assistant, ""));
    if let Some(prompt) = part("prompt")? {
        // One text for the whole: the user's words in it, the system's before.
        let system = part("system")?.map(|s| with(s, "{{ .System }}")).unwrap_or_default();
        return Ok(format!("{{{{ if .System }}}}{system}{{{{ end }}}}{}", with(prompt, "{{ .Prompt }}")));
    }
    let user = part("user")?.ok_or("PromptTemplate has neither prompt nor user")?;
    let system = part("system")?.unwrap_or("{Content}\n");
    Ok(format!(
        "{{{{ if .System }}}}{}{{{{ end }}}}{}{before}{{{{ .Response }}}}{after}",
        with(system, "{{ .System }}"),
        with(user, "{{ .Prompt }}")
    ))
}

fn parameters(value: &Json) -> Result<Map<String, Json>, String> {
    let table = [
        ("max_length", "num_ctx"),
        ("temperature", "temperature"),
        ("top_p", "top_p"),
        ("top_k", "top_k"),
        ("repetition_penalty", "repeat_penalty"),
    ];
    let config = value.as_object().ok_or("ModelConfig must be an object")?;
    let mut parameters = Map::new();
    for (key, value) in config {
        let (_, ours) = table
            .iter()
            .find(|(k, _)| k == key)
            .ok_or_else(|| format!("unknown key ModelConfig.{key}; known are {}", table.map(|t| t.0).join(", ")))?;
        if !value.is_number() {
            return Err(format!("ModelConfig.{key} must be a number"));
        }
        parameters.insert((*ours).to_string(), json!(value));
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_becomes_template_and_options() {
        let text = br#"{"Name": "Mine", "Description": "x", "PromptTemplate": {"system": "<s>{Content}</s>",
            "user": "<u>{Content}</u>", "assistant": "<a>{Content}</a>"}, "ModelConfig": {"max_length": 512, "repetition_penalty": 1.1}}"#;
        let d = parse(text).unwrap();
        assert_eq!(d.name.as_deref(), Some("mine"));
        let expected = "{{ if .System }}<s>{{ .System }}</s>{{ end }}<u>{{ .Prompt }}</u><a>{{ .Response }}</a>";
        assert_eq!(d.template.as_deref(), Some(expected));
        assert_eq!(d.parameters["num_ctx"], 512);
        assert_eq!(d.parameters["repeat_penalty"], 1.1);
        assert!(parse(br#"{"ModelConfig": {"beams": 4}}"#).unwrap_err().contains("ModelConfig.beams"));
        assert!(parse(br#"{"Fast": true}"#).unwrap_err().contains("Fast"));
    }
}
