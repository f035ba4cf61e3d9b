//! Models and time: from a GGUF file to tokens.
//!
//! `gguf` knows bits and `kernels` knows loops; this crate knows models and time. One way leads from file to token:
//! a [`file`] is parsed, its metadata becomes a [`spec::Spec`], [`models`] turn that into a [`graph::Graph`],
//! [`plan::Plan`] lays it out, a [`backend`] takes the weights and replays the plan for every [`batch::Batch`] that
//! the [`scheduler`] fills, and [`sampler`] and [`tokenizer`] turn logits into text.
//!
//! The axiom: a logit depends on the weights and on the tokens before it, and on nothing else: not on the batch,
//! the chunks of the prompt, cached prefixes, neighbours, threads or the instruction set.

#[cfg(not(target_family = "wasm"))]
pub mod adapter;
pub mod answer;
pub mod backend;
pub mod batch;
#[cfg(not(target_family = "wasm"))]
pub mod embed;
#[cfg(not(target_family = "wasm"))]
mod engine;
pub mod error;
#[cfg(not(target_family = "wasm"))]
pub mod file;
pub mod graph;
#[cfg(not(target_family = "wasm"))]
pub mod inspect;
pub mod kv;
pub mod models;
pub mod pace;
#[cfg(not(target_family = "wasm"))]
mod placement;
pub mod plan;
mod probe;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod source;
pub mod spec;
pub mod template;
pub mod tokenizer;

#[cfg(not(target_family = "wasm"))]
pub use adapter::Adapter;
pub use backend::{Device, GpuLayers, KvType, Variant};
#[cfg(not(target_family = "wasm"))]
pub use engine::{Blueprint, DEFAULT_CTX, Engine, Load, Options, Progress};
pub use error::{Error, Result};
/// The loops beneath, for benchmarks.
pub use kernels;
pub use kernels::Isa;
#[cfg(not(target_family = "wasm"))]
pub use placement::{Memory, MemoryPlan};
pub use plan::Precision;
pub use probe::Probe;
pub use request::{Cancel, Constraint, Event, Finish, Request, Timings};
