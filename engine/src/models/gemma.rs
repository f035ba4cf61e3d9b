//! Gemma of three generations (Gemma Team, 2024 and 2025): scaled embeddings and GELU; from the second on norms around
//! each block and sliding windows; in the third norms of queries and keys, and a rope of its own for sliding layers.
//! EmbeddingGemma is the third read in both directions.

use super::{Arch, blocks};
use crate::error::Result;
use crate::spec::{Activation, Keys, NormKind, Pairing, QkNorm, Spec};

/// The registry's rows.
pub const GEMMA: Arch = Arch { name: "gemma", spec: first, build: blocks::sequential };
/// Second generation.
pub const GEMMA2: Arch = Arch { name: "gemma2", spec: second, build: blocks::sequential };
/// Third generation.
pub const GEMMA3: Arch = Arch { name: "gemma3", spec: third, build: blocks::sequential };
/// The embedding model.
pub const EMBEDDING: Arch = Arch { name: "gemma-embedding", spec: embedding, build: blocks::sequential };

/// Every sixth layer of the third generation attends to the whole context.
const GLOBAL_EVERY: usize = 6;
/// Base of the rope of sliding layers; scaling does not apply to it.
const LOCAL_BASE: f64 = 10000.0;

fn first(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves, NormKind::Rms)?;
    spec.embed_scale = (spec.n_embd as f32).sqrt();
    spec.act = Activation::GeluTanh;
    Ok(spec)
}

/// The largest models divide queries by the width of a head as if the heads filled the embedding.
fn wide_queries(spec: &mut Spec, n_layer: usize) {
    if spec.layers.len() == n_layer {
        spec.attn_scale = 1.0 / (spec.n_embd as f32 / spec.layers[0].n_head as f32).sqrt();
    }
}

fn second(keys: &Keys) -> Result<Spec> {
    let mut spec = first(keys)?;
    spec.post_norms = true;
    spec.attn_softcap = keys.opt_positive("attn_logit_softcapping")?;
    spec.logit_softcap = keys.opt_positive("final_logit_softcapping")?;
    spec.slide(keys.window()?, 2, 0);
    wide_queries(&mut spec, 46);
    Ok(spec)
}

fn third(keys: &Keys) -> Result<Spec> {
    let mut spec = first(keys)?;
    spec.post_norms = true;
    spec.qk_norm = QkNorm::Required;
    let local = spec.ropes[0].unscaled(LOCAL_BASE);
    spec.ropes.push(local);
    spec.slide(keys.window()?, GLOBAL_EVERY, 1);
    wide_queries(&mut spec, 62);
    Ok(spec)
}

fn embedding(keys: &Keys) -> Result<Spec> {
    let mut spec = third(keys)?;
    spec.read_both_ways();
    Ok(spec)
}
