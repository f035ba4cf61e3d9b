//! What a caller asks for and what it hears back.

use crate::error::Error;
use crate::sampler;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Receives the events of one request, on the engine's thread. Returns false when nobody listens any more: the
/// request then ends at once.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// Receives the logits after each position of the prompt, on the engine's thread: position, then one float a token of
/// the vocabulary.
pub type Observer = Box<dyn FnMut(usize, &[f32]) + Send>;

/// What the next token may be, as a grammar says it. Asked on the engine's thread, once a token.
pub trait Constraint: Send {
    /// Bits of the tokens that may come next: token `id` may where bit `id % 32` of word `id / 32` is set.
    ///
    /// # Errors
    /// Nothing may come, or working it out took too much; in words.
    fn allowed(&mut self) -> Result<&[u32], String>;

    /// Takes the token that was drawn.
    ///
    /// # Errors
    /// The token does not follow; in words.
    fn accept(&mut self, id: u32) -> Result<(), String>;
}

/// Ends requests from outside of the engine: a request that was cancelled ends before the next step, wherever it is.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the requests that hold this.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A prompt and how to go on from it.
pub struct Request {
    /// Tokens of the prompt; at least one.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: sampler::Params,
    /// Draws come from this where `sampling` has no seed of its own.
    pub entropy: u64,
    /// Most tokens to generate; none means until the context is full.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Goes on after end-of-generation tokens.
    pub ignore_eog: bool,
    /// Whether the answer's text contains control tokens.
    pub show_control: bool,
    /// Only requests of one scope share cached prefixes.
    pub scope: u32,
    /// How strong each of the model's adapters is; none takes what they were loaded with.
    pub adapters: Option<Vec<f32>>,
    /// Ends the request from outside; its events just stop.
    pub cancel: Cancel,
    /// Which tokens may come.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Wants the logits of the prompt's positions from `observe_from` on.
    pub observer: Option<Observer>,
    /// First position of interest to the observer. Positions before it may come from the cache.
    pub observe_from: usize,
}

impl Request {
    /// A request with everything else at its default.
    pub fn new(prompt: Vec<u32>, sampling: sampler::Params) -> Request {
        Request {
            prompt,
            sampling,
            entropy: 0,
            max_tokens: None,
            stop: vec![],
            ignore_eog: false,
            show_control: false,
            scope: 0,
            adapters: None,
            cancel: Cancel::default(),
            constraint: None,
            observer: None,
            observe_from: 0,
        }
    }

    /// Positions of the prompt that the observer wants; empty, at the prompt's end, where there is none.
    pub(crate) fn observed(&self) -> std::ops::Range<usize> {
        let n = self.prompt.len();
        let from = if self.observer.is_some() { self.observe_from.min(n) } else { n };
        from..n
    }
}

/// What happens to a request.
#[derive(Debug)]
pub enum Event {
    /// Part of the prompt has been computed.
    Prompt {
        /// Tokens computed or found in the cache.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token was generated.
    Token {
        /// Its id.
        id: u32,
        /// The text that is certain by now: perhaps none, since characters and stop strings may be cut by tokens.
        text: String,
        /// Its natural-log probability, where asked for.
        logprob: Option<f32>,
        /// The most probable tokens and their natural-log probabilities, where asked for.
        top: Vec<(u32, f32)>,
    },
    /// The answer is complete. Nothing follows.
    Done {
        /// Why it ended.
        reason: Finish,
        /// Text held back until now.
        text: String,
        /// How long it took.
        timings: Timings,
    },
    /// The request failed. Nothing follows.
    Failed(Error),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model said so.
    EndOfText,
    /// A stop string appeared.
    StopString,
    /// As many tokens as asked for.
    MaxTokens,
    /// The context is full.
    ContextFull,
}

/// Counts and durations of one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of them, found in the cache.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Nanoseconds from submission until the first step.
    pub queue_ns: u64,
    /// Nanoseconds from the first step until the first generated token.
    pub prompt_ns: u64,
    /// Nanoseconds from the first generated token until the last.
    pub generate_ns: u64,
}

impl Timings {
    /// Tokens of the prompt computed a second.
    pub fn prompt_rate(&self) -> f64 {
        rate(self.prompt_tokens - self.cached_tokens, self.prompt_ns)
    }

    /// Tokens generated a second. The first one belongs to the prompt's time.
    pub fn generate_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.generate_ns)
    }
}

fn rate(tokens: usize, ns: u64) -> f64 {
    if ns == 0 { 0.0 } else { tokens as f64 * 1e9 / ns as f64 }
}
