//! A model, its settings and the conversation so far: from a text to the events of its answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, SystemTime};

use engine::template::{Message, Render};
use engine::tokenizer::Encode;
use engine::{Engine, Event, Finish, Request, Timings};

use crate::cli::Generation;
use crate::error::{Error, Result};
use crate::ui::format::{bytes, printable};

/// How often a waiting session looks whether it was told to stop.
const LOOK: Duration = Duration::from_millis(50);

/// What a prompt means to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A message, put into the chat template.
    Chat,
    /// Text to go on with.
    Continue,
    /// Text to go on with, special tokens in it counting as such.
    Raw,
}

/// A loaded model and a conversation.
pub struct Session {
    engine: Engine,
    mode: Mode,
    history: Vec<Message>,
    /// How tokens are drawn, and when an answer ends.
    pub generation: Generation,
    /// The system message.
    pub system: Option<String>,
    /// Whether durations are printed.
    pub verbose: bool,
    /// How long the model took to load, until an answer has said so.
    loading: Duration,
}

/// How an answer went.
pub struct Answer {
    /// Why it ended; none where it was stopped.
    pub finish: Option<Finish>,
    /// Counts and durations.
    pub timings: Timings,
    /// How long the model took to load for it.
    pub loading: Duration,
}

impl Session {
    /// A session without history, system message and durations.
    pub fn new(engine: Engine, mode: Mode, generation: Generation, loading: Duration) -> Session {
        Session { engine, mode, history: Vec::new(), generation, system: None, verbose: false, loading }
    }

    /// Positions of the context.
    pub fn ctx(&self) -> usize {
        self.engine.ctx()
    }

    /// Forgets the conversation.
    pub fn clear(&mut self) {
        self.history.clear();
    }

    /// Sets the system message (an empty one: none) and forgets the conversation.
    ///
    /// # Errors
    /// The model takes no messages.
    pub fn set_system(&mut self, text: &str) -> Result<()> {
        if self.mode != Mode::Chat {
            return Err(Error::Usage("there is no chat template that a system message could go into".into()));
        }
        self.system = Some(text.to_string()).filter(|t| !t.is_empty());
        self.clear();
        Ok(())
    }

    /// The source of the chat template.
    pub fn template(&self) -> Option<&str> {
        self.engine.template().map(|t| t.source())
    }

    /// The model and what it runs on.
    pub fn info(&self) -> String {
        let (spec, info, memory) = (self.engine.spec(), self.engine.info(), self.engine.memory());
        format!(
            "model     {}\ncontext   {} tokens (trained for {})\nruns on   {}, {}, {} threads\nmemory    {}: weights {}, KV cache {}, activations {}\n",
            printable(&spec.name),
            self.ctx(),
            spec.n_ctx_train,
            info.device,
            info.kernels,
            info.threads,
            bytes(memory.total()),
            bytes(memory.weights()),
            bytes(memory.kv()),
            bytes(memory.activations()),
        )
    }

    /// Answers a text, giving `out` each piece as it comes. A conversation remembers both; an answer that failed
    /// leaves no trace in it. Ends early once `stop` is set.
    ///
    /// # Errors
    /// The prompt does not fit, the engine fails, or `out` does.
    pub fn answer(&mut self, text: &str, out: &mut dyn FnMut(&str) -> Result<()>, stop: &AtomicBool) -> Result<Answer> {
        let prompt = self.prompt(text)?;
        let mut request = Request::new(prompt, self.generation.sampling.clone());
        request.entropy = entropy();
        request.max_tokens = self.generation.max_tokens;
        request.stop = self.generation.stop.clone();
        let events = self.engine.submit(request);
        let mut said = String::new();
        let mut timings = Timings::default();
        let finish = loop {
            // A stopped answer ends where the receiver is dropped.
            if stop.load(Ordering::Relaxed) {
                break None;
            }
            let piece = match events.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(engine::Error::Internal("the engine has ended".into()).into());
                }
                Ok(Event::Failed(error)) => return Err(error.into()),
                Ok(Event::Prompt { .. }) => continue,
                Ok(Event::Token { text, .. }) => {
                    timings.generated_tokens += 1;
                    text
                }
                Ok(Event::Done { reason, text, timings: t }) => {
                    said += &text;
                    out(&text)?;
                    timings = t;
                    break Some(reason);
                }
            };
            said += &piece;
            out(&piece)?;
        };
        if self.mode == Mode::Chat {
            self.history.push(Message::new("user", text));
            self.history.push(Message::new("assistant", said));
        }
        Ok(Answer { finish, timings, loading: std::mem::take(&mut self.loading) })
    }

    /// The tokens that stand before the answer.
    fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let tokenizer = self.engine.tokenizer();
        let Some(template) = self.engine.template().filter(|_| self.mode == Mode::Chat) else {
            let how = Encode { add_special: true, parse_special: self.mode == Mode::Raw };
            return Ok(tokenizer.encode(text, how));
        };
        let system = self.system.iter().map(|text| Message::new("system", text.as_str()));
        let messages: Vec<Message> =
            system.chain(self.history.iter().cloned()).chain([Message::new("user", text)]).collect();
        // A template that writes the date gets that of UTC: the standard library knows no time zones.
        let now = since_1970().as_secs().try_into().ok();
        let how = Render { add_generation_prompt: true, now, ..Render::default() };
        let rendered = template.render(&messages, how).map_err(engine::Error::from)?;
        Ok(tokenizer.encode_chat(&rendered))
    }
}

/// Another number each time: draws without a seed of their own come from it.
fn entropy() -> u64 {
    since_1970().as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(32)
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
