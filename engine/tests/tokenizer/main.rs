//! Tokenizers against expected tokens, against naive twins and against hostile files.

mod golden;
mod hostile;
mod make;
mod properties;
mod stream;

use std::io::Read;
use std::sync::{Arc, OnceLock};

use engine::tokenizer::Tokenizer;

/// The vocabularies of the fixtures. See [`make`] for how they were made.
pub const VOCABULARIES: [(&str, &[u8]); 8] = [
    ("bert-bge", include_bytes!("../fixtures/bert-bge.gguf.deflate")),
    ("deepseek-coder", include_bytes!("../fixtures/deepseek-coder.gguf.deflate")),
    ("deepseek-llm", include_bytes!("../fixtures/deepseek-llm.gguf.deflate")),
    ("gpt-2", include_bytes!("../fixtures/gpt-2.gguf.deflate")),
    ("llama-bpe", include_bytes!("../fixtures/llama-bpe.gguf.deflate")),
    ("llama-spm", include_bytes!("../fixtures/llama-spm.gguf.deflate")),
    ("phi-3", include_bytes!("../fixtures/phi-3.gguf.deflate")),
    ("qwen2", include_bytes!("../fixtures/qwen2.gguf.deflate")),
];

/// Expected tokens: for each vocabulary rows of [text, ids, ids with special tokens added and parsed].
pub const GOLDEN: &[u8] = include_bytes!("../fixtures/tokens.json.deflate");

/// The bytes of a fixture.
pub fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::DeflateDecoder::new(bytes).read_to_end(&mut out).expect("a fixture");
    out
}

/// The GGUF file of a vocabulary.
pub fn vocabulary(name: &str) -> Vec<u8> {
    let found = VOCABULARIES.iter().find(|v| v.0 == name);
    inflate(found.unwrap_or_else(|| panic!("no vocabulary {name}")).1)
}

/// The tokenizer of a file.
pub fn load(bytes: &[u8]) -> Tokenizer {
    let gguf = gguf::Gguf::parse(bytes).expect("a GGUF file");
    Tokenizer::from_meta(gguf.meta()).expect("a vocabulary")
}

/// A whole byte-level vocabulary (GPT-2's, which has all bytes), built once.
pub fn gpt2() -> Arc<Tokenizer> {
    static BUILT: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    BUILT.get_or_init(|| Arc::new(load(&vocabulary("gpt-2")))).clone()
}

/// A whole WordPiece vocabulary (BGE's), built once.
pub fn bert() -> Arc<Tokenizer> {
    static BUILT: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    BUILT.get_or_init(|| Arc::new(load(&vocabulary("bert-bge")))).clone()
}

/// A whole SentencePiece vocabulary (Llama 2's), built once.
pub fn llama() -> Arc<Tokenizer> {
    static BUILT: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    BUILT.get_or_init(|| Arc::new(load(&vocabulary("llama-spm")))).clone()
}
