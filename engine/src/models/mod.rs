//! The registry of architectures: one row and one file each.
//!
//! A model file turns metadata into a [`Spec`] and a `Spec` into a [`Graph`], over the blocks in [`blocks`]. It
//! never mentions a device, a thread or a byte.

use crate::error::Result;
use crate::graph::{Builder, Graph};
use crate::spec::{Keys, Spec};

pub mod blocks;
mod gemma3;
mod llama;

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
pub const ALL: &[Arch] = &[gemma3::ARCH, llama::ARCH];
