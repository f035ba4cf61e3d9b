//! Metadata of a shape: hyperparameters under the keys of its architecture, and a vocabulary of bytes.

use engine::tokenizer::byte_symbol;
use gguf::{Builder, Endian, ValueBuf};

use super::shapes::{Family, Shape, Stretch};
use crate::error::Result;
use crate::quantize::QUANTIZATION_VERSION;
use crate::quantize::types::FileType;

/// Token types.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// Begins and ends a text.
const BOS: &str = "<s>";
const EOS: &str = "</s>";

/// A file with all keys and no tensors.
///
/// # Errors
/// Never for the shapes of the list.
pub fn builder(shape: &Shape, kind: &FileType) -> Result<Builder> {
    let mut head = Builder::new(Endian::Little);
    head.key("general.architecture", shape.family.name())?;
    head.key("general.type", "model")?;
    head.key("general.name", format!("{} shape, random weights", shape.name))?;
    head.key("general.size_label", shape.label)?;
    for (key, value) in hyperparameters(shape) {
        head.key(&format!("{}.{key}", shape.family.name()), value)?;
    }
    vocabulary(&mut head, shape)?;
    head.key("general.quantization_version", QUANTIZATION_VERSION)?;
    head.key("general.file_type", kind.id)?;
    Ok(head)
}

fn hyperparameters(shape: &Shape) -> Vec<(&'static str, ValueBuf)> {
    let [heads, kv, head] = shape.heads;
    let mut keys: Vec<(&str, ValueBuf)> = vec![
        ("block_count", shape.layers.into()),
        ("context_length", shape.context.into()),
        ("embedding_length", shape.width.into()),
        ("feed_forward_length", shape.ff.into()),
        ("attention.head_count", heads.into()),
        ("attention.head_count_kv", kv.into()),
        ("rope.freq_base", shape.base.into()),
        ("attention.layer_norm_rms_epsilon", shape.eps.into()),
    ];
    if matches!(shape.family, Family::Llama | Family::Gemma3) {
        keys.extend([("attention.key_length", head.into()), ("attention.value_length", head.into())]);
    }
    if matches!(shape.family, Family::Llama | Family::Phi3) {
        keys.extend([("vocab_size", shape.vocab.into()), ("rope.dimension_count", shape.rotated.into())]);
    }
    keys.extend(shape.window.map(|window| ("attention.sliding_window", window.into())));
    if let Stretch::Long(original) = shape.stretch {
        // Attention is sharpened with the logarithm of how much longer the context has become.
        let longer = f64::from(shape.context) / f64::from(original);
        let factor = (1.0 + longer.ln() / f64::from(original).ln()).sqrt();
        keys.extend([
            ("rope.scaling.original_context_length", original.into()),
            ("rope.scaling.attn_factor", ValueBuf::F32(factor as f32)),
        ]);
    }
    keys
}

/// Byte-level BPE without merges: a token for each byte, then the two of the roles, then words that no text contains as
/// one, so that the table has its size.
fn vocabulary(head: &mut Builder, shape: &Shape) -> Result<()> {
    let mut tokens: Vec<String> = (0..=255).map(|byte| byte_symbol(byte).to_string()).collect();
    tokens.extend([BOS.to_string(), EOS.to_string()]);
    let (bos, eos) = (tokens.len() as u32 - 2, tokens.len() as u32 - 1);
    let space = byte_symbol(b' ');
    tokens.extend((eos + 1..shape.vocab).map(|id| format!("{space}w{id}")));
    let kind = |id: u32| if id == bos || id == eos { CONTROL } else { NORMAL };
    head.key("tokenizer.ggml.model", "gpt2")?;
    head.key("tokenizer.ggml.pre", "gpt-2")?;
    head.key("tokenizer.ggml.tokens", tokens)?;
    head.key("tokenizer.ggml.token_type", (0..shape.vocab).map(kind).collect::<Vec<i32>>())?;
    head.key("tokenizer.ggml.merges", Vec::<String>::new())?;
    head.key("tokenizer.ggml.bos_token_id", bos)?;
    head.key("tokenizer.ggml.eos_token_id", eos)?;
    head.key("tokenizer.ggml.add_bos_token", shape.family.adds_bos())?;
    Ok(())
}
