//! Attention on every instruction set of this CPU: against an f64 twin, against each other's bits, and against
//! itself however the work is cut.

use half::f16;
use kernels::attention::{Block, Cache, MAX_ROWS, Params, Queries, TILE, clear, partial_len, scratch_len};
use kernels::kv::{KvType, PAGE, block_bytes, value_stride};
use kernels::{Isa, Kernels};
use proptest::prelude::*;
use std::ops::Range;

/// The error of one rounding, relative to a number.
const ROUND: f64 = 1.0 / (1 << 24) as f64;

/// What surrounds every output.
const SENTINEL: f32 = 12345.678;

fn all() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().map(|isa| Kernels::for_isa(isa).expect("available"))
}

fn best() -> &'static Kernels {
    Kernels::for_isa(Isa::best()).expect("available")
}

/// Reproducible numbers in -1..1.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn one(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    fn row(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.one() * scale).collect()
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// A sequence in a cache whose other memory, unused slots of its pages included, is NaN.
struct Case {
    params: Params,
    /// `[position][d_k]` and `[position][d_v]`.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// `[token][group * d_k + 3]`, the last 3 being others' data.
    queries: Vec<f32>,
    tokens: usize,
    start: usize,
    sinks: Option<Vec<f32>>,
    slopes: Option<Vec<f32>>,
    memory: Vec<u64>,
    page_stride: usize,
    offset: usize,
    pages: Vec<u32>,
    /// 0, 1, 2...: positions are a part of it.
    counting: Vec<u32>,
}

impl Case {
    /// `tokens` queries that are the last of `len` positions.
    fn new(params: Params, tokens: usize, len: usize, seed: u64) -> Case {
        let mut random = Random(seed);
        let keys: Vec<_> = (0..len).map(|_| random.row(params.d_k, 1.5)).collect();
        let values: Vec<_> = (0..len).map(|_| random.row(params.d_v, 1.0)).collect();
        let queries = random.row(tokens * (params.group * params.d_k + 3), 2.0);
        let bytes = block_bytes(params.kv, params.d_k, params.d_v);
        let count = len.div_ceil(PAGE);
        let (page_stride, offset) = (3 * bytes, bytes);
        let memory = vec![u64::MAX; (count + 2) * page_stride / 8];
        let mut pages: Vec<u32> = (1..count as u32 + 1).collect();
        for i in (1..count).rev() {
            pages.swap(i, (random.one().abs() * i as f32) as usize);
        }
        let start = len - tokens;
        let mut case = Case {
            params,
            keys,
            values,
            queries,
            tokens,
            start,
            sinks: None,
            slopes: None,
            memory,
            page_stride,
            offset,
            pages,
            counting: (0..1000 + len as u32).collect(),
        };
        case.store_all(best());
        case
    }

    fn store_all(&mut self, kernels: &Kernels) {
        let bytes = block_bytes(self.params.kv, self.params.d_k, self.params.d_v);
        for (at, (k, v)) in self.keys.iter().zip(&self.values).enumerate() {
            let first = self.pages[at / PAGE] as usize * self.page_stride + self.offset;
            let block = &mut bytemuck::cast_slice_mut(&mut self.memory)[first..first + bytes];
            (kernels.kv_store)(self.params.kv, block, at % PAGE, [k, v]);
        }
    }

    /// The block of some of the tokens.
    fn block(&self, tokens: Range<usize>) -> Block<'_> {
        let stride = self.params.group * self.params.d_k + 3;
        let data = &self.queries[tokens.start * stride..];
        let positions = &self.counting[self.start..][tokens.clone()];
        let data_of_cache = bytemuck::cast_slice(&self.memory);
        let (page_stride, offset, pages, len) = (self.page_stride, self.offset, &self.pages[..], self.keys.len());
        Block {
            params: self.params,
            queries: Queries { data, stride, positions, slopes: self.slopes.as_deref() },
            cache: Cache { data: data_of_cache, page_stride, offset, pages, tables: &[0; 64][..tokens.len()], len },
        }
    }

    fn finish(&self, kernels: &Kernels, partial: &[f32], tokens: usize) -> Vec<f32> {
        let Params { group, d_v, .. } = self.params;
        let mut out = vec![SENTINEL; tokens * group * d_v + 32];
        let (rows, end) = (group * d_v, tokens * group * d_v + 16);
        for (token, out) in out[16..end].chunks_mut(rows).enumerate() {
            (kernels.finish)(d_v, partial, token * group..(token + 1) * group, self.sinks.as_deref(), out);
        }
        assert!(out[..16].iter().chain(&out[end..]).all(|&x| x == SENTINEL), "finish wrote outside");
        out[16..end].to_vec()
    }

    /// Results `[token][group][d_v]` of a block, its tiles in order.
    fn attend(&self, kernels: &Kernels, tokens: Range<usize>) -> Vec<f32> {
        self.attend_block(kernels, self.block(tokens))
    }

    fn attend_block(&self, kernels: &Kernels, block: Block) -> Vec<f32> {
        let Params { d_k, d_v, .. } = self.params;
        let n = partial_len(block.rows(), d_v);
        let mut scratch = vec![f32::NAN; scratch_len(d_k) + 16];
        let mut tile_partial = vec![f32::NAN; n + 32];
        let mut all = vec![f32::NAN; n];
        clear(d_v, &mut all);
        for tile in block.tiles() {
            for edge in [&mut scratch[..8], &mut tile_partial[..16]] {
                edge.fill(SENTINEL);
            }
            tile_partial[16 + n..].fill(SENTINEL);
            let end = scratch.len() - 8;
            scratch[end..].fill(SENTINEL);
            (kernels.attend_tile)(&block, tile, &mut scratch[8..end], &mut tile_partial[16..16 + n]);
            let edges =
                scratch[..8].iter().chain(&scratch[end..]).chain(&tile_partial[..16]).chain(&tile_partial[16 + n..]);
            assert!(edges.into_iter().all(|&x| x == SENTINEL), "attend_tile wrote outside");
            (kernels.merge)(d_v, &tile_partial[16..16 + n], &mut all);
        }
        let found = self.finish(kernels, &all, block.queries.positions.len());
        // All tiles in one call, over memory that held something else.
        all.fill(f32::NAN);
        kernels.attend(&block, &mut scratch[8..scratch_len(d_k) + 8], &mut tile_partial[16..16 + n], &mut all);
        assert_eq!(bits(&self.finish(kernels, &all, block.queries.positions.len())), bits(&found), "{:?}", self.params);
        found
    }

    /// The same with all partials made before the first is merged, the last tile first, and of tiles that the block
    /// does not see too, as if by other workers.
    fn attend_elsewhere(&self, kernels: &Kernels) -> Vec<f32> {
        let block = self.block(0..self.tokens);
        let Params { d_k, d_v, .. } = self.params;
        let n = partial_len(block.rows(), d_v);
        let tiles = 0..self.keys.len().div_ceil(TILE);
        let mut partials = vec![vec![f32::NAN; n]; tiles.len()];
        let mut scratch = vec![f32::NAN; scratch_len(d_k)];
        for tile in tiles.rev() {
            (kernels.attend_tile)(&block, tile, &mut scratch, &mut partials[tile]);
        }
        let mut all = vec![f32::NAN; n];
        clear(d_v, &mut all);
        for partial in &partials {
            (kernels.merge)(d_v, partial, &mut all);
        }
        self.finish(kernels, &all, self.tokens)
    }

    /// The bits of `attend` on every ISA, which must be the same.
    fn attend_everywhere(&self) -> Vec<f32> {
        let expected = self.attend(best(), 0..self.tokens);
        for kernels in all() {
            let found = self.attend(kernels, 0..self.tokens);
            assert_eq!(bits(&found), bits(&expected), "{:?} {:?}", kernels.isa, self.params);
        }
        expected
    }

    fn stored(&self, x: f32) -> f64 {
        match self.params.kv {
            KvType::F16 => f64::from(f16::from_f32(x)),
            KvType::F32 => f64::from(x),
        }
    }

    /// Whether a token sees a key, said again in its own words.
    fn sees(&self, token: usize, key: usize) -> bool {
        let (at, key) = ((self.start + token) as i64, key as i64);
        let near = self.params.window.is_none_or(|w| (at - key).abs() < w as i64);
        near && (key <= at || !self.params.causal)
    }

    /// A row of the result in f64, and how far from it each element may be.
    fn twin(&self, token: usize, head: usize) -> Vec<(f64, f64)> {
        let Params { d_k, d_v, group, scale, softcap, .. } = self.params;
        let query = &self.queries[token * (group * d_k + 3) + head * d_k..][..d_k];
        let keys: Vec<usize> = (0..self.keys.len()).filter(|&key| self.sees(token, key)).collect();
        let mut largest_error = 0.0f64;
        let scores: Vec<f64> = keys
            .iter()
            .map(|&key| {
                let products = query.iter().zip(&self.keys[key]).map(|(&q, &k)| f64::from(q) * self.stored(k));
                let (dot, size) = products.fold((0.0, 0.0), |(dot, size), p| (dot + p, size + p.abs()));
                let slope = self.slopes.as_ref().map_or(0.0, |slopes| f64::from(slopes[head]));
                let penalty = slope * (self.start + token).abs_diff(key) as f64;
                let score = dot * f64::from(scale) - penalty;
                // One rounding for each element of the head, of partial sums that are at most the sum of magnitudes;
                // one for the scale; the cap adds 9 of its own and never enlarges an error.
                let error = (d_k as f64 + 1.0) * ROUND * size * f64::from(scale).abs() + ROUND * score.abs();
                let capped = softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
                largest_error = largest_error.max(error + softcap.map_or(0.0, |_| 9.0 * ROUND * capped.abs()));
                capped
            })
            .collect();
        let sink = self.sinks.as_ref().map(|s| f64::from(s[head]));
        let max = scores.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let min = scores.iter().copied().fold(max, f64::min);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let total: f64 = weights.iter().sum::<f64>() + sink.map_or(0.0, |s| (s - max).exp());
        // A weight is off by the errors of two scores, of their rounded difference and of exp, and by as much again
        // for each tile's rescaling; a sum over a tile rounds once for each key; the tiles' sums a few times each.
        let tiles = (keys.len() / TILE + 2) as f64;
        let of_weight = 2.0 * largest_error + (max - min + 2.0) * ROUND * tiles;
        let relative = 2.0 * of_weight + (2.0 * TILE as f64 + 8.0 * tiles) * ROUND;
        (0..d_v)
            .map(|i| {
                let terms = weights.iter().zip(&keys).map(|(w, &key)| w * self.stored(self.values[key][i]));
                let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
                if keys.is_empty() { (0.0, 0.0) } else { (sum / total, relative * size / total) }
            })
            .collect()
    }

    /// Every ISA against the twin and each other, and one block against all other ways to cut it.
    fn check(&self) {
        let Params { group, d_v, .. } = self.params;
        let found = self.attend_everywhere();
        for (row, out) in found.chunks(d_v).enumerate() {
            for (i, (&y, (exact, tolerance))) in out.iter().zip(self.twin(row / group, row % group)).enumerate() {
                let ok = (f64::from(y) - exact).abs() <= tolerance;
                assert!(ok, "{:?} row {row} [{i}]: {y:e}, exactly {exact:e} within {tolerance:e}", self.params);
            }
        }
        assert_eq!(bits(&self.attend_elsewhere(best())), bits(&found), "partials made elsewhere {:?}", self.params);
        for step in [1, 3] {
            let cut: Vec<f32> = (0..self.tokens)
                .step_by(step)
                .flat_map(|token| self.attend(best(), token..self.tokens.min(token + step)))
                .collect();
            assert_eq!(bits(&cut), bits(&found), "{step} tokens a block {:?}", self.params);
        }
    }
}

fn params(d: usize, group: usize) -> Params {
    let scale = 1.0 / (d as f32).sqrt();
    Params { d_k: d, d_v: d, group, scale, softcap: None, window: None, causal: true, kv: KvType::F16 }
}

#[test]
fn heads_of_all_sizes() {
    for d in [8, 16, 24, 40, 64, 80, 96, 128, 256] {
        for kv in [KvType::F16, KvType::F32] {
            Case::new(Params { kv, ..params(d, 1) }, 5, 300, d as u64).check();
        }
    }
    Case::new(Params { d_v: 128, ..params(192, 1) }, 3, 70, 1).check();
    Case::new(Params { d_v: 7, ..params(5, 1) }, 3, 70, 2).check();
}

#[test]
fn groups_of_all_sizes() {
    for group in 1..=MAX_ROWS {
        for tokens in [1, MAX_ROWS / group] {
            Case::new(params(32, group), tokens, 290, group as u64).check();
        }
    }
}

#[test]
fn lengths_around_pages_and_tiles() {
    for len in [1, 2, 31, 32, 33, 64, 255, 256, 257, 511, 513, 800] {
        Case::new(params(24, 2), len.min(8), len, len as u64).check();
        Case::new(Params { kv: KvType::F32, ..params(24, 2) }, 1, len, len as u64).check();
    }
}

#[test]
fn windows_caps_slopes_and_sinks() {
    for window in [1, 8, 16, 33, 256, 300, 1000] {
        let params = Params { window: Some(window), ..params(16, 1) };
        for (tokens, len) in [(16, 16), (16, 264), (16, 600), (1, 600)] {
            Case::new(params, tokens, len, window as u64).check();
        }
    }
    for cap in [1.0, 50.0] {
        Case::new(Params { softcap: Some(cap), scale: 1.0, ..params(40, 3) }, 4, 330, 5).check();
    }
    for causal in [true, false] {
        let mut case = Case::new(Params { causal, ..params(24, 3) }, 4, 330, 8);
        case.slopes = Some(vec![0.5, 0.03, 1e-3]);
        case.check();
    }
    for size in [1.0, 30.0] {
        let mut case = Case::new(params(40, 3), 4, 330, 6);
        case.sinks = Some(Random(7).row(3, size));
        case.check();
    }
}

#[test]
fn without_causality_all_keys_are_seen() {
    for window in [None, Some(1), Some(20)] {
        let mut case = Case::new(Params { window, causal: false, ..params(24, 2) }, 6, 400, 3);
        case.start = 120;
        case.check();
    }
}

#[test]
fn a_window_of_one_gives_the_value_itself() {
    let case = Case::new(Params { window: Some(1), ..params(24, 1) }, 16, 272, 4);
    for (token, out) in case.attend_everywhere().chunks(24).enumerate() {
        let value: Vec<f32> = case.values[256 + token].iter().map(|&v| f16::from_f32(v).to_f32()).collect();
        assert_eq!(bits(out), bits(&value));
    }
}

#[test]
fn pages_may_lie_anywhere() {
    let mut case = Case::new(params(16, 2), 8, 500, 11);
    let shuffled = case.attend_everywhere();
    case.pages.sort_unstable();
    case.memory.fill(u64::MAX);
    case.store_all(best());
    assert_eq!(bits(&shuffled), bits(&case.attend_everywhere()));
}

/// Sequences of these lengths that begin with the same pages: what the last token of each sees alone, and all at once.
fn check_together(params: Params, lens: &[usize], shared: usize) {
    let mut cases: Vec<Case> = lens.iter().map(|&len| Case::new(params, 1, len, len as u64)).collect();
    let (keys, values) = (cases[0].keys[..shared * PAGE].to_vec(), cases[0].values[..shared * PAGE].to_vec());
    let mut next = shared as u32;
    for case in &mut cases {
        case.keys[..shared * PAGE].clone_from_slice(&keys);
        case.values[..shared * PAGE].clone_from_slice(&values);
        for (number, page) in case.pages.iter_mut().enumerate() {
            next += u32::from(number >= shared);
            *page = if number < shared { number as u32 } else { next - 1 };
        }
    }
    let mut memory = vec![u64::MAX; (next as usize + 1) * cases[0].page_stride / 8];
    for case in &mut cases {
        case.memory = std::mem::take(&mut memory);
        case.store_all(best());
        memory = std::mem::take(&mut case.memory);
    }
    let (mut tables, mut pages, mut queries, mut alone) = (vec![], vec![], vec![], vec![]);
    for case in &mut cases {
        case.memory = memory.clone();
        tables.push(pages.len() as u32);
        pages.extend_from_slice(&case.pages);
        queries.extend_from_slice(&case.queries);
        alone.extend(case.attend_everywhere());
    }
    let positions: Vec<u32> = cases.iter().map(|case| case.start as u32).collect();
    let mut block = cases[0].block(0..1);
    (block.queries.data, block.queries.positions) = (&queries, &positions);
    (block.cache.pages, block.cache.tables, block.cache.len) = (&pages, &tables, usize::MAX);
    for kernels in all() {
        let together = cases[0].attend_block(kernels, block);
        assert_eq!(bits(&together), bits(&alone), "{:?} {lens:?} {shared} {params:?}", kernels.isa);
    }
}

#[test]
fn sequences_that_begin_alike_see_what_they_see_alone() {
    check_together(params(24, 3), &[520, 490, 300, 601, 97], 3);
    check_together(params(64, 1), &[40, 700, 256, 257, 33, 64, 300, 301, 302], 1);
    check_together(params(16, 2), &[70, 71, 72], 0);
    check_together(Params { kv: KvType::F32, softcap: Some(30.0), ..params(16, 4) }, &[330, 280, 290, 288], 8);
    for window in [1, 20, 100, 300] {
        check_together(Params { window: Some(window), ..params(24, 2) }, &[520, 490, 300, 601], 9);
    }
}

#[test]
fn hidden_keys_leave_no_trace() {
    let window = Some(40);
    for poison in [f32::NAN, f32::INFINITY, 60000.0] {
        let mut case = Case::new(Params { window, ..params(24, 1) }, 9, 280, 12);
        case.start -= 20;
        let clean = case.attend_everywhere();
        let poisoned = (0..280).filter(|&key| !(0..9).any(|token| case.sees(token, key)));
        for key in poisoned.collect::<Vec<_>>() {
            case.keys[key].fill(poison);
            case.values[key].fill(poison);
        }
        case.store_all(best());
        assert_eq!(bits(&clean), bits(&case.attend_everywhere()), "{poison}");
        // Keys that only the later tokens see.
        let last = case.start + 8;
        case.values[last].fill(poison);
        case.keys[last].fill(poison);
        case.store_all(best());
        assert_eq!(bits(&clean)[..8 * 24], bits(&case.attend_everywhere())[..8 * 24], "{poison}");
    }
}

#[test]
fn what_is_seen_and_not_finite_poisons_its_row_alone() {
    let mut case = Case::new(params(16, 1), 4, 40, 13);
    case.values[38][5] = f32::INFINITY;
    case.store_all(best());
    let out = case.attend_everywhere();
    assert!(out[..2 * 16].iter().all(|x| x.is_finite()));
    for row in out[2 * 16..].chunks(16) {
        assert!(row.iter().enumerate().all(|(i, x)| x.is_finite() == (i != 5)), "{row:?}");
    }
    case.keys[37][0] = f32::NAN;
    case.store_all(best());
    let out = case.attend_everywhere();
    assert!(out[..16].iter().all(|x| x.is_finite()) && out[16..].iter().all(|x| x.is_nan()));
}

#[test]
fn nothing_seen_gives_zeros_and_no_rows_give_nothing() {
    let mut case = Case::new(Params { window: Some(10), causal: false, ..params(24, 2) }, 3, 32, 14);
    case.start = 100;
    assert_eq!(case.attend_everywhere(), vec![0.0; 3 * 2 * 24]);
    case.sinks = Some(vec![1.0; 2]);
    assert_eq!(case.attend_everywhere(), vec![0.0; 3 * 2 * 24]);
    assert!(case.attend(best(), 0..0).is_empty());
    assert!(case.block(0..0).tiles().is_empty());
}

#[test]
fn tiles_are_those_that_some_row_sees() {
    let mut case = Case::new(params(8, 1), 8, 1000, 15);
    assert_eq!(case.block(0..8).tiles(), 0..4);
    case.params.window = Some(256);
    assert_eq!(case.block(0..8).tiles(), 2..4, "position 992 sees 737 to 992");
    case.start = 255;
    assert_eq!(case.block(0..1).tiles(), 0..1);
    assert_eq!(case.block(0..2).tiles(), 0..2);
}

#[test]
fn the_cache_holds_what_was_stored() {
    for (d_k, d_v) in [(8, 8), (24, 40), (64, 64), (3, 17)] {
        for kernels in all() {
            let (k, v) = (Random(1).row(d_k, 70000.0), Random(2).row(d_v, 1e-5));
            let stride = value_stride(d_v);
            let mut memory = vec![0x5555u16; PAGE * (d_k + stride)];
            let bytes = block_bytes(KvType::F16, d_k, d_v);
            assert_eq!(bytes, 2 * memory.len());
            (kernels.kv_store)(KvType::F16, bytemuck::cast_slice_mut(&mut memory), 9, [&k, &v]);
            for (i, &found) in memory.iter().enumerate() {
                let (at, slot, source) = match i.checked_sub(PAGE * d_k) {
                    None => (i / PAGE, i % PAGE, &k),
                    Some(i) => (i % stride, i / stride, &v),
                };
                let expected = source.get(at).map_or(0, |&x| f16::from_f32(x).to_bits());
                assert_eq!(found, if slot == 9 { expected } else { 0x5555 }, "{:?} element {i}", kernels.isa);
            }
            let mut memory = vec![SENTINEL; PAGE * (d_k + stride)];
            (kernels.kv_store)(KvType::F32, bytemuck::cast_slice_mut(&mut memory), 31, [&k, &v]);
            assert_eq!(memory.iter().filter(|&&x| x != SENTINEL).count(), d_k + stride);
            assert_eq!(memory[PAGE * d_k + 31 * stride..][..d_v], v);
            assert!((0..d_k).all(|i| memory[i * PAGE + 31] == k[i]));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape(
        (d_k, d_v) in (1usize..100, 1usize..100),
        group in 1usize..=MAX_ROWS,
        tokens in 1usize..=MAX_ROWS,
        len in 1usize..700,
        behind in 0usize..300,
        window in prop::option::of(1usize..700),
        softcap in prop::option::of(0.5f32..60.0),
        causal: bool,
        wide: bool,
        seed: u64,
    ) {
        let tokens = tokens.min(MAX_ROWS / group).min(len);
        let kv = if wide { KvType::F32 } else { KvType::F16 };
        let mut case = Case::new(Params { d_k, d_v, group, scale: 0.2, softcap, window, causal, kv }, tokens, len, seed);
        case.start -= behind.min(case.start);
        case.check();
    }
}
