//! Byte-pair encodings of `tokenizer.json`: over bytes, with split rules that must be known by name; or over characters
//! with bytes for what has no token, which is what SentencePiece's own are turned into.

use std::collections::HashMap;

use engine::tokenizer::{GPT2_SPLIT, split_rules};
use serde_json::Value;

use super::{BYTE, Files, NORMAL, UNKNOWN, UNMERGED, Vocabulary, by_id};
use crate::convert::config::object;
use crate::error::Result;

/// The vocabulary of a file.
///
/// # Errors
/// It lacks a part, or its split rules have no name.
pub fn read(files: &Files, tokenizer: &Value) -> Result<Vocabulary> {
    let model = object(tokenizer, "model").ok_or_else(|| files.fault("has no model"))?;
    let vocab = model.get("vocab").and_then(Value::as_object).ok_or_else(|| files.fault("has no model.vocab"))?;
    let tokens = by_id(files, vocab)?;
    let merges = merges(files, model.get("merges").unwrap_or(&Value::Null))?;
    let flag = |key: &str| model.get(key).and_then(Value::as_bool).unwrap_or(false);
    if flag("byte_fallback") {
        return Ok(pieces(tokens, &merges, model.get("unk_token").and_then(Value::as_str), tokenizer));
    }
    let mut stages = Vec::new();
    collect(files, tokenizer.get("pre_tokenizer").unwrap_or(&Value::Null), &mut stages)?;
    let words: Vec<&str> = stages.iter().map(String::as_str).collect();
    let pre = split_rules(&words, flag("ignore_merges")).ok_or_else(|| {
        let whole = if flag("ignore_merges") { " with whole words first" } else { "" };
        files.fault(format!("cuts text by rules{whole} that have no name here: {stages:?}"))
    })?;
    let types = vec![NORMAL; tokens.len()];
    let merges = merges.into_iter().map(|(left, right)| format!("{left} {right}")).collect();
    Ok(Vocabulary { model: "gpt2", pre, tokens, types, scores: None, merges: Some(merges), space_prefix: None })
}

/// The merges, written as pairs or with a space between.
fn merges(files: &Files, list: &Value) -> Result<Vec<(String, String)>> {
    let list = list.as_array().ok_or_else(|| files.fault("has no list model.merges"))?;
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(a, b)| (a.to_string(), b.to_string())),
        Value::Array(pair) => match pair.as_slice() {
            // The file format has a space between two parts, which so can hold none.
            [Value::String(a), Value::String(b)] => Some((a.replace(' ', "Ġ"), b.replace(' ', "Ġ"))),
            _ => None,
        },
        _ => None,
    };
    list.iter().map(|m| pair(m).ok_or_else(|| files.fault(format!("has the merge {m}: expected two texts")))).collect()
}

/// The stages by which text is cut, as expressions.
fn collect(files: &Files, rule: &Value, stages: &mut Vec<String>) -> Result<()> {
    let unknown = || files.fault(format!("cuts text by {rule}, which is not known"));
    let text = |key: &str| rule.get(key).and_then(Value::as_str);
    let flag = |key: &str, default| rule.get(key).and_then(Value::as_bool).unwrap_or(default);
    match text("type") {
        Some("Sequence") => {
            let parts = rule.get("pretokenizers").and_then(Value::as_array).ok_or_else(unknown)?;
            return parts.iter().try_for_each(|part| collect(files, part, stages));
        }
        Some("ByteLevel") if flag("add_prefix_space", true) => return Err(unknown()),
        Some("ByteLevel") => stages.extend(flag("use_regex", true).then(|| GPT2_SPLIT.to_string())),
        Some("Digits") if flag("individual_digits", false) => stages.push(r"\p{N}".into()),
        Some("Digits") => stages.push(r"\p{N}+".into()),
        Some("Split") => {
            let pattern = rule.get("pattern").and_then(|p| p.get("Regex")).and_then(Value::as_str);
            // Both keep what matches as pieces; the rules that are known match all of a text.
            let kept = matches!(
                (text("behavior"), flag("invert", false)),
                (Some("Isolated"), false) | (Some("Removed"), true)
            );
            stages.push(pattern.filter(|_| kept).ok_or_else(unknown)?.to_string());
        }
        _ => return Err(unknown()),
    }
    Ok(())
}

/// A vocabulary as SentencePiece has it: the earlier a token's merge, the higher its score.
fn pieces(
    tokens: Vec<Option<String>>,
    merges: &[(String, String)],
    unknown: Option<&str>,
    tokenizer: &Value,
) -> Vocabulary {
    let mut rank: HashMap<String, f32> = HashMap::new();
    for (i, (left, right)) in merges.iter().enumerate() {
        rank.entry(format!("{left}{right}")).or_insert(-(i as f32));
    }
    let byte = |text: &str| {
        text.len() == 6 && text.strip_prefix("<0x").is_some_and(|t| u8::from_str_radix(&t[..2], 16).is_ok())
    };
    let kind = |text: &Option<String>| match text.as_deref() {
        text if text.is_some() && text == unknown => UNKNOWN,
        Some(text) if byte(text) => BYTE,
        _ => NORMAL,
    };
    let score = |text: &Option<String>| match text {
        Some(text) => rank.get(text).copied().unwrap_or(if byte(text) { 0.0 } else { UNMERGED }),
        None => UNMERGED,
    };
    let (types, scores) = (tokens.iter().map(kind).collect(), tokens.iter().map(score).collect());
    let space_prefix = Some(prefixed(tokenizer));
    Vocabulary { model: "llama", pre: "default", tokens, types, scores: Some(scores), merges: None, space_prefix }
}

/// Whether a space is put before a text, by a normalizer or by the rule that cuts it.
fn prefixed(tokenizer: &Value) -> bool {
    let in_front = |rule: &Value| {
        let text = |key: &str| rule.get(key).and_then(Value::as_str);
        match text("type") {
            Some("Prepend") => true,
            Some("Metaspace") => match text("prepend_scheme") {
                Some(scheme) => scheme != "never",
                None => rule.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(true),
            },
            _ => false,
        }
    };
    let any = |key: &str, list: &str| {
        let rule = tokenizer.get(key).unwrap_or(&Value::Null);
        in_front(rule) || rule.get(list).and_then(Value::as_array).is_some_and(|all| all.iter().any(in_front))
    };
    any("normalizer", "normalizers") || any("pre_tokenizer", "pretokenizers")
}
