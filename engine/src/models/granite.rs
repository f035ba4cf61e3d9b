//! Granite (IBM, 2024): as Llama, with factors on embeddings, attention, residuals and logits.

use super::{Arch, blocks};
use crate::error::Result;
use crate::spec::{Keys, NormKind, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "granite", spec, build: blocks::sequential };

fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Adjacent, NormKind::Rms)?;
    spec.embed_scale = keys.opt_positive("embedding_scale")?.unwrap_or(1.0);
    spec.residual_scale = keys.opt_positive("residual_scale")?.unwrap_or(1.0);
    spec.attn_scale = keys.opt_positive("attention.scale")?.unwrap_or(spec.attn_scale);
    spec.logit_scale = 1.0 / keys.opt_positive("logit_scale")?.unwrap_or(1.0);
    Ok(spec)
}
