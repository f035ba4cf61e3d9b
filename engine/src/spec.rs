//! Hyperparameters: what the metadata says about a model, checked once.
//!
//! A [`Spec`] is plain numbers. It knows keys and their allowed ranges; it knows neither tensors nor devices.
//! Architectures fill it from [`Keys`] and set what is theirs; everything later reads only the `Spec`.

use crate::error::{Error, Result};
use crate::models;

pub use kernels::rowwise::{Activation, Pairing};

/// Upper bounds that no real model reaches: they keep products far from overflow and refuse damaged files early.
mod caps {
    pub const LAYERS: u32 = 1 << 10;
    pub const WIDTH: u32 = 1 << 20;
    pub const HEADS: u32 = 1 << 12;
    pub const HEAD_DIM: u32 = 1 << 10;
    pub const VOCAB: usize = 1 << 24;
    pub const EXPERTS: u32 = 512;
}

/// One rotary embedding of a model (some models have two).
#[derive(Clone, Debug)]
pub struct Rope {
    /// Elements of a head that rotate; even, at most the head's size.
    pub dims: usize,
    /// Base of the geometric series of wavelengths.
    pub base: f64,
    /// Positions are multiplied by this (1 / the linear scaling factor).
    pub scale: f64,
    /// Which elements pair up.
    pub pairing: Pairing,
    /// Stretching of the context by YaRN.
    pub yarn: Option<Yarn>,
    /// Factor on cosines and sines.
    pub magnitude: f64,
    /// The context from which on files with two sets of factors mean the long ones.
    pub long_from: Option<usize>,
}

/// Context stretched by YaRN (Peng et al., 2023): long wavelengths are interpolated, short ones kept, with a ramp
/// between them.
#[derive(Clone, Copy, Debug)]
pub struct Yarn {
    /// How many times longer the context became.
    pub factor: f64,
    /// The context before.
    pub original: usize,
    /// Pairs that turn more often than this over the original context are kept.
    pub beta_fast: f64,
    /// Pairs that turn less often than this are interpolated.
    pub beta_slow: f64,
}

impl Rope {
    /// The same with another base, and neither scaled nor stretched.
    pub fn unscaled(&self, base: f64) -> Rope {
        Rope { base, scale: 1.0, yarn: None, magnitude: 1.0, long_from: None, ..*self }
    }
}

/// How rows are normalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// By their root mean square.
    Rms,
    /// By mean and variance; a bias where the file has one.
    Layer,
}

/// Norms of queries and keys before rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    Absent,
    /// Where the file has their weights.
    Optional,
    /// Always.
    Required,
}

/// Mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: usize,
    /// Experts that each token uses.
    pub used: usize,
    /// Width of an expert's feed-forward.
    pub n_ff: usize,
    /// Whether the weights of a token's experts are scaled to a sum of 1.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// Keys and values of all heads from one compressed row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latent {
    /// Elements of a query or key head as the model has it, rotated ones included.
    pub d_k: usize,
    /// Elements of a value head as the model has it.
    pub d_v: usize,
    /// Elements of the compressed row.
    pub kv_rank: usize,
    /// Elements of the compressed query, where queries are compressed too.
    pub q_rank: Option<usize>,
    /// Whether the cache holds compressed rows.
    pub absorbed: bool,
    /// Width of the shared experts; 0 where there are none.
    pub n_ff_shared: usize,
}

/// How the rows of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first.
    First,
    /// The last.
    Last,
}

/// What differs between layers.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads; divides `n_head`.
    pub n_head_kv: usize,
    /// Width of the feed-forward.
    pub n_ff: usize,
    /// Keys at this distance or farther are masked.
    pub window: Option<usize>,
    /// Index into [`Spec::ropes`]; none where the layer has no rotary embedding.
    pub rope: Option<usize>,
    /// Whether its feed-forward is a mixture of experts.
    pub experts: bool,
}

/// A model's hyperparameters.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its row in the registry of architectures.
    pub arch: &'static models::Arch,
    /// `general.name`, or the architecture's name.
    pub name: String,
    /// Rows of the embedding.
    pub n_vocab: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Context the model was trained for.
    pub n_ctx_train: usize,
    /// Context asked for.
    pub n_ctx: usize,
    /// Whether positions beyond the trained context have no meaning at all.
    pub learned_positions: bool,
    /// Size of a key head.
    pub d_k: usize,
    /// Size of a value head.
    pub d_v: usize,
    /// What every norm is.
    pub norm: NormKind,
    /// Epsilon of every norm.
    pub norm_eps: f32,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Whether what attention and feed-forward add is normalized.
    pub post_norms: bool,
    /// Activation of the feed-forward.
    pub act: Activation,
    /// Factor on query-key products.
    pub attn_scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub attn_softcap: Option<f32>,
    /// Whether a token sees those before it only.
    pub causal: bool,
    /// Slopes of the penalty on distance, one a head: ALiBi (Press et al., 2022).
    pub alibi: Vec<f32>,
    /// Factor on embedding rows.
    pub embed_scale: f32,
    /// Factor on what attention and feed-forward add.
    pub residual_scale: f32,
    /// Factor on logits.
    pub logit_scale: f32,
    /// Logits become `cap * tanh(logit / cap)`.
    pub logit_softcap: Option<f32>,
    /// Mixture of experts, where the model is one.
    pub experts: Option<Experts>,
    /// Latent attention, where the model has it.
    pub latent: Option<Latent>,
    /// Whether attention and feed-forward take the same rows.
    pub parallel: bool,
    /// How an embedding model pools; none where the file says nothing.
    pub pooling: Option<Pooling>,
    /// Whether the result is the hidden state instead of logits.
    pub hidden: bool,
    /// Rotary embeddings.
    pub ropes: Vec<Rope>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
}

impl Spec {
    /// Makes an encoder of it: tokens see those before and after them within half a window, and the result is the hidden
    /// state.
    pub fn read_both_ways(&mut self) {
        (self.causal, self.hidden) = (false, true);
        // Distances up to half the window are seen.
        self.layers.iter_mut().for_each(|layer| layer.window = layer.window.map(|w| w / 2 + 1));
    }

    /// Slopes for all heads: `2^(-max / n)` and its powers, with the odd powers of its root for the heads beyond the
    /// largest power of two, `n`.
    pub fn set_alibi(&mut self, max: f64) {
        let heads = self.layers[0].n_head;
        let n = 1 << heads.ilog2();
        let slope = |h: usize| match h < n {
            true => libm::exp2(-max * (h + 1) as f64 / n as f64),
            false => libm::exp2(-max / 2.0 * (2 * (h - n) + 1) as f64 / n as f64),
        };
        self.alibi = (0..heads).map(|h| slope(h) as f32).collect();
    }

    /// Makes layers slide over a window, all but every `n`-th of them, by the rotary embedding `rope`.
    pub fn slide(&mut self, window: Option<usize>, n: usize, rope: usize) {
        for (_, layer) in self.layers.iter_mut().enumerate().filter(|(il, _)| il % n < n - 1) {
            layer.window = window;
            layer.rope = Some(rope);
        }
    }

    /// Reads the hyperparameters of any registered architecture.
    ///
    /// # Errors
    /// An unknown architecture, or the key that is missing, of the wrong type or out of range.
    pub fn from_meta(meta: &gguf::Meta) -> Result<Spec> {
        let found = meta.str("general.architecture")?;
        let arch = models::ALL.iter().find(|a| a.name == found).ok_or_else(|| Error::Architecture {
            found: found.to_string(),
            known: models::ALL.iter().map(|a| a.name).collect::<Vec<_>>().join(", "),
        })?;
        (arch.spec)(&Keys { meta, arch })
    }

    /// Bytes of KV cache that one position takes, over all layers, for elements of `element` bytes.
    pub fn kv_bytes_per_token(&self, element: usize) -> usize {
        self.layers.iter().map(|l| l.n_head_kv * (self.d_k + self.d_v) * element).sum()
    }
}

/// The metadata as an architecture sees it: keys below its own prefix, each error naming the whole key.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    meta: &'a gguf::Meta<'a>,
    arch: &'static models::Arch,
}

impl Keys<'_> {
    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.arch.name)
    }

    fn range(&self, key: &str, found: impl ToString, expected: impl ToString) -> Error {
        Error::Key { key: self.full(key), found: found.to_string(), expected: expected.to_string() }
    }

    /// A required count in `1..=max`.
    pub fn count(&self, key: &str, max: u32) -> Result<usize> {
        let v = self.meta.u32(&self.full(key))?;
        self.bounded(key, v, max)
    }

    /// A count in `1..=max` where the key is present.
    pub fn opt_count(&self, key: &str, max: u32) -> Result<Option<usize>> {
        self.meta.opt_u32(&self.full(key))?.map(|v| self.bounded(key, v, max)).transpose()
    }

    fn bounded(&self, key: &str, v: u32, max: u32) -> Result<usize> {
        if v == 0 || v > max {
            return Err(self.range(key, v, format!("1 to {max}")));
        }
        Ok(v as usize)
    }

    /// A float that must be finite and in `min..=max`; `default` where the key is absent.
    pub fn float(&self, key: &str, range: std::ops::RangeInclusive<f32>, default: Option<f32>) -> Result<f32> {
        let v = match (self.meta.opt_f32(&self.full(key))?, default) {
            (Some(v), _) => v,
            (None, Some(d)) => return Ok(d),
            (None, None) => self.meta.f32(&self.full(key))?,
        };
        if !range.contains(&v) {
            return Err(self.range(key, v, format!("{:e} to {:e}", range.start(), range.end())));
        }
        Ok(v)
    }

    /// A string where the key is present.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        Ok(self.meta.opt_str(&self.full(key))?)
    }

    /// One count a layer: a number for all of them, or an array of as many as there are layers.
    pub fn per_layer(&self, key: &str, n_layer: usize, max: u32) -> Result<Vec<usize>> {
        let full = self.full(key);
        let Some(gguf::Value::Array(array)) = self.meta.get(&full) else {
            return Ok(vec![self.count(key, max)?; n_layer]);
        };
        let Some(ints) = array.ints() else {
            return Err(self.range(key, "an array of no integers", "integers"));
        };
        if array.len() != n_layer {
            return Err(self.range(
                key,
                format!("an array of {}", array.len()),
                format!("{n_layer} numbers, one a layer"),
            ));
        }
        ints.map(|v| {
            u32::try_from(v)
                .map_err(|_| self.range(key, v, format!("1 to {max}")))
                .and_then(|v| self.bounded(key, v, max))
        })
        .collect()
    }

    /// A boolean, `default` where the key is absent.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.meta.opt_bool(&self.full(key))?.unwrap_or(default))
    }

    /// A float above 0 where the key is present.
    pub fn opt_positive(&self, key: &str) -> Result<Option<f32>> {
        match self.meta.opt_f32(&self.full(key))? {
            None => Ok(None),
            Some(_) => self.float(key, 1e-6..=1e6, None).map(Some),
        }
    }

    /// Reads how a rotary embedding is scaled: linearly or by YaRN. Other kinds are an error that names them.
    fn rope_scaling(&self, rope: &mut Rope) -> Result<()> {
        let factor = || self.float("rope.scaling.factor", 1e-3..=1e6, Some(1.0)).map(f64::from);
        rope.magnitude = f64::from(self.float("rope.scaling.attn_factor", 1e-3..=1e3, Some(1.0))?);
        match self.opt_str("rope.scaling.type")? {
            Some("none") => {}
            None | Some("linear") => rope.scale = 1.0 / factor()?,
            Some("yarn") => {
                let (factor, original) = (factor()?, self.count("rope.scaling.original_context_length", u32::MAX)?);
                let beta = |key: &str, default| self.float(key, 1e-3..=1e6, Some(default)).map(f64::from);
                let (beta_fast, beta_slow) =
                    (beta("rope.scaling.yarn_beta_fast", 32.0)?, beta("rope.scaling.yarn_beta_slow", 1.0)?);
                rope.yarn = Some(Yarn { factor, original, beta_fast, beta_slow });
                rope.magnitude *= 1.0 + 0.1 * libm::log(factor.max(1.0));
            }
            // The factors are tensors of the file.
            Some("longrope") => {}
            Some(other) => {
                return Err(self.range("rope.scaling.type", other, "none, linear, yarn or longrope"));
            }
        }
        rope.long_from = self.opt_count("rope.scaling.original_context_length", u32::MAX)?;
        Ok(())
    }

    fn pooling(&self) -> Result<Option<Pooling>> {
        let key = self.full("pooling_type");
        Ok(match self.meta.opt_u32(&key)? {
            None | Some(0) => None,
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::First),
            Some(3) => Some(Pooling::Last),
            Some(v) => return Err(self.range("pooling_type", v, "0 (none), 1 (mean), 2 (cls) or 3 (last)")),
        })
    }

    /// The keys of a mixture of experts, where there are some. `n_ff` is the width of an expert where no key says it.
    pub fn experts(&self, n_ff: usize) -> Result<Option<Experts>> {
        let Some(count) = self.opt_count("expert_count", caps::EXPERTS)? else { return Ok(None) };
        let used = self.count("expert_used_count", count as u32)?;
        let n_ff = self.opt_count("expert_feed_forward_length", caps::WIDTH)?.unwrap_or(n_ff);
        if let Some(gating) = self.meta.opt_u32(&self.full("expert_gating_func"))?
            && gating != 1
        {
            return Err(self.range("expert_gating_func", gating, "1 (softmax)"));
        }
        Ok(Some(Experts { count, used, n_ff, normalize: true, scale: 1.0 }))
    }

    /// Heads of each layer: of queries, of keys and values.
    fn heads(&self, n_layer: usize) -> Result<(Vec<usize>, Vec<usize>)> {
        let n_head = self.per_layer("attention.head_count", n_layer, caps::HEADS)?;
        let kv_key = "attention.head_count_kv";
        let n_head_kv = match self.meta.get(&self.full(kv_key)) {
            None => n_head.clone(),
            Some(_) => self.per_layer(kv_key, n_layer, caps::HEADS)?,
        };
        for (h, kv) in n_head.iter().zip(&n_head_kv) {
            if h % kv != 0 {
                return Err(self.range(kv_key, kv, format!("a divisor of attention.head_count, {h}")));
            }
        }
        Ok((n_head, n_head_kv))
    }

    /// Size of a key head.
    fn key_length(&self, n_embd: usize, n_head: usize) -> Result<usize> {
        match self.opt_count("attention.key_length", caps::HEAD_DIM)? {
            Some(d) => Ok(d),
            None if n_embd.is_multiple_of(n_head) && n_embd / n_head <= caps::HEAD_DIM as usize => Ok(n_embd / n_head),
            None => Err(self.range("attention.head_count", n_head, format!("a divisor of embedding_length, {n_embd}"))),
        }
    }

    /// The rotary embedding of heads of `d_k` elements.
    fn rope(&self, d_k: usize, pairing: Pairing) -> Result<Rope> {
        let dims = self.opt_count("rope.dimension_count", caps::HEAD_DIM)?.unwrap_or(d_k);
        if dims > d_k || dims % 2 != 0 {
            let expected = format!("an even number up to the head's size, {d_k}");
            return Err(self.range("rope.dimension_count", dims, expected));
        }
        let base = f64::from(self.float("rope.freq_base", 1.0..=1e12, Some(10000.0))?);
        let mut rope = Rope { dims, base, scale: 1.0, pairing, yarn: None, magnitude: 1.0, long_from: None };
        self.rope_scaling(&mut rope)?;
        Ok(rope)
    }

    /// The hyperparameters that every decoder shares. The caller changes what its architecture does otherwise.
    pub fn decoder(&self, pairing: Pairing, norm: NormKind) -> Result<Spec> {
        let n_layer = self.count("block_count", caps::LAYERS)?;
        let n_embd = self.count("embedding_length", caps::WIDTH)?;
        let (n_head, n_head_kv) = self.heads(n_layer)?;
        let n_ff = self.per_layer("feed_forward_length", n_layer, caps::WIDTH)?;
        let d_k = self.key_length(n_embd, n_head[0])?;
        let d_v = self.opt_count("attention.value_length", caps::HEAD_DIM)?.unwrap_or(d_k);
        let layer = |i: usize| Layer {
            n_head: n_head[i],
            n_head_kv: n_head_kv[i],
            n_ff: n_ff[i],
            window: None,
            rope: Some(0),
            experts: false,
        };
        let eps = match norm {
            NormKind::Rms => "attention.layer_norm_rms_epsilon",
            NormKind::Layer => "attention.layer_norm_epsilon",
        };
        let n_ctx_train = self.count("context_length", u32::MAX)?;
        Ok(Spec {
            arch: self.arch,
            name: self.meta.opt_str("general.name")?.unwrap_or(self.arch.name).to_string(),
            n_vocab: self.n_vocab()?,
            n_embd,
            n_ctx_train,
            n_ctx: n_ctx_train,
            learned_positions: false,
            d_k,
            d_v,
            norm,
            norm_eps: self.float(eps, 0.0..=1.0, None)?,
            qk_norm: QkNorm::Absent,
            post_norms: false,
            act: Activation::Silu,
            attn_scale: 1.0 / (d_k as f32).sqrt(),
            attn_softcap: None,
            causal: true,
            alibi: vec![],
            embed_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_softcap: None,
            experts: None,
            latent: None,
            parallel: false,
            pooling: self.pooling()?,
            hidden: false,
            ropes: vec![self.rope(d_k, pairing)?],
            layers: (0..n_layer).map(layer).collect(),
        })
    }

    /// The keys of latent attention.
    pub fn latent(&self, spec: &Spec) -> Result<Latent> {
        let of_model = |key: &str| self.opt_count(key, caps::HEAD_DIM);
        let (d_k, d_v) = (of_model("attention.key_length_mla")?, of_model("attention.value_length_mla")?);
        let rank = |key: &str| self.opt_count(key, caps::WIDTH);
        let kv_rank = self.count("attention.kv_lora_rank", caps::HEAD_DIM)?;
        let d_turned = spec.ropes[0].dims;
        let latent = Latent {
            d_k: d_k.unwrap_or(spec.d_k),
            d_v: d_v.unwrap_or(spec.d_v),
            kv_rank,
            q_rank: rank("attention.q_lora_rank")?,
            absorbed: d_k.is_some(),
            n_ff_shared: self.opt_count("expert_shared_count", 1 << 8)?.unwrap_or(0)
                * self.opt_count("expert_feed_forward_length", caps::WIDTH)?.unwrap_or(0),
        };
        if latent.d_k <= d_turned {
            return Err(self.range("rope.dimension_count", d_turned, format!("less than a head's {}", latent.d_k)));
        }
        if latent.absorbed && (spec.d_k, spec.d_v) != (kv_rank + d_turned, kv_rank) {
            let expected = format!("{}, kv_lora_rank and rope.dimension_count", kv_rank + d_turned);
            return Err(self.range("attention.key_length", spec.d_k, expected));
        }
        Ok(latent)
    }

    /// The window of sliding layers; 0 says that there is none.
    pub fn window(&self) -> Result<Option<usize>> {
        let found = self.meta.opt_u32(&self.full("attention.sliding_window"))?;
        Ok(found.filter(|&w| w > 0).map(|w| w as usize))
    }

    /// Size of the vocabulary: that of the token list. A `vocab_size` key that says otherwise is an error.
    fn n_vocab(&self) -> Result<usize> {
        let n = self.meta.array("tokenizer.ggml.tokens")?.len();
        if n == 0 || n > caps::VOCAB {
            return Err(Error::Key {
                key: "tokenizer.ggml.tokens".into(),
                found: format!("{n} tokens"),
                expected: format!("1 to {}", caps::VOCAB),
            });
        }
        if let Some(v) = self.opt_count("vocab_size", caps::VOCAB as u32)?
            && v != n
        {
            return Err(self.range("vocab_size", v, format!("{n}, the length of tokenizer.ggml.tokens")));
        }
        Ok(n)
    }
}
