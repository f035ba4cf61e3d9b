//! The program on every malformed file: it must say what is wrong and exit with 1, within seconds and within memory
//! that the size of the file explains. Linux only, for the limits.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::Duration;
use tests::corrupt::{Malformed, Refused, malformed, odd_but_sound};
use tests::process::{Outcome, handmill};

const LIMIT: Duration = Duration::from_secs(10);

/// What the program may take for a file that it refuses: the file and 64 MiB.
const MEMORY_KIB: u64 = 64 << 10;

/// Address space is more than memory: stacks and arenas of threads, mapped files. Hostile files ask for more than
/// this at once, and an allocation that fails ends the program by a signal, which the test sees.
const ADDRESS_SPACE_KIB: u64 = 2 << 20;

fn start(arguments: &[&str]) -> Outcome {
    handmill(arguments).limit(LIMIT).address_space_kib(ADDRESS_SPACE_KIB).run()
}

/// The largest memory in KiB that any program started so far has taken.
fn peak_kib() -> u64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).expect("a known argument");
    u64::try_from(usage.max_rss()).expect("memory is not negative")
}

/// What is wrong with how the program took a file that it must refuse.
fn judge(case: &Malformed, command: &str, outcome: &Outcome) -> Vec<String> {
    let mut rows = Vec::new();
    let mut fault = |text: String| rows.push(format!("{} ({command}): {text}", case.name));
    match outcome.code {
        _ if outcome.timed_out => fault(format!("still runs after {LIMIT:?}")),
        Some(1) => (),
        Some(code) => fault(format!("exit code {code}, expected 1: {}", outcome.stderr)),
        None => fault(format!("ended by a signal: {}", outcome.stderr)),
    }
    for word in case.words.iter().filter(|word| !outcome.stderr.contains(**word)) {
        fault(format!("{:?} does not say {word:?}", outcome.stderr.trim()));
    }
    if outcome.stderr.contains("panicked") {
        fault(format!("a panic: {}", outcome.stderr));
    }
    rows
}

fn refuse(case: &Malformed, path: &Path) -> Vec<String> {
    let name = path.to_str().expect("a path of ASCII");
    let mut rows = judge(case, "run", &start(&["run", name, "x", "-n", "1"]));
    let shown = start(&["show", name]);
    match case.refused {
        Refused::Parsed => rows.extend(judge(case, "show", &shown)),
        // Keys and tensors can be listed although no model comes of them; what can not be said is said.
        Refused::Loaded => {
            if !matches!(shown.code, Some(0 | 1)) {
                rows.push(format!("{} (show): {shown:?}", case.name));
            }
        }
        Refused::Run => {
            if shown.code != Some(0) {
                rows.push(format!("{} (show): {shown:?}", case.name));
            }
        }
    }
    rows
}

/// One test, since the peak of memory is that of all programs that this process has started.
#[test]
fn the_program_refuses_every_malformed_file() {
    let folder = tempfile::tempdir().expect("a folder for files");
    let path = folder.path().join("model.gguf");
    let mut rows = Vec::new();
    let (mut peak, mut largest) = (0, 0);
    for case in malformed() {
        std::fs::write(&path, &case.bytes).expect("a writable folder");
        rows.extend(refuse(&case, &path));
        largest = largest.max(case.bytes.len() as u64 >> 10);
        let now = peak_kib();
        if now > peak.max(MEMORY_KIB + largest) {
            rows.push(format!("{}: took {now} KiB, at most {} expected", case.name, MEMORY_KIB + largest));
        }
        peak = peak.max(now);
    }
    assert!(rows.is_empty(), "{} rows:\n{}", rows.len(), rows.join("\n"));
}

#[test]
fn the_program_takes_odd_files() {
    let folder = tempfile::tempdir().expect("a folder for files");
    let mut rows = Vec::new();
    for (name, bytes) in odd_but_sound() {
        let path = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&path, bytes).expect("a writable folder");
        let path = path.to_str().expect("a path of ASCII");
        for arguments in [&["run", path, "x", "-n", "1"][..], &["show", path]] {
            let outcome = start(arguments);
            if outcome.code != Some(0) {
                rows.push(format!("{name} ({}): {outcome:?}", arguments[0]));
            }
            // What a model says may be anything; what is said about a file may not.
            if arguments[0] == "show" && outcome.stdout.contains('\u{1b}') {
                rows.push(format!("{name}: a control character of the file reached the terminal"));
            }
        }
    }
    assert!(rows.is_empty(), "{}", rows.join("\n"));
}
