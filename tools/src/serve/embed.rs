//! Embeddings: the states that a model's last norm gives, pooled over the tokens of a text.
//!
//! They come from an engine of the same model that computes states in place of logits. How they are pooled is what the
//! model's file says, or the engine's rule for its kind.

use std::sync::{Arc, Mutex, PoisonError};

use engine::embed::Embedding;
use engine::sampler::Params;
use engine::spec::Pooling;
use engine::{Cancel, Event, Request};
use tokio::sync::oneshot;

use super::app::App;
use super::call::Ticket;
use super::fault::{Fault, Result};
use super::loaded::Loaded;

/// Ends requests when whoever waits for them has gone.
struct Guard(Cancel);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The sum of the states seen so far.
struct Sum {
    vector: Vec<f64>,
    seen: usize,
}

impl Sum {
    fn add(&mut self, pooling: Pooling, row: &[f32]) {
        if self.vector.is_empty() {
            self.vector = vec![0.0; row.len()];
        }
        self.seen += 1;
        match pooling {
            Pooling::Mean => self.vector.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x)),
            Pooling::First if self.seen > 1 => {}
            _ => self.vector.iter_mut().zip(row).for_each(|(sum, x)| *sum = f64::from(*x)),
        }
    }

    fn finish(&self, pooling: Pooling) -> Vec<f32> {
        let n = if pooling == Pooling::Mean { self.seen.max(1) as f64 } else { 1.0 };
        self.vector.iter().map(|x| (x / n) as f32).collect()
    }
}

/// The vectors of these texts.
///
/// # Errors
/// A text does not fit, or the engine fails.
pub async fn embed(
    app: &Arc<App>,
    ticket: &Ticket,
    model: &Loaded,
    texts: &[Vec<u32>],
    scope: u32,
) -> Result<Vec<Vec<f32>>> {
    let pooling = Embedding::of(model.engine.spec()).pooling;
    let guard = Guard(Cancel::default());
    let mut waiting = Vec::new();
    for tokens in texts {
        let sum = Arc::new(Mutex::new(Sum { vector: Vec::new(), seen: 0 }));
        let (sender, receiver) = oneshot::channel();
        let mut request = Request::new(tokens.clone(), Params::greedy());
        request.max_tokens = Some(0);
        request.cancel = guard.0.clone();
        request.scope = scope;
        let rows = sum.clone();
        request.observer =
            Some(Box::new(move |_, row| rows.lock().unwrap_or_else(PoisonError::into_inner).add(pooling, row)));
        let mut sender = Some(sender);
        let sink = move |event| match event {
            Event::Done { timings, .. } => sender.take().is_some_and(|s| s.send(Ok(timings)).is_ok()),
            Event::Failed(error) => sender.take().is_some_and(|s| s.send(Err(error)).is_ok()),
            _ => sender.as_ref().is_some_and(|s| !s.is_closed()),
        };
        model.engine.submit_to(request, Box::new(sink));
        waiting.push((sum, receiver));
    }
    let mut vectors = Vec::new();
    for (sum, receiver) in waiting {
        let done = tokio::select! {
            done = receiver => done.map_err(|_| Fault::internal("the engine dropped a request"))?,
            () = app.ended() => return Err(Fault::busy("the server is shutting down")),
        };
        let timings = done?;
        ticket.answered(&timings);
        vectors.push(sum.lock().unwrap_or_else(PoisonError::into_inner).finish(pooling));
    }
    Ok(vectors)
}

/// Makes a vector's length one; all zeros stay as they are.
pub fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// Cuts a vector to its first elements and makes its length one again.
pub fn shorten(vector: &mut Vec<f32>, dimensions: Option<usize>) {
    vector.truncate(dimensions.unwrap_or(usize::MAX));
    normalize(vector);
}
