//! Embeddings: the hidden states of a text's tokens pooled into one vector.
//!
//! An engine that was loaded with [`Options::embeddings`](crate::Options::embeddings), or whose model is an encoder,
//! gives hidden states instead of logits. They go the way of all requests, so texts of many callers share a batch.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::request::{Event, Request};
use crate::sampler::Params;
use crate::spec::{Pooling, Spec};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// How a text becomes a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// How the rows of its tokens are pooled.
    pub pooling: Pooling,
    /// Whether the vector is scaled to length 1.
    pub normalize: bool,
}

impl Embedding {
    /// What a model's file asks for; where it says nothing, the mean of an encoder's rows and the last row of others.
    pub fn of(spec: &Spec) -> Embedding {
        let default = if spec.causal { Pooling::Last } else { Pooling::Mean };
        Embedding { pooling: spec.pooling.unwrap_or(default), normalize: true }
    }

    /// First position whose row counts.
    fn from(self, tokens: usize) -> usize {
        if self.pooling == Pooling::Last { tokens.saturating_sub(1) } else { 0 }
    }
}

/// Rows of one text on their way into a vector.
struct Pool {
    how: Embedding,
    sum: Vec<f64>,
    rows: usize,
}

impl Pool {
    fn take(&mut self, row: &[f32]) {
        if self.how.pooling == Pooling::First && self.rows > 0 {
            return;
        }
        self.sum.resize(row.len(), 0.0);
        self.sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        self.rows += 1;
    }

    fn finish(&self) -> Vec<f32> {
        let length = self.sum.iter().map(|x| x * x).sum::<f64>().sqrt();
        // The length of a sum and its number of rows are both factors of the vector.
        let divisor = if self.how.normalize { length } else { self.rows as f64 };
        let divisor = if divisor > 0.0 { divisor } else { 1.0 };
        self.sum.iter().map(|x| (x / divisor) as f32).collect()
    }
}

impl Engine {
    /// Computes the vector of a text, given as tokens. The answer comes over the channel.
    pub fn embed(&self, tokens: Vec<u32>, how: Embedding) -> Receiver<Result<Vec<f32>>> {
        let (sender, answer) = channel();
        if !self.spec().hidden {
            // Nobody hears it where the caller has given up.
            let _ = sender.send(Err(Error::LogitsOnly));
            return answer;
        }
        let pool = Arc::new(Mutex::new(Pool { how, sum: vec![], rows: 0 }));
        let from = how.from(tokens.len());
        let mut request = Request::new(tokens, Params::greedy());
        request.max_tokens = Some(0);
        request.observe_from = from;
        let rows = pool.clone();
        request.observer = Some(Box::new(move |_, row| rows.lock().unwrap_or_else(PoisonError::into_inner).take(row)));
        let done = move |event| match event {
            Event::Prompt { .. } | Event::Token { .. } => true,
            Event::Done { .. } => {
                let _ = sender.send(Ok(pool.lock().unwrap_or_else(PoisonError::into_inner).finish()));
                false
            }
            Event::Failed(error) => {
                let _ = sender.send(Err(error));
                false
            }
        };
        self.submit_to(request, Box::new(done));
        answer
    }
}
