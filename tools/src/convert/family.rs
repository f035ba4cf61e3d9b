//! THE list of families that are converted: their classes, their tensors, and the keys of their metadata.
//!
//! Names of keys and tensors are those that llama.cpp's converter writes.

use gguf::{Builder, ValueBuf};

use super::config::{Config, Stretch};
use crate::error::Result;

/// A family.
pub struct Family {
    /// The classes of `config.json` that it is.
    pub classes: &'static [&'static str],
    /// Its name in GGUF.
    pub arch: &'static str,
    /// Lists of its tensors.
    pub tensors: &'static [&'static [Row]],
    /// Beginnings and ends of names that are no part of the text model.
    pub left_out: &'static [&'static str],
    /// The function between the layers of a feed-forward, by any of its names.
    pub activations: &'static [&'static str],
    /// Writes the keys of its own; the shared ones are written before.
    pub keys: fn(&Config, &mut Head) -> Result<()>,
    /// Tensors that follow from the configuration.
    pub computed: fn(&Config) -> Result<Vec<Computed>>,
    /// Whether a vocabulary of SentencePiece puts a space before a text; none where the folder says it.
    pub space_prefix: Option<bool>,
}

/// A tensor of a family: its names here and there, without `.weight` or `.bias`, `{}` for the layer.
pub struct Row {
    /// The name in safetensors, without the name of the whole model in front.
    pub from: &'static str,
    /// The name in GGUF.
    pub to: &'static str,
    /// What becomes of its numbers.
    pub change: Change,
}

/// What becomes of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Same,
    /// Rows of a query head are paired for rotation by neighbours instead of halves.
    Queries,
    /// The same for heads of keys.
    Keys,
    /// A norm that is stored as the distance from 1.
    PlusOne,
}

/// A tensor that follows from the configuration.
pub struct Computed {
    /// Its name in GGUF.
    pub name: &'static str,
    /// Its numbers.
    pub values: Vec<f32>,
}

const fn row(from: &'static str, to: &'static str) -> Row {
    Row { from, to, change: Change::Same }
}

const fn changed(from: &'static str, to: &'static str, change: Change) -> Row {
    Row { from, to, change }
}

/// What all decoders share.
const DECODER: &[Row] = &[
    row("embed_tokens", "token_embd"),
    row("lm_head", "output"),
    row("layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
    row("layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
    row("layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    row("layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    row("layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
];

/// Norms before attention and feed-forward.
const NORMS: &[Row] = &[
    row("norm", "output_norm"),
    row("layers.{}.input_layernorm", "blk.{}.attn_norm"),
    row("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
];

const LLAMA: &[Row] = &[
    changed("layers.{}.self_attn.q_proj", "blk.{}.attn_q", Change::Queries),
    changed("layers.{}.self_attn.k_proj", "blk.{}.attn_k", Change::Keys),
];

const QUERIES_AND_KEYS: &[Row] =
    &[row("layers.{}.self_attn.q_proj", "blk.{}.attn_q"), row("layers.{}.self_attn.k_proj", "blk.{}.attn_k")];

const QWEN3: &[Row] =
    &[row("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"), row("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm")];

const GEMMA3: &[Row] = &[
    changed("norm", "output_norm", Change::PlusOne),
    changed("layers.{}.input_layernorm", "blk.{}.attn_norm", Change::PlusOne),
    changed("layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm", Change::PlusOne),
    changed("layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm", Change::PlusOne),
    changed("layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", Change::PlusOne),
    changed("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Change::PlusOne),
    changed("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Change::PlusOne),
];

const PHI3: &[Row] =
    &[row("layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv"), row("layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up")];

const BERT: &[Row] = &[
    row("embeddings.word_embeddings", "token_embd"),
    row("embeddings.position_embeddings", "position_embd"),
    row("embeddings.token_type_embeddings", "token_types"),
    row("embeddings.LayerNorm", "token_embd_norm"),
    row("encoder.layer.{}.attention.self.query", "blk.{}.attn_q"),
    row("encoder.layer.{}.attention.self.key", "blk.{}.attn_k"),
    row("encoder.layer.{}.attention.self.value", "blk.{}.attn_v"),
    row("encoder.layer.{}.attention.output.dense", "blk.{}.attn_output"),
    row("encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm"),
    row("encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up"),
    row("encoder.layer.{}.output.dense", "blk.{}.ffn_down"),
    row("encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm"),
];

/// Tables of rotation that old folders store.
const TABLES: &str = ".inv_freq";

/// Every family.
pub const ALL: &[Family] = &[
    Family {
        classes: &["LlamaForCausalLM", "MistralForCausalLM"],
        arch: "llama",
        tensors: &[DECODER, NORMS, LLAMA],
        left_out: &[TABLES],
        activations: &["silu"],
        keys: llama,
        computed: llama_factors,
        space_prefix: None,
    },
    Family {
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        arch: "qwen2",
        tensors: &[DECODER, NORMS, QUERIES_AND_KEYS],
        left_out: &[TABLES],
        activations: &["silu"],
        keys: qwen,
        computed: nothing,
        space_prefix: None,
    },
    Family {
        classes: &["Qwen3ForCausalLM", "Qwen3Model"],
        arch: "qwen3",
        tensors: &[DECODER, NORMS, QUERIES_AND_KEYS, QWEN3],
        left_out: &[TABLES],
        activations: &["silu"],
        keys: qwen,
        computed: nothing,
        space_prefix: None,
    },
    Family {
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        arch: "gemma3",
        tensors: &[DECODER, QUERIES_AND_KEYS, GEMMA3],
        left_out: &[TABLES, "vision_tower.", "multi_modal_projector."],
        activations: &["gelu_pytorch_tanh"],
        keys: gemma3,
        computed: nothing,
        space_prefix: Some(false),
    },
    Family {
        classes: &["Phi3ForCausalLM"],
        arch: "phi3",
        tensors: &[DECODER, NORMS, PHI3],
        left_out: &[TABLES],
        activations: &["silu"],
        keys: phi3,
        computed: phi3_factors,
        space_prefix: None,
    },
    Family {
        classes: &["BertModel", "BertForMaskedLM"],
        arch: "bert",
        tensors: &[BERT],
        left_out: &["pooler.", "cls.", ".position_ids"],
        activations: &["gelu"],
        keys: bert,
        computed: nothing,
        space_prefix: None,
    },
];

/// The family of a configuration.
///
/// # Errors
/// It names none, or one that is not converted, or weights of another kind.
pub fn find(config: &Config) -> Result<&'static Family> {
    let classes = config.architectures();
    let known = ALL.iter().find(|f| f.classes.iter().any(|c| classes.contains(c)));
    let family = known.ok_or_else(|| {
        let known: Vec<&str> = ALL.iter().flat_map(|f| f.classes).copied().collect();
        config.unexpected("architectures", &format!("one of {}", known.join(", ")))
    })?;
    if config.get("quantization_config").is_some() {
        return Err(config.unexpected("quantization_config", "none: weights of F32, F16 or BF16"));
    }
    for key in ["hidden_act", "hidden_activation"] {
        if config.get(key).is_some() && !config.opt_str(key).is_some_and(|act| family.activations.contains(&act)) {
            return Err(config.unexpected(key, &family.activations.join(" or ")));
        }
    }
    Ok(family)
}

/// The metadata of a model with keys of its architecture.
pub struct Head {
    /// The file so far.
    pub file: Builder,
    arch: &'static str,
}

impl Head {
    /// One whose architecture is known.
    ///
    /// # Errors
    /// None for a new file.
    pub fn new(mut file: Builder, arch: &'static str) -> Result<Head> {
        file.key("general.architecture", arch)?;
        file.key("general.type", "model")?;
        Ok(Head { file, arch })
    }

    /// Writes a key below the architecture's name.
    ///
    /// # Errors
    /// It was written before.
    pub fn put(&mut self, key: &str, value: impl Into<ValueBuf>) -> Result<()> {
        Ok(self.file.key(&format!("{}.{key}", self.arch), value)?)
    }

    /// Writes a key where there is a value.
    ///
    /// # Errors
    /// It was written before.
    pub fn put_some(&mut self, key: &str, value: Option<impl Into<ValueBuf>>) -> Result<()> {
        value.map_or(Ok(()), |value| self.put(key, value))
    }
}

/// Writes the keys of a family: the shared ones, then its own.
///
/// # Errors
/// A value is missing or out of its range.
pub fn keys(family: &Family, config: &Config, head: &mut Head) -> Result<()> {
    head.put("block_count", config.count("num_hidden_layers")?)?;
    head.put("embedding_length", config.count("hidden_size")?)?;
    head.put("feed_forward_length", config.count("intermediate_size")?)?;
    (family.keys)(config, head)
}

/// Keys of decoders with `defaults` for what old configurations leave out: heads, heads of keys, head size.
fn decoder(config: &Config, head: &mut Head, defaults: [Option<u32>; 3]) -> Result<()> {
    let count = |key, default| Ok::<_, crate::error::Error>(config.opt_count(key)?.or(default));
    let heads = count("num_attention_heads", defaults[0])?;
    head.put("attention.head_count", heads.ok_or_else(|| config.unexpected("num_attention_heads", "a count"))?)?;
    head.put_some("attention.head_count_kv", count("num_key_value_heads", defaults[1])?)?;
    let size = count("head_dim", defaults[2])?;
    head.put_some("attention.key_length", size)?;
    head.put_some("attention.value_length", size)?;
    let eps = config.opt_float("rms_norm_eps")?.unwrap_or(1e-6);
    head.put("attention.layer_norm_rms_epsilon", eps as f32)
}

/// The size of a head.
fn head_size(config: &Config) -> Result<u32> {
    let heads = config.count("num_attention_heads")?.max(1);
    Ok(config.opt_count("head_dim")?.unwrap_or(config.count("hidden_size")? / heads))
}

fn context(config: &Config, head: &mut Head) -> Result<()> {
    head.put("context_length", config.count("max_position_embeddings")?)
}

/// Keys of a rotary embedding that is stretched linearly or by YaRN; other kinds are `more`.
fn rope(config: &Config, head: &mut Head, default: Option<f64>, more: &[&str]) -> Result<()> {
    let (base, stretch) = config.rope()?;
    head.put_some("rope.freq_base", base.or(default).map(|base| base as f32))?;
    let Some(stretch) = stretch else { return Ok(()) };
    match stretch.kind() {
        "linear" => {
            head.put("rope.scaling.type", "linear")?;
            head.put("rope.scaling.factor", stretch.float("factor")? as f32)
        }
        "yarn" => {
            head.put("rope.scaling.type", "yarn")?;
            head.put("rope.scaling.factor", stretch.float("factor")? as f32)?;
            let original = "original_max_position_embeddings";
            head.put("rope.scaling.original_context_length", stretch.float(original)? as u32)
        }
        kind if more.contains(&kind) => Ok(()),
        _ => Err(stretch.unknown(&[&["linear", "yarn"], more].concat().join(", "))),
    }
}

fn nothing(_: &Config) -> Result<Vec<Computed>> {
    Ok(Vec::new())
}

fn llama(config: &Config, head: &mut Head) -> Result<()> {
    context(config, head)?;
    decoder(config, head, [None; 3])?;
    rope(config, head, None, &["llama3"])?;
    head.put("vocab_size", config.count("vocab_size")?)?;
    head.put("rope.dimension_count", head_size(config)?)
}

/// Llama 3.1's factors: long waves are stretched, short ones are not, those between in part.
fn llama_factors(config: &Config) -> Result<Vec<Computed>> {
    let (base, stretch) = config.rope()?;
    let Some(stretch) = stretch.filter(|s| s.kind() == "llama3") else { return Ok(Vec::new()) };
    let (factor, low, high) =
        (stretch.float("factor")?, stretch.float("low_freq_factor")?, stretch.float("high_freq_factor")?);
    let original = stretch.float("original_max_position_embeddings")?;
    let size = head_size(config)?;
    let of = |i: u32| {
        let wave = std::f64::consts::TAU * base.unwrap_or(10_000.0).powf(f64::from(2 * i) / f64::from(size));
        let smooth = (original / wave - low) / (high - low);
        let stretched = match wave {
            _ if wave < original / high => 1.0,
            _ if wave > original / low => factor,
            _ => 1.0 / ((1.0 - smooth) / factor + smooth),
        };
        stretched as f32
    };
    Ok(vec![Computed { name: "rope_freqs.weight", values: (0..size / 2).map(of).collect() }])
}

fn qwen(config: &Config, head: &mut Head) -> Result<()> {
    context(config, head)?;
    decoder(config, head, [None; 3])?;
    rope(config, head, None, &[])
}

fn gemma3(config: &Config, head: &mut Head) -> Result<()> {
    // Configurations of models that see leave out what has its usual value.
    head.put("context_length", config.opt_count("max_position_embeddings")?.unwrap_or(131_072))?;
    decoder(config, head, [Some(8), Some(4), Some(256)])?;
    rope(config, head, Some(1e6), &[])?;
    gemma3_fixed(config)?;
    head.put_some("attention.sliding_window", config.opt_count("sliding_window")?)
}

/// What a file of this architecture cannot say, since every model that was published has it so.
fn gemma3_fixed(config: &Config) -> Result<()> {
    let heads = config.opt_count("num_attention_heads")?.unwrap_or(8).max(1);
    // The largest scales its queries by what heads would have if they shared out the width.
    let scalar = match config.opt_count("num_hidden_layers")? {
        Some(62) => config.count("hidden_size")? / heads,
        _ => config.opt_count("head_dim")?.unwrap_or(256),
    };
    if config.opt_float("query_pre_attn_scalar")?.unwrap_or(256.0) != f64::from(scalar) {
        return Err(config.unexpected("query_pre_attn_scalar", &format!("{scalar} (256 where it is missing)")));
    }
    if config.opt_count("sliding_window_pattern")?.unwrap_or(6) != 6 {
        return Err(config.unexpected("sliding_window_pattern", "6"));
    }
    if config.opt_float("rope_local_base_freq")?.unwrap_or(10_000.0) != 10_000.0 {
        return Err(config.unexpected("rope_local_base_freq", "10000"));
    }
    let kinds = config.get("layer_types").and_then(serde_json::Value::as_array);
    let usual = |(i, kind): (usize, &serde_json::Value)| {
        kind == if i % 6 == 5 { "full_attention" } else { "sliding_attention" }
    };
    match kinds.is_none_or(|kinds| kinds.iter().enumerate().all(usual)) {
        true => Ok(()),
        false => {
            Err(config.unexpected("layer_types", "every sixth layer full_attention, the others sliding_attention"))
        }
    }
}

fn phi3(config: &Config, head: &mut Head) -> Result<()> {
    context(config, head)?;
    decoder(config, head, [None; 3])?;
    rope(config, head, Some(10_000.0), LONG)?;
    head.put("rope.dimension_count", phi3_rotated(config)?)?;
    head.put("attention.sliding_window", config.opt_count("sliding_window")?.unwrap_or(0))?;
    head.put("rope.scaling.original_context_length", phi3_original(config)?)?;
    if let Some((_, sharpened)) = phi3_stretch(config)? {
        head.put("rope.scaling.attn_factor", sharpened as f32)?;
    }
    Ok(())
}

/// Kinds of stretch by two lists of factors, of which the longer ones count in long contexts.
const LONG: &[&str] = &["longrope", "su"];

fn phi3_original(config: &Config) -> Result<u32> {
    match config.opt_count("original_max_position_embeddings")? {
        Some(original) => Ok(original),
        None => config.count("max_position_embeddings"),
    }
}

/// Elements of a head that turn.
fn phi3_rotated(config: &Config) -> Result<u32> {
    let part = config.opt_float("partial_rotary_factor")?.unwrap_or(1.0);
    Ok((part * f64::from(head_size(config)?)) as u32)
}

/// How a long context is stretched, and what that multiplies sines by.
fn phi3_stretch(config: &Config) -> Result<Option<(Stretch<'_>, f64)>> {
    let Some(stretch) = config.rope()?.1.filter(|s| LONG.contains(&s.kind())) else { return Ok(None) };
    let original = f64::from(phi3_original(config)?.max(2));
    let longer = f64::from(config.count("max_position_embeddings")?) / original;
    let sharpened = if longer <= 1.0 { 1.0 } else { (1.0 + longer.ln() / original.ln()).sqrt() };
    Ok(Some((stretch, sharpened)))
}

fn phi3_factors(config: &Config) -> Result<Vec<Computed>> {
    let Some((stretch, _)) = phi3_stretch(config)? else { return Ok(Vec::new()) };
    let half = phi3_rotated(config)? as usize / 2;
    let factors = |key| {
        let values = stretch.floats(key)?;
        match values.len() == half {
            true => Ok(values),
            false => Err(config.fault(format!("{key} has {} numbers: expected {half}", values.len()))),
        }
    };
    Ok(vec![
        Computed { name: "rope_factors_long.weight", values: factors("long_factor")? },
        Computed { name: "rope_factors_short.weight", values: factors("short_factor")? },
    ])
}

fn bert(config: &Config, head: &mut Head) -> Result<()> {
    if config.opt_str("position_embedding_type").is_some_and(|kind| kind != "absolute") {
        return Err(config.unexpected("position_embedding_type", "absolute"));
    }
    context(config, head)?;
    head.put("attention.head_count", config.count("num_attention_heads")?)?;
    head.put("attention.layer_norm_epsilon", config.opt_float("layer_norm_eps")?.unwrap_or(1e-12) as f32)?;
    head.put("attention.causal", false)?;
    let kinds = config.opt_count("type_vocab_size")?;
    Ok(kinds.map_or(Ok(()), |kinds| head.file.key("tokenizer.ggml.token_type_count", kinds))?)
}
