//! Tokens with a role: which key names them, by which text they are found otherwise, which of them end an answer.

use gguf::Meta;

use super::error::{Error, Fault};
use super::vocab::Vocab;

/// The role of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Role {
    /// Begins a text.
    Bos,
    /// Ends a text.
    Eos,
    /// Ends a turn of a chat.
    Eot,
    /// Ends a message, with more to come.
    Eom,
    /// Stands for text that has no token.
    Unknown,
    /// Separates texts.
    Separator,
    /// Fills a batch.
    Padding,
    /// Takes the class of a text.
    Class,
    /// Stands for a hidden token.
    Mask,
    /// Precedes the text before a gap that is to be filled.
    FimPrefix,
    /// Precedes the text after the gap.
    FimSuffix,
    /// Precedes the text of the gap.
    FimMiddle,
    /// Fills a batch of gaps.
    FimPad,
    /// Precedes the name of a repository.
    FimRepo,
    /// Precedes a file of a repository.
    FimFile,
}

/// One role.
struct Row {
    role: Role,
    key: &'static str,
    /// Texts that have this role in files without the key, the most specific one first.
    texts: &'static [&'static str],
    /// Whether the token ends an answer.
    ends: bool,
}

const fn row(role: Role, key: &'static str, texts: &'static [&'static str], ends: bool) -> Row {
    Row { role, key, texts, ends }
}

/// THE list of roles, in the order of [`Role`].
const ROWS: [Row; 15] = [
    row(Role::Bos, "tokenizer.ggml.bos_token_id", &[], false),
    row(Role::Eos, "tokenizer.ggml.eos_token_id", &[], true),
    row(
        Role::Eot,
        "tokenizer.ggml.eot_token_id",
        &[
            "<|eot_id|>",
            "<|im_end|>",
            "<|end|>",
            "<end_of_turn>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "_<EOT>",
            "[EOT]",
            "<｜end▁of▁sentence｜>",
            "<end_of_utterance>",
        ],
        true,
    ),
    row(Role::Eom, "tokenizer.ggml.eom_token_id", &["<|eom_id|>"], true),
    row(Role::Unknown, "tokenizer.ggml.unknown_token_id", &[], false),
    // Spelled so in every file.
    row(Role::Separator, "tokenizer.ggml.seperator_token_id", &[], false),
    row(Role::Padding, PADDING, &[], false),
    row(Role::Class, "tokenizer.ggml.cls_token_id", &[], false),
    row(Role::Mask, "tokenizer.ggml.mask_token_id", &[], false),
    row(
        Role::FimPrefix,
        "tokenizer.ggml.fim_pre_token_id",
        &["<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<PRE>", "▁<PRE>", "<｜fim▁begin｜>", "<|code_prefix|>"],
        false,
    ),
    row(
        Role::FimSuffix,
        "tokenizer.ggml.fim_suf_token_id",
        &["<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<SUF>", "▁<SUF>", "<｜fim▁hole｜>", "<|code_suffix|>"],
        false,
    ),
    row(
        Role::FimMiddle,
        "tokenizer.ggml.fim_mid_token_id",
        &["<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<MID>", "▁<MID>", "<｜fim▁end｜>", "<|code_middle|>"],
        false,
    ),
    row(
        Role::FimPad,
        "tokenizer.ggml.fim_pad_token_id",
        &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        true,
    ),
    row(
        Role::FimRepo,
        "tokenizer.ggml.fim_rep_token_id",
        &["<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"],
        true,
    ),
    row(Role::FimFile, "tokenizer.ggml.fim_sep_token_id", &["<|file_sep|>"], true),
];

/// Key of the padding token, where files write 2^32 - 1 for "none".
const PADDING: &str = "tokenizer.ggml.padding_token_id";

/// Texts that end an answer wherever they stand in a vocabulary.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
];

/// The tokens of all roles.
#[derive(Debug, Default)]
pub(super) struct Specials {
    ids: [Option<u32>; ROWS.len()],
    /// Tokens that end an answer, sorted.
    ends: Vec<u32>,
}

impl Specials {
    /// Reads the keys, finds by text what they leave open, and makes control tokens of what is found by text: files
    /// often have such tokens as plain text. `defaults` are used where the file has no key.
    pub(super) fn from_meta(meta: &Meta<'_>, vocab: &mut Vocab, defaults: &[(Role, u32)]) -> Result<Specials, Error> {
        let mut specials = Specials::default();
        for row in &ROWS {
            let default = defaults.iter().find(|d| d.0 == row.role).map(|d| d.1);
            let default = default.filter(|&id| (id as usize) < vocab.len());
            let mut id = read(meta, row.key, vocab.len())?.or(default);
            if id.is_none() {
                id = row.texts.iter().find_map(|t| vocab.id(t.as_bytes()));
                id.into_iter().for_each(|id| vocab.set_control(id));
            }
            specials.ids[row.role as usize] = id;
            specials.ends.extend(id.filter(|_| row.ends));
        }
        for text in END_TEXTS {
            let id = vocab.id(text.as_bytes());
            id.into_iter().for_each(|id| vocab.set_control(id));
            specials.ends.extend(id);
        }
        specials.drop_harmony_end(vocab);
        specials.ends.sort_unstable();
        specials.ends.dedup();
        Ok(specials)
    }

    /// Where `<|return|>` and `<|call|>` end answers, `<|end|>` only ends a channel: the answer goes on.
    fn drop_harmony_end(&mut self, vocab: &Vocab) {
        let harmony = ["<|return|>", "<|call|>"].iter().all(|t| vocab.id(t.as_bytes()).is_some());
        let eos = self.get(Role::Eos);
        if let Some(end) = vocab.id(b"<|end|>").filter(|&id| harmony && Some(id) != eos) {
            self.ends.retain(|&id| id != end);
        }
    }

    /// The token of a role.
    pub(super) fn get(&self, role: Role) -> Option<u32> {
        self.ids[role as usize]
    }

    /// Whether a token ends an answer.
    pub(super) fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// All tokens that end an answer, in order of id.
    pub(super) fn ends(&self) -> &[u32] {
        &self.ends
    }
}

/// The token id of a key.
fn read(meta: &Meta<'_>, key: &'static str, n_vocab: usize) -> Result<Option<u32>, Error> {
    let none = |v: &gguf::Value<'_>| v.as_i64() == Some(-1) || v.as_u64() == Some(u32::MAX.into());
    if key == PADDING && meta.get(key).is_some_and(none) {
        return Ok(None);
    }
    match meta.opt_u32(key)? {
        Some(found) if found as usize >= n_vocab => Err(Fault::SpecialId { found, n_vocab }.at(meta, key)),
        id => Ok(id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_roles() {
        for (i, row) in ROWS.iter().enumerate() {
            assert_eq!(row.role as usize, i, "{}", row.key);
        }
    }
}
