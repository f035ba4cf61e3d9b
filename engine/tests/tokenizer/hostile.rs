//! Vocabularies that contradict themselves: each is an error that names the key and what is wrong, never a panic.

use engine::tokenizer::{Encode, Tokenizer};
use gguf::{Builder, Endian, Gguf};
use proptest::prelude::*;

/// A small vocabulary, and one key of it changed or left out.
struct Model {
    tokens: Vec<Vec<u8>>,
    types: Option<Vec<i32>>,
    scores: Option<Vec<f32>>,
    merges: Option<Vec<&'static str>>,
    model: &'static str,
    pre: Option<&'static str>,
    ids: Vec<(&'static str, u32)>,
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// A byte-level vocabulary that is in order.
fn bpe() -> Model {
    Model {
        tokens: texts(&["<s>", "a", "b", "Ġ", "ab", "Ġa"]),
        types: Some(vec![3, 1, 1, 1, 1, 1]),
        scores: None,
        merges: Some(vec!["a b", "Ġ a"]),
        model: "gpt2",
        pre: Some("gpt-2"),
        ids: vec![("tokenizer.ggml.bos_token_id", 0)],
    }
}

/// A SentencePiece vocabulary that is in order, without bytes.
fn spm() -> Model {
    Model {
        tokens: texts(&["<unk>", "<s>", "</s>", "\u{2581}", "a", "\u{2581}a"]),
        types: Some(vec![2, 3, 3, 1, 1, 1]),
        scores: Some(vec![0.0, 0.0, 0.0, -2.0, -3.0, -1.0]),
        merges: None,
        model: "llama",
        pre: None,
        ids: vec![],
    }
}

impl Model {
    fn file(&self) -> Vec<u8> {
        let mut file = Builder::new(Endian::Little);
        let mut write = || -> Result<(), gguf::Error> {
            file.key("tokenizer.ggml.model", self.model)?;
            let tokens = self.tokens.iter().map(|t| gguf::ValueBuf::Str(t.clone())).collect();
            file.key("tokenizer.ggml.tokens", gguf::ValueBuf::Array(gguf::ValueType::Str, tokens))?;
            if let Some(pre) = self.pre {
                file.key("tokenizer.ggml.pre", pre)?;
            }
            if let Some(types) = &self.types {
                file.key("tokenizer.ggml.token_type", types.clone())?;
            }
            if let Some(scores) = &self.scores {
                file.key("tokenizer.ggml.scores", scores.clone())?;
            }
            if let Some(merges) = &self.merges {
                file.key("tokenizer.ggml.merges", merges.clone())?;
            }
            for (key, id) in &self.ids {
                file.key(key, *id)?;
            }
            Ok(())
        };
        write().expect("keys");
        file.start(Vec::new()).expect("a header").finish().expect("a file")
    }

    fn load(&self) -> Result<Tokenizer, String> {
        let file = self.file();
        let gguf = Gguf::parse(&file).expect("a GGUF file");
        Tokenizer::from_meta(gguf.meta()).map_err(|e| e.to_string())
    }
}

/// Changes a model that is in order and expects an error with all of some words.
#[track_caller]
fn refused(mut model: Model, change: impl FnOnce(&mut Model), words: &[&str]) {
    change(&mut model);
    let error = model.load().expect_err("a vocabulary that is not in order");
    for word in words {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

#[test]
fn models_in_order_load() {
    let tokenizer = bpe().load().expect("in order");
    assert_eq!(tokenizer.encode("ab a", Encode::default()), [4, 5]);
    // "c" has no token and is left out, as the vocabulary has no way to write it.
    assert_eq!(tokenizer.encode("acb", Encode::default()), [1, 2]);
    let tokenizer = spm().load().expect("in order");
    assert_eq!(tokenizer.encode("a a", Encode { add_special: true, parse_special: false }), [1, 5, 5]);
    assert_eq!(tokenizer.encode("é", Encode::default()), [3, 0, 0]);
}

#[test]
fn kinds_that_are_not_known_are_named_with_those_that_are() {
    refused(bpe(), |m| m.model = "rwkv", &["tokenizer.ggml.model", "\"rwkv\"", "gpt2", "llama", "byte"]);
    refused(bpe(), |m| m.pre = Some("quux"), &["tokenizer.ggml.pre", "\"quux\"", "llama-bpe", "qwen2", "deepseek-llm"]);
    assert!(Model { pre: None, ..bpe() }.load().is_ok(), "old files name no rules");
}

#[test]
fn tokens_that_are_no_vocabulary() {
    refused(bpe(), |m| m.tokens.clear(), &["tokenizer.ggml.tokens", "0 tokens", "at least 1"]);
    refused(bpe(), |m| m.tokens[2] = vec![b'x'; 1 << 20], &["token 2", "1048576 bytes", "65536"]);
    refused(bpe(), |m| m.tokens[2] = b"a".to_vec(), &["token 2", "\"a\"", "token 1"]);
    refused(bpe(), |m| m.types = Some(vec![1; 5]), &["tokenizer.ggml.token_type", "5 elements", "expected 6"]);
    refused(bpe(), |m| m.types = Some(vec![7; 6]), &["token 0", "type 7"]);
    assert!(Model { types: None, ..bpe() }.load().is_ok());
}

#[test]
fn scores_that_give_no_order() {
    refused(spm(), |m| m.scores = None, &["tokenizer.ggml.scores", "missing"]);
    refused(spm(), |m| m.scores = Some(vec![0.0; 3]), &["tokenizer.ggml.scores", "3 elements", "expected 6"]);
    refused(spm(), |m| m.scores = Some(vec![f32::NAN; 6]), &["token 0", "NaN"]);
    let infinite = Model { scores: Some(vec![f32::NEG_INFINITY; 6]), ..spm() };
    assert_eq!(infinite.load().expect("an order").encode("a", Encode::default()), [5]);
}

#[test]
fn merges_of_tokens_that_are_not_there() {
    let key = "tokenizer.ggml.merges";
    refused(bpe(), |m| m.merges = None, &[key, "missing"]);
    refused(bpe(), |m| m.merges = Some(vec!["a b", "ab"]), &[key, "merge 1", "\"ab\"", "space"]);
    refused(bpe(), |m| m.merges = Some(vec![""]), &[key, "merge 0", "space"]);
    refused(bpe(), |m| m.merges = Some(vec!["x b"]), &[key, "first part"]);
    refused(bpe(), |m| m.merges = Some(vec!["a x"]), &[key, "second part"]);
    refused(bpe(), |m| m.merges = Some(vec!["b a"]), &[key, "joined"]);
    assert!(Model { merges: Some(vec![]), ..bpe() }.load().is_ok());
}

#[test]
fn special_tokens_outside_of_the_vocabulary() {
    for key in ["bos", "eos", "eot", "eom", "unknown", "seperator", "cls", "mask", "fim_pre", "fim_sep"] {
        let key: &'static str = format!("tokenizer.ggml.{key}_token_id").leak();
        refused(bpe(), |m| m.ids = vec![(key, 6)], &[key, "token id 6", "less than 6"]);
        refused(spm(), |m| m.ids = vec![(key, u32::MAX)], &[key, "token id 4294967295"]);
    }
    // Written by converters for "none".
    let padding = Model { ids: vec![("tokenizer.ggml.padding_token_id", u32::MAX)], ..bpe() };
    assert!(padding.load().is_ok());
    refused(bpe(), |m| m.ids = vec![("tokenizer.ggml.padding_token_id", 6)], &["padding", "token id 6"]);
    // A vocabulary too small for the usual ids does not get them.
    let mut tiny = spm();
    tiny.tokens.truncate(1);
    tiny.types = None;
    tiny.scores = Some(vec![0.0]);
    let tiny = tiny.load().expect("a vocabulary of one token");
    assert_eq!((tiny.bos(), tiny.eos(), tiny.add_bos()), (None, None, false));
    assert_eq!(tiny.encode("a", Encode { add_special: true, parse_special: true }).len(), 4);
}

#[test]
fn keys_of_a_wrong_type() {
    let mut file = Builder::new(Endian::Little);
    file.key("tokenizer.ggml.model", 7u32).expect("a key");
    let file = file.start(Vec::new()).expect("a header").finish().expect("a file");
    let gguf = Gguf::parse(&file).expect("a GGUF file");
    let error = Tokenizer::from_meta(gguf.meta()).expect_err("no string").to_string();
    assert!(error.contains("tokenizer.ggml.model") && error.contains("u32 7"), "{error}");
}

#[test]
fn texts_that_are_not_utf8_are_bytes() {
    let mut model = bpe();
    model.tokens[1] = vec![0xff, 0xfe];
    model.tokens[2] = vec![0x80];
    model.types = Some(vec![3, 4, 3, 1, 1, 1]);
    model.merges = Some(vec![]);
    let tokenizer = model.load().expect("bytes are texts");
    // The byte 80 is inside of this character, where no token may be found.
    assert_eq!(tokenizer.encode("À", Encode { add_special: false, parse_special: true }), [0; 0]);
    assert_eq!(tokenizer.piece(1), "\u{fffd}\u{fffd}");
    assert_eq!(tokenizer.decode(&[1, 2], true), "\u{fffd}\u{fffd}\u{fffd}");
}

#[test]
fn of_special_tokens_the_longest_is_found() {
    let mut model = bpe();
    model.tokens = texts(&["<s>", "a", "b", "Ġ", "<s>a", "aa"]);
    model.types = Some(vec![3, 1, 1, 1, 4, 4]);
    model.merges = Some(vec![]);
    let tokenizer = model.load().expect("in order");
    let how = |parse_special| Encode { add_special: false, parse_special };
    assert_eq!(tokenizer.encode("b<s>aaa<s>b", how(true)), [2, 4, 5, 0, 2]);
    // The control token is none here; its characters but the letters have no token.
    assert_eq!(tokenizer.encode("b<s>aaa<s>b", how(false)), [2, 4, 5, 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any vocabulary loads or is refused; one that loads encodes and decodes anything without a panic.
    #[test]
    fn any_vocabulary(
        tokens in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'a'), Just(b'<'), Just(0xc4), Just(0xa0), any::<u8>()], 0..4), 0..12),
        types in prop::collection::vec(0i32..8, 0..12),
        id in 0u32..14,
        is_spm: bool,
        text in "[a< Ġ\\PC]{0,20}",
        ids in prop::collection::vec(0u32..20, 0..8),
    ) {
        let mut model = if is_spm { spm() } else { bpe() };
        model.scores = is_spm.then(|| vec![0.0; tokens.len()]);
        model.merges = Some(vec![]);
        model.types = (types.len() == tokens.len()).then_some(types);
        model.tokens = tokens;
        model.ids = vec![("tokenizer.ggml.bos_token_id", id)];
        if let Ok(tokenizer) = model.load() {
            for parse_special in [false, true] {
                let out = tokenizer.encode(&text, Encode { add_special: true, parse_special });
                prop_assert!(out.iter().all(|&id| (id as usize) < tokenizer.n_vocab()));
                tokenizer.decode(&out, parse_special);
            }
            tokenizer.decode(&ids, true);
        }
    }
}
