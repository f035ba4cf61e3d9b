//! `handmill run`: answers one prompt, or chats on a terminal.

use std::io::{IsTerminal, Read, stdin};
use std::time::Instant;

use clap::Args;

use crate::chat::{self, Mode, Session};
use crate::cli::{EngineFlags, SamplingFlags};
use crate::error::{Error, Result};
use crate::source::catalogue;
use crate::ui::Ui;

const EXAMPLES: &str = "\
Examples:
  handmill run smollm2 \"Why is the sky blue?\"
  handmill run smollm2 --temp 0 -n 40 \"List three colours.\"
  handmill run smollm2 \"Summarize this text:\" < notes.txt
  handmill run ./model.gguf --raw \"Once upon a time\"
  handmill run smollm2                      a chat; /? lists what can be typed

The answer goes to standard output, everything else to standard error.";

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file
    #[arg(default_value = catalogue::DEFAULT)]
    pub model: String,
    /// The prompt; words are joined by spaces. Standard input, where it is no terminal, follows it
    pub prompt: Vec<String>,
    /// A system message, for models with a chat template
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Continue the prompt as it stands: no chat template, special tokens in it count
    #[arg(long)]
    pub raw: bool,
    /// Print counts and durations after each answer
    #[arg(long)]
    pub verbose: bool,
    /// How the model is loaded.
    #[command(flatten)]
    pub engine: EngineFlags,
    /// How tokens are drawn.
    #[command(flatten)]
    pub sampling: SamplingFlags,
}

/// Carries it out.
///
/// # Errors
/// The model cannot be found or loaded, or the prompt does not fit.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    let generation = arguments.sampling.generation()?;
    let prompt = prompt(&arguments.prompt)?;
    let path = super::find(&arguments.model, ui)?;
    let start = Instant::now();
    let engine = super::open(&path, &arguments.engine.options(), ui)?;
    let loading = start.elapsed();
    let mode = match (arguments.raw, engine.template()) {
        (true, _) => Mode::Raw,
        (false, Some(_)) => Mode::Chat,
        (false, None) => Mode::Continue,
    };
    if mode != Mode::Chat && arguments.system.is_some() {
        return Err(Error::Usage(
            "--system needs a chat template, which this model has not or --raw switches off".into(),
        ));
    }
    if mode == Mode::Continue {
        ui.say("this model has no chat template: it continues the text (a base model)");
    }
    let mut session = Session::new(engine, mode, generation, loading);
    session.system = arguments.system.clone();
    session.verbose = arguments.verbose;
    if session.verbose {
        ui.say(session.info().trim_end());
    }
    match prompt {
        Some(prompt) => chat::once(&mut session, &prompt, ui),
        None => chat::interactive(&mut session, &arguments.model, ui),
    }
}

/// The prompt of the arguments, followed by standard input where that is no terminal; none where a chat is wanted.
fn prompt(words: &[String]) -> Result<Option<String>> {
    let mut parts = Vec::new();
    if !words.is_empty() {
        parts.push(words.join(" "));
    }
    if !stdin().is_terminal() {
        let mut bytes = Vec::new();
        let path = std::path::Path::new("standard input");
        stdin().lock().read_to_end(&mut bytes).map_err(Error::io("cannot read", path))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::Usage(format!("standard input is no UTF-8: byte {} is wrong", e.utf8_error().valid_up_to()))
        })?;
        if !text.is_empty() {
            parts.push(text);
        }
    } else if parts.is_empty() {
        return Ok(None);
    }
    match parts.join("\n") {
        text if text.trim().is_empty() => {
            Err(Error::Usage("the prompt is empty; give it as an argument or on standard input".into()))
        }
        text => Ok(Some(text)),
    }
}
