//! The chat on a terminal, typed into as a person types: commands, several lines, history, Ctrl-C.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tests::process::binary;
use tests::tiny::Model;

/// A chat model in a folder that goes when this does; the folder is the store as well.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";
        let model = Model { template: Some(template.into()), ..Model::llama(7) };
        let desk = Desk { folder: tempfile::tempdir().expect("a folder for files") };
        std::fs::write(desk.model(), model.bytes()).expect("a writable folder");
        desk
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("m.gguf")
    }

    /// The chat on a terminal made by `script`.
    fn start(&self, flags: &str) -> Child {
        let command = format!("{} run {} --temp 0 {flags}", binary().display(), self.model().display());
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).env("HANDMILL_HOME", self.folder.path()).env("TERM", "xterm");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of every Linux")
    }

    /// What the terminal shows after these keys.
    fn typed(&self, keys: &[u8]) -> String {
        let mut child = self.start("-n 8");
        child.stdin.take().expect("a pipe").write_all(keys).expect("script reads");
        let output = child.wait_with_output().expect("script ends");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[test]
fn commands_and_texts() {
    let desk = Desk::new();
    let keys = b"/?\r/set parameter top_k 7\r/show parameters\r/set parameter top_p 3\r/what\r\"\"\"one\rtwo\"\"\"\r\
                 /set system Be brief.\r/show system\r/set verbose\rhello\r/show template\r/show info\r/clear\r/bye\r";
    let screen = desk.typed(keys);
    for text in [
        ">>> ",
        "/set parameter NAME VALUE",
        "top_k is 7 now",
        "top_k              7",
        "top_p is 3; allowed is 0 to 1",
        "error: unknown command",
        "the system message is set",
        "Be brief.",
        "eval rate:",
        "{% for m in messages %}",
        "runs on   cpu",
        "the conversation is forgotten",
    ] {
        assert!(screen.contains(text), "{text:?} is missing: {screen}");
    }
    let history = std::fs::read_to_string(desk.folder.path().join("history")).expect("a history");
    assert!(history.contains("hello") && history.contains("one\\ntwo"), "{history}");
    // Ctrl-D leaves.
    assert!(desk.typed(b"hello\r\x04").contains(">>> "));
}

/// Ctrl-C ends the answer, not the chat, and an answer that was stopped has no durations.
#[test]
fn an_answer_is_stopped_and_the_chat_goes_on() {
    const MOST: usize = 4000;
    let desk = Desk::new();
    let mut child = desk.start(&format!("-n {MOST} --ctx 4096 --verbose"));
    let mut keys = child.stdin.take().expect("a pipe");
    let mut screen = child.stdout.take().expect("a pipe");
    let mut seen = Vec::new();
    keys.write_all(b"hello\r").expect("script reads");
    // The echo of the line and the beginning of an answer.
    let mut byte = [0];
    while String::from_utf8_lossy(&seen).split("hello").nth(1).is_none_or(|answer| answer.trim().len() <= 40) {
        screen.read_exact(&mut byte).expect("the chat goes on");
        seen.push(byte[0]);
    }
    keys.write_all(b"\x03").expect("script reads");
    keys.write_all(b"/show system\r/bye\r").expect("script reads");
    screen.read_to_end(&mut seen).expect("a pipe");
    let (status, text) = (child.wait().expect("script ends"), String::from_utf8_lossy(&seen).into_owned());
    assert!(status.success(), "{status}: {text}");
    assert!(text.contains("no system message"), "the chat ended with the answer: {text}");
    assert!(!text.contains("eval rate:"), "the answer was not stopped, or has durations: {text}");
}
