//! DeepSeek V2 (DeepSeek-AI, 2024): keys and values of all heads come from one compressed row (latent attention), and
//! from the second layer on the feed-forward is experts and shared experts.
//!
//! Files come in two forms. With `attn_k_b` and `attn_v_b`, queries are multiplied into the space of the compressed
//! row, and that row is what the cache holds. With `attn_kv_b` keys and values of every head are computed.

use super::{Arch, blocks};
use crate::error::Result;
use crate::graph::{Builder, Columns, Graph, ValueId};
use crate::spec::{Keys, Latent, NormKind, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "deepseek2", spec, build };

fn spec(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Adjacent, NormKind::Rms)?;
    let latent = keys.latent(&spec)?;
    if let Some(yarn) = spec.ropes[0].yarn {
        // The magnitude is on the scores, not on cosines and sines.
        let stretch = 1.0
            + f64::from(keys.float("rope.scaling.yarn_log_multiplier", 0.0..=10.0, Some(0.0))?)
                * libm::log(yarn.factor);
        spec.ropes[0].magnitude = 1.0;
        spec.attn_scale = (stretch * stretch / (latent.d_k as f64).sqrt()) as f32;
    } else {
        spec.attn_scale = 1.0 / (latent.d_k as f32).sqrt();
    }
    spec.latent = Some(latent);
    spec.experts = keys.experts(spec.layers[0].n_ff)?;
    if let Some(experts) = &mut spec.experts {
        experts.normalize = keys.flag("expert_weights_norm", false)?;
        experts.scale = keys.float("expert_weights_scale", 0.0..=1e3, Some(1.0))?;
    }
    let dense = keys.opt_count("leading_dense_block_count", 1 << 10)?.unwrap_or(0);
    spec.layers.iter_mut().skip(dense).for_each(|layer| layer.experts = true);
    Ok(spec)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = blocks::embed(&mut b, spec)?;
    for il in 0..spec.layers.len() {
        let h = blocks::layer_norm(&mut b, spec, il, "attn_norm", x)?;
        let mut a = attention(&mut b, spec, il, h)?;
        blocks::gather_last(&mut b, spec, il, &mut [&mut a, &mut x]);
        let latent = spec.latent.unwrap_or_default();
        let output = blocks::Projection::new(il, "attn_output", spec.n_embd, spec.layers[il].n_head * latent.d_v);
        x = output.of(&mut b, a, Some(x))?;
        let h = blocks::layer_norm(&mut b, spec, il, "ffn_norm", x)?;
        x = blocks::ffn(&mut b, spec, il, h, Some(x))?;
        if spec.layers[il].experts && latent.n_ff_shared > 0 {
            x = shared(&mut b, spec, il, h, x)?;
        }
    }
    let result = blocks::output(&mut b, spec, x)?;
    b.finish(result)
}

/// The experts that every token uses, as one.
fn shared(b: &mut Builder, spec: &Spec, il: usize, h: ValueId, x: ValueId) -> Result<ValueId> {
    let n_ff = spec.latent.unwrap_or_default().n_ff_shared;
    let gate = blocks::Projection::new(il, "ffn_gate_shexp", n_ff, spec.n_embd).of(b, h, None)?;
    let up = blocks::Projection::new(il, "ffn_up_shexp", n_ff, spec.n_embd).of(b, h, None)?;
    let h = b.gated_act(gate, up, spec.act);
    blocks::Projection::new(il, "ffn_down_shexp", spec.n_embd, n_ff).of(b, h, Some(x))
}

fn norm(b: &mut Builder, spec: &Spec, il: usize, name: &str, x: ValueId, width: usize) -> Result<ValueId> {
    let weight = b.vector(&format!("blk.{il}.{name}.weight"), width)?;
    Ok(b.rms_norm(x, weight, spec.norm_eps, 1, None))
}

/// Queries of all heads: rows of `[without position, rotated]` a head.
fn queries(b: &mut Builder, spec: &Spec, il: usize, latent: Latent, h: ValueId) -> Result<ValueId> {
    let rows = spec.layers[il].n_head * latent.d_k;
    let Some(rank) = latent.q_rank else {
        return blocks::Projection::new(il, "attn_q", rows, spec.n_embd).of(b, h, None);
    };
    let q = blocks::Projection::new(il, "attn_q_a", rank, spec.n_embd).of(b, h, None)?;
    let q = norm(b, spec, il, "attn_q_a_norm", q, rank)?;
    blocks::Projection::new(il, "attn_q_b", rows, rank).of(b, q, None)
}

/// Attention before the output projection. In heads as they are stored the rotated part comes first.
fn attention(b: &mut Builder, spec: &Spec, il: usize, h: ValueId) -> Result<ValueId> {
    let (latent, heads) = (spec.latent.unwrap_or_default(), spec.layers[il].n_head);
    let Latent { d_k, d_v, kv_rank, absorbed, .. } = latent;
    let turned = spec.ropes[0].dims;
    let plain = d_k - turned;
    let q = queries(b, spec, il, latent, h)?;
    let mut down = blocks::Projection::new(il, "attn_kv_a_mqa", kv_rank + turned, spec.n_embd);
    down.rows.1 = 0..kv_rank;
    let row = down.of(b, h, None)?;
    let row = norm(b, spec, il, "attn_kv_a_norm", row, kv_rank)?;
    down.rows.1 = kv_rank..kv_rank + turned;
    let position = down.of(b, h, None)?;

    let part = |heads, width, from, to| Columns { heads, width, from, to };
    let turned_queries = |b: &mut Builder, out: ValueId| {
        b.copy(q, part(heads, turned, (plain, d_k), (0, spec.d_k)), out);
    };
    if !absorbed {
        let kv = blocks::Projection::new(il, "attn_kv_b", heads * (plain + d_v), kv_rank).of(b, row, None)?;
        let [queries, keys] = [b.blank(q, heads * d_k), b.blank(q, heads * d_k)];
        let values = b.blank(q, heads * d_v);
        turned_queries(b, queries);
        b.copy(q, part(heads, plain, (0, d_k), (turned, d_k)), queries);
        b.copy(position, part(heads, turned, (0, 0), (0, d_k)), keys);
        b.copy(kv, part(heads, plain, (0, plain + d_v), (turned, d_k)), keys);
        b.copy(kv, part(heads, d_v, (plain, plain + d_v), (0, d_v)), values);
        return Ok(blocks::attend(b, spec, il, [queries, keys, values]));
    }
    let plain_queries = b.blank(q, heads * plain);
    b.copy(q, part(heads, plain, (0, d_k), (0, plain)), plain_queries);
    let weight = b.experts(&format!("blk.{il}.attn_k_b.weight"), heads, kv_rank, plain)?;
    let moved = b.expert_matmul(plain_queries, None, weight, None);
    let (queries, keys) = (b.blank(q, heads * spec.d_k), b.blank(q, spec.d_k));
    turned_queries(b, queries);
    b.copy(moved, part(heads, kv_rank, (0, kv_rank), (turned, spec.d_k)), queries);
    b.copy(position, part(1, turned, (0, 0), (0, 0)), keys);
    b.copy(row, part(1, kv_rank, (0, 0), (turned, 0)), keys);
    let a = blocks::attend(b, spec, il, [queries, keys, row]);
    let weight = b.experts(&format!("blk.{il}.attn_v_b.weight"), heads, d_v, kv_rank)?;
    Ok(b.expert_matmul(a, None, weight, None))
}
