//! The parser on every malformed file of the list: refused in the stage that the list says, with the words it says.

use tests::corrupt::{Refused, malformed, odd_but_sound};

#[test]
fn the_parser_names_what_is_wrong() {
    let mut failures = Vec::new();
    for case in malformed() {
        match (gguf::Gguf::parse(&case.bytes), case.refused) {
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
    let refused = |(name, bytes): (_, Vec<u8>)| gguf::Gguf::parse(&bytes).err().map(|error| format!("{name}: {error}"));
    let failures: Vec<String> = odd_but_sound().into_iter().filter_map(refused).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
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
