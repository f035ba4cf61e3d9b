//! The tensors of a shape, and their numbers: random, the same for the same seed whatever the format, the order and the
//! number of threads.

use std::ops::Range;

use super::shapes::{Family, Shape, Stretch};

/// Shortest and longest wavelength that Llama 3 stretches in part, as shares of the context of its first training.
const LLAMA3_PARTS: (f64, f64) = (4.0, 1.0);
const LLAMA3_CONTEXT: f64 = 8192.0;
/// Factors of Phi's long contexts: a geometric series up to this.
const LONG_MOST: f64 = 32.0;
/// Embeddings and output rows are this many times as large as other weights, so that logits differ clearly.
const EMBEDDING: f32 = 3.0;

/// A tensor and where its numbers come from.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its dimensions, the length of a row first.
    pub dims: Vec<u64>,
    /// What is in it.
    fill: Fill,
    /// Of the random numbers.
    seed: u64,
}

#[derive(Clone, Debug)]
enum Fill {
    /// Normally distributed around a mean.
    Random { mean: f32, deviation: f32 },
    /// These numbers.
    Given(Vec<f32>),
}

impl Tensor {
    /// The numbers of a range of elements.
    pub fn values(&self, range: Range<u64>) -> Vec<f32> {
        match &self.fill {
            Fill::Given(values) => values[range.start as usize..range.end as usize].to_vec(),
            &Fill::Random { mean, deviation } => {
                range.map(|i| mean + deviation * normal(mix(self.seed.wrapping_add(i.wrapping_mul(STEP))))).collect()
            }
        }
    }
}

/// Golden ratio of 2^64: the step of the splitmix generator (Steele, Lea, Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of splitmix.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// About a normal number: the sum of four even ones, of variance 1 and at most 3.5 in size.
fn normal(bits: u64) -> f32 {
    let part = |i: u32| (bits >> (16 * i)) as u16 as i32;
    let sum = part(0) + part(1) + part(2) + part(3) - 2 * 0xffff;
    // Four numbers from 0 to 2^16 - 1 have the variance 2^32 / 3 together.
    sum as f32 * (1.732_050_8 / 65_536.0)
}

/// The tensors of a shape, in the order of llama.cpp's quantized files: by layer, then by name.
pub fn tensors(shape: &Shape, seed: u64) -> Vec<Tensor> {
    let mut list = List { seed, all: Vec::new(), layer: None, residual: 1.0 / (2.0 * shape.layers as f32).sqrt() };
    let width = shape.width;
    list.matrix("token_embd", width, shape.vocab, EMBEDDING);
    if !shape.tied {
        list.matrix("output", width, shape.vocab, EMBEDDING);
    }
    list.norm("output_norm", width);
    match shape.stretch {
        Stretch::None => {}
        Stretch::Llama3(factor) => list.given("rope_freqs", llama3(shape, factor.into())),
        Stretch::Long(_) => {
            let n = shape.rotated / 2;
            list.given(
                "rope_factors_long",
                (0..n).map(|i| LONG_MOST.powf(f64::from(i) / f64::from(n)) as f32).collect(),
            );
            list.given("rope_factors_short", vec![1.0; n as usize]);
        }
    }
    for layer in 0..shape.layers {
        list.layer = Some(layer);
        list.block(shape);
    }
    list.all.sort_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.name.cmp(&b.1.name)));
    list.all.into_iter().map(|(_, tensor)| tensor).collect()
}

/// Collects tensors.
struct List {
    seed: u64,
    /// With their layer; those of no layer come first.
    all: Vec<(Option<u32>, Tensor)>,
    layer: Option<u32>,
    /// Of matrices whose results are added up over all layers.
    residual: f32,
}

impl List {
    fn block(&mut self, shape: &Shape) {
        let (width, ff, [heads, kv, head]) = (shape.width, shape.ff, shape.heads);
        let parts = [("attn_q", heads * head), ("attn_k", kv * head), ("attn_v", kv * head)];
        self.norm("attn_norm", width);
        self.norm("ffn_norm", width);
        match shape.family {
            Family::Phi3 => {
                self.matrix("attn_qkv", width, parts.iter().map(|p| p.1).sum(), 1.0);
                self.matrix("ffn_up", width, 2 * ff, 1.0);
            }
            _ => {
                parts.iter().for_each(|&(name, rows)| self.matrix(name, width, rows, 1.0));
                self.matrix("ffn_gate", width, ff, 1.0);
                self.matrix("ffn_up", width, ff, 1.0);
            }
        }
        self.matrix("attn_output", heads * head, width, self.residual);
        self.matrix("ffn_down", ff, width, self.residual);
        match shape.family {
            Family::Qwen2 => {
                parts.iter().for_each(|&(name, rows)| self.vector(&format!("{name}.bias"), rows, (0.0, 0.1)))
            }
            Family::Gemma3 => {
                [
                    ("attn_q_norm", head),
                    ("attn_k_norm", head),
                    ("post_attention_norm", width),
                    ("post_ffw_norm", width),
                ]
                .iter()
                .for_each(|&(name, len)| self.norm(name, len));
            }
            Family::Llama | Family::Phi3 => {}
        }
    }

    /// Weights that keep the variance of what passes through, times `size`.
    fn matrix(&mut self, name: &str, k: u32, rows: u32, size: f32) {
        let fill = Fill::Random { mean: 0.0, deviation: size / (k as f32).sqrt() };
        self.push(&format!("{name}.weight"), vec![k.into(), rows.into()], fill);
    }

    fn norm(&mut self, name: &str, len: u32) {
        self.vector(&format!("{name}.weight"), len, (1.0, 0.1));
    }

    fn vector(&mut self, name: &str, len: u32, (mean, deviation): (f32, f32)) {
        self.push(name, vec![len.into()], Fill::Random { mean, deviation });
    }

    fn given(&mut self, name: &str, values: Vec<f32>) {
        self.push(&format!("{name}.weight"), vec![values.len() as u64], Fill::Given(values));
    }

    fn push(&mut self, name: &str, dims: Vec<u64>, fill: Fill) {
        let name = self.layer.map_or(name.to_string(), |layer| format!("blk.{layer}.{name}"));
        let seed = name.bytes().fold(mix(self.seed.wrapping_add(STEP)), |h, b| mix(h ^ u64::from(b)));
        self.all.push((self.layer, Tensor { name, dims, fill, seed }));
    }
}

/// Llama 3's factors on wavelengths: 1 for short ones, `factor` for long ones, and between them what makes the
/// frequency's factor linear in the number of turns within the first context.
fn llama3(shape: &Shape, factor: f64) -> Vec<f32> {
    let (high, low) = LLAMA3_PARTS;
    let one = |i: u32| {
        let wavelength =
            std::f64::consts::TAU * f64::from(shape.base).powf(f64::from(2 * i) / f64::from(shape.rotated));
        let turns = LLAMA3_CONTEXT / wavelength;
        let share = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - share) / factor + share)) as f32
    };
    (0..shape.rotated / 2).map(one).collect()
}
