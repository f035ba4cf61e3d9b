//! The adapters that GPU tests run on: every one there is, software ones included.

use engine::backend::{Description, adapters};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Set to 1, a machine without an adapter fails the tests instead of skipping them.
const REQUIRE: &str = "HANDMILL_REQUIRE_GPU";

/// One test at a time has the adapters: drivers that compute on the processor share its memory and cores.
static BUSY: Mutex<()> = Mutex::new(());

/// Every adapter that the kernels can run on, for one test. Where there is none, the test is named on standard error
/// and should end.
///
/// # Panics
/// If there is none and `HANDMILL_REQUIRE_GPU` is 1.
pub fn obtain() -> (Vec<Description>, MutexGuard<'static, ()>) {
    let busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
    let all = adapters();
    let usable: Vec<Description> = all.iter().filter(|a| a.lacks.is_none()).cloned().collect();
    if usable.is_empty() {
        let required = std::env::var(REQUIRE).is_ok_and(|value| value == "1");
        assert!(!required, "{REQUIRE} is 1 and no adapter can run the kernels, of {all:?}");
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        // Written past the capture of test output: a skipped test passes, and must say so all the same.
        let _ = writeln!(std::io::stderr(), "skipped: {test}: there is no adapter");
    }
    (usable, busy)
}

/// Normalized mean square error: of the difference to what is expected.
pub fn nmse(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many values as expected");
    let error: f64 = found.iter().zip(expected).map(|(f, e)| (f - e) * (f - e)).sum();
    let power: f64 = expected.iter().map(|e| e * e).sum();
    if power == 0.0 { error } else { error / power }
}
