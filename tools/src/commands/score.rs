//! `handmill score`: likelihoods, largest logits, greedy answers and a hash of every logit, for comparing engines with
//! each other and this one with itself.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use clap::Args;
use engine::sampler::Params;
use engine::tokenizer::Encode;
use engine::{Engine, Event, Request};
use serde::{Deserialize, Serialize};

use crate::cli::EngineFlags;
use crate::error::Result;
use crate::store::Hasher;
use crate::ui::{Ui, print};

const EXAMPLES: &str = "\
Examples:
  handmill score smollm2 --input cases.jsonl --top 20 --greedy 24
  echo '{\"prompt\": \"Once upon a time\"}' | handmill score smollm2 --input - --precision f32 --kv f32

Each line of the input is {\"prompt\": TEXT} or {\"tokens\": [IDS]}; each line of the output has tokens, mean_nll (natural
log, of the tokens after the first), top ([id, logit] after the last token), greedy (ids), text (of greedy) and
logits_sha256 (over the little-endian bits of the logits after every token of the prompt, in order).";

/// Arguments of `score`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file
    model: String,
    /// JSON lines; - is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// How many of the largest logits to print
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// How many tokens to generate, always the most probable one, until the text ends
    #[arg(long, value_name = "N", default_value_t = 24)]
    greedy: usize,
    /// How many cases to compute in one batch; changes no result
    #[arg(long, value_name = "N", default_value_t = 1)]
    parallel: usize,
    /// How the model is loaded.
    #[command(flatten)]
    engine: EngineFlags,
}

/// A line of the input.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Case {
    /// A text, tokenized with what the model adds; special tokens in it are text.
    Prompt { prompt: String },
    /// Tokens as they are.
    Tokens { tokens: Vec<u32> },
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Score {
    tokens: Vec<u32>,
    /// None for a single token, which nothing predicts.
    mean_nll: Option<f64>,
    top: Vec<(u32, f32)>,
    greedy: Vec<u32>,
    text: String,
    logits_sha256: String,
}

/// What is gathered from the logits of a prompt, on the engine's thread.
#[derive(Default)]
struct Gathered {
    hasher: Hasher,
    nll: f64,
    top: Vec<(u32, f32)>,
}

/// A case that the engine is computing.
struct Running {
    tokens: Vec<u32>,
    gathered: Arc<Mutex<Gathered>>,
    events: Receiver<Event>,
}

/// Carries it out.
///
/// # Errors
/// The model cannot be found or loaded, a line of the input cannot be used, or the engine fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    let cases: Vec<Case> = super::lines(&arguments.input, "expected {\"prompt\": TEXT} or {\"tokens\": [IDS]}")?;
    let path = super::find(&arguments.model, ui)?;
    let mut options = arguments.engine.options();
    options.sequences = arguments.parallel;
    let engine = super::open(&path, &options, ui)?;
    let mut running = VecDeque::new();
    for case in cases {
        if running.len() == arguments.parallel {
            finish(&engine, running.pop_front())?;
        }
        running.push_back(submit(&engine, case, arguments)?);
    }
    while !running.is_empty() {
        finish(&engine, running.pop_front())?;
    }
    Ok(())
}

fn submit(engine: &Engine, case: Case, arguments: &Arguments) -> Result<Running> {
    let tokens = match case {
        Case::Prompt { prompt } => {
            engine.tokenizer().encode(&prompt, Encode { add_special: true, parse_special: false })
        }
        Case::Tokens { tokens } => tokens,
    };
    let gathered = Arc::new(Mutex::new(Gathered::default()));
    let mut request = Request::new(tokens.clone(), Params::greedy());
    request.max_tokens = Some(arguments.greedy);
    request.ignore_eog = true;
    let (sink, prompt, top) = (gathered.clone(), tokens.clone(), arguments.top);
    request.observer = Some(Box::new(move |position, logits| {
        let mut gathered = sink.lock().expect("whoever held the lock has not panicked");
        gathered.take(logits, prompt.get(position + 1).copied(), top);
    }));
    Ok(Running { tokens, gathered, events: engine.submit(request) })
}

/// Waits for a case and prints its line.
fn finish(engine: &Engine, running: Option<Running>) -> Result<()> {
    let Some(running) = running else { return Ok(()) };
    let (mut greedy, mut text) = (Vec::new(), String::new());
    loop {
        match running.events.recv() {
            Ok(Event::Prompt { .. }) => {}
            // The token that ends the text is part of the answer; what would follow it is not.
            Ok(Event::Token { id, text: piece, .. }) => {
                greedy.push(id);
                text.push_str(&piece);
                if engine.tokenizer().is_eog(id) {
                    break;
                }
            }
            Ok(Event::Done { text: rest, .. }) => {
                text.push_str(&rest);
                break;
            }
            Ok(Event::Failed(error)) => return Err(error.into()),
            Err(_) => return Err(engine::Error::Internal("the engine has ended".into()).into()),
        }
    }
    let gathered = std::mem::take(&mut *running.gathered.lock().expect("whoever held the lock has not panicked"));
    let predicted = running.tokens.len().saturating_sub(1);
    let score = Score {
        mean_nll: (predicted > 0).then(|| gathered.nll / predicted as f64),
        top: gathered.top,
        text,
        greedy,
        logits_sha256: gathered.hasher.finish().0.hex(),
        tokens: running.tokens,
    };
    let line = serde_json::to_string(&score).expect("a score is plain data");
    print(&format!("{line}\n"))
}

impl Gathered {
    /// Takes the logits of a position. `next` is the token that follows; none after the last.
    fn take(&mut self, logits: &[f32], next: Option<u32>, top: usize) {
        let mut bits = Vec::with_capacity(logits.len() * 4);
        logits.iter().for_each(|x| bits.extend(x.to_le_bytes()));
        self.hasher.update(&bits);
        match next {
            Some(next) => self.nll += nll(logits, next as usize),
            None => self.top = largest(logits, top),
        }
    }
}

/// Negative natural-log probability of a token, in f64: log(sum exp(x - max)) - (x[token] - max).
fn nll(logits: &[f32], token: usize) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    sum.ln() - f64::from(logits[token] - max)
}

/// The largest logits with their ids, largest first; of equal ones the lower id first.
pub fn largest(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    if n < all.len() {
        all.select_nth_unstable_by(n, order);
        all.truncate(n);
    }
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        let parse = |line: &str| serde_json::from_str::<Case>(line);
        assert!(matches!(parse(r#"{"prompt": "a"}"#), Ok(Case::Prompt { prompt }) if prompt == "a"));
        assert!(matches!(parse(r#"{"tokens": [1, 2]}"#), Ok(Case::Tokens { tokens }) if tokens == [1, 2]));
        for line in ["{}", "[]", r#"{"prompt": 1}"#, r#"{"tokens": [-1]}"#, r#"{"prompt": "a", "n": 1}"#] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn likelihood_and_order() {
        // Of four equal logits each has probability 1/4. f64 sums and logs of four terms err by a few ulp.
        assert!((nll(&[3.0; 4], 2) - 4f64.ln()).abs() < 1e-15);
        assert!((nll(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9);
        assert_eq!(largest(&[1.0, 3.0, -2.0, 3.0], 3), [(1, 3.0), (3, 3.0), (0, 1.0)]);
        assert_eq!(largest(&[1.0], 5), [(0, 1.0)]);
    }

    #[test]
    fn gathering_is_in_order() {
        let mut gathered = Gathered::default();
        gathered.take(&[0.0, 1.0], Some(1), 1);
        gathered.take(&[5.0, 2.0], None, 1);
        assert_eq!(gathered.top, [(0, 5.0)]);
        assert!((gathered.nll - (1.0 + f64::exp(-1.0)).ln()).abs() < 1e-15);
        let bits: Vec<u8> = [0f32, 1.0, 5.0, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(gathered.hasher.finish().0, crate::store::Digest::of(&bits));
    }
}
