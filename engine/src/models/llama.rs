//! Llama and what is built like it: SmolLM, Mistral, CodeLlama, distills (Touvron et al., 2023).

use super::{Arch, blocks};
use crate::error::{Error, Result};
use crate::graph::{Activation, Builder, Graph};
use crate::spec::{Keys, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "llama", spec, build };

fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Adjacent)?;
    if let Some(n) = keys.opt_count("expert_count", 1 << 16)? {
        return Err(Error::Key {
            key: "llama.expert_count".into(),
            found: n.to_string(),
            expected: "no experts: mixtures of experts are not supported yet".into(),
        });
    }
    spec.ropes[0].scale = keys.linear_rope_scale()?;
    Ok(spec)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let table = b.matrix("token_embd.weight", spec.n_vocab, spec.n_embd)?;
    let mut x = b.embed(table, spec.embed_scale);
    for il in 0..spec.layers.len() {
        let h = blocks::norm(&mut b, spec, &format!("blk.{il}.attn_norm.weight"), x)?;
        let qkv = blocks::qkv(&mut b, spec, il, h)?;
        let mut a = blocks::attend(&mut b, spec, il, qkv);
        blocks::gather_last(&mut b, spec, il, &mut [&mut a, &mut x]);
        x = blocks::attn_output(&mut b, spec, il, a, Some(x))?;
        let h = blocks::norm(&mut b, spec, &format!("blk.{il}.ffn_norm.weight"), x)?;
        x = blocks::gated_ffn(&mut b, spec, il, h, Activation::Silu, Some(x))?;
    }
    let logits = blocks::logits(&mut b, spec, x)?;
    b.finish(logits)
}
