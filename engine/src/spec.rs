//! Hyperparameters: what the metadata says about a model, checked once.
//!
//! A [`Spec`] is plain numbers. It knows keys and their allowed ranges; it knows neither tensors nor devices.
//! Architectures fill it from [`Keys`] and set what is theirs; everything later reads only the `Spec`.

use crate::error::{Error, Result};
use crate::models;

pub use kernels::rowwise::Pairing;

/// Upper bounds that no real model reaches: they keep products far from overflow and refuse damaged files early.
mod caps {
    pub const LAYERS: u32 = 1 << 10;
    pub const WIDTH: u32 = 1 << 20;
    pub const HEADS: u32 = 1 << 12;
    pub const HEAD_DIM: u32 = 1 << 10;
    pub const VOCAB: usize = 1 << 24;
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
    /// Size of a key head.
    pub d_k: usize,
    /// Size of a value head.
    pub d_v: usize,
    /// Epsilon of every norm.
    pub norm_eps: f32,
    /// Factor on query-key products.
    pub attn_scale: f32,
    /// Factor on embedding rows.
    pub embed_scale: f32,
    /// Rotary embeddings.
    pub ropes: Vec<Rope>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
}

impl Spec {
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

    /// Positions of linear rope scaling as a factor on positions. Other kinds of scaling are an error that names them.
    pub fn linear_rope_scale(&self) -> Result<f64> {
        match self.opt_str("rope.scaling.type")? {
            None | Some("none") => Ok(1.0),
            Some("linear") => {
                let factor = self.float("rope.scaling.factor", 1e-3..=1e6, None)?;
                Ok(1.0 / f64::from(factor))
            }
            Some(other) => Err(self.range("rope.scaling.type", other, "none or linear for this architecture")),
        }
    }

    /// The hyperparameters that every decoder shares. The caller changes what its architecture does otherwise.
    pub fn decoder(&self, pairing: Pairing) -> Result<Spec> {
        let n_layer = self.count("block_count", caps::LAYERS)?;
        let n_embd = self.count("embedding_length", caps::WIDTH)?;
        let n_head = self.per_layer("attention.head_count", n_layer, caps::HEADS)?;
        let kv_key = "attention.head_count_kv";
        let n_head_kv = match self.meta.get(&self.full(kv_key)) {
            None => n_head.clone(),
            Some(_) => self.per_layer(kv_key, n_layer, caps::HEADS)?,
        };
        let n_ff = self.per_layer("feed_forward_length", n_layer, caps::WIDTH)?;
        for (h, kv) in n_head.iter().zip(&n_head_kv) {
            if h % kv != 0 {
                return Err(self.range(kv_key, kv, format!("a divisor of attention.head_count, {h}")));
            }
        }
        let d_k = match self.opt_count("attention.key_length", caps::HEAD_DIM)? {
            Some(d) => d,
            None if n_embd % n_head[0] == 0 && n_embd / n_head[0] <= caps::HEAD_DIM as usize => n_embd / n_head[0],
            None => {
                return Err(self.range(
                    "attention.head_count",
                    n_head[0],
                    format!("a divisor of embedding_length, {n_embd}"),
                ));
            }
        };
        let d_v = self.opt_count("attention.value_length", caps::HEAD_DIM)?.unwrap_or(d_k);
        let rope_dims = self.opt_count("rope.dimension_count", caps::HEAD_DIM)?.unwrap_or(d_k);
        if rope_dims > d_k || rope_dims % 2 != 0 {
            return Err(self.range(
                "rope.dimension_count",
                rope_dims,
                format!("an even number up to the head's size, {d_k}"),
            ));
        }
        let rope = Rope {
            dims: rope_dims,
            base: f64::from(self.float("rope.freq_base", 1.0..=1e12, Some(10000.0))?),
            scale: 1.0,
            pairing,
        };
        let layers = (0..n_layer)
            .map(|i| Layer { n_head: n_head[i], n_head_kv: n_head_kv[i], n_ff: n_ff[i], window: None, rope: Some(0) })
            .collect();
        Ok(Spec {
            arch: self.arch,
            name: self.meta.opt_str("general.name")?.unwrap_or(self.arch.name).to_string(),
            n_vocab: self.n_vocab()?,
            n_embd,
            n_ctx_train: self.count("context_length", u32::MAX)?,
            d_k,
            d_v,
            norm_eps: self.float("attention.layer_norm_rms_epsilon", 1e-12..=1.0, None)?,
            attn_scale: 1.0 / (d_k as f32).sqrt(),
            embed_scale: 1.0,
            ropes: vec![rope],
            layers,
        })
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
