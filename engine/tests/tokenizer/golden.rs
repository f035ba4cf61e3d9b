//! Expected tokens, computed with llama.cpp.

use engine::tokenizer::{Encode, Role};

use super::{GOLDEN, VOCABULARIES, inflate, load, vocabulary};

const PLAIN: Encode = Encode { add_special: false, parse_special: false };
const FULL: Encode = Encode { add_special: true, parse_special: true };

#[test]
fn all_rows() {
    let golden: serde_json::Value = serde_json::from_slice(&inflate(GOLDEN)).expect("JSON");
    let mut wrong = Vec::new();
    let mut rows = 0;
    for (name, bytes) in VOCABULARIES {
        let tokenizer = load(&inflate(bytes));
        for row in golden[name].as_array().expect("rows") {
            let text = row[0].as_str().expect("a text");
            for (column, how) in [(1, PLAIN), (2, FULL)] {
                let ids = tokenizer.encode(text, how);
                rows += 1;
                if serde_json::json!(ids) != row[column] {
                    wrong.push(format!("{name} {text:?}\n   found {ids:?}\nexpected {}", row[column]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {rows} rows:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(rows, 8 * 63 * 2);
}

#[test]
fn whole_vocabularies_give_their_texts_back() {
    let golden: serde_json::Value = serde_json::from_slice(&inflate(GOLDEN)).expect("JSON");
    for name in ["gpt-2", "llama-spm"] {
        let tokenizer = load(&vocabulary(name));
        for row in golden[name].as_array().expect("rows") {
            let text = row[0].as_str().expect("a text");
            assert_eq!(tokenizer.decode(&tokenizer.encode(text, PLAIN), false), text, "{name}");
        }
    }
}

#[test]
fn roles_and_ends() {
    let ids = |name: &str| {
        let t = load(&vocabulary(name));
        let ends: Vec<String> = t.eog().iter().map(|&id| t.piece(id).into_owned()).collect();
        (t.bos(), t.eos(), t.eot(), t.add_bos(), t.add_eos(), ends.join(" "))
    };
    let ends = "<|end_of_text|> <|eot_id|>".to_owned();
    assert_eq!(ids("llama-bpe"), (Some(128_000), Some(128_001), Some(128_009), true, false, ends));
    assert_eq!(ids("llama-spm"), (Some(1), Some(2), None, true, false, "</s>".to_owned()));
    let ends = "</s> <|endoftext|> <|im_end|>".to_owned();
    assert_eq!(ids("qwen2"), (Some(151_643), Some(151_643), Some(151_645), false, false, ends));
    let ends = "</s> <|endoftext|> <|end|>".to_owned();
    assert_eq!(ids("phi-3"), (Some(1), Some(32_000), Some(32_007), true, false, ends));
    let coder = load(&vocabulary("deepseek-coder"));
    assert_eq!(
        coder.special(Role::FimSuffix).map(|id| coder.piece(id).into_owned()).as_deref(),
        Some("<｜fim▁hole｜>")
    );
    assert_eq!(coder.special(Role::Mask), None);
}

#[test]
fn control_tokens_are_text_unless_asked_for() {
    let phi = load(&vocabulary("phi-3"));
    let text = "<|user|>\n hi<|end|>\n<|assistant|>\n";
    let parsed = phi.encode(text, Encode { add_special: false, parse_special: true });
    // White space after these tokens belongs to them, and what follows one begins like a text.
    assert_eq!(parsed, [32_010, 7_251, 32_007, 32_001]);
    assert!(phi.encode(text, PLAIN).iter().all(|&id| !phi.is_control(id)));
    assert_eq!(phi.decode(&parsed, false), "hi");
    assert_eq!(phi.decode(&parsed, true), "<|user|>hi<|end|><|assistant|>");
}

#[test]
fn a_chat_begins_with_one_bos() {
    let llama = load(&vocabulary("llama-spm"));
    assert_eq!(
        llama.encode_chat("<s>[INST]"),
        llama.encode("<s>[INST]", Encode { add_special: false, parse_special: true })
    );
    assert_eq!(llama.encode_chat("[INST]"), llama.encode("[INST]", FULL));
    assert_eq!(llama.encode("<s>[INST]", FULL)[..2], [1, 1]);
}
