//! The tiny-model maker: a whole model file in memory from a seed, of any shape and tensor format, with random weights
//! and a small vocabulary that covers every byte.
//!
//! A file has some hundred kilobytes, loads in milliseconds, and its logits are as sensitive to a wrong kernel as
//! those of a real one: what an engine gets right here at awkward shapes it gets right.

use crate::draft::{Draft, Tensor, Value};
use crate::random::Random;
use gguf::Format;

/// Architectures that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Adjacent rope pairs, SiLU, untied or tied output.
    Llama,
    /// Sliding windows, norms around each block, GELU, tied output.
    Gemma3,
}

/// Kinds of vocabulary that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vocab {
    /// SentencePiece BPE with byte fallback: tokenizer model `llama`.
    Spm,
    /// Byte-level BPE: tokenizer model `gpt2`, pre-tokenizer `gpt-2`.
    Bpe,
}

/// What to make. Start from [`Model::llama`] or [`Model::gemma3`] and change fields.
#[derive(Clone, Debug)]
pub struct Model {
    /// Architecture.
    pub arch: Arch,
    /// Kind of vocabulary.
    pub vocab: Vocab,
    /// Tokens; at least [`MIN_VOCAB`].
    pub n_vocab: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Size of a head, even.
    pub d_head: usize,
    /// Width of the feed-forward.
    pub n_ff: usize,
    /// Context length stated.
    pub n_ctx: usize,
    /// Sliding window (gemma3 only).
    pub window: usize,
    /// Format of every matrix but the embedding; rows of no whole blocks fall back to F16.
    pub format: Format,
    /// Format of the embedding (and, untied, of the output).
    pub embd_format: Format,
    /// Whether the embedding serves as output matrix too.
    pub tied: bool,
    /// Whether attention projections have biases.
    pub biases: bool,
    /// Whether there is a `rope_freqs.weight`.
    pub rope_factors: bool,
    /// Chat template.
    pub template: Option<String>,
    /// Seed of the weights.
    pub seed: u64,
}

/// Fewest tokens: 256 bytes, the specials and the pieces.
pub const MIN_VOCAB: usize = 256 + 3 + PIECES.len();

/// Pieces above single bytes. Each is the join of two earlier tokens, so that merges can make it.
const PIECES: [&str; 8] = ["he", "th", "in", " t", " the", "er", "ing", " a"];

impl Model {
    /// A small llama of awkward shape: odd vocabulary, grouped queries, a head size apart from the width.
    pub fn llama(seed: u64) -> Model {
        Model {
            arch: Arch::Llama,
            vocab: Vocab::Bpe,
            n_vocab: 299,
            n_embd: 64,
            n_layer: 2,
            n_head: 6,
            n_head_kv: 2,
            d_head: 12,
            n_ff: 88,
            n_ctx: 256,
            window: 0,
            format: Format::F32,
            embd_format: Format::F32,
            tied: false,
            biases: false,
            rope_factors: false,
            template: None,
            seed,
        }
    }

    /// A small gemma3: seven layers, so that one of them is global, and a window shorter than the prompts of tests.
    pub fn gemma3(seed: u64) -> Model {
        Model {
            arch: Arch::Gemma3,
            vocab: Vocab::Spm,
            n_layer: 7,
            n_head: 4,
            n_head_kv: 1,
            d_head: 20,
            n_ff: 72,
            window: 8,
            tied: true,
            ..Model::llama(seed)
        }
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.draft().bytes()
    }

    /// The file as entries that a test can change.
    pub fn draft(&self) -> Draft {
        let mut draft = Draft::default();
        self.hyperparameters(&mut draft);
        self.vocabulary(&mut draft);
        if let Some(template) = &self.template {
            draft.set("tokenizer.chat_template", Value::str(template));
        }
        let mut maker = Maker { draft, random: Random::new(self.seed), formats: [self.format, self.embd_format] };
        self.tensors(&mut maker);
        maker.draft
    }

    fn name(&self) -> &'static str {
        match self.arch {
            Arch::Llama => "llama",
            Arch::Gemma3 => "gemma3",
        }
    }

    fn hyperparameters(&self, draft: &mut Draft) {
        let arch = self.name();
        draft.set("general.architecture", Value::str(arch));
        draft.set("general.name", Value::str("tiny random model"));
        let counts = [
            ("vocab_size", self.n_vocab),
            ("context_length", self.n_ctx),
            ("embedding_length", self.n_embd),
            ("block_count", self.n_layer),
            ("feed_forward_length", self.n_ff),
            ("attention.head_count", self.n_head),
            ("attention.head_count_kv", self.n_head_kv),
            ("attention.key_length", self.d_head),
            ("attention.value_length", self.d_head),
        ];
        for (key, count) in counts {
            draft.set(&format!("{arch}.{key}"), Value::U32(count as u32));
        }
        draft.set(&format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(1e-5));
        draft.set(&format!("{arch}.rope.freq_base"), Value::F32(10_000.0));
        match self.arch {
            Arch::Llama => draft.set("llama.rope.dimension_count", Value::U32(self.d_head as u32)),
            Arch::Gemma3 => draft.set("gemma3.attention.sliding_window", Value::U32(self.window as u32)),
        }
    }

    /// Tokens in the order specials (SPM) or bytes (BPE) first; ids beyond the pieces are unused tokens.
    fn vocabulary(&self, draft: &mut Draft) {
        assert!(self.n_vocab >= MIN_VOCAB, "a vocabulary of {} tokens is too small", self.n_vocab);
        const NORMAL: i32 = 1;
        const UNKNOWN: i32 = 2;
        const CONTROL: i32 = 3;
        const UNUSED: i32 = 5;
        const BYTE: i32 = 6;
        let mut tokens: Vec<(String, i32)> = Vec::new();
        let specials = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)];
        let specials = specials.map(|(text, kind)| (text.to_string(), kind));
        match self.vocab {
            Vocab::Spm => {
                tokens.extend(specials);
                tokens.extend((0..=255u8).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
                tokens.extend(PIECES.map(|piece| (piece.replace(' ', "\u{2581}"), NORMAL)));
            }
            Vocab::Bpe => {
                tokens.extend((0..=255u8).map(|byte| (byte_symbol(byte).to_string(), NORMAL)));
                tokens.extend(PIECES.map(|piece| (piece.bytes().map(byte_symbol).collect(), NORMAL)));
                tokens.extend(specials);
            }
        }
        let id = |text: &str| tokens.iter().position(|token| token.0 == text).map_or(0, |id| id as u32);
        let (bos, eos, unknown) = (id("<s>"), id("</s>"), id("<unk>"));
        let letters = ('a'..='z').chain(['\u{2581}']).map(|letter| (letter.to_string(), NORMAL));
        if self.vocab == Vocab::Spm {
            let room = self.n_vocab - tokens.len();
            tokens.extend(letters.take(room));
        }
        tokens.extend((tokens.len()..self.n_vocab).map(|id| (format!("<unused{id}>"), UNUSED)));
        match self.vocab {
            Vocab::Spm => {
                draft.set("tokenizer.ggml.model", Value::str("llama"));
                draft.set("tokenizer.ggml.scores", Value::F32s((0..tokens.len()).map(|id| -(id as f32)).collect()));
            }
            Vocab::Bpe => {
                draft.set("tokenizer.ggml.model", Value::str("gpt2"));
                draft.set("tokenizer.ggml.pre", Value::str("gpt-2"));
                draft.set("tokenizer.ggml.merges", Value::Strings(merges()));
            }
        }
        let types = tokens.iter().map(|token| token.1).collect();
        draft.set("tokenizer.ggml.token_type", Value::I32s(types));
        let texts = tokens.into_iter().map(|token| token.0.into_bytes()).collect();
        draft.set("tokenizer.ggml.tokens", Value::Strings(texts));
        draft.set("tokenizer.ggml.bos_token_id", Value::U32(bos));
        draft.set("tokenizer.ggml.eos_token_id", Value::U32(eos));
        draft.set("tokenizer.ggml.unknown_token_id", Value::U32(unknown));
        draft.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    }

    fn tensors(&self, maker: &mut Maker) {
        let (embd, ff) = (self.n_embd, self.n_ff);
        let (q, kv) = (self.n_head * self.d_head, self.n_head_kv * self.d_head);
        maker.embedding("token_embd.weight", embd, self.n_vocab);
        maker.norm("output_norm.weight", embd);
        if !self.tied {
            maker.embedding("output.weight", embd, self.n_vocab);
        }
        if self.rope_factors {
            maker.vector("rope_freqs.weight", self.d_head / 2, |random| 2.5 + 1.5 * random.signed());
        }
        for layer in 0..self.n_layer {
            let name = |tensor: &str| format!("blk.{layer}.{tensor}");
            maker.norm(&name("attn_norm.weight"), embd);
            for (tensor, rows) in [("attn_q", q), ("attn_k", kv), ("attn_v", kv)] {
                maker.matrix(&name(&format!("{tensor}.weight")), embd, rows);
                if self.biases {
                    maker.vector(&name(&format!("{tensor}.bias")), rows, |random| 0.5 * random.signed());
                }
            }
            maker.matrix(&name("attn_output.weight"), q, embd);
            maker.norm(&name("ffn_norm.weight"), embd);
            maker.matrix(&name("ffn_gate.weight"), embd, ff);
            maker.matrix(&name("ffn_up.weight"), embd, ff);
            maker.matrix(&name("ffn_down.weight"), ff, embd);
            if self.arch == Arch::Gemma3 {
                maker.norm(&name("attn_q_norm.weight"), self.d_head);
                maker.norm(&name("attn_k_norm.weight"), self.d_head);
                maker.norm(&name("post_attention_norm.weight"), embd);
                maker.norm(&name("post_ffw_norm.weight"), embd);
            }
        }
    }
}

/// Collects tensors.
struct Maker {
    draft: Draft,
    random: Random,
    /// Of matrices, of embeddings.
    formats: [Format; 2],
}

impl Maker {
    fn push(&mut self, name: &str, dims: &[usize], format: Format, data: Vec<u8>) {
        let dims = dims.iter().map(|&dim| dim as u64).collect();
        let name = name.as_bytes().to_vec();
        self.draft.tensors.push(Tensor { name, dims, format: format.id(), data, offset: None });
    }

    fn vector(&mut self, name: &str, len: usize, value: impl Fn(&mut Random) -> f32) {
        let data = (0..len).flat_map(|_| value(&mut self.random).to_le_bytes()).collect();
        self.push(name, &[len], Format::F32, data);
    }

    fn norm(&mut self, name: &str, len: usize) {
        self.vector(name, len, |random| 1.0 + 0.25 * random.signed());
    }

    /// Weights of a scale that keeps the variance of what passes through.
    fn matrix(&mut self, name: &str, k: usize, rows: usize) {
        let format = self.fitting(self.formats[0], k);
        let data = weights(format, k * rows, (3.0 / k as f32).sqrt(), &mut self.random);
        self.push(name, &[k, rows], format, data);
    }

    /// As [`Maker::matrix`], but three times as large: logits that differ clearly.
    fn embedding(&mut self, name: &str, k: usize, rows: usize) {
        let format = self.fitting(self.formats[1], k);
        let data = weights(format, k * rows, (27.0 / k as f32).sqrt(), &mut self.random);
        self.push(name, &[k, rows], format, data);
    }

    fn fitting(&self, format: Format, k: usize) -> Format {
        if k.is_multiple_of(format.block_len()) { format } else { Format::F16 }
    }
}

/// `count` random weights up to about `limit` in size, as bytes of `format`.
///
/// Blocks get random codes and scales, so every code occurs; then their f16 factors are set such that the largest
/// value of a block is `limit` (values are linear in them).
///
/// # Panics
/// If the format has no decoder or `count` is no multiple of its block length.
pub fn weights(format: Format, count: usize, limit: f32, random: &mut Random) -> Vec<u8> {
    let floats = |random: &mut Random| (0..count).map(|_| limit * random.signed()).collect::<Vec<f32>>();
    match format {
        Format::F32 => floats(random).into_iter().flat_map(f32::to_le_bytes).collect(),
        Format::F16 => floats(random).into_iter().flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        Format::BF16 => floats(random).into_iter().flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        _ => {
            assert!(count.is_multiple_of(format.block_len()), "{count} weights are no whole blocks of {format}");
            (0..count / format.block_len()).flat_map(|_| block(format, limit, random)).collect()
        }
    }
}

fn block(format: Format, limit: f32, random: &mut Random) -> Vec<u8> {
    let decode = format.decoder().unwrap_or_else(|| panic!("{format} has no decoder"));
    let mut bytes: Vec<u8> = (0..format.block_bytes()).map(|_| random.bits() as u8).collect();
    format.set_factor(&mut bytes, 1.0);
    let mut values = vec![0.0; format.block_len()];
    decode(&bytes, &mut values);
    let largest = values.iter().fold(f32::MIN_POSITIVE, |max, x| x.abs().max(max));
    format.set_factor(&mut bytes, limit / largest);
    bytes
}

/// Merges of two tokens for each piece, in the order of their rank.
fn merges() -> Vec<Vec<u8>> {
    let pairs = [("h", "e"), ("t", "h"), ("i", "n"), (" ", "t"), (" t", "he"), ("e", "r"), ("in", "g"), (" ", "a")];
    let symbols = |text: &str| text.bytes().map(byte_symbol).collect::<String>();
    pairs.iter().map(|(left, right)| format!("{} {}", symbols(left), symbols(right)).into_bytes()).collect()
}

/// GPT-2's printable stand-in for a byte: itself where printable, otherwise U+0100 and up in order.
pub fn byte_symbol(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or('\u{100}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every decodable format, both architectures: the parser accepts the file and finds finite weights of the scale
    /// asked for.
    #[test]
    fn every_format_makes_a_sound_file() {
        let decodable = Format::ALL.iter().filter(|format| format.decoder().is_some());
        for &format in decodable {
            for model in [Model::llama(1), Model::gemma3(2)] {
                let k = format.block_len().max(32);
                let model = Model { format, embd_format: format, n_embd: k, n_ff: 2 * k, ..model };
                let bytes = model.bytes();
                let file = gguf::Gguf::parse(&bytes).unwrap_or_else(|error| panic!("{format}: {error}"));
                let info = file.tensor("blk.1.ffn_up.weight").unwrap();
                assert_eq!(info.format, format);
                let mut values = vec![0.0; info.shape.elements() as usize];
                format.decoder().unwrap()(file.data(info), &mut values);
                let largest = values.iter().fold(0.0f32, |max, x| x.abs().max(max));
                let limit = (3.0 / k as f32).sqrt();
                // f16 factors and bf16 values round by up to 2^-8; factors without mantissa by up to a half.
                let least = if matches!(format, Format::MXFP4 | Format::NVFP4 | Format::Q4E) { 0.5 } else { 0.9 };
                assert!((least * limit..1.01 * limit).contains(&largest), "{format}: {largest} of {limit}");
            }
        }
    }

    #[test]
    fn a_seed_makes_the_same_file() {
        assert_eq!(Model::llama(5).bytes(), Model::llama(5).bytes());
        assert_ne!(Model::llama(5).bytes(), Model::llama(6).bytes());
    }

    #[test]
    fn byte_symbols_are_those_of_gpt2() {
        assert_eq!((byte_symbol(b' '), byte_symbol(b'a'), byte_symbol(0), byte_symbol(0xad)), ('Ġ', 'a', 'Ā', 'Ń'));
        let mut all: Vec<char> = (0..=255).map(byte_symbol).collect();
        all.dedup();
        assert_eq!(all.len(), 256);
    }
}
