//! WordPiece, of BERT: words begin with U+2581 and what continues one stands for itself.

use serde_json::Value;

use super::{CONTROL, Files, NORMAL, UNKNOWN, Vocabulary, by_id};
use crate::convert::config::object;
use crate::error::{Error, Result};

/// The split rules' name; the engine has one set of them for this kind.
const PRE: &str = "bert-bge";
/// What stands before a token that continues a word.
const CONTINUES: &str = "##";

/// The vocabulary of a `tokenizer.json`.
///
/// # Errors
/// It lacks a part, or its texts are not normalized as the engine does.
pub fn from_json(files: &Files, tokenizer: &Value) -> Result<Vocabulary> {
    let normalizer = tokenizer.get("normalizer").unwrap_or(&Value::Null);
    let kind = normalizer.get("type").and_then(Value::as_str);
    if kind != Some("BertNormalizer") {
        return Err(files.fault(format!("normalizes text by {normalizer}: expected a BertNormalizer")));
    }
    for (key, null) in
        [("lowercase", false), ("clean_text", false), ("handle_chinese_chars", false), ("strip_accents", true)]
    {
        let value = normalizer.get(key).unwrap_or(&Value::Null);
        if !(value.as_bool() == Some(true) || (null && value.is_null())) {
            return Err(files.fault(format!("normalizes text with {key} {value}: expected true")));
        }
    }
    let model = object(tokenizer, "model").ok_or_else(|| files.fault("has no model"))?;
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str);
    if prefix != Some(CONTINUES) {
        return Err(files.fault(format!("continues words by {prefix:?}: expected {CONTINUES}")));
    }
    let vocab = model.get("vocab").and_then(Value::as_object).ok_or_else(|| files.fault("has no model.vocab"))?;
    Ok(vocabulary(by_id(files, vocab)?, model.get("unk_token").and_then(Value::as_str)))
}

/// The vocabulary of a `vocab.txt`, a token a line.
///
/// # Errors
/// It cannot be read, or its texts are not lowered.
pub fn from_list(files: &Files) -> Result<Vocabulary> {
    let setting = |key: &str| files.settings.as_ref().and_then(|s| s.get(key));
    if setting("do_lower_case").and_then(Value::as_bool) == Some(false) {
        let path = files.folder.join("tokenizer_config.json");
        return Err(Error::Folder { path, why: "has do_lower_case false: expected true".into() });
    }
    let path = files.folder.join("vocab.txt");
    let text = std::fs::read_to_string(&path).map_err(Error::io("cannot read", &path))?;
    let tokens = text.lines().map(|line| Some(line.trim_end_matches('\r').to_string())).collect();
    Ok(vocabulary(tokens, setting("unk_token").and_then(Value::as_str).or(Some("[UNK]"))))
}

fn vocabulary(tokens: Vec<Option<String>>, unknown: Option<&str>) -> Vocabulary {
    let mut types = Vec::with_capacity(tokens.len());
    let mut renamed = Vec::with_capacity(tokens.len());
    for text in tokens {
        let bracketed = text.as_deref().is_some_and(|t| t.starts_with('[') && t.ends_with(']') && t.len() > 2);
        types.push(match text.as_deref() {
            text if text.is_some() && text == unknown => UNKNOWN,
            Some("[PAD]" | "[CLS]" | "[SEP]" | "[MASK]") => CONTROL,
            _ => NORMAL,
        });
        renamed.push(text.map(|text| match text.strip_prefix(CONTINUES) {
            Some(rest) if !rest.is_empty() => rest.to_string(),
            _ if bracketed => text,
            _ => format!("▁{text}"),
        }));
    }
    Vocabulary { model: "bert", pre: PRE, tokens: renamed, types, scores: None, merges: None, space_prefix: None }
}
