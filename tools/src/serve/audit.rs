//! The audit log: a line of JSON for every request, each with the hash of the line before it, so that a line that was
//! changed or taken out shows. It holds no words of prompts or answers and no keys.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::call::Record;
use crate::error::{Error, Result};
use crate::ui::format::rfc3339;

/// An open log.
pub struct Audit(Mutex<State>);

struct State {
    file: File,
    last: String,
}

fn hash(line: &str) -> String {
    Sha256::digest(line.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

impl Audit {
    /// Opens a log, to go on after its last line.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: &Path) -> Result<Audit> {
        let mut last = "0".repeat(64);
        if path.exists() {
            let file = File::open(path).map_err(Error::io("cannot read", path))?;
            for line in BufReader::new(file).lines() {
                last = hash(&line.map_err(Error::io("cannot read", path))?);
            }
        }
        let file = File::options().create(true).append(true).open(path).map_err(Error::io("cannot write", path))?;
        Ok(Audit(Mutex::new(State { file, last })))
    }

    /// Writes a request down.
    pub fn write(&self, record: &Record, took: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (model, digest) = record.model.clone().unzip();
        let line = json!({
            "time": rfc3339(SystemTime::now()),
            "key": record.key,
            "route": record.route,
            "model": model,
            "digest": digest,
            "prompt_sha256": record.prompt_hash,
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "generated_tokens": record.generated_tokens,
            "status": record.status,
            "ms": took.as_millis() as u64,
            "previous": state.last,
        })
        .to_string();
        if let Err(e) = writeln!(state.file, "{line}") {
            super::log::error(&format!("the audit log cannot be written: {e}"));
        }
        state.last = hash(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chained_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let record = Record { route: "/x", key: "a\u{1b}[2J\"".into(), status: 200, ..Record::default() };
        for _ in 0..2 {
            let audit = Audit::open(&path).unwrap();
            audit.write(&record, Duration::from_millis(5));
            audit.write(&record, Duration::ZERO);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains('\u{1b}'), "control characters are escaped");
        let mut last = "0".repeat(64);
        for line in text.lines() {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["previous"], last);
            last = hash(line);
        }
        assert_eq!(text.lines().count(), 4);
    }
}
