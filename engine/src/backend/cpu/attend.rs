//! Attention of a batch: units of a few tokens and one KV head, shared among the workers.
//!
//! With many units each piece takes whole ones. With few (decode), the tiles of the cache are shared instead and
//! merged in a stage of its own, in the same ascending order: the bits are the same either way.

use super::super::pool::Piece;
use super::walk::Walk;
use super::{CpuBackend, attentions};
use crate::batch::Segment;
use crate::graph::{AttentionSpec, ValueId};
use crate::plan::{ALIGN, Plan};
use kernels::attention::{Block, Cache, MAX_ROWS, Params, Queries, TILE, partial_len, scratch_len};
use kernels::simd::LANES;
use std::ops::Range;

/// Bytes of scratch memory of one worker.
pub fn scratch_bytes(plan: &Plan) -> usize {
    let floats = |a: &AttentionSpec| scratch_len(a.d_k) + 2 * partial_len(MAX_ROWS, a.d_v).next_multiple_of(LANES);
    attentions(plan).map(|a| floats(a) * 4).max().unwrap_or(0).next_multiple_of(ALIGN)
}

/// Bytes of partial results: every tile of a context of `ctx` positions for one token of all heads.
pub fn partial_bytes(plan: &Plan, ctx: usize) -> usize {
    let floats = |a: &AttentionSpec| ctx.div_ceil(TILE) * partial_len(a.n_head, a.d_v);
    attentions(plan).map(|a| floats(a) * 4).max().unwrap_or(0)
}

/// A few tokens and the query heads of one KV head (or as many of them as a block can have). The tokens are of one
/// segment, or of several that bring one each and begin with the same page.
#[derive(Clone, Copy)]
struct Unit {
    /// First token, counted in the batch.
    first: usize,
    tokens: usize,
    /// Positions in the cache, where tokens see those after them.
    len: usize,
    kv_head: usize,
    /// First query head and their number.
    head: usize,
    group: usize,
}

/// One layer's attention over a batch.
#[derive(Clone, Copy)]
pub struct Attend<'a> {
    pub walk: Walk<'a>,
    pub spec: &'a AttentionSpec,
    pub q: ValueId,
    pub out: ValueId,
}

impl<'a> Attend<'a> {
    /// Pieces of the attention and of the merge after it, for `workers` workers.
    pub fn pieces(self, workers: usize) -> [usize; 2] {
        match self.shared_tiles(workers) {
            false => [self.units().take(4 * workers).count(), 0],
            true => [self.tiles().count().min(4 * workers), self.units().count().min(workers)],
        }
    }

    /// This piece's share.
    pub fn run(self) {
        if self.shared_tiles(self.walk.backend.pool.workers()) {
            return self.some_tiles();
        }
        for unit in deal(self.units(), self.walk.piece) {
            self.whole(unit);
        }
    }

    /// All units of the batch, in an order that every worker sees.
    fn units(self) -> impl Iterator<Item = Unit> {
        let (heads, group) = (self.spec.n_head_kv, self.spec.n_head / self.spec.n_head_kv);
        let parts = group.div_ceil(MAX_ROWS);
        self.spans((MAX_ROWS / group).max(1)).flat_map(move |(tokens, len)| {
            (0..heads * parts).map(move |i| {
                let (kv_head, part) = (i / parts, i % parts);
                let (start, end) = (group * part / parts, group * (part + 1) / parts);
                let (first, head) = (tokens.start, kv_head * group + start);
                Unit { first, tokens: tokens.len(), len, kv_head, head, group: end - start }
            })
        })
    }

    /// The tokens of the batch, at most `at_once` together that can be a unit; and how many positions they may see.
    fn spans(self, at_once: usize) -> impl Iterator<Item = (Range<usize>, usize)> {
        let segments = self.walk.batch.segments();
        let mut next = 0;
        std::iter::from_fn(move || {
            let first = segments.get(next)?;
            let alike = self.alike(next);
            next += alike;
            let (start, end) = (first.tokens.start, segments[next - 1].tokens.end);
            let (step, len) = match alike {
                1 => (at_once, first.start + first.tokens.len()),
                // Equal parts, which are equal work.
                n => (n.div_ceil(n.div_ceil(at_once)), usize::MAX),
            };
            Some((start..end).step_by(step).map(move |t| (t..end.min(t + step), len)))
        })
        .flatten()
    }

    /// How many segments from this one on bring a token each and begin with the same page: answers to prompts that begin
    /// alike, whose cache is read once for all of them.
    fn alike(self, first: usize) -> usize {
        let batch = self.walk.batch;
        let page = |s: &Segment| batch.pages()[s.pages.start];
        let (segment, rest) = (&batch.segments()[first], &batch.segments()[first + 1..]);
        if !self.spec.causal || segment.tokens.len() > 1 {
            return 1;
        }
        1 + rest.iter().take_while(|s| s.tokens.len() == 1 && page(s) == page(segment)).count()
    }

    fn backend(self) -> &'a CpuBackend {
        self.walk.backend
    }

    fn block(self, unit: Unit) -> Block<'a> {
        let a = self.spec;
        let (batch, tokens) = (self.walk.batch, unit.first..unit.first + unit.tokens);
        let (width, first) = (a.n_head * a.d_k, unit.first);
        let layer = &self.backend().kv_layers[a.layer];
        let params = Params {
            d_k: a.d_k,
            d_v: a.d_v,
            group: unit.group,
            scale: a.scale,
            softcap: a.softcap,
            window: a.window,
            causal: a.causal,
            kv: self.backend().kv_type,
        };
        let queries = Queries {
            data: &self.walk.value(self.q)[first * width + unit.head * a.d_k..],
            stride: width,
            positions: &batch.positions()[tokens.clone()],
            slopes: a.alibi.then(|| &self.walk.plan().graph().slopes[unit.head..unit.head + unit.group]),
        };
        let cache = Cache {
            data: self.backend().kv.read(layer.offset..layer.end),
            page_stride: layer.page(),
            offset: unit.kv_head * layer.block,
            pages: batch.pages(),
            tables: &batch.tables()[tokens],
            len: unit.len,
        };
        Block { params, queries, cache }
    }

    /// Scratch memory, and room for the partials of `rows` rows twice.
    fn scratch(self, rows: usize) -> (&'a mut [f32], &'a mut [f32], &'a mut [f32]) {
        let (scratch, partials) = self.walk.scratch().split_at_mut(scratch_len(self.spec.d_k));
        let len = partial_len(rows, self.spec.d_v);
        // The second begins with a line of the cache, as the first does.
        let (tile, rest) = partials.split_at_mut(len.next_multiple_of(LANES));
        (scratch, &mut tile[..len], &mut rest[..len])
    }

    /// Computes a unit from its first tile to its last.
    fn whole(self, unit: Unit) {
        let (kernels, block) = (self.backend().kernels, self.block(unit));
        let (scratch, tile, all) = self.scratch(block.rows());
        kernels.attend(&block, scratch, tile, all);
        self.finish(unit, all);
    }

    /// Whether tiles are shared: not where whole units are the better cut, or where there is no room.
    fn shared_tiles(self, workers: usize) -> bool {
        let (mut units, mut floats, mut longest) = (0, 0, 0);
        for unit in self.units().take(2 * workers) {
            let block = self.block(unit);
            units += 1;
            floats += block.tiles().len() * partial_len(block.rows(), self.spec.d_v);
            longest = longest.max(block.tiles().len());
        }
        let worth_it = workers > 1 && units < 2 * workers && longest > 1;
        worth_it && floats * 4 <= self.backend().partials.bytes()
    }

    /// Every tile of every unit, with the place of its partials.
    fn tiles(self) -> impl Iterator<Item = (Unit, usize, Range<usize>)> {
        let mut at = 0;
        self.units().flat_map(move |unit| {
            let block = self.block(unit);
            let len = partial_len(block.rows(), self.spec.d_v);
            let first = at;
            at += block.tiles().len() * len;
            block
                .tiles()
                .enumerate()
                .map(move |(i, tile)| (unit, tile, (first + i * len) * 4..(first + (i + 1) * len) * 4))
        })
    }

    fn some_tiles(self) {
        let piece = self.walk.piece;
        for (unit, tile, place) in deal(self.tiles(), piece) {
            let block = self.block(unit);
            let (scratch, ..) = self.scratch(block.rows());
            (self.backend().kernels.attend_tile)(&block, tile, scratch, self.backend().partials.claim(piece, place));
        }
    }

    /// This piece's units of the merge that follows where tiles were shared.
    pub fn merge(self) {
        let (kernels, piece) = (self.backend().kernels, self.walk.piece);
        let mut at = 0;
        for (i, unit) in self.units().enumerate() {
            let block = self.block(unit);
            let (tiles, len) = (block.tiles().len(), partial_len(block.rows(), self.spec.d_v));
            if i % piece.count == piece.index {
                let (_, _, all) = self.scratch(block.rows());
                kernels::attention::clear(self.spec.d_v, all);
                let partials = self.backend().partials.read::<f32>(at * 4..(at + tiles * len) * 4);
                for tile in partials.chunks_exact(len) {
                    (kernels.merge)(self.spec.d_v, tile, all);
                }
                self.finish(unit, all);
            }
            at += tiles * len;
        }
    }

    /// Writes a unit's rows of the result.
    fn finish(self, unit: Unit, partial: &[f32]) {
        let d_v = self.spec.d_v;
        for token in 0..unit.tokens {
            let row = unit.first + token;
            let out = self.walk.row_part(self.out, row, unit.head * d_v..(unit.head + unit.group) * d_v);
            let rows = token * unit.group..(token + 1) * unit.group;
            let sinks = self.spec.sinks.map(|s| &self.walk.vector(s)[unit.head..unit.head + unit.group]);
            (self.backend().kernels.finish)(d_v, partial, rows, sinks, out);
        }
    }
}

/// What one piece takes of a list. Later tokens see more keys, so units are dealt out in turn.
fn deal<T>(all: impl Iterator<Item = T>, piece: Piece) -> impl Iterator<Item = T> {
    all.skip(piece.index).step_by(piece.count)
}
