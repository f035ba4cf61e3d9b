//! Blocks that architectures share. What differs in a number or a flag stands in the [`Spec`]; what differs in shape is
//! an architecture's own file.

use crate::error::Result;
use crate::graph::{AttentionSpec, Builder, Graph, Lookup, Routing, ValueId, WeightId};
use crate::spec::{NormKind, QkNorm, Spec};
use std::ops::Range;

/// Rows of the embedding for the batch's tokens.
pub fn embed(b: &mut Builder, spec: &Spec) -> Result<ValueId> {
    let table = b.matrix("token_embd.weight", spec.n_vocab, spec.n_embd)?;
    Ok(b.embed(table, spec.embed_scale))
}

/// The embedding of each token's position, added to `x`.
pub fn positions(b: &mut Builder, spec: &Spec, x: ValueId) -> Result<ValueId> {
    let table = b.matrix("position_embd.weight", spec.n_ctx_train, spec.n_embd)?;
    Ok(b.lookup(table, Lookup::Position, 1.0, Some(x)))
}

/// The norm of the tensors `name.weight` and, where the kind has one and the file too, `name.bias`.
pub fn norm(b: &mut Builder, spec: &Spec, name: &str, x: ValueId) -> Result<ValueId> {
    let weight = b.vector(&format!("{name}.weight"), spec.n_embd)?;
    if spec.norm == NormKind::Rms {
        return Ok(b.rms_norm(x, weight, spec.norm_eps, 1, None));
    }
    let bias = b.opt_vector(&format!("{name}.bias"), spec.n_embd)?;
    Ok(b.layer_norm(x, weight, bias, spec.norm_eps, 1))
}

/// The norm of a layer.
pub fn layer_norm(b: &mut Builder, spec: &Spec, il: usize, name: &str, x: ValueId) -> Result<ValueId> {
    norm(b, spec, &format!("blk.{il}.{name}"), x)
}

/// `x + norm(h)`.
pub fn add_norm(b: &mut Builder, spec: &Spec, name: &str, h: ValueId, x: ValueId) -> Result<ValueId> {
    let weight = b.vector(name, spec.n_embd)?;
    Ok(b.rms_norm(h, weight, spec.norm_eps, 1, Some(x)))
}

/// A projection of one layer: `name.weight`, and where the file has them `name.bias` and the factor `name.scale`.
pub struct Projection<'a> {
    /// Layer.
    pub il: usize,
    /// Name of its tensors below the layer's.
    pub name: &'a str,
    /// Output features of the tensor, and those of them that are meant.
    pub rows: (usize, Range<usize>),
    /// Input features.
    pub k: usize,
    /// Factor on the result, before the bias.
    pub scale: f32,
}

impl<'a> Projection<'a> {
    /// All rows, no factor.
    pub fn new(il: usize, name: &'a str, rows: usize, k: usize) -> Projection<'a> {
        Projection { il, name, rows: (rows, 0..rows), k, scale: 1.0 }
    }

    /// Of `x`, with a residual added.
    pub fn of(&self, b: &mut Builder, x: ValueId, residual: Option<ValueId>) -> Result<ValueId> {
        let name = format!("blk.{}.{}", self.il, self.name);
        let (rows, part) = self.rows.clone();
        let weight = b.matrix_part(&format!("{name}.weight"), rows, self.k, part.clone())?;
        let scale = self.scale * b.opt_scalar(&format!("{name}.scale"))?.unwrap_or(1.0);
        // With a factor the sum is scaled before the bias: such files have none, and one that has is refused.
        let bias = if self.scale == 1.0 { b.opt_vector_part(&format!("{name}.bias"), rows, part)? } else { None };
        Ok(b.scaled_matmul(x, weight, (scale != 1.0).then_some(scale), bias, residual))
    }
}

/// A layer's projections to queries, keys and values, in one tensor or in three, and the norms of queries and keys.
pub fn qkv(b: &mut Builder, spec: &Spec, il: usize, x: ValueId) -> Result<[ValueId; 3]> {
    let layer = &spec.layers[il];
    let sizes = [layer.n_head * spec.d_k, layer.n_head_kv * spec.d_k, layer.n_head_kv * spec.d_v];
    let fused = b.has(&format!("blk.{il}.attn_qkv.weight"));
    let (mut out, mut first, all) = ([x; 3], 0, sizes.iter().sum());
    for ((out, size), name) in out.iter_mut().zip(sizes).zip(["attn_q", "attn_k", "attn_v"]) {
        let mut projection = Projection::new(il, name, size, spec.n_embd);
        if fused {
            (projection.name, projection.rows) = ("attn_qkv", (all, first..first + size));
            first += size;
        }
        *out = projection.of(b, x, None)?;
    }
    let [q, k, v] = out;
    let q = head_norm(b, spec, &format!("blk.{il}.attn_q_norm.weight"), q, layer.n_head)?;
    let k = head_norm(b, spec, &format!("blk.{il}.attn_k_norm.weight"), k, layer.n_head_kv)?;
    Ok([q, k, v])
}

/// The norm of queries or keys: of each head by one weight or by one a head, or of all heads at once.
fn head_norm(b: &mut Builder, spec: &Spec, name: &str, x: ValueId, heads: usize) -> Result<ValueId> {
    if spec.qk_norm == QkNorm::Absent || spec.qk_norm == QkNorm::Optional && !b.has(name) {
        return Ok(x);
    }
    let (d, all) = (spec.d_k, spec.d_k * heads);
    let dims: Vec<usize> = b.dims(name).unwrap_or(&[]).iter().map(|&n| n as usize).collect();
    let whole = heads > 1 && dims == [all];
    let each = spec.norm == NormKind::Layer && heads > 1 && dims == [d, heads];
    let weight = match b.opt_rows(name, heads, d) {
        Ok(Some(weight)) if each => weight,
        _ => b.vector(name, if whole { all } else { d })?,
    };
    let slices = if whole { 1 } else { heads };
    Ok(match spec.norm {
        NormKind::Rms => b.rms_norm(x, weight, spec.norm_eps, slices, None),
        NormKind::Layer => b.layer_norm(x, weight, None, spec.norm_eps, slices),
    })
}

/// What attention is in a layer.
pub fn attention_spec(spec: &Spec, il: usize) -> AttentionSpec {
    let layer = &spec.layers[il];
    AttentionSpec {
        layer: il,
        n_head: layer.n_head,
        n_head_kv: layer.n_head_kv,
        d_k: spec.d_k,
        d_v: spec.d_v,
        scale: spec.attn_scale,
        window: layer.window,
        softcap: spec.attn_softcap,
        causal: spec.causal,
        alibi: !spec.alibi.is_empty(),
        sinks: None,
    }
}

/// Attention over queries, keys and values, before the output projection.
pub fn attend(b: &mut Builder, spec: &Spec, il: usize, qkv: [ValueId; 3]) -> ValueId {
    b.attention(qkv, spec.layers[il].rope, attention_spec(spec, il))
}

/// The output projection of attention.
pub fn attn_output(b: &mut Builder, spec: &Spec, il: usize, x: ValueId, residual: Option<ValueId>) -> Result<ValueId> {
    let mut output = Projection::new(il, "attn_output", spec.n_embd, spec.layers[il].n_head * spec.d_v);
    output.scale = spec.residual_scale;
    output.of(b, x, residual)
}

/// Attention of normalized rows `h`, added to `x`. In the last layer only the rows of wanted outputs go on.
pub fn attention(b: &mut Builder, spec: &Spec, il: usize, h: ValueId, x: &mut ValueId) -> Result<ValueId> {
    let qkv = qkv(b, spec, il, h)?;
    let mut a = attend(b, spec, il, qkv);
    gather_last(b, spec, il, &mut [&mut a, x]);
    if spec.post_norms {
        let a = attn_output(b, spec, il, a, None)?;
        return add_norm(b, spec, &format!("blk.{il}.post_attention_norm.weight"), a, *x);
    }
    attn_output(b, spec, il, a, Some(*x))
}

/// The gate and its partner, from two tensors or from one that holds the gate first.
pub fn gate_up(b: &mut Builder, spec: &Spec, il: usize, x: ValueId) -> Result<[ValueId; 2]> {
    let n_ff = spec.layers[il].n_ff;
    let fused = !b.has(&format!("blk.{il}.ffn_gate.weight"));
    let mut gate = Projection::new(il, "ffn_gate", n_ff, spec.n_embd);
    let mut up = Projection::new(il, "ffn_up", n_ff, spec.n_embd);
    if fused {
        gate.name = "ffn_up";
        gate.rows.0 = 2 * n_ff;
        up.rows = (2 * n_ff, n_ff..2 * n_ff);
    }
    Ok([gate.of(b, x, None)?, up.of(b, x, None)?])
}

/// Gated feed-forward: `down(act(gate(x)) * up(x)) (+ residual)`.
pub fn gated_ffn(b: &mut Builder, spec: &Spec, il: usize, x: ValueId, residual: Option<ValueId>) -> Result<ValueId> {
    let [gate, up] = gate_up(b, spec, il, x)?;
    let h = b.gated_act(gate, up, spec.act);
    down(b, spec, il, h, residual)
}

/// Feed-forward without a gate: `down(act(up(x))) (+ residual)`.
pub fn plain_ffn(b: &mut Builder, spec: &Spec, il: usize, x: ValueId, residual: Option<ValueId>) -> Result<ValueId> {
    let h = Projection::new(il, "ffn_up", spec.layers[il].n_ff, spec.n_embd).of(b, x, None)?;
    b.activate(h, spec.act);
    down(b, spec, il, h, residual)
}

/// The last projection of a feed-forward.
pub fn down(b: &mut Builder, spec: &Spec, il: usize, h: ValueId, residual: Option<ValueId>) -> Result<ValueId> {
    let mut down = Projection::new(il, "ffn_down", spec.n_embd, spec.layers[il].n_ff);
    down.scale = spec.residual_scale;
    down.of(b, h, residual)
}

/// A layer's experts: their tensors and how rows are routed to them.
pub struct ExpertWeights {
    /// The experts of each row.
    pub routes: ValueId,
    /// Gate, up and down, each with its bias where the file has one.
    pub gate_up_down: [(WeightId, Option<WeightId>); 3],
}

/// Routes the rows of `x` and names the tensors of their experts.
pub fn experts(b: &mut Builder, spec: &Spec, il: usize, x: ValueId) -> Result<Option<ExpertWeights>> {
    let Some(experts) = spec.experts.filter(|_| spec.layers[il].experts) else { return Ok(None) };
    let scores = Projection::new(il, "ffn_gate_inp", experts.count, spec.n_embd).of(b, x, None)?;
    let routes = b.route(scores, Routing { used: experts.used, normalize: experts.normalize, scale: experts.scale });
    let mut weights = |name: &str, rows: usize, k: usize| -> Result<(WeightId, Option<WeightId>)> {
        let weight = b.experts(&format!("blk.{il}.{name}.weight"), experts.count, rows, k)?;
        Ok((weight, b.opt_rows(&format!("blk.{il}.{name}.bias"), experts.count, rows)?))
    };
    let gate = weights("ffn_gate_exps", experts.n_ff, spec.n_embd)?;
    let up = weights("ffn_up_exps", experts.n_ff, spec.n_embd)?;
    let down = weights("ffn_down_exps", spec.n_embd, experts.n_ff)?;
    Ok(Some(ExpertWeights { routes, gate_up_down: [gate, up, down] }))
}

/// The feed-forward of a layer, with experts where it has some.
pub fn ffn(b: &mut Builder, spec: &Spec, il: usize, x: ValueId, residual: Option<ValueId>) -> Result<ValueId> {
    let Some(ExpertWeights { routes, gate_up_down: [gate, up, down] }) = experts(b, spec, il, x)? else {
        return gated_ffn(b, spec, il, x, residual);
    };
    let gate = b.expert_matmul(x, Some(routes), gate.0, gate.1);
    let up = b.expert_matmul(x, Some(routes), up.0, up.1);
    let h = b.gated_act(gate, up, spec.act);
    let h = b.expert_matmul(h, Some(routes), down.0, down.1);
    Ok(b.combine(h, routes, residual))
}

/// A model of norm, attention, norm and gated feed-forward in every layer: what most architectures are.
pub fn sequential(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = embed(&mut b, spec)?;
    for il in 0..spec.layers.len() {
        let h = layer_norm(&mut b, spec, il, "attn_norm", x)?;
        x = attention(&mut b, spec, il, h, &mut x)?;
        let h = layer_norm(&mut b, spec, il, "ffn_norm", x)?;
        x = if spec.post_norms {
            let h = ffn(&mut b, spec, il, h, None)?;
            add_norm(&mut b, spec, &format!("blk.{il}.post_ffw_norm.weight"), h, x)?
        } else {
            ffn(&mut b, spec, il, h, Some(x))?
        };
    }
    let result = output(&mut b, spec, x)?;
    b.finish(result)
}

/// Keeps only the rows whose logits are wanted, in the last layer: nothing behind its attention needs the others.
pub fn gather_last(b: &mut Builder, spec: &Spec, il: usize, values: &mut [&mut ValueId]) {
    if il + 1 == spec.layers.len() {
        for v in values {
            **v = b.gather(**v);
        }
    }
}

/// The final norm, and logits of it.
pub fn output(b: &mut Builder, spec: &Spec, x: ValueId) -> Result<ValueId> {
    let x = norm(b, spec, "output_norm", x)?;
    logits(b, spec, x)
}

/// The projection to logits, where they are what is wanted; the embedding serves where the file has no output matrix.
pub fn logits(b: &mut Builder, spec: &Spec, x: ValueId) -> Result<ValueId> {
    if spec.hidden {
        b.leave("output.weight");
        b.leave("output.bias");
        return Ok(x);
    }
    let name = if b.has("output.weight") { "output.weight" } else { "token_embd.weight" };
    let weight = b.matrix(name, spec.n_vocab, spec.n_embd)?;
    let bias = b.opt_vector("output.bias", spec.n_vocab)?;
    let logits = b.scaled_matmul(x, weight, (spec.logit_scale != 1.0).then_some(spec.logit_scale), bias, None);
    if let Some(cap) = spec.logit_softcap {
        b.softcap(logits, cap);
    }
    Ok(logits)
}
