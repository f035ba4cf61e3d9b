//! What holds for every text.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use engine::tokenizer::{Encode, Tokenizer};
use proptest::prelude::*;

use super::{bert, gpt2, llama, load, vocabulary};

/// Texts of the kinds that split rules tell apart.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z]{1,12}",
        "[0-9]{1,6}",
        "[ \t\n\r]{1,5}",
        "[!-/:-@'_~]{1,4}",
        "\\PC{1,4}",
        Just("'s".to_owned()),
        Just("<|endoftext|></s>".to_owned()),
        Just("\u{3000}日本語\u{a0}Größe".to_owned()),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|parts| parts.concat())
}

/// The twin of SentencePiece's merge loop: looks for the best pair again after every merge.
fn naive_spm(tokenizer: &Tokenizer, scores: &[f32], text: &str) -> Vec<u32> {
    let escaped = format!(" {text}").replace(' ', "\u{2581}");
    let mut symbols: Vec<String> = escaped.chars().map(String::from).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for (i, pair) in symbols.windows(2).enumerate() {
            let score = tokenizer.token(&pair.concat()).map(|id| scores[id as usize]);
            if let Some(score) = score.filter(|s| best.is_none_or(|(b, _)| *s > b)) {
                best = Some((score, i));
            }
        }
        let Some((_, i)) = best else { break };
        let right = symbols.remove(i + 1);
        symbols[i] += &right;
    }
    let byte = |b: u8| tokenizer.token(&format!("<0x{b:02X}>")).expect("Llama has all bytes");
    let ids = |s: &String| tokenizer.token(s).map_or_else(|| s.bytes().map(byte).collect(), |id| vec![id]);
    symbols.iter().flat_map(ids).collect()
}

#[test]
fn long_texts_take_linear_time_and_no_stack() {
    // Quadratic work on these would take hours, recursion would end the process.
    const LEN: usize = 1 << 20;
    for tokenizer in [gpt2(), llama()] {
        for unit in ["a", " ", "\n", "0", "日", "<", "\u{2581}", "'"] {
            let text = unit.repeat(LEN / unit.len());
            let ids = tokenizer.encode(&text, Encode { add_special: false, parse_special: true });
            assert!(!ids.is_empty());
            let decoded = tokenizer.decode(&ids, false);
            // U+2581 is how SentencePiece writes a space: it cannot come back.
            assert!(decoded == text || unit == "\u{2581}", "{unit:?}");
        }
    }
}

/// The longest texts that are asked of a server, in the time that a user waits without noticing.
#[test]
fn a_megabyte_takes_less_than_a_second() {
    const LEN: usize = 1_000_000;
    let prose = "The miller wrote down 12,480 sacks of corn; nobody ever asked him why. Über 3 Jahre. ";
    for (name, tokenizer) in [("byte-level", gpt2()), ("SentencePiece", llama()), ("WordPiece", bert())] {
        for unit in ["a", " ", "\n", "日", prose] {
            let text = unit.repeat(LEN / unit.len());
            let start = std::time::Instant::now();
            std::hint::black_box(tokenizer.encode(&text, Encode::default()));
            let taken = start.elapsed().as_secs_f64();
            // Other processes share the machine of a test: the bound is three times that of a quiet one.
            assert!(taken < 3.0, "{name}: {taken:.2} s for a megabyte of {unit:?}");
        }
    }
}

#[test]
fn an_empty_text_has_no_tokens() {
    for tokenizer in [gpt2(), llama()] {
        assert_eq!(tokenizer.encode("", Encode { add_special: true, parse_special: true }), [0; 0]);
        assert_eq!(tokenizer.decode(&[], true), "");
    }
}

#[test]
fn ids_outside_of_the_vocabulary_are_nothing() {
    let tokenizer = gpt2();
    for id in [tokenizer.n_vocab() as u32, u32::MAX] {
        assert!(tokenizer.bytes(id).is_empty() && tokenizer.piece(id).is_empty());
        assert!(!tokenizer.is_eog(id) && !tokenizer.is_control(id));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn texts_come_back(text in text()) {
        for tokenizer in [gpt2(), llama()] {
            // SentencePiece writes a space as U+2581, so that this character becomes one.
            let expected = if tokenizer.adds_space() { text.replace('\u{2581}', " ") } else { text.clone() };
            let ids = tokenizer.encode(&text, Encode::default());
            prop_assert_eq!(&tokenizer.decode(&ids, false), &expected);
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.bytes(id).into_owned()).collect();
            prop_assert_eq!(bytes.len(), expected.len() + usize::from(tokenizer.adds_space() && !text.is_empty()));
        }
    }

    #[test]
    fn spm_as_the_twin(text in text()) {
        static SCORES: OnceLock<Vec<f32>> = OnceLock::new();
        let scores = SCORES.get_or_init(|| {
            let file = vocabulary("llama-spm");
            let gguf = gguf::Gguf::parse(&file).expect("a GGUF file");
            let scores = gguf.meta().floats("tokenizer.ggml.scores").expect("scores");
            scores.floats().expect("floats").collect()
        });
        if !text.is_empty() {
            prop_assert_eq!(llama().encode(&text, Encode::default()), naive_spm(&llama(), scores, &text));
        }
    }

    #[test]
    fn bpe_as_the_twin(words in prop::collection::vec("[a-zA-Z]{1,14}", 1..6)) {
        // Words of letters with spaces between them are what the split rules of GPT-2 make of such a text.
        static RANKS: OnceLock<HashMap<Vec<u8>, usize>> = OnceLock::new();
        let ranks = RANKS.get_or_init(|| {
            let file = vocabulary("gpt-2");
            let gguf = gguf::Gguf::parse(&file).expect("a GGUF file");
            let merges = gguf.meta().strings("tokenizer.ggml.merges").expect("merges");
            merges.strings().map(<[u8]>::to_vec).zip(0..).collect()
        });
        let mut expected = Vec::new();
        for (i, word) in words.iter().enumerate() {
            let word = if i == 0 { word.clone() } else { format!("Ġ{word}") };
            let mut symbols: Vec<String> = word.chars().map(String::from).collect();
            loop {
                let rank = |pair: &[String]| ranks.get(pair.join(" ").as_bytes()).copied();
                let pairs = symbols.windows(2).enumerate().filter_map(|(i, pair)| rank(pair).map(|r| (r, i)));
                let Some((_, i)) = pairs.min() else { break };
                let right = symbols.remove(i + 1);
                symbols[i] += &right;
            }
            expected.extend(symbols.iter().map(|s| gpt2().token(s).expect("a token")));
        }
        prop_assert_eq!(gpt2().encode(&words.join(" "), Encode::default()), expected);
    }

    #[test]
    fn special_tokens_cut_texts(a in "[a-z ]{0,8}", b in "[a-z ]{0,8}") {
        let tokenizer = load_phi();
        let how = Encode { add_special: false, parse_special: true };
        let whole = tokenizer.encode(&format!("{a}<|endoftext|>{b}"), how);
        let end = tokenizer.token("<|endoftext|>").expect("phi-3 has it");
        let mut expected = tokenizer.encode(&a, how);
        expected.push(end);
        expected.extend(tokenizer.encode(&b, how));
        prop_assert_eq!(whole, expected);
    }
}

fn load_phi() -> Arc<Tokenizer> {
    static BUILT: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    BUILT.get_or_init(|| Arc::new(load(&vocabulary("phi-3")))).clone()
}
