//! The registry of architectures: one row each, one file for each family.
//!
//! A model file turns metadata into a [`Spec`] and a `Spec` into a [`Graph`], over the blocks in [`blocks`]. It
//! never mentions a device, a thread or a byte.

use crate::error::Result;
use crate::graph::{Builder, Graph};
use crate::spec::{Keys, Spec};

mod bert;
mod bitnet;
pub mod blocks;
mod deepseek2;
mod gemma;
mod gpt2;
mod gpt_oss;
mod granite;
mod llama;
mod olmo2;
mod parallel;
mod phi3;
mod qwen;
mod smollm3;

/// One architecture.
#[derive(Debug)]
pub struct Arch {
    /// The word of `general.architecture`, which is also the prefix of its keys.
    pub name: &'static str,
    /// Reads its hyperparameters.
    pub spec: fn(&Keys) -> Result<Spec>,
    /// Builds its graph.
    pub build: fn(&Spec, Builder) -> Result<Graph>,
}

/// Every architecture.
pub const ALL: &[Arch] = &[
    bert::BERT,
    bert::NOMIC,
    bert::JINA,
    bert::MODERN,
    bitnet::ARCH,
    deepseek2::ARCH,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma::GEMMA3,
    gemma::EMBEDDING,
    gpt2::GPT2,
    gpt2::STARCODER2,
    gpt_oss::ARCH,
    granite::ARCH,
    llama::ARCH,
    olmo2::ARCH,
    parallel::COMMAND_R,
    parallel::GPT_NEOX,
    parallel::STABLELM,
    phi3::ARCH,
    qwen::QWEN2,
    qwen::QWEN3,
    qwen::QWEN3_MOE,
    smollm3::ARCH,
];
