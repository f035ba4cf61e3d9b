//! OLMo 2 (OLMo Team, 2024): norms behind attention and feed-forward instead of before them, and of all queries and all
//! keys at once.

use super::{Arch, blocks};
use crate::error::Result;
use crate::graph::{Builder, Graph};
use crate::spec::{Keys, NormKind, Pairing, QkNorm, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "olmo2", spec, build };

fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves, NormKind::Rms)?;
    spec.qk_norm = QkNorm::Required;
    spec.post_norms = true;
    Ok(spec)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = blocks::embed(&mut b, spec)?;
    for il in 0..spec.layers.len() {
        x = blocks::attention(&mut b, spec, il, x, &mut x.clone())?;
        let h = blocks::ffn(&mut b, spec, il, x, None)?;
        x = blocks::add_norm(&mut b, spec, &format!("blk.{il}.post_ffw_norm.weight"), h, x)?;
    }
    let result = blocks::output(&mut b, spec, x)?;
    b.finish(result)
}
