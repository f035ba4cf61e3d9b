//! Attention and feed-forward side by side, both added to the same residual: Command R (Cohere, 2024), GPT-NeoX (Black et
//! al., 2022) and, in some of its sizes, StableLM (Bellagente et al., 2024). The last two also come one after the other.

use super::{Arch, blocks};
use crate::error::Result;
use crate::graph::{Builder, Graph};
use crate::spec::{Activation, Keys, NormKind, Pairing, QkNorm, Spec};

/// Command R.
pub const COMMAND_R: Arch = Arch { name: "command-r", spec: command_r, build };
/// GPT-NeoX and Pythia.
pub const GPT_NEOX: Arch = Arch { name: "gptneox", spec: gpt_neox, build };
/// StableLM.
pub const STABLELM: Arch = Arch { name: "stablelm", spec: stablelm, build };

fn command_r(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Adjacent, NormKind::Layer)?;
    spec.qk_norm = QkNorm::Optional;
    spec.logit_scale = keys.opt_positive("logit_scale")?.unwrap_or(1.0);
    spec.parallel = true;
    Ok(spec)
}

fn gpt_neox(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves, NormKind::Layer)?;
    spec.act = Activation::GeluTanh;
    spec.parallel = keys.flag("use_parallel_residual", true)?;
    Ok(spec)
}

/// What is parallel is said by the absence of a second norm; the key says it too, but not in every file.
fn stablelm(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves, NormKind::Layer)?;
    spec.qk_norm = QkNorm::Optional;
    Ok(spec)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = blocks::embed(&mut b, spec)?;
    for il in 0..spec.layers.len() {
        let shared = !b.has(&format!("blk.{il}.ffn_norm.weight"));
        let h = blocks::layer_norm(&mut b, spec, il, "attn_norm", x)?;
        let mut before = x;
        let attended = blocks::attention(&mut b, spec, il, h, &mut before)?;
        let h = if shared {
            let mut h = h;
            blocks::gather_last(&mut b, spec, il, &mut [&mut h]);
            h
        } else {
            let from = if spec.parallel { before } else { attended };
            blocks::layer_norm(&mut b, spec, il, "ffn_norm", from)?
        };
        let gated = b.has(&format!("blk.{il}.ffn_gate.weight"));
        let ffn = if gated { blocks::gated_ffn } else { blocks::plain_ffn };
        x = ffn(&mut b, spec, il, h, Some(attended))?;
    }
    let result = blocks::output(&mut b, spec, x)?;
    b.finish(result)
}
