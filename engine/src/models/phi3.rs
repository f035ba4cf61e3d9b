//! Phi-3 and Phi-4-mini (Abdin et al., 2024): fused projections, rotary embedding of a part of each head, and factors on
//! its angles for short and for long contexts. Files name a sliding window; the published expected values ignore it, as
//! the models' own long contexts do.

use super::{Arch, blocks};
use crate::error::Result;
use crate::spec::{Keys, NormKind, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "phi3", spec, build: blocks::sequential };

fn spec(keys: &Keys) -> Result<Spec> {
    keys.decoder(Pairing::Halves, NormKind::Rms)
}
