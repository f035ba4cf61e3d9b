//! The engine asked for logits: what tests compare, position by position.

use engine::sampler::Params;
use engine::{Engine, Error, Event, Request};
use std::sync::mpsc::{Receiver, channel};

/// What is taken from each row of logits: itself, a digest, nothing.
pub type Take<R> = fn(&[f32]) -> R;

/// A request that was submitted and not yet waited for.
pub struct Pending<R> {
    rows: Receiver<(usize, R)>,
    events: Receiver<Event>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed<R> {
    /// Of each observed position of the prompt, in order: its position and what was taken from its logits.
    pub rows: Vec<(usize, R)>,
    /// The most probable continuation, end of text ignored.
    pub generated: Vec<u32>,
    /// Tokens of the prompt that the cache had.
    pub cached: usize,
}

/// Submits a prompt and observes its positions from `from` on; then `max_tokens` tokens are generated greedily.
pub fn submit<R: Send + 'static>(
    engine: &Engine,
    prompt: &[u32],
    from: usize,
    max_tokens: usize,
    take: Take<R>,
) -> Pending<R> {
    let mut request = Request::new(prompt.to_vec(), Params::greedy());
    (request.max_tokens, request.observe_from) = (Some(max_tokens), from);
    watched(engine, request, take)
}

/// Submits a request that goes on to its last token, with its rows watched.
fn watched<R: Send + 'static>(engine: &Engine, mut request: Request, take: Take<R>) -> Pending<R> {
    let (sender, rows) = channel();
    request.ignore_eog = true;
    // Nobody receives where the test has given up.
    request.observer = Some(Box::new(move |position, row| drop(sender.send((position, take(row))))));
    Pending { rows, events: engine.submit(request) }
}

/// Submits a prompt with strengths of adapters, observes all its positions, and generates six tokens.
pub fn submit_adapted<R: Send + 'static>(
    engine: &Engine,
    prompt: &[u32],
    adapters: Option<Vec<f32>>,
    take: Take<R>,
) -> Pending<R> {
    submit_from(engine, prompt, 0, adapters, take)
}

/// As [`submit_adapted`], observing the positions from `from` on.
pub fn submit_from<R: Send + 'static>(
    engine: &Engine,
    prompt: &[u32],
    from: usize,
    adapters: Option<Vec<f32>>,
    take: Take<R>,
) -> Pending<R> {
    let mut request = Request::new(prompt.to_vec(), Params::greedy());
    (request.max_tokens, request.observe_from, request.adapters) = (Some(6), from, adapters);
    watched(engine, request, take)
}

impl<R> Pending<R> {
    /// Waits for the end.
    ///
    /// # Errors
    /// The engine's; an engine that ends without a word is an internal error.
    pub fn wait(self) -> Result<Observed<R>, Error> {
        let mut generated = Vec::new();
        for event in &self.events {
            match event {
                Event::Token { id, .. } => generated.push(id),
                Event::Done { timings, .. } => {
                    return Ok(Observed {
                        rows: self.rows.try_iter().collect(),
                        generated,
                        cached: timings.cached_tokens,
                    });
                }
                Event::Failed(error) => return Err(error),
                Event::Prompt { .. } => (),
            }
        }
        Err(Error::Internal("the engine ended without a word".into()))
    }
}

/// [`submit`], then [`Pending::wait`].
///
/// # Errors
/// The engine's.
pub fn observe<R: Send + 'static>(
    engine: &Engine,
    prompt: &[u32],
    from: usize,
    max_tokens: usize,
    take: Take<R>,
) -> Result<Observed<R>, Error> {
    submit(engine, prompt, from, max_tokens, take).wait()
}

/// Asks engines with room for so many tokens a step and so many sequences: how an answer is other bits than one that was
/// had alone and whole, in chunks, among three others, cold and after its own cached prefix.
///
/// # Panics
/// If an engine gives no answer.
pub fn other_bits<R: PartialEq + Send + 'static>(
    load: &dyn Fn(usize, usize) -> Engine,
    prompt: &[u32],
    chunks: &[usize],
    take: Take<R>,
) -> Vec<String> {
    let (from, n) = (prompt.len() - 8, 3);
    let expected = observe(&load(512, 1), prompt, from, n, take).expect("an answer");
    let mut all = Vec::new();
    for &chunk in chunks {
        let engine = load(chunk, 4);
        let others: Vec<_> = (1..4).map(|i| submit(&engine, &prompt[i..20 * i], 0, 2, take)).collect();
        let cold = observe(&engine, prompt, from, n, take).expect("an answer");
        let warm = observe(&engine, prompt, from, n, take).expect("an answer");
        drop(others);
        for (how, found) in [("among others", cold), ("after a cached prefix", warm)] {
            if (&found.rows, &found.generated) != (&expected.rows, &expected.generated) {
                all.push(format!("chunks of {chunk}, {how}"));
            }
        }
    }
    all
}

/// Takes the logits as f64, for comparing with a twin.
pub fn as_f64(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&logit| f64::from(logit)).collect()
}

/// Takes the SHA-256 of the logits' bits.
pub fn digest(row: &[f32]) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    row.iter().for_each(|logit| hash.update(logit.to_le_bytes()));
    hash.finalize().into()
}
