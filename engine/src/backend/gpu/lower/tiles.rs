//! Attention in tiles: which form a step takes, and the room that the results of tiles take where they are merged later.
//!
//! A step with few queries has as many workgroups as it has tiles, one with many as it has queries, each of which walks all
//! tiles. All forms give the same bits.

use super::super::{GpuOptions, attentions};
use crate::graph::AttentionSpec;
use crate::kv::PAGE;
use crate::plan::Plan;
use shaders::{ATTEND_WG, Kernel, POSITIONS, QUERIES, SHARED_HEAD};

/// Workgroups that give every adapter enough to do.
const ENOUGH: usize = 1024;
/// Most bytes of the results of tiles, whatever the context.
const MOST: u64 = 16 << 20;
/// Bytes of a binding that every adapter has.
const BINDING: u64 = 128 << 20;

/// What forms depend on, of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Tokens.
    pub tokens: usize,
    /// Wanted outputs.
    pub outputs: usize,
    /// Blocks of tokens.
    pub blocks: usize,
    /// Whether each block is a single token.
    pub single: bool,
    /// Tiles of the longest sequence.
    pub tiles: usize,
}

/// How the attention of a layer is shared out.
#[derive(Clone, Copy, Debug)]
pub struct Tiles {
    heads: usize,
    heads_kv: usize,
    d_v: usize,
    /// Whether a workgroup may have several queries: where they find room, and a step can have so many.
    several: bool,
    /// Workgroups that share the words of a value.
    pub rounds: usize,
    /// Runs of positions that values are added in.
    pub slices: usize,
    /// Most tiles that the queries of a workgroup see.
    pub most: usize,
    /// Results of tiles, each of all heads of a token, that there is room for.
    room: usize,
}

impl Tiles {
    /// Those of a layer for steps of so many tokens at most, where `scratch` bytes are there for results.
    pub fn new(a: &AttentionSpec, options: &GpuOptions, tokens: usize, scratch: u64) -> Tiles {
        let words = a.d_v.div_ceil(options.per_word());
        let wide = words.min(ATTEND_WG);
        // Positions that the queries of a workgroup see together.
        let window = a.window.unwrap_or(usize::MAX / 4);
        let seen = if a.causal { window } else { 2 * window.min(usize::MAX / 4) } + QUERIES - 1;
        let most = (options.pages * PAGE).div_ceil(POSITIONS).min((seen - 1) / POSITIONS + 2);
        let tiles = Tiles {
            heads: a.n_head,
            heads_kv: a.n_head_kv,
            d_v: a.d_v,
            several: a.d_k <= SHARED_HEAD && tokens * a.n_head * most > ENOUGH,
            rounds: words.div_ceil(ATTEND_WG),
            slices: [8, 4, 2].into_iter().find(|n| n * wide <= ATTEND_WG).unwrap_or(1),
            most,
            room: 0,
        };
        Tiles { room: (scratch / tiles.result_bytes()) as usize, ..tiles }
    }

    /// Bytes of the results of one tile of all heads of a token.
    fn result_bytes(&self) -> u64 {
        (self.heads * (self.d_v + 2) * 4) as u64
    }

    /// Workgroups side by side, for each token or block: where each has one query, and where each has several.
    fn workgroups(&self, several: bool, single: bool) -> usize {
        match (several, single) {
            (true, true) => self.heads_kv * (self.heads / self.heads_kv).div_ceil(QUERIES),
            _ => self.heads,
        }
    }

    /// Whether each tile of a step is computed by itself.
    fn splits(&self, counts: Counts) -> bool {
        let tiles = counts.tiles.min(self.most);
        let workgroups = counts.blocks * self.workgroups(self.several, counts.single);
        tiles > 1 && counts.tokens * tiles <= self.room && workgroups < ENOUGH
    }

    /// Which of [`Tiles::kernels`] a step takes, and its workgroups.
    pub fn grid(&self, counts: Counts) -> (usize, [u32; 3]) {
        let splits = self.splits(counts);
        let tiles = if splits { counts.tiles.min(self.most) } else { 1 };
        // Several queries in a workgroup are slower than one, and read once what they share.
        let share = !counts.single || self.heads > self.heads_kv;
        let several = self.several && share && counts.tokens * self.heads * tiles > ENOUGH;
        let rows = if several { counts.blocks } else { counts.tokens };
        let beside = self.workgroups(several, counts.single) * self.rounds;
        let form = usize::from(several) * self.ways().len() + usize::from(splits);
        (form, [rows as u32, beside as u32, tiles as u32])
    }

    /// The workgroups that merge the results of a step, which are none where tiles are walked.
    pub fn merge_grid(&self, counts: Counts, others: u32) -> [u32; 3] {
        [counts.tokens as u32, if self.splits(counts) { others } else { 0 }, 1]
    }

    /// Whether tiles may be computed by themselves: walked only where there is no room for their results.
    fn ways(&self) -> &'static [bool] {
        if self.room > 0 { &[false, true] } else { &[false] }
    }

    /// The kernels of all forms that a step can take.
    pub fn kernels(&self, half: bool) -> Vec<Kernel> {
        let queries = if self.several { &[1, QUERIES][..] } else { &[1] };
        let of = |&queries: &usize| self.ways().iter().map(move |&split| Kernel::Attention { half, queries, split });
        queries.iter().flat_map(of).collect()
    }
}

/// Bytes behind the values of a plan for the results of tiles.
pub fn scratch_bytes(plan: &Plan, options: &GpuOptions) -> u64 {
    let tokens = plan.limits().tokens;
    let of = |a: &AttentionSpec| {
        let tiles = Tiles::new(a, options, tokens, 0);
        let all = (tokens * tiles.most) as u64 * tiles.result_bytes();
        if tiles.most > 1 { all.next_multiple_of(64) } else { 0 }
    };
    let wanted = attentions(plan.graph()).map(of).max().unwrap_or(0).min(MOST);
    // One binding holds both; a plan that asks for more than all have is for an adapter that has much more.
    match BINDING.saturating_sub(plan.arena_bytes() as u64) {
        0 => wanted,
        rest => wanted.min(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: Tiles =
        Tiles { heads: 32, heads_kv: 8, d_v: 64, several: true, rounds: 1, slices: 8, most: 64, room: 1000 };

    fn counts(tokens: usize, single: bool, tiles: usize) -> Counts {
        let blocks = if single { tokens } else { tokens.div_ceil(QUERIES) };
        Counts { tokens, outputs: tokens, blocks, single, tiles }
    }

    #[test]
    fn few_queries_are_split_and_many_walk() {
        let [alone, alone_split, walk, split] = [0, 1, 2, 3];
        for (of, expected) in [
            (counts(1, true, 1), (alone, [1, 32, 1])),
            (counts(1, true, 8), (alone_split, [1, 32, 8])),
            (counts(1, true, 64), (split, [1, 8, 64])),
            (counts(8, true, 9), (split, [8, 8, 9])),
            (counts(200, true, 9), (walk, [200, 8, 1])),
            (counts(512, false, 8), (walk, [128, 32, 1])),
            (counts(5, false, 60), (split, [2, 32, 60])),
            // More results than there is room for.
            (counts(20, true, 64), (alone, [20, 32, 1])),
            (counts(40, true, 64), (walk, [40, 8, 1])),
        ] {
            assert_eq!(LLAMA.grid(of), expected, "{of:?}");
            let merges = LLAMA.merge_grid(of, 32)[1] > 0;
            assert_eq!(merges, expected.0 == alone_split || expected.0 == split, "{of:?}");
        }
    }

    #[test]
    fn a_window_bounds_the_tiles() {
        let window = Tiles { most: 5, ..LLAMA };
        assert_eq!(window.grid(counts(1, true, 64)), (1, [1, 32, 5]));
    }
}
