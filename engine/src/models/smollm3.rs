//! SmolLM3 (Hugging Face, 2025): as Llama, with no rotary embedding in every fourth layer.

use super::{Arch, blocks};
use crate::error::Result;
use crate::spec::{Keys, NormKind, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "smollm3", spec, build: blocks::sequential };

/// Every fourth layer knows no positions.
const PLAIN_EVERY: usize = 4;

fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Adjacent, NormKind::Rms)?;
    spec.layers.iter_mut().skip(PLAIN_EVERY - 1).step_by(PLAIN_EVERY).for_each(|layer| layer.rope = None);
    Ok(spec)
}
