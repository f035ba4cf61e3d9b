//! The chat on a terminal, typed into as a person types: commands, several lines, history, Ctrl-C.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use tests::process::binary;
use tests::tiny::Model;

/// After how long without a sign a chat counts as stuck: seconds where it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

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

    /// The chat on a terminal made by `script`. The chat takes the place of the shell, which would otherwise be ended by
    /// Ctrl-C as well and make the status its own.
    fn start(&self, flags: &str) -> Child {
        let command = format!("exec {} run {} --temp 0 {flags}", binary().display(), self.model().display());
        let mut script = Command::new("script");
        script
            .args(["-qec", &command, "/dev/null"])
            .env("HANDMILL_HOME", self.folder.path())
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh");
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

/// A chat that is typed into step by step: what comes next waits until the screen shows what came before. Keys that are
/// typed ahead would be lost with a Ctrl-C, since a terminal drops the input that it holds then.
struct Typist {
    child: Child,
    keys: ChildStdin,
    screen: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Typist {
    fn new(mut child: Child) -> Typist {
        let (keys, mut output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (send, screen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = output.read(&mut bytes) {
                if send.send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Typist { child, keys, screen, seen: Vec::new() }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).expect("script reads");
    }

    /// Reads until the screen is as wanted, or to its end.
    fn watch(&mut self, wanted: impl Fn(&str) -> bool) {
        while !wanted(&self.text()) {
            match self.screen.recv_timeout(PATIENCE) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.child.kill();
                    panic!("nothing came for {PATIENCE:?} after {}", self.text());
                }
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }
}

/// Ctrl-C ends the answer, not the chat, and an answer that was stopped has no durations.
#[test]
fn an_answer_is_stopped_and_the_chat_goes_on() {
    let desk = Desk::new();
    let mut chat = Typist::new(desk.start("-n 4000 --ctx 4096 --verbose"));
    chat.watch(|text| text.contains(">>> "));
    chat.press(b"hello\r");
    // The echo of the line and the beginning of an answer.
    chat.watch(|text| text.split("hello").nth(1).is_some_and(|answer| answer.trim().len() > 40));
    let prompts = |text: &str| text.matches(">>> ").count();
    let before = prompts(&chat.text());
    chat.press(b"\x03");
    chat.watch(|text| prompts(text) > before);
    chat.press(b"/show system\r/bye\r");
    chat.watch(|_| false);
    let (status, text) = (chat.child.wait().expect("script ends"), chat.text());
    assert!(status.success(), "{status}: {text}");
    assert!(text.contains("no system message"), "the chat ended with the answer: {text}");
    assert!(!text.contains("eval rate:"), "the answer was not stopped, or has durations: {text}");
}
