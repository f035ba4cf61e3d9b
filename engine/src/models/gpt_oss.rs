//! gpt-oss (OpenAI, 2025): experts with biases and a clamped gate, attention sinks, every other layer slides.

use super::{Arch, blocks};
use crate::error::Result;
use crate::graph::{AttentionSpec, Builder, Graph};
use crate::spec::{Keys, NormKind, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "gpt-oss", spec, build };

fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves, NormKind::Rms)?;
    spec.slide(keys.window()?, 2, 0);
    spec.experts = keys.experts(spec.layers[0].n_ff)?;
    spec.layers.iter_mut().for_each(|layer| layer.experts = true);
    Ok(spec)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = blocks::embed(&mut b, spec)?;
    for il in 0..spec.layers.len() {
        let h = blocks::layer_norm(&mut b, spec, il, "attn_norm", x)?;
        let qkv = blocks::qkv(&mut b, spec, il, h)?;
        let sinks = b.opt_vector(&format!("blk.{il}.attn_sinks.weight"), spec.layers[il].n_head)?;
        let attention = AttentionSpec { sinks, ..blocks::attention_spec(spec, il) };
        let mut a = b.attention(qkv, spec.layers[il].rope, attention);
        blocks::gather_last(&mut b, spec, il, &mut [&mut a, &mut x]);
        x = blocks::attn_output(&mut b, spec, il, a, Some(x))?;
        let h = blocks::layer_norm(&mut b, spec, il, "post_attention_norm", x)?;
        x = match blocks::experts(&mut b, spec, il, h)? {
            None => blocks::gated_ffn(&mut b, spec, il, h, Some(x))?,
            Some(blocks::ExpertWeights { routes, gate_up_down: [gate, up, down] }) => {
                let gate = b.expert_matmul(h, Some(routes), gate.0, gate.1);
                let up = b.expert_matmul(h, Some(routes), up.0, up.1);
                let h = b.clamped_glu(gate, up);
                let h = b.expert_matmul(h, Some(routes), down.0, down.1);
                b.combine(h, routes, Some(x))
            }
        };
    }
    let result = blocks::output(&mut b, spec, x)?;
    b.finish(result)
}
