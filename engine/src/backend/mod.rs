//! Devices: what holds the weights and the KV cache, and replays a plan.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::sampler::{Best, Wants};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub mod cpu;
mod device;
#[cfg(all(feature = "gpu", not(target_family = "wasm")))]
pub mod gpu;
pub mod pool;
pub(crate) mod split;
mod variant;
mod written;

#[cfg(not(all(feature = "gpu", not(target_family = "wasm"))))]
pub(crate) use device::without_gpus;
pub use device::{Check, Description, Device, GpuLayers, Measured, adapters, measure, number, tested};
pub use kernels::kv::KvType;
pub use variant::Variant;
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

/// How long one dispatch of a step ran.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// The kernel's name.
    pub kernel: String,
    /// Nanoseconds by the device's own clock.
    pub ns: f64,
    /// Bytes of weights that it read, each as often as it is read.
    pub bytes: u64,
}

/// What replaying a step takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Dispatches.
    pub dispatches: usize,
    /// Bytes of weights that they read.
    pub bytes: u64,
    /// Time that the processor took to encode and submit them.
    pub encode: std::time::Duration,
}

/// What a device does at most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reach {
    /// Bytes read from memory a second.
    pub read: f64,
    /// Multiplications and additions of f32 a second.
    pub float: f64,
    /// Multiplications and additions of 8-bit integers a second.
    pub int8: f64,
}

/// Nanoseconds that a small fixed piece of work takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Reading memory.
    pub memory: f64,
    /// Arithmetic in registers.
    pub arithmetic: f64,
}

/// Does a small fixed piece of work on a device, which shows whether it is as fast as it was.
pub type Anchor = Box<dyn FnMut() -> Result<Level>>;

/// A device that replays one plan. Called once a step.
pub trait Backend: Send {
    /// Computes a batch: logits, one row for each of its outputs.
    fn run<'a>(&'a mut self, batch: &'a Batch) -> Logits<'a>;
    /// Takes the graph's input for the next batch, in a graph that has one: a row for each token.
    ///
    /// # Errors
    /// The graph has none, or it is larger.
    fn give(&mut self, rows: &[f32]) -> Result<()>;
    /// Computes one operation of the graph, after all before it for the same batch, and gives what it has written. For
    /// those who look for an error: slow, and no part of a step.
    ///
    /// # Errors
    /// As those of a step.
    fn operation(&mut self, batch: &Batch, index: usize) -> Result<Vec<Written>>;
    /// Whether it finds what is wanted of rows of logits itself, so that they need not leave the device.
    fn gives(&self, wants: Wants) -> bool {
        wants == Wants::Row
    }
    /// Computes a batch: of each of its outputs the largest logits with their tokens, as
    /// [`sample_top`](crate::sampler::Sampler::sample_top) takes them.
    ///
    /// # Errors
    /// As those of [`Backend::run`]; a backend that does not [`give`](Backend::gives) them always fails.
    fn top<'a>(&'a mut self, _batch: &'a Batch) -> Result<&'a [(u32, f32)]> {
        Err(Error::Internal("this backend gives rows of logits".into()))
    }
    /// Computes a batch: the largest logit of each of its outputs.
    ///
    /// # Errors
    /// As those of [`Backend::run`]; a backend that does not [`give`](Backend::gives) it always fails.
    fn best<'a>(&'a mut self, _batch: &'a Batch) -> Result<&'a [Best]> {
        Err(Error::Internal("this backend gives rows of logits".into()))
    }
    /// Computes a batch with each of its kernels timed; none where the device cannot say.
    ///
    /// # Errors
    /// As those of a step.
    fn times(&mut self, _batch: &Batch) -> Result<Option<Vec<KernelTime>>> {
        Ok(None)
    }
    /// Computes a batch and says what replaying it takes; none where nothing is replayed.
    ///
    /// # Errors
    /// As those of a step.
    fn replay(&mut self, _batch: &Batch) -> Result<Option<Replay>> {
        Ok(None)
    }
    /// Measures what the device does at most; none for the processor.
    ///
    /// # Errors
    /// As those of a step.
    fn reach(&mut self) -> Result<Option<Reach>> {
        Ok(None)
    }
    /// The anchor of the device; none where it computes on the processor.
    fn anchor(&self) -> Option<Anchor> {
        None
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
