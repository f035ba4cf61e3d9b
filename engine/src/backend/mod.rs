//! Devices: what holds the weights and the KV cache, and replays a plan.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::sampler::Best;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub mod cpu;
mod device;
#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
pub mod gpu;
pub mod pool;
mod written;

pub use device::{Description, Device, adapters};
pub use kernels::kv::KvType;
pub use written::Written;

/// What a backend says about itself.
#[derive(Clone, Debug)]
pub struct Info {
    /// The device, such as `cpu`.
    pub device: String,
    /// Which kernels it runs.
    pub kernels: String,
    /// Worker threads.
    pub threads: usize,
}

/// A device that replays one plan. Called once a step.
pub trait Backend: Send {
    /// Computes a batch: logits, one row for each of its outputs.
    fn run<'a>(&'a mut self, batch: &'a Batch) -> Logits<'a>;
    /// Computes one operation of the graph, after all before it for the same batch, and gives what it has written. For
    /// those who look for an error: slow, and no part of a step.
    ///
    /// # Errors
    /// As those of a step.
    fn operation(&mut self, batch: &Batch, index: usize) -> Result<Vec<Written>>;
    /// Whether it finds the largest logits itself, so that rows need not leave the device.
    fn gives_best(&self) -> bool {
        false
    }
    /// Computes a batch: the largest logit of each of its outputs.
    ///
    /// # Errors
    /// As those of [`Backend::run`]; a backend without [`Backend::gives_best`] always fails.
    fn best<'a>(&'a mut self, _batch: &'a Batch) -> Result<&'a [Best]> {
        Err(Error::Internal("this backend gives rows of logits".into()))
    }
    /// What it runs on.
    fn info(&self) -> Info;
    /// Its weights, for another engine over the same file; none where they cannot be shared.
    fn weights(&self) -> Option<cpu::Shared> {
        None
    }
}

/// The logits of a batch, now or later: a GPU's read-back takes time, and in a browser nothing may block.
pub enum Logits<'a> {
    /// They are here (or were taken already).
    Ready(Option<Result<&'a [f32]>>),
    /// They will come.
    Later(Pin<Box<dyn Future<Output = Result<&'a [f32]>> + 'a>>),
}

impl<'a> Future for Logits<'a> {
    type Output = Result<&'a [f32]>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Logits::Ready(result) => Poll::Ready(result.take().expect("a future is not polled after it was ready")),
            Logits::Later(future) => future.as_mut().poll(cx),
        }
    }
}
