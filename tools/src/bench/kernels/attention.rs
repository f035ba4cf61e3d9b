//! Attention of one layer: units of a KV head and a few tokens, dealt out among the workers, tile after tile.

use super::super::work::{self, Step, Work};
use super::{Case, Context, Difference, Share, floats};
use crate::error::Result;
use engine::KvType;
use engine::backend::pool::{Lines, Piece};
use engine::graph::AttentionSpec;
use engine::kernels::Kernels;
use engine::kernels::attention::{Block, Cache, MAX_ROWS, Params, Queries, partial_len, scratch_len};
use engine::kernels::kv::{self, PAGE};

/// Caches of at most so many layers: their memory is that of a whole model.
const MOST_LAYERS: usize = 64;
/// Units whose error is looked at.
const CHECKED: usize = 4;

/// A layer's attention.
pub struct Attention {
    kernels: &'static Kernels,
    spec: AttentionSpec,
    kv: KvType,
    tokens: usize,
    start: usize,
    positions: Vec<u32>,
    pages: Vec<u32>,
    q: Vec<f32>,
    /// Keys and values as they were stored, `[position][head][d_k + d_v]`.
    x: Vec<f32>,
    caches: Vec<Lines>,
}

/// A few tokens and the query heads of a KV head.
#[derive(Clone, Copy)]
struct Unit {
    first: usize,
    tokens: usize,
    kv_head: usize,
    head: usize,
    group: usize,
}

impl Attention {
    /// `tokens` tokens after `start` others, in as many layers as the graph has.
    ///
    /// # Errors
    /// There is no memory for that many.
    pub fn new(context: &Context, spec: AttentionSpec, tokens: usize, start: usize) -> Result<Attention> {
        let (positions, heads) = (start + tokens, spec.n_head_kv);
        let (kv, width) = (context.setting.kv, spec.d_k + spec.d_v);
        let block = kv::block_bytes(kv, spec.d_k, spec.d_v);
        let n_pages = positions.div_ceil(PAGE);
        let x = floats(positions * heads * width, 9);
        let mut cache = Lines::zeroed(n_pages * heads * block)?;
        for (i, pair) in x.chunks_exact(width).enumerate() {
            let (position, head) = (i / heads, i % heads);
            let at = (position / PAGE * heads + head) * block;
            let (k, v) = pair.split_at(spec.d_k);
            (context.kernels.kv_store)(kv, &mut cache.bytes_mut()[at..at + block], position % PAGE, [k, v]);
        }
        let layers = context.graph.ops.iter().filter(|op| matches!(op, engine::graph::Op::Attention { .. })).count();
        let mut caches = vec![cache];
        while tokens == 1 && caches.len() < layers.min(MOST_LAYERS) {
            caches.push(caches[0].copy()?);
        }
        Ok(Attention {
            kernels: context.kernels,
            spec,
            kv,
            tokens,
            start,
            positions: (start as u32..positions as u32).collect(),
            pages: (0..n_pages as u32).collect(),
            q: floats(tokens * spec.n_head * spec.d_k, 10),
            x,
            caches,
        })
    }

    fn units(&self) -> Vec<Unit> {
        let group = self.spec.n_head / self.spec.n_head_kv;
        let (parts, at_once) = (group.div_ceil(MAX_ROWS), (MAX_ROWS / group).max(1));
        let mut units = vec![];
        for first in (0..self.tokens).step_by(at_once) {
            for (kv_head, part) in (0..self.spec.n_head_kv).flat_map(|h| (0..parts).map(move |p| (h, p))) {
                let (from, to) = (group * part / parts, group * (part + 1) / parts);
                let tokens = at_once.min(self.tokens - first);
                units.push(Unit { first, tokens, kv_head, head: kv_head * group + from, group: to - from });
            }
        }
        units
    }

    fn block(&self, unit: Unit, call: usize) -> Block<'_> {
        let a = &self.spec;
        let block = kv::block_bytes(self.kv, a.d_k, a.d_v);
        Block {
            params: Params {
                d_k: a.d_k,
                d_v: a.d_v,
                group: unit.group,
                scale: a.scale,
                softcap: a.softcap,
                window: a.window,
                causal: a.causal,
                kv: self.kv,
            },
            queries: Queries {
                data: &self.q[(unit.first * a.n_head + unit.head) * a.d_k..],
                stride: a.n_head * a.d_k,
                positions: &self.positions[unit.first..unit.first + unit.tokens],
                slopes: None,
            },
            cache: Cache {
                data: self.caches[call % self.caches.len()].bytes(),
                page_stride: block * a.n_head_kv,
                offset: unit.kv_head * block,
                pages: &self.pages,
                tables: &[0; MAX_ROWS][..unit.tokens],
                len: self.start + self.tokens,
            },
        }
    }

    /// A unit from its first tile to its last; gives rows of `d_v` values.
    fn unit(&self, block: &Block, memory: &mut Memory) {
        let len = partial_len(block.rows(), self.spec.d_v);
        let (tile, all) = (&mut memory.tile[..len], &mut memory.all[..len]);
        self.kernels.attend(block, &mut memory.scratch, tile, all);
        let out = &mut memory.out[..block.rows() * self.spec.d_v];
        (self.kernels.finish)(self.spec.d_v, all, 0..block.rows(), None, out);
    }

    fn memory(&self) -> Memory {
        let partial = vec![0.0; partial_len(MAX_ROWS, self.spec.d_v)];
        let scratch = vec![0.0; scratch_len(self.spec.d_k)];
        Memory { scratch, tile: partial.clone(), all: partial, out: vec![0.0; MAX_ROWS * self.spec.d_v] }
    }

    /// Softmax-weighted values that one row of a unit sees, in f64.
    fn exact(&self, unit: Unit, block: &Block, row: usize) -> Vec<f64> {
        let AttentionSpec { d_k, d_v, n_head, n_head_kv, scale, softcap, .. } = self.spec;
        let (token, head) = (row / unit.group, unit.head + row % unit.group);
        let q = &self.q[((unit.first + token) * n_head + head) * d_k..][..d_k];
        let pair = |position: usize| &self.x[(position * n_head_kv + unit.kv_head) * (d_k + d_v)..][..d_k + d_v];
        let seen: Vec<usize> = block.visible(token).collect();
        let score = |&position: &usize| {
            let dot: f64 = q.iter().zip(pair(position)).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            let score = dot * f64::from(scale);
            softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        };
        let scores: Vec<f64> = seen.iter().map(score).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
        let total: f64 = weights.iter().sum();
        let value = |i| seen.iter().zip(&weights).map(|(&p, w)| w * f64::from(pair(p)[d_k + i])).sum::<f64>() / total;
        (0..d_v).map(value).collect()
    }
}

/// What a worker computes in.
struct Memory {
    scratch: Vec<f32>,
    tile: Vec<f32>,
    all: Vec<f32>,
    out: Vec<f32>,
}

impl Case for Attention {
    fn work(&self) -> Work {
        work::attend(&self.spec, Step { tokens: self.tokens, start: self.start, outputs: 0 }, self.kv)
    }

    fn share<'a>(&'a self, piece: Piece) -> Share<'a> {
        let units = self.units();
        let mine: Vec<Unit> = piece.deals(units.len()).map(|i| units[i]).collect();
        let mut memory = self.memory();
        Box::new(move |call| mine.iter().for_each(|&unit| self.unit(&self.block(unit, call), &mut memory)))
    }

    fn error(&self) -> f64 {
        let units = self.units();
        let mut memory = self.memory();
        let mut difference = Difference::default();
        for &unit in units.iter().step_by((units.len() / CHECKED).max(1)) {
            let block = self.block(unit, 0);
            self.unit(&block, &mut memory);
            for row in 0..block.rows() {
                let found = &memory.out[row * self.spec.d_v..][..self.spec.d_v];
                found.iter().zip(self.exact(unit, &block, row)).for_each(|(&f, e)| difference.take(f, e));
            }
        }
        difference.relative()
    }
}
