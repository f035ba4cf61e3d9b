//! llama-bench's options have names of several letters after one dash, which the parser of this program's options
//! would read as several options. They are respelled before it sees them, so that existing command lines work.

use std::ffi::OsString;

/// llama-bench's spelling and ours.
const SPELLINGS: [(&str, &str); 5] = [
    ("-pg", "--pg"),
    ("-ub", "--ubatch-size"),
    ("-ctk", "--cache-type"),
    ("-oe", "--output-err"),
    ("-ngl", "--gpu-layers"),
];

/// The arguments of the program; those of `bench` respelled.
pub fn respelled(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.get(1).is_some_and(|a| a == "bench") {
        for argument in &mut arguments[2..] {
            if let Some((_, ours)) = SPELLINGS.iter().find(|(theirs, _)| argument == theirs) {
                *argument = ours.into();
            }
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_of_bench_change() {
        let go = |line: &str| respelled(line.split(' ').map(OsString::from)).join(" ".as_ref()).into_string().unwrap();
        assert_eq!(go("handmill bench m -pg 8,4 -p 512 -ub 256"), "handmill bench m --pg 8,4 -p 512 --ubatch-size 256");
        assert_eq!(go("handmill run m -pg"), "handmill run m -pg");
        assert_eq!(go("handmill"), "handmill");
    }
}
