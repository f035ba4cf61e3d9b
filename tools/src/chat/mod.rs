//! Answering: one prompt, or a chat on a terminal. Text goes to standard output, all else to standard error.

mod command;
mod parameters;
mod session;
mod terminal;

pub use session::{Mode, Session};
pub use terminal::interactive;

use std::sync::atomic::AtomicBool;

use engine::{Finish, Timings};

use crate::error::Result;
use crate::ui::format::go_duration;
use crate::ui::{Ui, print};
use session::Answer;
use std::time::Duration;

/// Answers one prompt.
///
/// # Errors
/// The prompt does not fit, the engine fails, or standard output cannot be written.
pub fn once(session: &mut Session, prompt: &str, ui: Ui) -> Result<()> {
    let answer = session.answer(prompt, &mut print, &AtomicBool::new(false))?;
    print("\n")?;
    explain(session, &answer, ui);
    if !session.verbose {
        let t = &answer.timings;
        ui.say(&format!(
            "prompt {} tokens, {:.1} tokens/s; generated {} tokens, {:.1} tokens/s",
            t.prompt_tokens,
            t.prompt_rate(),
            t.generated_tokens,
            t.generate_rate()
        ));
    }
    Ok(())
}

/// Says what ended an answer where that is not obvious, and the durations where they are wanted.
fn explain(session: &Session, answer: &Answer, ui: Ui) {
    if answer.finish == Some(Finish::ContextFull) {
        ui.say(&format!(
            "the context of {} tokens is full, so the answer ends here; --ctx sets a larger one",
            session.ctx()
        ));
    }
    // An answer that was stopped has no durations to tell.
    if session.verbose && answer.finish.is_some() {
        ui.say(&durations(&answer.timings, answer.loading));
    }
}

/// Counts and durations, in the words and the order of Ollama's `--verbose`.
fn durations(t: &Timings, loading: Duration) -> String {
    let nanos = Duration::from_nanos;
    let total = loading + nanos(t.queue_ns + t.prompt_ns + t.generate_ns);
    [
        format!("total duration:       {}", go_duration(total)),
        format!("load duration:        {}", go_duration(loading)),
        format!("prompt eval count:    {} token(s)", t.prompt_tokens),
        format!("prompt eval duration: {}", go_duration(nanos(t.prompt_ns))),
        format!("prompt eval rate:     {:.2} tokens/s", t.prompt_rate()),
        format!("eval count:           {} token(s)", t.generated_tokens),
        format!("eval duration:        {}", go_duration(nanos(t.generate_ns))),
        format!("eval rate:            {:.2} tokens/s", t.generate_rate()),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_ollama() {
        let timings = Timings {
            prompt_tokens: 26,
            generated_tokens: 101,
            prompt_ns: 130_000_000,
            generate_ns: 2_000_000_000,
            ..Timings::default()
        };
        let expected = "\
total duration:       2.135s
load duration:        5ms
prompt eval count:    26 token(s)
prompt eval duration: 130ms
prompt eval rate:     200.00 tokens/s
eval count:           101 token(s)
eval duration:        2s
eval rate:            50.00 tokens/s";
        assert_eq!(durations(&timings, Duration::from_millis(5)), expected);
    }
}
