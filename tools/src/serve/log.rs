//! The server's own log: lines on standard error, as text or as JSON. It holds no prompt, no answer and no key.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crate::ui::format::{printable, rfc3339};

/// Whether lines are JSON. Set once, before the first line.
static JSON: AtomicBool = AtomicBool::new(false);

/// Chooses the form of all lines.
pub fn use_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// Something that a person who runs the server may want to know.
pub fn info(message: &str) {
    line("info", message);
}

/// Something that went wrong.
pub fn error(message: &str) {
    line("error", message);
}

fn line(level: &str, message: &str) {
    let time = rfc3339(SystemTime::now());
    if JSON.load(Ordering::Relaxed) {
        eprintln!("{}", serde_json::json!({"time": time, "level": level, "message": message}));
    } else {
        eprintln!("{time} {level}: {}", printable(message));
    }
}
