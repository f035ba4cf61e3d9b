//! Rotary embedding, storage of keys and values, attention.

use super::tiles::Tiles;
use super::{Extent, Lower};
use crate::graph::{AttentionSpec, Op, Rows, ValueId};
use shaders::{BLOCKS, Kernel, NONE, QUERIES, ROW_WG, ops};

impl Lower<'_> {
    pub(super) fn rope_store(&mut self, op: Op) {
        let Op::RopeStoreKv { q, k, v, rope, attention: a } = op else { return };
        let freqs = rope.map(|r| &self.plan.graph().ropes[r]);
        let pairs = freqs.map_or(0, |f| f.pairs());
        let op = ops::RopeStore {
            q: self.at(q),
            k: self.at(k),
            v: self.at(v),
            rope: rope.unwrap_or(0) as u32,
            pairs: pairs as u32,
            adjacent: u32::from(freqs.is_some_and(|f| f.pairing == crate::spec::Pairing::Adjacent)),
            heads: a.n_head as u32,
            heads_kv: a.n_head_kv as u32,
            d_k: a.d_k as u32,
            d_v: a.d_v as u32,
            cache: self.cache(a.layer),
        };
        let per = self.options.per_word();
        let words = a.d_k.div_ceil(per) + a.d_v.div_ceil(per);
        let others = (a.n_head * pairs + a.n_head_kv * words).div_ceil(ROW_WG);
        let half = self.options.half();
        self.push(Kernel::RopeStore { half }, &op, others, Rows::Tokens).kv = Some(a.layer);
    }

    pub(super) fn attention(&mut self, q: ValueId, a: &AttentionSpec, out: ValueId) {
        let tiles = Tiles::new(a, self.options, self.plan.limits().tokens, self.scratch);
        let op = ops::Attention {
            q: self.at(q),
            out: self.at(out),
            heads: a.n_head as u32,
            heads_kv: a.n_head_kv as u32,
            d_k: a.d_k as u32,
            d_v: a.d_v as u32,
            scale: a.scale,
            cap: a.softcap.unwrap_or(0.0),
            window: a.window.map_or(u32::MAX, |w| w.min(u32::MAX as usize) as u32),
            causal: u32::from(a.causal),
            slopes: if a.alibi { self.buffers.weights.slopes } else { NONE },
            sinks: self.vector(a.sinks),
            cache: self.cache(a.layer),
            slices: tiles.slices as u32,
            rounds: tiles.rounds as u32,
            tiles: tiles.most as u32,
            scratch: (self.plan.arena_bytes() / 4) as u32,
        };
        let Some(kernel) = self.narrow(a) else {
            self.in_tiles(a, &op, tiles);
            return;
        };
        // Queries of a workgroup are heads of a group where every block is one token, else tokens.
        let single = a.n_head_kv * (a.n_head / a.n_head_kv).div_ceil(QUERIES);
        let wanted = self.push(kernel, &op, single, Rows::Tokens);
        wanted.kernels.push((QUERIES, kernel, a.n_head as u32));
        (wanted.kv, wanted.extent) = (Some(a.layer), Extent::Blocks);
    }

    /// Every form of attention for GPUs, and what merges the results of those that leave some.
    fn in_tiles(&mut self, a: &AttentionSpec, op: &ops::Attention, tiles: Tiles) {
        let kernels = tiles.kernels(self.options.half());
        let wanted = self.push(kernels[0], op, a.n_head, Rows::Tokens);
        wanted.kernels = kernels.into_iter().map(|kernel| (1, kernel, 0)).collect();
        (wanted.kv, wanted.extent) = (Some(a.layer), Extent::Tiles(tiles));
        if self.scratch > 0 {
            let others = a.n_head * a.d_v.div_ceil(ROW_WG);
            self.push(Kernel::AttentionMerge, op, others, Rows::Tokens).extent = Extent::Merge(tiles);
        }
    }

    /// The kernel for subgroups, where the adapter and the shape of heads suit it.
    fn narrow(&self, a: &AttentionSpec) -> Option<Kernel> {
        let (subgroup, half) = (self.subgroup?, self.options.half());
        let words = a.d_v.div_ceil(self.options.per_word());
        let plain = a.causal && !a.alibi && a.sinks.is_none();
        let quads = a.d_k.is_multiple_of(4) && words.is_multiple_of(4) && a.d_v.is_multiple_of(4);
        let blocks = BLOCKS.into_iter().find(|n| n * subgroup * 4 >= words)?;
        (plain && quads).then_some(Kernel::AttentionNarrow { half, subgroup, blocks })
    }
}
