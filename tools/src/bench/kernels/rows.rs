//! The kernels over rows: norms, rotary embedding, gates, and the way into the cache.

use super::super::work::Work;
use super::report::Phase;
use super::{Case, Context, Difference, Share, floats, room};
use engine::KvType;
use engine::backend::pool::Piece;
use engine::graph::{Activation, RopeFreqs};
use engine::kernels::Kernels;
use engine::kernels::kv::{self, PAGE};
use engine::kernels::rowwise::{Norm, Rotation};
use engine::spec::Pairing;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Added to the mean square; its size matters to no time.
const EPS: f32 = 1e-5;

/// Norm of slices.
pub struct RmsNorm {
    kernels: &'static Kernels,
    width: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
}

impl RmsNorm {
    /// `slices` slices of `width` values.
    pub fn new(context: &Context, width: usize, slices: usize) -> RmsNorm {
        RmsNorm { kernels: context.kernels, width, x: floats(width * slices, 3), weight: floats(width, 4) }
    }

    fn norm(&self) -> Norm<'_> {
        Norm { width: self.width, eps: EPS, weight: Some(&self.weight), bias: None }
    }
}

impl Case for RmsNorm {
    fn work(&self) -> Work {
        let n = self.x.len() as u64;
        Work { bytes: 4 * n, int8: 0, float: 4 * n }
    }

    fn share<'a>(&'a self, piece: Piece) -> Share<'a> {
        let mine = piece.share(self.x.len() / self.width);
        let x = &self.x[mine.start * self.width..mine.end * self.width];
        let mut out = vec![0.0; x.len()];
        Box::new(move |_| (self.kernels.rms_norm)(&self.norm(), x, &mut out))
    }

    fn error(&self) -> f64 {
        let mut out = vec![0.0; self.x.len()];
        (self.kernels.rms_norm)(&self.norm(), &self.x, &mut out);
        let mut difference = Difference::default();
        for (x, out) in self.x.chunks_exact(self.width).zip(out.chunks_exact(self.width)) {
            let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
            let scale = 1.0 / (squares / self.width as f64 + f64::from(EPS)).sqrt();
            for ((x, w), out) in x.iter().zip(&self.weight).zip(out) {
                difference.take(*out, f64::from(*x) * scale * f64::from(*w));
            }
        }
        difference.relative()
    }
}

/// Rotary embedding of queries and keys.
pub struct Rope {
    kernels: &'static Kernels,
    freqs: RopeFreqs,
    d_k: usize,
    heads: usize,
    start: usize,
    x: Vec<f32>,
    /// Cosines and sines of each token.
    table: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Rope {
    /// Heads of `d_k` values for each token, turned by the graph's rotary embedding `rope`.
    pub fn new(context: &Context, [d_k, heads, rope, tokens]: [usize; 4], phase: Phase) -> Rope {
        let freqs = context.graph.ropes[rope].clone();
        let angles = |token: usize| freqs.angles((phase.start + token) as u32);
        let table = (0..tokens)
            .map(|t| (angles(t).map(|a| a.cos() as f32).collect(), angles(t).map(|a| a.sin() as f32).collect()));
        let table = table.collect();
        Rope {
            kernels: context.kernels,
            d_k,
            heads,
            start: phase.start,
            x: floats(d_k * heads * tokens, 5),
            table,
            freqs,
        }
    }

    fn turn(&self, token: usize, x: &mut [f32]) {
        let (cos, sin) = &self.table[token];
        (self.kernels.rope)(&Rotation { pairing: self.freqs.pairing, cos, sin }, self.d_k, x);
    }
}

impl Case for Rope {
    fn work(&self) -> Work {
        let n = self.x.len() as u64;
        Work { bytes: 4 * n, int8: 0, float: 3 * n }
    }

    fn share<'a>(&'a self, piece: Piece) -> Share<'a> {
        let mine = piece.share(self.table.len());
        let width = self.d_k * self.heads;
        let mut x = self.x[mine.start * width..mine.end * width].to_vec();
        Box::new(move |_| mine.clone().zip(x.chunks_exact_mut(width)).for_each(|(token, x)| self.turn(token, x)))
    }

    fn error(&self) -> f64 {
        let width = self.d_k * self.heads;
        let mut difference = Difference::default();
        for (token, x) in self.x.chunks_exact(width).enumerate() {
            let mut out = x.to_vec();
            self.turn(token, &mut out);
            for (x, out) in x.chunks_exact(self.d_k).zip(out.chunks_exact(self.d_k)) {
                for (i, angle) in self.freqs.angles((self.start + token) as u32).enumerate() {
                    let (first, second) = match self.freqs.pairing {
                        Pairing::Adjacent => (2 * i, 2 * i + 1),
                        Pairing::Halves => (i, i + self.freqs.pairs()),
                    };
                    let (sin, cos) = angle.sin_cos();
                    let (a, b) = (f64::from(x[first]), f64::from(x[second]));
                    difference.take(out[first], a * cos - b * sin);
                    difference.take(out[second], a * sin + b * cos);
                }
            }
        }
        difference.relative()
    }
}

/// Keys and values into the cache.
pub struct StoreKv {
    kernels: &'static Kernels,
    kv: KvType,
    heads: usize,
    d_k: usize,
    d_v: usize,
    tokens: usize,
    x: Vec<f32>,
}

impl StoreKv {
    /// One key and one value for each head and token.
    pub fn new(context: &Context, [heads, d_k, d_v, tokens]: [usize; 4]) -> StoreKv {
        let x = floats((d_k + d_v) * heads * tokens, 6);
        StoreKv { kernels: context.kernels, kv: context.setting.kv, heads, d_k, d_v, tokens, x }
    }

    fn store(&self, block: &mut [u8], token: usize, head: usize) {
        let pair = &self.x[(token * self.heads + head) * (self.d_k + self.d_v)..][..self.d_k + self.d_v];
        let (k, v) = pair.split_at(self.d_k);
        (self.kernels.kv_store)(self.kv, block, token % PAGE, [k, v]);
    }
}

impl Case for StoreKv {
    fn work(&self) -> Work {
        Work { bytes: self.x.len() as u64 * 4, int8: 0, float: 0 }
    }

    fn share<'a>(&'a self, piece: Piece) -> Share<'a> {
        let block = kv::block_bytes(self.kv, self.d_k, self.d_v);
        let pages = piece.share(self.tokens.div_ceil(PAGE));
        let mut cache = room(block * self.heads * pages.len());
        Box::new(move |_| {
            for (page, blocks) in pages.clone().zip(cache.bytes_mut().chunks_exact_mut(block * self.heads)) {
                for (head, block) in blocks.chunks_exact_mut(block).enumerate() {
                    (page * PAGE..self.tokens.min((page + 1) * PAGE)).for_each(|token| self.store(block, token, head));
                }
            }
        })
    }

    /// Of the values as they come back from the cache's memory.
    fn error(&self) -> f64 {
        let mut block = room(kv::block_bytes(self.kv, self.d_k, self.d_v));
        let mut difference = Difference::default();
        for token in 0..self.tokens.min(PAGE) {
            self.store(block.bytes_mut(), token, 0);
            let bytes = block.bytes();
            let element = |i: usize| match self.kv {
                KvType::F16 => half(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])),
                KvType::F32 => f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]),
            };
            let pair = &self.x[token * self.heads * (self.d_k + self.d_v)..];
            let values = self.d_k * PAGE + token * kv::value_stride(self.d_v);
            (0..self.d_k).for_each(|i| difference.take(element(i * PAGE + token), f64::from(pair[i])));
            (0..self.d_v).for_each(|i| difference.take(element(values + i), f64::from(pair[self.d_k + i])));
        }
        difference.relative()
    }
}

/// A finite half float as a float.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    let magnitude = if exponent == 0 { fraction * 2f32.powi(-14) } else { (1.0 + fraction) * 2f32.powi(exponent - 15) };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// Activation of a gate times its partner.
pub struct Gated {
    kernels: &'static Kernels,
    act: Activation,
    width: usize,
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Gated {
    /// A row of `width` values a token.
    pub fn new(context: &Context, act: Activation, width: usize, tokens: usize) -> Gated {
        // Gates reach over the whole curve.
        let gate = floats(width * tokens, 7).iter().map(|x| 6.0 * x).collect();
        Gated { kernels: context.kernels, act, width, gate, up: floats(width * tokens, 8) }
    }
}

impl Case for Gated {
    fn work(&self) -> Work {
        let n = self.gate.len() as u64;
        // The activation is a rational or exponential function of about twenty operations.
        Work { bytes: 8 * n, int8: 0, float: 20 * n }
    }

    fn share<'a>(&'a self, piece: Piece) -> Share<'a> {
        let mine = piece.share(self.gate.len() / self.width);
        let range = mine.start * self.width..mine.end * self.width;
        let (gate, up) = (&self.gate[range.clone()], &self.up[range]);
        let mut out = vec![0.0; gate.len()];
        Box::new(move |_| (self.kernels.gated)(self.act, gate, up, &mut out))
    }

    fn error(&self) -> f64 {
        let mut out = vec![0.0; self.gate.len()];
        (self.kernels.gated)(self.act, &self.gate, &self.up, &mut out);
        let mut difference = Difference::default();
        for ((gate, up), out) in self.gate.iter().zip(&self.up).zip(out) {
            difference.take(out, activation(self.act, f64::from(*gate)) * f64::from(*up));
        }
        difference.relative()
    }
}

/// Activation functions in f64.
fn activation(act: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match act {
        Activation::Silu => x * sigmoid(x),
        Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
        Activation::GeluErf => 0.5 * x * (1.0 + error_function(x * FRAC_1_SQRT_2)),
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::Sigmoid => sigmoid(x),
    }
}

/// erf by its series, 2/sqrt(pi) * sum of (-1)^n x^(2n+1) / (n! (2n+1)), which for |x| < 5 is good to 1e-6 or better.
pub fn error_function(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..150 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    if x.abs() > 5.0 { x.signum() } else { sum * 2.0 / PI.sqrt() }
}
