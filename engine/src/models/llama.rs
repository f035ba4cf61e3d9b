//! Llama and what is built like it: SmolLM, Mistral, CodeLlama, distills (Touvron et al., 2023), and Mixtral, whose
//! feed-forward is a mixture of experts (Jiang et al., 2024).

use super::{Arch, blocks};
use crate::error::Result;
use crate::spec::{Keys, NormKind, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "llama", spec, build: blocks::sequential };

fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Adjacent, NormKind::Rms)?;
    spec.experts = keys.experts(spec.layers[0].n_ff)?;
    spec.layers.iter_mut().for_each(|layer| layer.experts = true);
    Ok(spec)
}
