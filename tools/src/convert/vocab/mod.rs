//! The vocabulary of a folder, from whichever files it stands in, as the metadata of a GGUF.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`bpe`] | `tokenizer.json` of byte-pair encodings, over bytes or as SentencePiece has them; which split rules those are |
//! | [`wordpiece`] | `tokenizer.json` or `vocab.txt` of BERT |
//! | [`sentencepiece`] | `tokenizer.model` |
//! | [`special`] | tokens with a role, and the chat template |

mod bpe;
mod sentencepiece;
mod special;
mod wordpiece;

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::config::{Config, object, opt_json};
use super::family::{Family, Head};
use crate::error::{Error, Result};

/// Types of tokens, by the numbers of the file format.
pub const NORMAL: i32 = 1;
/// Stands for text that has no token.
pub const UNKNOWN: i32 = 2;
/// Structure.
pub const CONTROL: i32 = 3;
/// Text that is always one token.
pub const USER: i32 = 4;
/// In no text.
pub const UNUSED: i32 = 5;
/// One byte.
pub const BYTE: i32 = 6;

/// The score of tokens that no merge makes.
const UNMERGED: f32 = -1000.0;
/// Most tokens; what the engine takes.
const MOST: u32 = 1 << 24;

/// The files that describe a vocabulary.
pub struct Files<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// `tokenizer.json`.
    pub tokenizer: Option<Value>,
    /// `tokenizer_config.json`.
    pub settings: Option<Value>,
}

impl Files<'_> {
    /// An error about `tokenizer.json`.
    pub fn fault(&self, why: impl Into<String>) -> Error {
        Error::Folder { path: self.folder.join("tokenizer.json"), why: why.into() }
    }
}

/// A vocabulary in the words of GGUF.
pub struct Vocabulary {
    /// The kind of tokenizer.
    pub model: &'static str,
    /// The name of its split rules.
    pub pre: &'static str,
    /// The tokens, none where an id has no token.
    pub tokens: Vec<Option<String>>,
    /// Their types.
    pub types: Vec<i32>,
    /// Their scores, where the kind has such.
    pub scores: Option<Vec<f32>>,
    /// The merges, where the kind has such.
    pub merges: Option<Vec<String>>,
    /// Whether a space is put before a text, where that is known.
    pub space_prefix: Option<bool>,
}

/// A token that was added to a vocabulary.
struct Added {
    id: u32,
    text: String,
    special: bool,
}

/// Writes the vocabulary of a folder, with as many tokens as the model has rows for.
///
/// # Errors
/// There is none, or one of a kind that is not converted.
pub fn write(folder: &Path, config: &Config, family: &Family, head: &mut Head) -> Result<()> {
    let files = Files {
        folder,
        tokenizer: opt_json(&folder.join("tokenizer.json"))?,
        settings: opt_json(&folder.join("tokenizer_config.json"))?,
    };
    let mut vocabulary = read(&files)?;
    let size = config.count("vocab_size")?;
    if size == 0 || size > MOST || vocabulary.tokens.len() > size as usize {
        return Err(config.unexpected("vocab_size", &format!("{} to {MOST} tokens", vocabulary.tokens.len().max(1))));
    }
    vocabulary.add(&added(&files)?, size as usize);
    let file = &mut head.file;
    file.key("tokenizer.ggml.model", vocabulary.model)?;
    file.key("tokenizer.ggml.pre", vocabulary.pre)?;
    let name = |(id, text): (usize, &Option<String>)| text.clone().unwrap_or_else(|| format!("[PAD{id}]"));
    let tokens: Vec<String> = vocabulary.tokens.iter().enumerate().map(name).collect();
    file.key("tokenizer.ggml.tokens", tokens.clone())?;
    let ids: HashMap<&str, u32> =
        tokens.iter().enumerate().rev().map(|(id, text)| (text.as_str(), id as u32)).collect();
    file.key("tokenizer.ggml.token_type", vocabulary.types.clone())?;
    if let Some(scores) = vocabulary.scores.take() {
        file.key("tokenizer.ggml.scores", scores)?;
    }
    if let Some(merges) = vocabulary.merges.take() {
        file.key("tokenizer.ggml.merges", merges)?;
    }
    special::write(&files, config, &ids, file)?;
    if vocabulary.model == "llama"
        && let Some(space) = family.space_prefix.or(setting(&files, "add_prefix_space")).or(vocabulary.space_prefix)
    {
        file.key("tokenizer.ggml.add_space_prefix", space)?;
    }
    Ok(())
}

fn setting(files: &Files, key: &str) -> Option<bool> {
    files.settings.as_ref()?.get(key)?.as_bool()
}

fn read(files: &Files) -> Result<Vocabulary> {
    let pieces = files.folder.join("tokenizer.model");
    if pieces.is_file() {
        return sentencepiece::read(&pieces);
    }
    let Some(tokenizer) = &files.tokenizer else {
        if files.folder.join("vocab.txt").is_file() {
            return wordpiece::from_list(files);
        }
        let why = "has no tokenizer.json, no tokenizer.model and no vocab.txt".to_string();
        return Err(Error::Folder { path: files.folder.into(), why });
    };
    match object(tokenizer, "model").and_then(|m| kind(m)) {
        Some("BPE") => bpe::read(files, tokenizer),
        Some("WordPiece") => wordpiece::from_json(files, tokenizer),
        other => Err(files.fault(format!("is of kind {}: expected BPE or WordPiece", other.unwrap_or("none")))),
    }
}

/// The kind of a model; old files say it only by what they hold.
fn kind(model: &serde_json::Map<String, Value>) -> Option<&str> {
    let named = model.get("type").and_then(Value::as_str);
    named
        .or_else(|| model.contains_key("merges").then_some("BPE"))
        .or_else(|| model.contains_key("continuing_subword_prefix").then_some("WordPiece"))
}

/// The tokens of an object of ids by text.
///
/// # Errors
/// An id that is none.
fn by_id(files: &Files, vocab: &serde_json::Map<String, Value>) -> Result<Vec<Option<String>>> {
    let mut tokens = Vec::new();
    for (text, id) in vocab {
        let id = id.as_u64().filter(|&id| id < u64::from(MOST));
        let id = id.ok_or_else(|| files.fault(format!("has token {text:?} of id {}", vocab[text])))? as usize;
        if tokens.len() <= id {
            tokens.resize(id + 1, None);
        }
        tokens[id] = Some(text.clone());
    }
    Ok(tokens)
}

/// All tokens that were added, from the first file that lists them.
fn added(files: &Files) -> Result<Vec<Added>> {
    let listed = files.tokenizer.as_ref().and_then(|t| t.get("added_tokens")).and_then(Value::as_array);
    let one = |id: Option<u64>, token: &Value| {
        let id = id.and_then(|id| u32::try_from(id).ok());
        let text = token.get("content").and_then(Value::as_str);
        let special = token.get("special").and_then(Value::as_bool).unwrap_or(false);
        let token = id.zip(text).map(|(id, text)| Added { id, text: text.into(), special });
        token.ok_or_else(|| files.fault("has an added token without an id or a content"))
    };
    if let Some(list) = listed {
        return list.iter().map(|token| one(token.get("id").and_then(Value::as_u64), token)).collect();
    }
    let decoder = files.settings.as_ref().and_then(|s| object(s, "added_tokens_decoder"));
    decoder.into_iter().flatten().map(|(id, token)| one(id.parse().ok(), token)).collect()
}

/// Whether a text is written as special tokens are.
fn looks_special(text: &str) -> bool {
    (text.starts_with("<|") && text.ends_with("|>"))
        || (text.starts_with("<｜") && text.ends_with("｜>"))
        || ["<pad>", "<mask>"].contains(&text)
}

impl Vocabulary {
    /// Adds tokens and fills up to the model's size. What has no row there is left out.
    fn add(&mut self, added: &[Added], size: usize) {
        self.tokens.resize(size, None);
        self.types.resize(size, UNUSED);
        if let Some(scores) = &mut self.scores {
            scores.resize(size, UNMERGED);
        }
        for token in added.iter().filter(|t| (t.id as usize) < size) {
            let id = token.id as usize;
            let control = token.special || looks_special(&token.text);
            let known = self.tokens[id].as_deref() == Some(&token.text);
            if known && matches!(self.types[id], UNKNOWN | BYTE) {
                continue;
            }
            self.types[id] = if control { CONTROL } else { USER };
            // What is found in text as it stands is written as it stands.
            let text =
                if control || self.model != "llama" { token.text.clone() } else { token.text.replace('▁', " ") };
            if !known {
                self.scores.iter_mut().for_each(|scores| scores[id] = UNMERGED);
            }
            self.tokens[id] = Some(text);
        }
        for (kind, text) in self.types.iter_mut().zip(&self.tokens) {
            if text.is_none() {
                *kind = UNUSED;
            }
        }
    }
}
