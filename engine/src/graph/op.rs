//! What an operation is called, which weights it takes, what it writes and to which layer it belongs.

use super::{Graph, Op, ValueId, WeightId};

impl Op {
    /// The word for what it does.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::RmsNorm { .. } => "rms_norm",
            Op::LayerNorm { .. } => "layer_norm",
            Op::MatMul { .. } => "matmul",
            Op::RopeStoreKv { .. } => "rope_store_kv",
            Op::Attention { .. } => "attention",
            Op::GatedAct { .. } => "gated_act",
            Op::ClampedGlu { .. } => "clamped_glu",
            Op::Act { .. } => "act",
            Op::Softcap { .. } => "softcap",
            Op::Adapt { .. } => "adapt",
            Op::Copy { .. } => "copy",
            Op::Route { .. } => "route",
            Op::ExpertMatMul { .. } => "expert_matmul",
            Op::Combine { .. } => "combine",
            Op::Gather { .. } => "gather",
        }
    }

    /// The value that it writes: of what goes into the KV cache, the queries.
    pub fn written(&self) -> ValueId {
        match *self {
            Op::Embed { out, .. }
            | Op::RmsNorm { out, .. }
            | Op::LayerNorm { out, .. }
            | Op::MatMul { out, .. }
            | Op::Attention { out, .. }
            | Op::GatedAct { out, .. }
            | Op::ClampedGlu { out, .. }
            | Op::Copy { out, .. }
            | Op::Route { out, .. }
            | Op::ExpertMatMul { out, .. }
            | Op::Combine { out, .. }
            | Op::Gather { out, .. }
            | Op::Act { x: out, .. }
            | Op::Softcap { x: out, .. }
            | Op::Adapt { x: out, .. }
            | Op::RopeStoreKv { q: out, .. } => out,
        }
    }

    /// Goes through the weights that it takes, the most telling first.
    pub fn each_weight(&mut self, mut see: impl FnMut(&mut WeightId)) {
        match self {
            Op::Embed { table: weight, .. } | Op::RmsNorm { weight, .. } => see(weight),
            Op::LayerNorm { weight, bias, .. }
            | Op::MatMul { weight, bias, .. }
            | Op::ExpertMatMul { weight, bias, .. } => {
                see(weight);
                bias.iter_mut().for_each(see);
            }
            Op::RopeStoreKv { attention, .. } | Op::Attention { attention, .. } => {
                attention.sinks.iter_mut().for_each(see);
            }
            Op::GatedAct { .. }
            | Op::ClampedGlu { .. }
            | Op::Act { .. }
            | Op::Softcap { .. }
            | Op::Adapt { .. }
            | Op::Copy { .. }
            | Op::Route { .. }
            | Op::Combine { .. }
            | Op::Gather { .. } => {}
        }
    }

    /// The weights that it takes.
    pub fn weights(&self) -> Vec<WeightId> {
        let (mut op, mut all) = (*self, vec![]);
        op.each_weight(|w| all.push(*w));
        all
    }
}

/// The layer in a tensor's name, as in `blk.7.ffn_down.weight`; an adapter's has its own words before.
fn layer_in(name: &str) -> Option<usize> {
    let (_, rest) = name.split_once("blk.")?;
    rest.split('.').next()?.parse().ok()
}

impl Graph {
    /// The name of an operation's first weight; none where it takes none.
    pub fn weight_name(&self, op: &Op) -> Option<&str> {
        op.weights().first().map(|w| self.weights[w.0 as usize].name.as_str())
    }

    /// The layer of each operation; none before the first and behind the last. What has no weight of its own belongs
    /// where the operation before it does.
    pub fn layers(&self) -> Vec<Option<usize>> {
        let mut current = None;
        let one = |op: &Op| {
            match op {
                Op::RopeStoreKv { attention, .. } | Op::Attention { attention, .. } => current = Some(attention.layer),
                op => {
                    if let Some(name) = self.weight_name(op) {
                        current = layer_in(name);
                    }
                }
            }
            current
        };
        self.ops.iter().map(one).collect()
    }
}
