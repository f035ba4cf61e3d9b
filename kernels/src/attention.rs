//! Attention of a block of queries over the KV cache, tile by tile.
//!
//! Positions of a sequence are cut into tiles of [`TILE`], counted from position 0. One call of [`attend_tile`]
//! meets a block of query rows with one tile and gives, for each row, a *partial*: the largest score `m`, the sum `l`
//! of `e^(score - m)` and the values `o` weighted by those, not yet divided. [`merge`] joins the partial of the next
//! tile to that of the tiles before it by the rule of the online softmax (Milakov and Gimelshein, 2018), and
//! [`finish`] divides.
//!
//! **One result.** A row's partial depends on the row and the tile alone: each score adds over the head ascending,
//! `l` adds each sixteenth key ascending and then by halves, `o` adds over the keys that the row sees ascending; keys
//! that it does not see are not met at all, and a tile of which it sees nothing leaves no trace. So one row or many,
//! one worker or many give the same bits, as long as partials are merged in ascending order of tiles.
//!
//! The module knows no threads and no model: rows are tokens times the query heads that share one KV head, and the
//! cache is bytes with strides (see [`crate::kv`]). The tokens follow each other in one sequence, or each is of a
//! sequence of its own: where those have pages in common, as after one long prompt, a page is read once for all.

mod product;

use crate::kv::{Element, KvType, PAGE, block_bytes, value_stride};
use crate::math;
use crate::simd::{LANES, Simd, put};
use product::Product;
use std::ops::Range;

/// Positions of a tile.
pub const TILE: usize = 256;

/// Most rows (tokens times query heads of a KV head) of a block.
pub const MAX_ROWS: usize = 24;

/// Sixteens of a tile.
const PANELS: usize = TILE / LANES;

/// The number of each lane.
const COUNT: [f32; LANES] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

/// What attention is in one layer, for one KV head and the query heads that share it.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Elements of a query or key.
    pub d_k: usize,
    /// Elements of a value.
    pub d_v: usize,
    /// Query heads that share the KV head.
    pub group: usize,
    /// Factor on products of query and key.
    pub scale: f32,
    /// A score becomes `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Keys at this distance or farther are not seen; a token's distance to itself is 0.
    pub window: Option<usize>,
    /// Whether keys after the query's position are hidden from it.
    pub causal: bool,
    /// Elements of the cache.
    pub kv: KvType,
}

/// A few tokens, seen by one KV head.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// The group's query heads of the first token, and whatever lies between those of the tokens.
    pub data: &'a [f32],
    /// Floats from one token to the next.
    pub stride: usize,
    /// Position of each token in its sequence. Tokens of one sequence ascend.
    pub positions: &'a [u32],
    /// How much a score falls with each position of distance, one slope a head of the group (Press et al., 2022).
    pub slopes: Option<&'a [f32]>,
}

/// The keys and values of the tokens' sequences for one layer and KV head.
#[derive(Clone, Copy, Debug)]
pub struct Cache<'a> {
    /// Memory of all pages, aligned for its elements.
    pub data: &'a [u8],
    /// Bytes from one page to the next.
    pub page_stride: usize,
    /// Where in a page the layer and head's block begins, in bytes.
    pub offset: usize,
    /// The sequences' pages, those of each in order of position.
    pub pages: &'a [u32],
    /// Where in `pages` each token's sequence begins.
    pub tables: &'a [u32],
    /// Positions that have been stored. Sequences of different lengths are no matter where tokens see none after them.
    pub len: usize,
}

/// A block of queries and what it attends to.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// Layer.
    pub params: Params,
    /// Queries.
    pub queries: Queries<'a>,
    /// Keys and values.
    pub cache: Cache<'a>,
}

impl Block<'_> {
    /// Rows of the block: row `token * group + head`.
    pub fn rows(&self) -> usize {
        self.queries.positions.len() * self.params.group
    }

    /// Positions that a token of the block sees.
    pub fn visible(&self, token: usize) -> Range<usize> {
        let at = self.queries.positions[token] as usize;
        let Params { window, causal, .. } = self.params;
        let ahead = if causal { at + 1 } else { window.map_or(usize::MAX, |w| at.saturating_add(w)) };
        let behind = window.map_or(0, |w| (at + 1).saturating_sub(w));
        behind..ahead.min(self.cache.len)
    }

    /// Tiles of which some row sees something, in the order of merging.
    pub fn tiles(&self) -> Range<usize> {
        let seen = (0..self.queries.positions.len()).map(|token| self.visible(token));
        let all = seen.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end)).unwrap_or(0..0);
        all.start / TILE..all.end.div_ceil(TILE)
    }

    /// The page of a token's sequence that holds positions from `number * PAGE` on.
    fn page_of(&self, token: usize, number: usize) -> u32 {
        self.cache.pages[self.cache.tables[token] as usize + number]
    }

    /// Whether every token is of a sequence of its own: then its pages have not been read for a while.
    fn apart(&self) -> bool {
        let tables = self.cache.tables;
        tables.len() < 2 || tables[0] != tables[1]
    }

    /// What a token sees of a tile, counted from the tile's start.
    fn visible_in(&self, token: usize, tile: usize) -> Range<usize> {
        let seen = self.visible(token);
        let within = |at: usize| at.saturating_sub(tile * TILE).min(TILE);
        within(seen.start)..within(seen.end)
    }

    /// The block of a page as keys `[d_k][PAGE]` and values `[PAGE][value_stride]`, in sixteens.
    #[inline(always)]
    fn page<E: Element>(&self, page: u32) -> (&[[E; LANES]], &[[E; LANES]]) {
        bytemuck::cast_slice::<u8, E>(self.bytes(page)).as_chunks().0.split_at(self.params.d_k * PAGE / LANES)
    }

    fn bytes(&self, page: u32) -> &[u8] {
        let Params { d_k, d_v, kv, .. } = self.params;
        &self.cache.data[page as usize * self.cache.page_stride + self.cache.offset..][..block_bytes(kv, d_k, d_v)]
    }
}

/// Floats of the partials of `rows` rows: `[rows][value_stride(d_v)]` of `o`, then `m`, then `l` of each.
pub const fn partial_len(rows: usize, d_v: usize) -> usize {
    rows * (value_stride(d_v) + 2)
}

/// Floats of scratch memory that [`attend_tile`] needs: scores and queries. Best aligned to 64 bytes.
pub const fn scratch_len(d_k: usize) -> usize {
    MAX_ROWS * (TILE + d_k)
}

/// `(o, m, l)` of partials.
#[inline(always)]
fn split(partial: &mut [f32], d_v: usize) -> (&mut [[f32; LANES]], &mut [f32], &mut [f32]) {
    let stride = value_stride(d_v);
    let rows = partial.len() / (stride + 2);
    assert_eq!(partial.len(), partial_len(rows, d_v), "floats of partials");
    let (o, ml) = partial.split_at_mut(rows * stride);
    let (m, l) = ml.split_at_mut(rows);
    (o.as_chunks_mut().0, m, l)
}

/// Makes partials those of no tile, to merge others into.
#[inline(always)]
pub fn clear(d_v: usize, partial: &mut [f32]) {
    let (_, _, l) = split(partial, d_v);
    l.fill(0.0);
}

/// The partials of a block's rows over one tile. `partial` is [`partial_len`] of the block's rows long and is
/// overwritten; `scratch` is [`scratch_len`] long and means nothing before and after.
///
/// Scores that are infinite or NaN make the partial's row NaN.
///
/// # Panics
/// If the block has more than [`MAX_ROWS`] rows, or a slice is too short for the shapes that are claimed.
#[inline(always)]
pub fn attend_tile<S: Simd>(s: S, block: &Block, tile: usize, scratch: &mut [f32], partial: &mut [f32]) {
    match block.params.kv {
        KvType::F16 => Tile::new(block, tile).attend::<S, u16>(s, scratch, partial),
        KvType::F32 => Tile::new(block, tile).attend::<S, f32>(s, scratch, partial),
    }
}

/// Tokens in a row that read the same page.
struct Readers {
    tokens: Range<usize>,
    /// The page, counted from the tile's start, and its number in the cache.
    page: usize,
    id: u32,
    /// The keys that all of them see, counted from the page's start.
    common: Range<usize>,
}

/// One call of [`attend_tile`].
struct Tile<'a> {
    block: &'a Block<'a>,
    tile: usize,
    /// Rows in use.
    rows: usize,
    /// What each token sees, counted from the tile's start.
    seen: [(usize, usize); MAX_ROWS],
    /// Pages of which some token sees something, counted from the tile's start.
    pages: Range<usize>,
}

impl<'a> Tile<'a> {
    fn new(block: &'a Block<'a>, tile: usize) -> Tile<'a> {
        let rows = block.rows();
        assert!(rows <= MAX_ROWS, "{rows} rows in a block of at most {MAX_ROWS}");
        assert_eq!(block.queries.positions.len(), block.cache.tables.len(), "a table of pages for each token");
        let mut seen = [(0, 0); MAX_ROWS];
        let (mut first, mut last) = (TILE, 0);
        for (token, seen) in seen[..block.cache.tables.len()].iter_mut().enumerate() {
            let Range { start, end } = block.visible_in(token, tile);
            *seen = (start, end);
            if start < end {
                (first, last) = (first.min(start), last.max(end));
            }
        }
        Tile { block, tile, rows, seen, pages: first / PAGE..last.div_ceil(PAGE) }
    }

    #[inline(always)]
    fn attend<S: Simd, E: Element>(&self, s: S, scratch: &mut [f32], partial: &mut [f32]) {
        let Params { d_k, d_v, group, .. } = self.block.params;
        let (o, m, l) = split(partial, d_v);
        assert_eq!(m.len(), self.rows, "rows of partials");
        o.fill([0.0; LANES]);
        let (scores, queries) = scratch.split_at_mut(self.rows * TILE);
        let queries = &mut queries[..self.rows * d_k];
        self.pack_queries(queries);
        let scores = scores.as_chunks_mut().0;
        for page in self.pages.clone() {
            self.ask_for(s, page + 1);
            for readers in self.readers(page) {
                self.score_page(s, &readers, queries, self.block.page::<E>(readers.id).0, scores);
            }
        }
        for (row, scores) in scores.chunks_exact_mut(PANELS).enumerate() {
            (m[row], l[row]) = self.weigh(s, (row / group, row % group), scores);
        }
        let mut page = self.pages.start;
        while page < self.pages.end {
            page += self.add_pages::<S, E>(s, page, scores.as_flattened(), o);
        }
    }

    /// All tokens.
    fn tokens(&self) -> Range<usize> {
        0..self.block.cache.tables.len()
    }

    /// What a token sees of a page, counted from the page's start.
    fn seen_on(&self, token: usize, page: usize) -> Range<usize> {
        let on_page = |at: usize| at.saturating_sub(page * PAGE).min(PAGE);
        on_page(self.seen[token].0)..on_page(self.seen[token].1)
    }

    /// Those who see something of a page, in runs of tokens that have the same one there.
    fn readers(&self, page: usize) -> impl Iterator<Item = Readers> {
        let (all, number) = (self.tokens().end, self.tile * (TILE / PAGE) + page);
        let id = move |token| (!self.seen_on(token, page).is_empty()).then(|| self.block.page_of(token, number));
        let mut next = 0;
        std::iter::from_fn(move || {
            let (start, number) = (next..all).find_map(|token| Some((token, id(token)?)))?;
            next = (start + 1..all).find(|&token| id(token) != Some(number)).unwrap_or(all);
            let seen = (start..next).map(|token| self.seen_on(token, page));
            let common = seen.reduce(|a, b| a.start.max(b.start)..a.end.min(b.end)).unwrap_or(0..0);
            let common = common.start..common.end.max(common.start);
            Some(Readers { tokens: start..next, page, id: number, common })
        })
    }

    /// Asks for the blocks of a page that will be read next, where they are not near: the cache of one token is read
    /// once a step. (SmolLM2's, at a depth of 500: a third of the time went into waiting for it.)
    #[inline(always)]
    fn ask_for<S: Simd>(&self, s: S, page: usize) {
        if !self.block.apart() || !self.pages.contains(&page) {
            return;
        }
        for readers in self.readers(page) {
            for line in self.block.bytes(readers.id).as_chunks().0 {
                s.prefetch(line);
            }
        }
    }

    /// The rows of the queries, one after the other.
    fn pack_queries(&self, out: &mut [f32]) {
        let Queries { data, stride, .. } = self.block.queries;
        let width = self.block.params.group * self.block.params.d_k;
        for (token, out) in out.chunks_exact_mut(width).enumerate() {
            out.copy_from_slice(&data[token * stride..][..width]);
        }
    }

    /// Products of the rows of some tokens with the keys of a page.
    fn score_page<S: Simd, E: Element>(
        &self,
        s: S,
        readers: &Readers,
        queries: &[f32],
        keys: &[[E; LANES]],
        scores: &mut [[f32; LANES]],
    ) {
        let Params { d_k, group, .. } = self.block.params;
        let (columns, rows, first) = (PAGE / LANES, readers.tokens.len() * group, readers.tokens.start * group);
        let out = &mut scores[first * PANELS + readers.page * columns..];
        let (x, y) = (&queries[first * d_k..], &[keys]);
        Product { rows, x, x_stride: d_k, y, columns, out, out_stride: PANELS, fresh: true }.compute(s);
    }

    /// A row's slope, and its position counted from the tile's start.
    #[inline(always)]
    fn penalty(&self, token: usize, head: usize) -> Option<(f32, f32)> {
        let queries = &self.block.queries;
        let at = queries.positions[token] as f32 - (self.tile * TILE) as f32;
        queries.slopes.map(|slopes| (slopes[head], at))
    }

    /// Turns the products of a row into weights `e^(score - m)`, 0 where the row does not see the key, and gives `m`
    /// and the sum of the weights.
    #[inline(always)]
    fn weigh<S: Simd>(&self, s: S, (token, head): (usize, usize), scores: &mut [[f32; LANES]]) -> (f32, f32) {
        let (start, end) = self.seen[token];
        if start >= end {
            return (f32::NEG_INFINITY, 0.0);
        }
        let Params { scale, softcap, .. } = self.block.params;
        // Without a cap the division still happens, so it had better be a cheap one.
        let cap = softcap.unwrap_or(1.0);
        let (cap, inverse) = (s.splat(cap), s.splat(1.0 / cap));
        let none = s.splat(f32::NEG_INFINITY);
        let penalty = self.penalty(token, head);
        let (start_at, end_at) = (s.splat(start as f32), s.splat(end as f32));
        let mut max = none;
        let panels = start / LANES..end.div_ceil(LANES);
        for panel in panels.clone() {
            let mut x = s.mul(s.load(&scores[panel]), s.splat(scale));
            if softcap.is_some() {
                x = s.mul(cap, math::tanh(s, s.mul(x, inverse)));
            }
            if let Some((slope, at)) = penalty {
                let key = s.add(s.load(&COUNT), s.splat((panel * LANES) as f32));
                x = s.fnma(s.splat(slope), s.abs(s.sub(key, s.splat(at))), x);
            }
            if panel * LANES < start || (panel + 1) * LANES > end {
                let key = s.add(s.load(&COUNT), s.splat((panel * LANES) as f32));
                x = s.select_lt(key, end_at, x, none);
                x = s.select_lt(key, start_at, none, x);
            }
            max = s.max(max, x);
            s.store(x, &mut scores[panel]);
        }
        let m = s.reduce_max(max);
        let mut sum = s.splat(0.0);
        for x in &mut scores[panels] {
            let p = math::exp(s, s.sub(s.load(x), s.splat(m)));
            sum = s.add(sum, p);
            s.store(p, x);
        }
        (m, s.reduce_add(sum))
    }

    /// Adds the values of the pages from `page` on that all tokens read and see all of, or of that page alone. Returns
    /// how many pages that were.
    fn add_pages<S: Simd, E: Element>(&self, s: S, page: usize, weights: &[f32], o: &mut [[f32; LANES]]) -> usize {
        let mut values = [&[][..]; TILE / PAGE];
        let mut n = 0;
        while page + n < self.pages.end
            && let Some(id) = self.whole_page(page + n)
        {
            values[n] = self.block.page::<E>(id).1;
            n += 1;
        }
        if n > 0 {
            self.add(s, (self.tokens(), page * PAGE), &values[..n], weights, o);
            return n;
        }
        for readers in self.readers(page) {
            self.add_page(s, &readers, weights, self.block.page::<E>(readers.id).1, o);
        }
        1
    }

    /// The page's number in the cache, where all tokens have the same there and see all of it.
    fn whole_page(&self, page: usize) -> Option<u32> {
        let first = self.readers(page).next()?;
        (first.tokens == self.tokens() && first.common == (0..PAGE)).then_some(first.id)
    }

    /// Adds values from position `key` of the tile on, by the weights of some tokens' rows.
    fn add<S: Simd, E: Element>(
        &self,
        s: S,
        (tokens, key): (Range<usize>, usize),
        y: &[&[[E; LANES]]],
        weights: &[f32],
        o: &mut [[f32; LANES]],
    ) {
        let (columns, group) = (value_stride(self.block.params.d_v) / LANES, self.block.params.group);
        let (first, rows) = (tokens.start * group, tokens.len() * group);
        let (x, out) = (&weights[first * TILE + key..], &mut o[first * columns..]);
        Product { rows, x, x_stride: TILE, y, columns, out, out_stride: columns, fresh: false }.compute(s);
    }

    /// Adds the values of a page by the weights of some tokens' rows: the keys that all of them see at once, the others
    /// token by token before and after, so that each row meets its keys ascending.
    fn add_page<S: Simd, E: Element>(
        &self,
        s: S,
        readers: &Readers,
        weights: &[f32],
        values: &[[E; LANES]],
        o: &mut [[f32; LANES]],
    ) {
        let columns = value_stride(self.block.params.d_v) / LANES;
        let Readers { ref tokens, page, ref common, .. } = *readers;
        let mut add = |tokens: Range<usize>, keys: Range<usize>| {
            if !keys.is_empty() {
                let y = &values[keys.start * columns..keys.end * columns];
                self.add(s, (tokens, page * PAGE + keys.start), &[y], weights, o);
            }
        };
        let Range { start, end } = *common;
        for t in tokens.clone().filter(|_| start > 0) {
            add(t..t + 1, self.seen_on(t, page).start..self.seen_on(t, page).end.min(start));
        }
        add(tokens.clone(), start..end);
        for t in tokens.clone().filter(|_| end < PAGE) {
            add(t..t + 1, self.seen_on(t, page).start.max(end)..self.seen_on(t, page).end);
        }
    }
}

/// `e^(a - max)` and `e^(b - max)` with `max` the larger of both, and `max`.
#[inline(always)]
fn rescale<S: Simd>(s: S, a: f32, b: f32) -> ([f32; 2], f32) {
    let max = if b < a { a } else { b };
    let mut lanes = [0.0; LANES];
    lanes[..2].copy_from_slice(&[a - max, b - max]);
    s.store(math::exp(s, s.load(&lanes)), &mut lanes);
    ([lanes[0], lanes[1]], max)
}

/// Joins the partials of the next tile to those of the tiles before it (`all`), row by row.
///
/// # Panics
/// If the lengths differ or are not [`partial_len`] of some rows.
#[inline(always)]
pub fn merge<S: Simd>(s: S, d_v: usize, tile: &[f32], all: &mut [f32]) {
    assert_eq!(tile.len(), all.len(), "partials of the same rows");
    let step = value_stride(d_v) / LANES;
    let (o, m, l) = split(all, d_v);
    let (tile_o, tile_ml) = tile.split_at(o.as_flattened().len());
    let (tile_m, tile_l) = tile_ml.split_at(m.len());
    let rows = o.chunks_exact_mut(step).zip(tile_o.as_chunks().0.chunks_exact(step));
    for (row, (o, tile_o)) in rows.enumerate() {
        if tile_l[row] == 0.0 {
            continue;
        }
        if l[row] == 0.0 {
            (m[row], l[row]) = (tile_m[row], tile_l[row]);
            o.copy_from_slice(tile_o);
            continue;
        }
        let ([a, b], max) = rescale(s, m[row], tile_m[row]);
        (m[row], l[row]) = (max, l[row] * a + tile_l[row] * b);
        for (o, t) in o.iter_mut().zip(tile_o) {
            let sum = s.fma(s.load(t), s.splat(b), s.mul(s.load(o), s.splat(a)));
            s.store(sum, o);
        }
    }
}

/// [`finish`] as an entry of a table.
pub type Finish = fn(usize, &[f32], Range<usize>, Option<&[f32]>, &mut [f32]);

/// The results of some rows of merged partials: `out = o / l`, `[rows][d_v]`; zeros for a row that saw no key. An
/// attention sink, one a row, is the score of a key without a value.
///
/// # Panics
/// If a slice does not fit the rows.
#[inline(always)]
pub fn finish<S: Simd>(s: S, d_v: usize, all: &[f32], rows: Range<usize>, sinks: Option<&[f32]>, out: &mut [f32]) {
    assert_eq!(out.len(), rows.len() * d_v, "floats of the results");
    let stride = value_stride(d_v);
    let count = all.len() / (stride + 2);
    assert_eq!(all.len(), partial_len(count, d_v), "floats of partials");
    let (m, l) = all[count * stride..].split_at(count);
    for (i, (row, out)) in rows.zip(out.chunks_exact_mut(d_v)).enumerate() {
        if l[row] == 0.0 {
            out.fill(0.0);
            continue;
        }
        let (factor, total) = sinks.map_or((1.0, l[row]), |sinks| {
            let ([a, b], _) = rescale(s, m[row], sinks[i]);
            (a, l[row] * a + b)
        });
        let (factor, total) = (s.splat(factor), s.splat(total));
        for (out, o) in out.chunks_mut(LANES).zip(all[row * stride..].as_chunks().0) {
            let y = s.div(s.mul(s.load(o), factor), total);
            put(s, out, 0, y);
        }
    }
}
