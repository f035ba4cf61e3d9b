//! Blocks that architectures share.

use crate::error::Result;
use crate::graph::{Activation, AttentionSpec, Builder, ValueId};
use crate::spec::Spec;

/// A layer's projections to queries, keys and values, with biases where the file has them.
pub fn qkv(b: &mut Builder, spec: &Spec, il: usize, x: ValueId) -> Result<[ValueId; 3]> {
    let layer = &spec.layers[il];
    let mut project = |name: &str, rows: usize| -> Result<ValueId> {
        let weight = b.matrix(&format!("blk.{il}.attn_{name}.weight"), rows, spec.n_embd)?;
        let bias = b.opt_vector(&format!("blk.{il}.attn_{name}.bias"), rows)?;
        Ok(b.matmul(x, weight, bias, None))
    };
    Ok([
        project("q", layer.n_head * spec.d_k)?,
        project("k", layer.n_head_kv * spec.d_k)?,
        project("v", layer.n_head_kv * spec.d_v)?,
    ])
}

/// RMS norm by the tensor `name`.
pub fn norm(b: &mut Builder, spec: &Spec, name: &str, x: ValueId) -> Result<ValueId> {
    let weight = b.vector(name, spec.n_embd)?;
    Ok(b.rms_norm(x, weight, spec.norm_eps, 1, None))
}

/// Attention over queries, keys and values, before the output projection.
pub fn attend(b: &mut Builder, spec: &Spec, il: usize, qkv: [ValueId; 3]) -> ValueId {
    let layer = &spec.layers[il];
    let attention = AttentionSpec {
        layer: il,
        n_head: layer.n_head,
        n_head_kv: layer.n_head_kv,
        d_k: spec.d_k,
        d_v: spec.d_v,
        scale: spec.attn_scale,
        window: layer.window,
        softcap: None,
    };
    b.attention(qkv, layer.rope, attention)
}

/// The output projection of attention, with its bias where the file has one.
pub fn attn_output(b: &mut Builder, spec: &Spec, il: usize, x: ValueId, residual: Option<ValueId>) -> Result<ValueId> {
    let weight = b.matrix(&format!("blk.{il}.attn_output.weight"), spec.n_embd, spec.layers[il].n_head * spec.d_v)?;
    let bias = b.opt_vector(&format!("blk.{il}.attn_output.bias"), spec.n_embd)?;
    Ok(b.matmul(x, weight, bias, residual))
}

/// Gated feed-forward: `down(act(gate(x)) * up(x)) (+ residual)`.
pub fn gated_ffn(
    b: &mut Builder,
    spec: &Spec,
    il: usize,
    x: ValueId,
    act: Activation,
    residual: Option<ValueId>,
) -> Result<ValueId> {
    let n_ff = spec.layers[il].n_ff;
    let project = |b: &mut Builder, name: &str, rows: usize, k: usize, x, residual| -> Result<ValueId> {
        let weight = b.matrix(&format!("blk.{il}.ffn_{name}.weight"), rows, k)?;
        let bias = b.opt_vector(&format!("blk.{il}.ffn_{name}.bias"), rows)?;
        Ok(b.matmul(x, weight, bias, residual))
    };
    let gate = project(b, "gate", n_ff, spec.n_embd, x, None)?;
    let up = project(b, "up", n_ff, spec.n_embd, x, None)?;
    let h = b.gated_act(gate, up, act);
    project(b, "down", spec.n_embd, n_ff, h, residual)
}

/// Keeps only the rows whose logits are wanted, in the last layer: nothing behind its attention needs the others.
pub fn gather_last(b: &mut Builder, spec: &Spec, il: usize, values: &mut [&mut ValueId]) {
    if il + 1 == spec.layers.len() {
        for v in values {
            **v = b.gather(**v);
        }
    }
}

/// Final norm and projection to logits; the embedding serves where the file has no output matrix.
pub fn logits(b: &mut Builder, spec: &Spec, x: ValueId) -> Result<ValueId> {
    let x = norm(b, spec, "output_norm.weight", x)?;
    let name = if b.has("output.weight") { "output.weight" } else { "token_embd.weight" };
    let weight = b.matrix(name, spec.n_vocab, spec.n_embd)?;
    Ok(b.matmul(x, weight, None, None))
}
