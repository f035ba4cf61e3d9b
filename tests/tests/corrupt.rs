//! The parser on every malformed file of the list: refused in the stage that the list says, with the words it says.

use gguf::{Error, Gguf, Part};
use tests::corrupt::{Refused, malformed, odd_but_sound};

#[test]
fn the_parser_names_what_is_wrong() {
    let mut failures = Vec::new();
    for case in malformed() {
        match (Gguf::parse(&case.bytes), case.refused) {
            (Err(error), Refused::Parsed) => {
                let text = error.to_string();
                let silent = case.words.iter().filter(|word| !text.contains(**word));
                failures.extend(silent.map(|word| format!("{}: {text:?} does not say {word:?}", case.name)));
            }
            (Ok(_), Refused::Parsed) => failures.push(format!("{}: accepted", case.name)),
            (Err(error), _) => failures.push(format!("{}: refused too early, {error}", case.name)),
            (Ok(_), _) => (),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn odd_files_are_parsed() {
    let refused = |(name, bytes): (_, Vec<u8>)| Gguf::parse(&bytes).err().map(|error| format!("{name}: {error}"));
    let failures: Vec<String> = odd_but_sound().into_iter().filter_map(refused).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Parses a file of which first `step` bytes are known, then as many more as the parser asks for.
fn parse_by_and_by(bytes: &[u8], step: usize) -> Result<usize, Error> {
    let tail = &bytes[bytes.len().saturating_sub(Part::TAIL as usize)..];
    let mut known = step.min(bytes.len());
    loop {
        match Gguf::parse_parts(&[Part::ends(&bytes[..known], tail, bytes.len() as u64)]) {
            Ok(file) => return Ok(file.tensors().len()),
            Err(error) => match error.more_needed() {
                None => return Err(error),
                Some((part, need)) => {
                    let need = need as usize;
                    assert!(part == 0 && need > known && need <= bytes.len(), "{need} bytes after {known}");
                    known = need.next_multiple_of(step).min(bytes.len());
                }
            },
        }
    }
}

/// Whoever has only the start of a file learns of it what he learns of the whole.
#[test]
fn the_start_of_a_file_is_judged_as_the_whole() {
    let (refused, sound) = (malformed(), odd_but_sound());
    let files =
        refused.iter().map(|case| (case.name, &case.bytes)).chain(sound.iter().map(|(name, bytes)| (*name, bytes)));
    for (name, bytes) in files {
        let whole = Gguf::parse(bytes).map(|file| file.tensors().len()).map_err(|error| error.to_string());
        for step in [4, 61, 5000] {
            let parts = parse_by_and_by(bytes, step).map_err(|error| error.to_string());
            assert_eq!(parts, whole, "{name} in steps of {step}");
        }
    }
}

/// The list is a list: no name twice, so that a failure names one file.
#[test]
fn names_are_unique() {
    let mut names: Vec<&str> = malformed().iter().map(|case| case.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(count > 120, "the list has {count} cases");
}
