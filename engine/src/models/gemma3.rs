//! Gemma 3, text (Gemma Team, 2025): norms around every block, sliding-window layers with a rope of their own.

use super::{Arch, blocks};
use crate::error::Result;
use crate::graph::{Activation, Builder, Graph, ValueId};
use crate::spec::{Keys, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "gemma3", spec, build };

/// Every sixth layer attends to the whole context.
const GLOBAL_EVERY: usize = 6;
/// Base of the rope of sliding layers; linear scaling does not apply to it.
const LOCAL_BASE: f64 = 10000.0;

fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves)?;
    let window = keys.opt_count("attention.sliding_window", u32::MAX)?;
    let mut local = spec.ropes[0].clone();
    local.base = LOCAL_BASE;
    spec.ropes[0].scale = keys.linear_rope_scale()?;
    spec.ropes.push(local);
    for (il, layer) in spec.layers.iter_mut().enumerate() {
        if il % GLOBAL_EVERY < GLOBAL_EVERY - 1 {
            layer.window = window;
            layer.rope = Some(1);
        }
    }
    spec.embed_scale = (spec.n_embd as f32).sqrt();
    Ok(spec)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let table = b.matrix("token_embd.weight", spec.n_vocab, spec.n_embd)?;
    let mut x = b.embed(table, spec.embed_scale);
    for il in 0..spec.layers.len() {
        let h = blocks::norm(&mut b, spec, &format!("blk.{il}.attn_norm.weight"), x)?;
        let [q, k, v] = blocks::qkv(&mut b, spec, il, h)?;
        let q = head_norm(&mut b, spec, &format!("blk.{il}.attn_q_norm.weight"), q, spec.layers[il].n_head)?;
        let k = head_norm(&mut b, spec, &format!("blk.{il}.attn_k_norm.weight"), k, spec.layers[il].n_head_kv)?;
        let mut a = blocks::attend(&mut b, spec, il, [q, k, v]);
        blocks::gather_last(&mut b, spec, il, &mut [&mut a, &mut x]);
        let a = blocks::attn_output(&mut b, spec, il, a, None)?;
        x = add_norm(&mut b, spec, &format!("blk.{il}.post_attention_norm.weight"), a, x)?;
        let h = blocks::norm(&mut b, spec, &format!("blk.{il}.ffn_norm.weight"), x)?;
        let h = blocks::gated_ffn(&mut b, spec, il, h, Activation::GeluTanh, None)?;
        x = add_norm(&mut b, spec, &format!("blk.{il}.post_ffw_norm.weight"), h, x)?;
    }
    let logits = blocks::logits(&mut b, spec, x)?;
    b.finish(logits)
}

fn head_norm(b: &mut Builder, spec: &Spec, name: &str, x: ValueId, heads: usize) -> Result<ValueId> {
    let weight = b.vector(name, spec.d_k)?;
    Ok(b.rms_norm(x, weight, spec.norm_eps, heads, None))
}

/// `x + norm(h)`.
fn add_norm(b: &mut Builder, spec: &Spec, name: &str, h: ValueId, x: ValueId) -> Result<ValueId> {
    let weight = b.vector(name, spec.n_embd)?;
    Ok(b.rms_norm(h, weight, spec.norm_eps, 1, Some(x)))
}
