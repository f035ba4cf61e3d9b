//! API keys: who may do what.
//!
//! A key is compared by its SHA-256, in constant time and with every key that there is, so that the time of an answer
//! tells neither how much of a key was right nor which one it was like.

use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::error::{Error, Result};

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Nothing: health, the start page.
    Open,
    /// Questions to models and their lists.
    Infer,
    /// Changes of the store.
    Manage,
    /// Metrics.
    Metrics,
}

/// THE list of scopes that a key can have.
const SCOPES: [(&str, Scope); 3] = [("infer", Scope::Infer), ("manage", Scope::Manage), ("metrics", Scope::Metrics)];

/// A key.
#[derive(Clone, Debug)]
struct Key {
    name: String,
    hash: [u8; 32],
    scopes: Vec<Scope>,
}

/// All keys; none means that everybody may do everything.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<Key>);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's name; `-` without keys.
    pub name: String,
    /// The key's number: requests of one number share cached prompts.
    pub number: u32,
}

/// Why a caller may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such key.
    Unknown,
    /// The key has not that scope.
    Scope,
}

impl Keys {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a key with all scopes.
    ///
    /// # Errors
    /// It is empty or has characters that no header can have.
    pub fn add(&mut self, key: &str) -> Result<()> {
        let name = format!("key-{}", self.0.len() + 1);
        self.insert(name, key, SCOPES.iter().map(|s| s.1).collect())
    }

    fn insert(&mut self, name: String, key: &str, scopes: Vec<Scope>) -> Result<()> {
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Usage("an API key must be visible ASCII characters without spaces".into()));
        }
        self.0.push(Key { name, hash: Sha256::digest(key.as_bytes()).into(), scopes });
        Ok(())
    }

    /// Reads a file of lines `NAME SCOPE[,SCOPE] KEY`; empty lines and such that begin with `#` are skipped.
    ///
    /// # Errors
    /// The file cannot be read, or a line is not of that form; the line's number is named, not its text.
    pub fn read(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(Error::io("cannot read", path))?;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: String| Error::Line { path: path.to_path_buf(), line: at + 1, why };
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, scopes, key] = words[..] else {
                return Err(wrong(format!("has {} words, expected NAME SCOPE[,SCOPE] KEY", words.len())));
            };
            let scope = |word: &str| {
                let known = || SCOPES.map(|s| s.0).join(", ");
                SCOPES.iter().find(|s| s.0 == word).map(|s| s.1).ok_or_else(|| {
                    wrong(format!("\"{}\" is no scope; scopes are {}", crate::ui::format::printable(word), known()))
                })
            };
            let scopes = scopes.split(',').map(scope).collect::<Result<_>>()?;
            self.insert(name.to_string(), key, scopes)?;
        }
        Ok(())
    }

    /// Who the bearer of a key is, if the key has the scope.
    ///
    /// # Errors
    /// No key has that text, or it has not the scope.
    pub fn caller(&self, bearer: Option<&str>, scope: Scope) -> std::result::Result<Caller, Refusal> {
        if self.0.is_empty() || scope == Scope::Open {
            return Ok(Caller { name: "-".into(), number: 0 });
        }
        let hash: [u8; 32] = Sha256::digest(bearer.unwrap_or_default().as_bytes()).into();
        let mut found = 0u32;
        for (number, key) in (1u32..).zip(&self.0) {
            let same: Choice = key.hash.ct_eq(&hash);
            found.conditional_assign(&number, same);
        }
        let Some(key) = found.checked_sub(1).and_then(|i| self.0.get(i as usize)) else { return Err(Refusal::Unknown) };
        if !key.scopes.contains(&scope) {
            return Err(Refusal::Scope);
        }
        Ok(Caller { name: key.name.clone(), number: found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_and_unknown_keys() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# people\nann infer,metrics s3cret\n\nbob manage other\n").unwrap();
        let mut keys = Keys::default();
        keys.read(file.path()).unwrap();
        let ann = keys.caller(Some("s3cret"), Scope::Infer).unwrap();
        assert_eq!((ann.name.as_str(), ann.number), ("ann", 1));
        assert_eq!(keys.caller(Some("s3cret"), Scope::Manage), Err(Refusal::Scope));
        assert_eq!(keys.caller(Some("other"), Scope::Manage).unwrap().number, 2);
        for wrong in [None, Some(""), Some("s3cre"), Some("s3cret "), Some("S3CRET")] {
            assert_eq!(keys.caller(wrong, Scope::Infer), Err(Refusal::Unknown), "{wrong:?}");
        }
        assert!(keys.caller(None, Scope::Open).is_ok());
        assert!(Keys::default().caller(None, Scope::Manage).is_ok());
    }

    #[test]
    fn lines_that_are_wrong_are_named_without_their_text() {
        for text in ["ann infer\n", "ann infer,fly s3cret\n", "a b c d\n"] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let error = Keys::default().read(file.path()).unwrap_err().to_string();
            assert!(error.contains("line 1") && !error.contains("s3cret"), "{error}");
        }
    }
}
