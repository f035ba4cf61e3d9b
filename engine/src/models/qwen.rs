//! Qwen 2 and 3 (Qwen Team, 2024 and 2025): as Llama, with biases of queries, keys and values in the second generation,
//! their norms in the third, which also comes with experts.

use super::{Arch, blocks};
use crate::error::Result;
use crate::spec::{Keys, NormKind, Pairing, QkNorm, Spec};

/// Second generation.
pub const QWEN2: Arch = Arch { name: "qwen2", spec: second, build: blocks::sequential };
/// Third generation.
pub const QWEN3: Arch = Arch { name: "qwen3", spec: third, build: blocks::sequential };
/// Third generation with experts.
pub const QWEN3_MOE: Arch = Arch { name: "qwen3moe", spec: experts, build: blocks::sequential };

fn second(keys: &Keys) -> Result<Spec> {
    keys.decoder(Pairing::Halves, NormKind::Rms)
}

fn third(keys: &Keys) -> Result<Spec> {
    let mut spec = second(keys)?;
    spec.qk_norm = QkNorm::Required;
    Ok(spec)
}

fn experts(keys: &Keys) -> Result<Spec> {
    let mut spec = third(keys)?;
    spec.experts = keys.experts(spec.layers[0].n_ff)?;
    spec.layers.iter_mut().for_each(|layer| layer.experts = true);
    Ok(spec)
}
