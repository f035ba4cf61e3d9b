//! The list of tokens: texts in one arena, kinds, and the map from text to id.
//!
//! Texts are bytes as they stand in the file (byte-level BPE keeps its mapped characters, SentencePiece its U+2581),
//! which need not be UTF-8. The map hashes with the standard library's keyed hash: a file cannot choose texts that
//! collide, so that building the map stays linear for every file.

use std::hash::{BuildHasher, RandomState};

use gguf::Meta;
use hashbrown::HashTable;

use super::error::{Error, Fault, quote};

/// Key of the token texts.
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
/// Key of the token types.
pub(super) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";

/// The longest token accepted, in bytes: far above real ones (runs of 1,024 spaces), far below what a piece buffer
/// somewhere else might not expect.
pub(super) const MAX_TOKEN_BYTES: usize = 1 << 16;

/// What a token is for, with the numbers of `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Normal,
    /// Stands for text that has no token.
    Unknown,
    /// Structure, never text: found in text only when asked for, left out of decoded text.
    Control,
    /// Text that is always found as one token, before all else.
    User,
    /// Reserved: never produced for text by training, renders nothing.
    Unused,
    /// One byte, written as `<0xNN>`.
    Byte,
}

impl Kind {
    fn from_id(id: i64) -> Option<Kind> {
        Some(match id {
            0 | 1 => Kind::Normal,
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::User,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => return None,
        })
    }
}

/// All tokens of a model.
#[derive(Debug)]
pub(super) struct Vocab {
    /// The texts, one after the other.
    arena: Vec<u8>,
    /// Where the text of token `i` starts, and at `i + 1` where it ends.
    bounds: Vec<u32>,
    kinds: Vec<Kind>,
    /// Ids by text; tokens of no text are not in it.
    ids: HashTable<u32>,
    hasher: RandomState,
    longest: usize,
}

impl Vocab {
    /// Reads tokens and types. A file without types has normal tokens only.
    pub(super) fn from_meta(meta: &Meta<'_>) -> Result<Vocab, Error> {
        let fault = |f: Fault| f.at(meta, TOKENS);
        let tokens = meta.strings(TOKENS)?;
        let n = tokens.len();
        if n == 0 {
            return Err(fault(Fault::Empty));
        }
        let too_many = |what, found: usize, max| Fault::TooMany { what, found: found as u64, max };
        if n > i32::MAX as usize {
            return Err(fault(too_many("tokens", n, i32::MAX as u64)));
        }
        let total = tokens.raw().len().saturating_sub(8 * n);
        if total > u32::MAX as usize {
            return Err(fault(too_many("bytes of text", total, u32::MAX.into())));
        }
        let kinds = kinds(meta, n)?;
        let mut vocab = Vocab {
            arena: Vec::with_capacity(total),
            bounds: Vec::with_capacity(n + 1),
            kinds,
            ids: HashTable::with_capacity(n),
            hasher: RandomState::new(),
            longest: 0,
        };
        vocab.bounds.push(0);
        for (index, text) in tokens.strings().enumerate() {
            vocab.push(index, text).map_err(fault)?;
        }
        Ok(vocab)
    }

    fn push(&mut self, index: usize, text: &[u8]) -> Result<(), Fault> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Fault::TokenLength { index, found: text.len(), max: MAX_TOKEN_BYTES });
        }
        if !text.is_empty() {
            if let Some(first) = self.id(text) {
                return Err(Fault::DuplicateToken { index, first, text: quote(text) });
            }
            let hash = self.hasher.hash_one(text);
            // The table has room for all, so that the closure that hashes again is never called.
            self.ids.insert_unique(hash, index as u32, |_| 0);
        }
        self.longest = self.longest.max(text.len());
        self.arena.extend_from_slice(text);
        self.bounds.push(self.arena.len() as u32);
        Ok(())
    }

    /// Number of tokens, at least 1.
    pub(super) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Bytes of the longest text.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The text of a token as in the file; empty for an id outside of the vocabulary.
    pub(super) fn text(&self, id: u32) -> &[u8] {
        let i = id as usize;
        match (self.bounds.get(i), self.bounds.get(i + 1)) {
            (Some(&start), Some(&end)) => &self.arena[start as usize..end as usize],
            _ => &[],
        }
    }

    /// All texts in order of id.
    pub(super) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.bounds.windows(2).map(|b| &self.arena[b[0] as usize..b[1] as usize])
    }

    /// What a token is for; an id outside of the vocabulary counts as unused.
    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// Makes a token a control token.
    pub(super) fn set_control(&mut self, id: u32) {
        if let Some(kind) = self.kinds.get_mut(id as usize) {
            *kind = Kind::Control;
        }
    }

    /// The token of exactly this text (as in the file).
    pub(super) fn id(&self, text: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.ids.find(hash, |&id| self.text(id) == text).copied()
    }
}

/// The kinds of all tokens.
fn kinds(meta: &Meta<'_>, n: usize) -> Result<Vec<Kind>, Error> {
    let Some(ids) = meta.opt_ints(TOKEN_TYPE)? else {
        return Ok(vec![Kind::Normal; n]);
    };
    if ids.len() != n {
        return Err(Fault::Length { found: ids.len(), expected: n }.at(meta, TOKEN_TYPE));
    }
    let kind =
        |(index, found)| Kind::from_id(found).ok_or_else(|| Fault::TokenType { index, found }.at(meta, TOKEN_TYPE));
    ids.ints().into_iter().flatten().enumerate().map(kind).collect()
}
