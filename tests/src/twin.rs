//! The naive f64 twin of the engine: llama and gemma3, one token after another, one loop a formula.
//!
//! It shares nothing with the engine but the decoders of `gguf`: it reads the metadata by itself, keeps every weight
//! as f32 and every activation as f64, and takes the formulas from the papers (Touvron et al. 2023; Gemma Team 2025;
//! RoPE: Su et al. 2021; SwiGLU and GeGLU: Shazeer 2020). Far too slow for real use, and far more exact than f32.

use gguf::{Gguf, Meta};

/// A matrix: `rows` outputs over `k` inputs, row after row.
struct Matrix {
    k: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.k..][..self.k]
    }

    /// `W x (+ b)`.
    fn times(&self, x: &[f64], bias: Option<&[f32]>) -> Vec<f64> {
        assert_eq!(x.len(), self.k, "a vector of the matrix's inner dimension");
        let dot = |row: &[f32]| row.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
        let rows = self.values.chunks_exact(self.k).map(dot);
        match bias {
            None => rows.collect(),
            Some(bias) => rows.zip(bias).map(|(y, b)| y + f64::from(*b)).collect(),
        }
    }
}

/// Rotary embedding of one kind of layer.
#[derive(Clone)]
struct Rope {
    /// Radians a position, for each pair.
    frequencies: Vec<f64>,
    /// Pairs are (2i, 2i + 1), not (i, i + n / 2).
    adjacent: bool,
}

impl Rope {
    /// Frequencies `scale * base^(-2i / dims) / factor_i`.
    fn new(dims: usize, base: f64, scale: f64, factors: Option<&[f32]>, adjacent: bool) -> Rope {
        let factor = |i: usize| factors.map_or(1.0, |factors| f64::from(factors[i]));
        let frequency = |i: usize| scale * base.powf(-2.0 * i as f64 / dims as f64) / factor(i);
        Rope { frequencies: (0..dims / 2).map(frequency).collect(), adjacent }
    }

    fn rotate(&self, head: &mut [f64], position: usize) {
        let half = self.frequencies.len();
        for (i, frequency) in self.frequencies.iter().enumerate() {
            let (a, b) = if self.adjacent { (2 * i, 2 * i + 1) } else { (i, i + half) };
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
        }
    }
}

struct Layer {
    attn_norm: Vec<f32>,
    /// Queries, keys, values, each with its bias where the file has one.
    qkv: [(Matrix, Option<Vec<f32>>); 3],
    qk_norms: Option<[Vec<f32>; 2]>,
    attn_output: Matrix,
    post_attention_norm: Option<Vec<f32>>,
    ffn_norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    post_ffw_norm: Option<Vec<f32>>,
    rope: Rope,
    window: Option<usize>,
}

/// A model held in memory for the twin.
pub struct Twin {
    embedding: Matrix,
    embed_scale: f64,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    output: Option<Matrix>,
    gelu: bool,
    n_head: usize,
    n_head_kv: usize,
    d_k: usize,
    d_v: usize,
    eps: f64,
}

/// Keys and values of the positions so far, for each layer.
#[derive(Clone, Default)]
pub struct Past {
    keys: Vec<Vec<Vec<f64>>>,
    values: Vec<Vec<Vec<f64>>>,
    position: usize,
}

/// Reads tensors and keys below the architecture's prefix.
struct Reader<'a> {
    file: Gguf<'a>,
    arch: String,
}

impl Reader<'_> {
    fn vector(&self, name: &str) -> Option<Vec<f32>> {
        let info = self.file.tensor(name)?;
        let decode = info.format.decoder().unwrap_or_else(|| panic!("{name}: {} has no decoder", info.format));
        let mut values = vec![0.0; info.shape.elements() as usize];
        decode(&self.file.little_endian(info), &mut values);
        Some(values)
    }

    fn required(&self, name: &str) -> Vec<f32> {
        self.vector(name).unwrap_or_else(|| panic!("the file has no tensor {name}"))
    }

    fn matrix(&self, name: &str) -> Matrix {
        let k = self.file.tensor(name).map_or(0, |info| info.shape.k() as usize);
        Matrix { k, values: self.required(name) }
    }

    fn meta(&self) -> &Meta<'_> {
        self.file.meta()
    }

    fn count(&self, key: &str) -> Option<usize> {
        let value = self.meta().opt_u32(&format!("{}.{key}", self.arch));
        value.unwrap_or_else(|error| panic!("{error}")).map(|value| value as usize)
    }

    fn float(&self, key: &str) -> Option<f64> {
        let value = self.meta().opt_f32(&format!("{}.{key}", self.arch));
        value.unwrap_or_else(|error| panic!("{error}")).map(f64::from)
    }
}

impl Twin {
    /// Decodes a whole model.
    ///
    /// # Panics
    /// If the bytes are no sound llama or gemma3 model: the twin is for sound files only.
    pub fn load(bytes: &[u8]) -> Twin {
        let file = Gguf::parse(bytes).unwrap_or_else(|error| panic!("{error}"));
        let arch = file.meta().str("general.architecture").unwrap_or_else(|error| panic!("{error}")).to_string();
        assert!(["llama", "gemma3"].contains(&arch.as_str()), "the twin knows no architecture {arch}");
        let gemma = arch == "gemma3";
        let reader = Reader { file, arch };
        let count = |key: &str| reader.count(key).unwrap_or_else(|| panic!("the file has no key {key}"));
        let (n_embd, n_head) = (count("embedding_length"), count("attention.head_count"));
        let d_k = reader.count("attention.key_length").unwrap_or(n_embd / n_head);
        let dims = reader.count("rope.dimension_count").unwrap_or(d_k);
        let base = reader.float("rope.freq_base").unwrap_or(10_000.0);
        let scale = 1.0 / reader.float("rope.scaling.factor").unwrap_or(1.0);
        let factors = reader.vector("rope_freqs.weight");
        let global = Rope::new(dims, base, scale, factors.as_deref(), !gemma);
        let local = Rope::new(dims, 10_000.0, 1.0, None, false);
        let window = reader.count("attention.sliding_window");
        let layer = |il: usize| {
            let slides = gemma && il % 6 != 5;
            let rope = if slides { local.clone() } else { global.clone() };
            Layer::load(&reader, il, rope, window.filter(|_| slides))
        };
        Twin {
            embedding: reader.matrix("token_embd.weight"),
            embed_scale: if gemma { (n_embd as f64).sqrt() } else { 1.0 },
            layers: (0..count("block_count")).map(layer).collect(),
            output_norm: reader.required("output_norm.weight"),
            output: reader.file.tensor("output.weight").map(|_| reader.matrix("output.weight")),
            gelu: gemma,
            n_head,
            n_head_kv: reader.count("attention.head_count_kv").unwrap_or(n_head),
            d_k,
            d_v: reader.count("attention.value_length").unwrap_or(d_k),
            eps: reader.float("attention.layer_norm_rms_epsilon").unwrap_or(0.0),
        }
    }

    /// Logits after each of `tokens`, which follow those of `past`.
    pub fn logits(&self, past: &mut Past, tokens: &[u32]) -> Vec<Vec<f64>> {
        tokens.iter().map(|&token| self.step(past, token)).collect()
    }

    /// The logits after one more token.
    pub fn step(&self, past: &mut Past, token: u32) -> Vec<f64> {
        past.keys.resize(self.layers.len(), Vec::new());
        past.values.resize(self.layers.len(), Vec::new());
        let row = self.embedding.row(token as usize);
        let mut x: Vec<f64> = row.iter().map(|w| f64::from(*w) * self.embed_scale).collect();
        for (il, layer) in self.layers.iter().enumerate() {
            let attended = self.attention(past, il, &rms_norm(&x, &layer.attn_norm, self.eps));
            add(&mut x, &self.optional_norm(attended, layer.post_attention_norm.as_deref()));
            let fed = self.feed_forward(layer, &rms_norm(&x, &layer.ffn_norm, self.eps));
            add(&mut x, &self.optional_norm(fed, layer.post_ffw_norm.as_deref()));
        }
        past.position += 1;
        let x = rms_norm(&x, &self.output_norm, self.eps);
        self.output.as_ref().unwrap_or(&self.embedding).times(&x, None)
    }

    fn optional_norm(&self, x: Vec<f64>, weight: Option<&[f32]>) -> Vec<f64> {
        weight.map_or_else(|| x.clone(), |weight| rms_norm(&x, weight, self.eps))
    }

    /// Attention of the current position over itself and the past, through the output projection.
    fn attention(&self, past: &mut Past, il: usize, x: &[f64]) -> Vec<f64> {
        let layer = &self.layers[il];
        let [mut q, mut k, v] = [0, 1, 2].map(|i| layer.qkv[i].0.times(x, layer.qkv[i].1.as_deref()));
        for (rows, norm) in [(&mut q, 0), (&mut k, 1)] {
            for head in rows.chunks_exact_mut(self.d_k) {
                if let Some(norms) = &layer.qk_norms {
                    head.copy_from_slice(&rms_norm(head, &norms[norm], self.eps));
                }
                layer.rope.rotate(head, past.position);
            }
        }
        past.keys[il].push(k);
        past.values[il].push(v);
        let first = layer.window.map_or(0, |window| (past.position + 1).saturating_sub(window));
        let (keys, values) = (&past.keys[il][first..], &past.values[il][first..]);
        let group = self.n_head / self.n_head_kv;
        let mut out = Vec::with_capacity(self.n_head * self.d_v);
        for (head, q) in q.chunks_exact(self.d_k).enumerate() {
            let kv = head / group;
            let score = |k: &Vec<f64>| {
                q.iter().zip(&k[kv * self.d_k..]).map(|(q, k)| q * k).sum::<f64>() / (self.d_k as f64).sqrt()
            };
            let scores: Vec<f64> = keys.iter().map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            let value =
                |i: usize| weights.iter().zip(values).map(|(w, v)| w * v[kv * self.d_v + i]).sum::<f64>() / total;
            out.extend((0..self.d_v).map(value));
        }
        layer.attn_output.times(&out, None)
    }

    /// `down(act(gate(x)) * up(x))`.
    fn feed_forward(&self, layer: &Layer, x: &[f64]) -> Vec<f64> {
        let act = if self.gelu { gelu } else { silu };
        let gate = layer.gate.times(x, None);
        let up = layer.up.times(x, None);
        let hidden: Vec<f64> = gate.iter().zip(&up).map(|(gate, up)| act(*gate) * up).collect();
        layer.down.times(&hidden, None)
    }
}

impl Layer {
    fn load(reader: &Reader, il: usize, rope: Rope, window: Option<usize>) -> Layer {
        let name = |tensor: &str| format!("blk.{il}.{tensor}");
        let matrix = |tensor: &str| reader.matrix(&name(&format!("{tensor}.weight")));
        let vector = |tensor: &str| reader.vector(&name(&format!("{tensor}.weight")));
        let required = |tensor: &str| reader.required(&name(&format!("{tensor}.weight")));
        let project = |tensor: &str| (matrix(tensor), reader.vector(&name(&format!("{tensor}.bias"))));
        Layer {
            attn_norm: required("attn_norm"),
            qkv: ["attn_q", "attn_k", "attn_v"].map(project),
            qk_norms: vector("attn_q_norm").map(|q| [q, required("attn_k_norm")]),
            attn_output: matrix("attn_output"),
            post_attention_norm: vector("post_attention_norm"),
            ffn_norm: required("ffn_norm"),
            gate: matrix("ffn_gate"),
            up: matrix("ffn_up"),
            down: matrix("ffn_down"),
            post_ffw_norm: vector("post_ffw_norm"),
            rope,
            window,
        }
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight`.
fn rms_norm(x: &[f64], weight: &[f32], eps: f64) -> Vec<f64> {
    assert_eq!(x.len(), weight.len(), "a norm as wide as its input");
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let factor = 1.0 / (mean + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * factor * f64::from(*w)).collect()
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// The tanh form of GELU (Hendrycks, Gimpel 2016).
fn gelu(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

/// The largest logit's id; the lowest wins a tie.
pub fn argmax(logits: &[f64]) -> u32 {
    let best = (0..logits.len()).reduce(|best, id| if logits[id] > logits[best] { id } else { best });
    best.unwrap_or(0) as u32
}
