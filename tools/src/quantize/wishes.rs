//! What a person asks for beside a type: formats of some tensors by name, and settings in a file.

use std::path::Path;

use gguf::Format;
use regex::Regex;
use serde::Deserialize;

use super::types::FileType;
use crate::error::{Error, Result};

/// What decides beside the type.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Whether every matrix gets the type's own format.
    pub pure: bool,
    /// Whether the importance of columns is known.
    pub weighted: bool,
    /// Formats of tensors by their names; the first that fits counts.
    pub by_name: Vec<ByName>,
}

/// A format for the tensors whose names an expression finds.
#[derive(Clone, Debug)]
pub struct ByName {
    name: Regex,
    format: Format,
}

impl Wishes {
    /// The format that is asked for by a tensor's name.
    pub fn of(&self, name: &str) -> Option<Format> {
        self.by_name.iter().find(|wish| wish.name.is_match(name)).map(|wish| wish.format)
    }
}

impl ByName {
    /// Reads `REGEX=TYPE`.
    ///
    /// # Errors
    /// There is no `=`, the expression is none, or no such format can be written.
    pub fn parse(text: &str) -> Result<ByName, String> {
        let (name, format) = text.rsplit_once('=').ok_or("expected REGEX=TYPE, as in attn_v=q8_0")?;
        let name = Regex::new(name).map_err(|e| e.to_string())?;
        let writable = Format::ALL.iter().filter(|f| f.encoder().is_some());
        let found = writable.clone().find(|f| f.name().eq_ignore_ascii_case(format));
        let format = *found.ok_or_else(|| {
            let names: Vec<&str> = writable.map(|f| f.name()).collect();
            format!("no tensor is written in \"{format}\": expected one of {}", names.join(", "))
        })?;
        Ok(ByName { name, format })
    }
}

/// A file of settings, in the words of other tools for quantization.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    precision: String,
    block_size: Option<u32>,
    symmetric: Option<bool>,
}

/// A type by its bits, the weights that share a scale, and whether codes lie around zero. The first row that fits counts.
const BY_SETTINGS: [(&str, &[u32], bool, &str); 13] = [
    ("fp32", &[], true, "f32"),
    ("fp16", &[], true, "f16"),
    ("bf16", &[], true, "bf16"),
    ("int8", &[32], true, "q8_0"),
    ("int6", &[16, 256], true, "q6_k"),
    ("int5", &[32], true, "q5_0"),
    ("int5", &[256], false, "q5_k_m"),
    ("int5", &[32], false, "q5_1"),
    ("int4", &[32], true, "q4_0"),
    ("int4", &[256], false, "q4_k_m"),
    ("int4", &[32], false, "q4_1"),
    ("int3", &[16, 256], true, "q3_k_m"),
    ("int2", &[16, 256], false, "q2_k"),
];

/// The type that a file of settings means: `precision`, and where they are given `block_size` and `symmetric`.
///
/// # Errors
/// The file cannot be read, has other keys, or means no type.
pub fn of_settings(path: &Path) -> Result<&'static FileType> {
    let text = std::fs::read(path).map_err(Error::io("cannot read", path))?;
    let fault = |why: String| Error::Folder { path: path.into(), why };
    let s: Settings = serde_json::from_slice(&text).map_err(|e| fault(format!("is no file of settings: {e}")))?;
    let fits = |(precision, sizes, symmetric, _): &&(&str, &[u32], bool, &str)| {
        let size = s.block_size.is_none_or(|size| sizes.contains(&size));
        s.precision.eq_ignore_ascii_case(precision) && size && s.symmetric.is_none_or(|wish| wish == *symmetric)
    };
    let row = BY_SETTINGS.iter().find(fits).ok_or_else(|| {
        let words = |(precision, sizes, symmetric, _): &(&str, &[u32], bool, &str)| match sizes {
            [] => precision.to_string(),
            sizes => {
                let sizes: Vec<String> = sizes.iter().map(u32::to_string).collect();
                format!("{precision} with block_size {} and symmetric {symmetric}", sizes.join(" or "))
            }
        };
        let known: Vec<String> = BY_SETTINGS.iter().map(words).collect();
        let found = format!("{}, block_size {:?}, symmetric {:?}", s.precision, s.block_size, s.symmetric);
        fault(format!("asks for {found}, which no format has: expected {}", known.join("; ")))
    })?;
    FileType::parse(row.3).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_settings_is_a_type() {
        for row in BY_SETTINGS {
            assert!(FileType::parse(row.3).is_ok(), "{}", row.3);
        }
    }

    #[test]
    fn names_find_formats() {
        let wishes = Wishes {
            by_name: ["attn_v=Q8_0", r"blk\.[01]\..*=q6_k"].map(|t| ByName::parse(t).unwrap()).to_vec(),
            ..Wishes::default()
        };
        assert_eq!(wishes.of("blk.0.attn_v.weight"), Some(Format::Q8_0));
        assert_eq!(wishes.of("blk.1.ffn_up.weight"), Some(Format::Q6K));
        assert_eq!(wishes.of("blk.2.ffn_up.weight"), None);
        for (text, word) in [("attn_v", "REGEX=TYPE"), ("(=q8_0", "unclosed"), ("a=q8_k", "q8_0")] {
            assert!(ByName::parse(text).unwrap_err().contains(word), "{text}");
        }
    }
}
