//! GPT-2 (Radford et al., 2019) with its learned positions, and StarCoder2 (Lozhkov et al., 2024), which has a rotary
//! embedding in their place: layer norms, biases, a feed-forward without a gate.

use super::{Arch, blocks};
use crate::error::Result;
use crate::graph::{Builder, Graph};
use crate::spec::{Activation, Keys, NormKind, Pairing, Spec};

/// GPT-2.
pub const GPT2: Arch = Arch { name: "gpt2", spec: gpt2, build };
/// StarCoder2.
pub const STARCODER2: Arch = Arch { name: "starcoder2", spec: starcoder2, build };

fn gpt2(keys: &Keys) -> Result<Spec> {
    let mut spec = starcoder2(keys)?;
    spec.learned_positions = true;
    spec.layers.iter_mut().for_each(|layer| layer.rope = None);
    Ok(spec)
}

fn starcoder2(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves, NormKind::Layer)?;
    spec.act = Activation::GeluTanh;
    Ok(spec)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = blocks::embed(&mut b, spec)?;
    if spec.learned_positions {
        x = blocks::positions(&mut b, spec, x)?;
    }
    for il in 0..spec.layers.len() {
        let h = blocks::layer_norm(&mut b, spec, il, "attn_norm", x)?;
        x = blocks::attention(&mut b, spec, il, h, &mut x.clone())?;
        let h = blocks::layer_norm(&mut b, spec, il, "ffn_norm", x)?;
        x = blocks::plain_ffn(&mut b, spec, il, h, Some(x))?;
    }
    let result = blocks::output(&mut b, spec, x)?;
    b.finish(result)
}
