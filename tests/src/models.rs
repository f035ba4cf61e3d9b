//! The real models that tests need, obtained as a user obtains them: by the program, once, into its store.

use crate::process::handmill;
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Set to 1, a missing model fails a test instead of skipping it.
const REQUIRE: &str = "HANDMILL_REQUIRE_MODELS";

/// The file of a model of the program's catalogue. None where it cannot be had, as offline: the test that asks is named
/// on standard error together with the reason, and should end there.
///
/// The program is asked once in a process; of several processes that ask at once, one fetches and the others wait.
///
/// # Panics
/// If the model cannot be had and `HANDMILL_REQUIRE_MODELS` is 1.
pub fn obtain(name: &str) -> Option<PathBuf> {
    static ASKED: Mutex<Option<HashMap<String, Result<PathBuf, String>>>> = Mutex::new(None);
    let answer = {
        // A test that failed here while it held the lock has left nothing half-done.
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get_or_insert_default().entry(name.to_string()).or_insert_with(|| pull(name)).clone()
    };
    match answer {
        Ok(path) => Some(path),
        Err(why) => {
            let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
            assert!(!required, "{REQUIRE} is 1 and the model {name} cannot be had: {why}");
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("a test");
            // Written past the capture of test output: a skipped test passes, and must say so all the same.
            let _ = writeln!(std::io::stderr(), "skipped: {test}: the model {name} cannot be had: {why}");
            None
        }
    }
}

fn pull(name: &str) -> Result<PathBuf, String> {
    let outcome = handmill(&["pull", name, "--print-path"]).run();
    let path = PathBuf::from(outcome.stdout.trim_end());
    if outcome.code == Some(0) && path.is_file() {
        return Ok(path);
    }
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("error")).collect();
    Err(if errors.is_empty() { format!("the program ended with {:?}", outcome.code) } else { errors.join("; ") })
}
