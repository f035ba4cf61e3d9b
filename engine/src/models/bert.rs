//! BERT (Devlin et al., 2019) and its heirs, read in both directions, with norms behind attention and feed-forward:
//! Nomic BERT with a rotary embedding and a gate (Nussbaum et al., 2024), Jina BERT with slopes instead of positions
//! (Günther et al., 2023). Modern BERT (Warner et al., 2024) has its norms in front and slides in two layers of three.
//!
//! GELU is the tanh form, as the engines that made these files compute it; the originals' error function moves a
//! vector's direction by less than 1e-6.

use super::{Arch, blocks};
use crate::error::Result;
use crate::graph::{Builder, Graph, Lookup, ValueId};
use crate::spec::{Activation, Keys, NormKind, Pairing, Spec};

/// BERT.
pub const BERT: Arch = Arch { name: "bert", spec: bert, build };
/// Nomic BERT.
pub const NOMIC: Arch = Arch { name: "nomic-bert", spec: nomic, build };
/// Jina BERT.
pub const JINA: Arch = Arch { name: "jina-bert-v2", spec: jina, build };
/// Modern BERT.
pub const MODERN: Arch = Arch { name: "modern-bert", spec: modern, build: build_modern };

/// The first of every three layers of Modern BERT sees all.
const GLOBAL_EVERY: usize = 3;

fn bert(keys: &Keys) -> Result<Spec> {
    let mut spec = nomic(keys)?;
    spec.act = Activation::GeluTanh;
    spec.learned_positions = true;
    spec.layers.iter_mut().for_each(|layer| layer.rope = None);
    Ok(spec)
}

fn nomic(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves, NormKind::Layer)?;
    spec.read_both_ways();
    Ok(spec)
}

fn jina(keys: &Keys) -> Result<Spec> {
    let mut spec = nomic(keys)?;
    spec.layers.iter_mut().for_each(|layer| layer.rope = None);
    spec.act = Activation::GeluTanh;
    spec.set_alibi(8.0);
    Ok(spec)
}

fn modern(keys: &Keys) -> Result<Spec> {
    let mut spec = keys.decoder(Pairing::Halves, NormKind::Layer)?;
    let base = keys.float("rope.freq_base_swa", 1.0..=1e12, Some(10000.0))?;
    let local = spec.ropes[0].unscaled(f64::from(base));
    spec.ropes.push(local);
    let window = keys.window()?;
    for layer in spec.layers.iter_mut().enumerate().filter(|(il, _)| il % GLOBAL_EVERY > 0).map(|(_, layer)| layer) {
        (layer.window, layer.rope) = (window, Some(1));
    }
    spec.read_both_ways();
    spec.act = Activation::GeluTanh;
    Ok(spec)
}

/// Embedding of tokens and of the first kind of text, and positions where they are learned.
fn embed(b: &mut Builder, spec: &Spec) -> Result<ValueId> {
    let mut x = blocks::embed(b, spec)?;
    if let Some(&[_, kinds]) = b.dims("token_types.weight") {
        let table = b.matrix("token_types.weight", kinds as usize, spec.n_embd)?;
        x = b.lookup(table, Lookup::First, 1.0, Some(x));
    }
    if spec.learned_positions {
        x = blocks::positions(b, spec, x)?;
    }
    blocks::norm(b, spec, "token_embd_norm", x)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = embed(&mut b, spec)?;
    for il in 0..spec.layers.len() {
        x = blocks::attention(&mut b, spec, il, x, &mut x.clone())?;
        x = blocks::layer_norm(&mut b, spec, il, "attn_output_norm", x)?;
        let gated = b.has(&format!("blk.{il}.ffn_gate.weight"));
        let ffn = if gated { blocks::gated_ffn } else { blocks::plain_ffn };
        x = ffn(&mut b, spec, il, x, Some(x))?;
        x = blocks::layer_norm(&mut b, spec, il, "layer_output_norm", x)?;
    }
    b.finish(x)
}

fn build_modern(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = embed(&mut b, spec)?;
    for il in 0..spec.layers.len() {
        // The norm of the embedding is that of the first layer.
        let h = if il == 0 { x } else { blocks::layer_norm(&mut b, spec, il, "attn_norm", x)? };
        x = blocks::attention(&mut b, spec, il, h, &mut x.clone())?;
        let h = blocks::layer_norm(&mut b, spec, il, "ffn_norm", x)?;
        x = blocks::gated_ffn(&mut b, spec, il, h, Some(x))?;
    }
    let x = blocks::norm(&mut b, spec, "output_norm", x)?;
    b.finish(x)
}
