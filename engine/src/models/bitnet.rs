//! BitNet b1.58 (Ma et al., 2024): as Llama, with a norm before each last projection and a factor on each matrix of
//! ternary weights.

use super::{Arch, blocks};
use crate::error::Result;
use crate::graph::{Builder, Graph};
use crate::spec::{Keys, NormKind, Pairing, Spec};

/// The registry's row.
pub const ARCH: Arch = Arch { name: "bitnet", spec, build };

fn spec(keys: &Keys) -> Result<Spec> {
    keys.decoder(Pairing::Halves, NormKind::Rms)
}

fn build(spec: &Spec, mut b: Builder) -> Result<Graph> {
    let mut x = blocks::embed(&mut b, spec)?;
    for il in 0..spec.layers.len() {
        let h = blocks::layer_norm(&mut b, spec, il, "attn_norm", x)?;
        let qkv = blocks::qkv(&mut b, spec, il, h)?;
        let mut a = blocks::attend(&mut b, spec, il, qkv);
        blocks::gather_last(&mut b, spec, il, &mut [&mut a, &mut x]);
        let weight = b.vector(&format!("blk.{il}.attn_sub_norm.weight"), spec.layers[il].n_head * spec.d_v)?;
        let a = b.rms_norm(a, weight, spec.norm_eps, 1, None);
        x = blocks::attn_output(&mut b, spec, il, a, Some(x))?;
        let h = blocks::layer_norm(&mut b, spec, il, "ffn_norm", x)?;
        let [gate, up] = blocks::gate_up(&mut b, spec, il, h)?;
        let h = b.gated_act(gate, up, spec.act);
        let weight = b.vector(&format!("blk.{il}.ffn_sub_norm.weight"), spec.layers[il].n_ff)?;
        let h = b.rms_norm(h, weight, spec.norm_eps, 1, None);
        x = blocks::down(&mut b, spec, il, h, Some(x))?;
    }
    let result = blocks::output(&mut b, spec, x)?;
    b.finish(result)
}
