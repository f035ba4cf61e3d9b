//! Tokens with a role, whether texts begin and end with them, and the chat template.

use std::collections::{BTreeMap, HashMap};

use gguf::Builder;
use serde_json::Value;

use super::Files;
use crate::convert::config::{Config, opt_json};
use crate::error::{Error, Result};

/// Roles: the word of `tokenizer_config.json`, and of the key.
const ROLES: [(&str, &str); 8] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    // Spelled so in every file.
    ("sep", "seperator"),
    ("pad", "padding"),
    ("cls", "cls"),
    ("mask", "mask"),
    ("eot", "eot"),
];

/// Texts by role, and whether they are added to a text.
struct Roles {
    texts: BTreeMap<&'static str, String>,
    added: BTreeMap<&'static str, bool>,
}

/// Writes the keys of all roles and the chat template.
///
/// # Errors
/// The template is of an unknown form.
pub fn write(files: &Files, config: &Config, ids: &HashMap<&str, u32>, file: &mut Builder) -> Result<()> {
    let roles = Roles::read(files);
    for (role, key) in ROLES {
        let by_text = roles.texts.get(role).and_then(|text| ids.get(text.as_str()).copied());
        let by_id = config.get(&format!("{role}_token_id")).and_then(Value::as_u64);
        let id = by_text.or(by_id.and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < ids.len()));
        if let Some(id) = id {
            file.key(&format!("tokenizer.ggml.{key}_token_id"), id)?;
        }
    }
    for (role, added) in &roles.added {
        file.key(&format!("tokenizer.ggml.add_{role}_token"), *added)?;
    }
    templates(files, file)
}

impl Roles {
    fn read(files: &Files) -> Roles {
        let setting = |key: String| files.settings.as_ref().and_then(|s| s.get(key));
        let text = |role: &str| {
            let token = setting(format!("{role}_token"))?;
            token.as_str().or_else(|| token.get("content").and_then(Value::as_str)).map(String::from)
        };
        let mut roles = Roles { texts: BTreeMap::new(), added: BTreeMap::new() };
        roles.texts.extend(ROLES.iter().filter_map(|(role, _)| Some((*role, text(role)?))));
        if let Some(tokenizer) = &files.tokenizer {
            for (role, stand_in) in [("bos", "cls"), ("eos", "sep")] {
                if let Some(text) = roles.texts.get(stand_in).cloned() {
                    roles.texts.entry(role).or_insert(text);
                }
            }
            roles.frame(tokenizer.get("post_processor").unwrap_or(&Value::Null));
        }
        for role in ["bos", "eos", "sep"] {
            if let Some(flag) = setting(format!("add_{role}_token")).and_then(Value::as_bool) {
                roles.added.insert(role, flag);
            }
        }
        roles
    }

    /// What a text is put between, from the template of the post-processor.
    fn frame(&mut self, processor: &Value) {
        if let Some(parts) = processor.get("processors").and_then(Value::as_array) {
            return parts.iter().for_each(|part| self.frame(part));
        }
        let single = processor.get("single").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let special = |part: &Value| part.get("SpecialToken")?.get("id")?.as_str().map(String::from);
        let [first, .., last] = single else { return };
        if let Some(text) = special(first) {
            let begins = |role| self.texts.get(role) == Some(&text);
            self.added.insert("bos", begins("bos") || begins("cls"));
        }
        if let Some(text) = special(last) {
            // What ends a text is its end; what ends an answer beside it ends a turn.
            let old = self.texts.insert("eos", text.clone()).filter(|old| *old != text);
            if let Some(old) = old {
                self.texts.entry("eot").or_insert(old);
            }
            self.added.insert("eos", true);
        }
    }
}

/// Writes the chat template: the settings' own, else that of a file beside them.
fn templates(files: &Files, file: &mut Builder) -> Result<()> {
    const KEY: &str = "tokenizer.chat_template";
    let path = files.folder.join("chat_template.jinja");
    let own = files.settings.as_ref().and_then(|s| s.get("chat_template")).filter(|t| !t.is_null()).cloned();
    let template = match own {
        Some(template) => Some(template),
        None if path.is_file() => {
            Some(Value::String(std::fs::read_to_string(&path).map_err(Error::io("cannot read", &path))?))
        }
        None => opt_json(&files.folder.join("chat_template.json"))?.and_then(|t| t.get("chat_template").cloned()),
    };
    match template {
        None => {}
        Some(Value::String(text)) => file.key(KEY, text)?,
        Some(Value::Array(list)) => {
            let mut names = Vec::new();
            for template in &list {
                let part = |key: &str| template.get(key).and_then(Value::as_str);
                let Some((name, text)) = part("name").zip(part("template")) else { return Err(unknown(files)) };
                match name {
                    "default" => file.key(KEY, text)?,
                    name => {
                        file.key(&format!("{KEY}.{name}"), text)?;
                        names.push(name);
                    }
                }
            }
            file.key("tokenizer.chat_templates", names)?;
        }
        Some(_) => return Err(unknown(files)),
    }
    Ok(())
}

fn unknown(files: &Files) -> Error {
    let path = files.folder.join("tokenizer_config.json");
    Error::Folder { path, why: "has a chat_template that is no text and no list of names and templates".into() }
}
