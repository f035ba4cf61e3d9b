//! The chat on a terminal: line editing, history, commands, and Ctrl-C that stops an answer without ending the chat.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::command::{Command, HELP, Show};
use super::{Session, explain, parameters};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::ui::{Ui, print};

const PROMPT: &str = ">>> ";
const MORE: &str = "... ";
/// What begins and ends a text of several lines.
const FENCE: &str = "\"\"\"";

/// Chats until the person leaves.
///
/// # Errors
/// The terminal or standard output cannot be used, or the engine has died.
pub fn interactive(session: &mut Session, model: &str, ui: Ui) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // While a line is edited the terminal delivers Ctrl-C as a key; this is for the time of an answer.
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|e| Error::Usage(format!("Ctrl-C cannot be handled: {e}")))?;
    let mut editor = DefaultEditor::new()?;
    let history = history();
    if let Some(path) = &history {
        // Absent the first time.
        let _ = editor.load_history(path);
    }
    ui.say(&format!("{model}, {} tokens of context; /? for help", session.ctx()));
    while let Some(text) = read(&mut editor, ui)? {
        let goes_on = match Command::parse(&text) {
            Some(command) => obey(session, &command, ui)?,
            None => {
                answer(session, &text, &stop, ui)?;
                true
            }
        };
        if !goes_on {
            break;
        }
    }
    if let Some(path) = &history
        && let Err(e) = editor.save_history(path)
    {
        ui.say(&format!("the history cannot be saved in {}: {e}", path.display()));
    }
    Ok(())
}

/// Where lines typed are kept: in the store's folder, if there is one or one can be made.
fn history() -> Option<PathBuf> {
    let store = Store::of_user().ok()?;
    std::fs::create_dir_all(store.root()).ok()?;
    Some(store.root().join("history"))
}

/// The next text: a line, or several between fences. None where the person leaves.
fn read(editor: &mut DefaultEditor, ui: Ui) -> Result<Option<String>> {
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                ui.say("Ctrl-D or /bye leaves");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let text = match line.trim_start().strip_prefix(FENCE) {
            None => Some(line),
            Some(first) => fenced(first, || editor.readline(MORE))?,
        };
        if let Some(text) = text.filter(|t| !t.trim().is_empty()) {
            let _ = editor.add_history_entry(text.as_str());
            return Ok(Some(text));
        }
    }
}

/// The text up to the closing fence; none where Ctrl-C or Ctrl-D drops it.
fn fenced(first: &str, mut next: impl FnMut() -> Result<String, ReadlineError>) -> Result<Option<String>> {
    let mut lines = vec![first.to_string()];
    loop {
        let last = lines.last_mut().expect("there is always one");
        if let Some(inner) = last.trim_end().strip_suffix(FENCE) {
            *last = inner.to_string();
            return Ok(Some(lines.join("\n").trim_matches('\n').to_string()));
        }
        match next() {
            Ok(line) => lines.push(line),
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Answers in the chat. What is wrong with one message ends that message, not the chat.
fn answer(session: &mut Session, text: &str, stop: &AtomicBool, ui: Ui) -> Result<()> {
    stop.store(false, Ordering::Relaxed);
    match session.answer(text, &mut print, stop) {
        Ok(answer) => {
            print("\n\n")?;
            explain(session, &answer, ui);
        }
        Err(Error::Engine(e @ engine::Error::Internal(_))) => return Err(e.into()),
        Err(Error::Engine(e)) => {
            ui.say(&format!("error: {e}"));
            ui.say("hint: /clear begins a new conversation");
        }
        Err(e) => return Err(e),
    }
    Ok(())
}

/// Carries out a command; false where it ends the chat.
fn obey(session: &mut Session, command: &Command, ui: Ui) -> Result<bool> {
    match command {
        Command::Bye => return Ok(false),
        Command::Clear => {
            session.clear();
            ui.say("the conversation is forgotten");
        }
        Command::Help => print(&format!("{HELP}\n"))?,
        Command::Parameter { name, value } => match parameters::set(&mut session.generation, name, value) {
            Ok(()) => ui.say(&format!("{name} is {value} now")),
            Err(e) => ui.say(&format!("error: {e}")),
        },
        Command::System(text) => match session.set_system(text) {
            Ok(()) => ui.say("the system message is set"),
            Err(e) => ui.say(&format!("error: {e}")),
        },
        Command::Verbose(on) => session.verbose = *on,
        Command::Show(Show::Info) => print(&session.info())?,
        Command::Show(Show::Parameters) => print(&format!("{}\n", parameters::lines(&session.generation)))?,
        Command::Show(Show::System) => {
            print(&format!("{}\n", session.system.as_deref().unwrap_or("no system message")))?
        }
        Command::Show(Show::Template) => print(&format!("{}\n", session.template().unwrap_or("no chat template")))?,
        Command::Wrong(why) => ui.say(&format!("error: {why}")),
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(first: &str, rest: &[&str]) -> Option<String> {
        let mut lines = rest.iter();
        fenced(first, || lines.next().map(|l| l.to_string()).ok_or(ReadlineError::Eof)).unwrap()
    }

    #[test]
    fn several_lines() {
        assert_eq!(joined("one\"\"\"", &[]).as_deref(), Some("one"));
        assert_eq!(joined("one", &["two\"\"\" "]).as_deref(), Some("one\ntwo"));
        assert_eq!(joined("", &["one", "", "two", "\"\"\""]).as_deref(), Some("one\n\ntwo"));
        assert_eq!(joined("one", &["two"]), None);
    }
}
