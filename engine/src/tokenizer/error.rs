//! Why a vocabulary was refused.

use gguf::Meta;

/// A vocabulary that cannot be used: which key, where, what was found, what was expected, what to do.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key is missing or of the wrong type.
    #[error(transparent)]
    Meta(#[from] gguf::Error),
    /// A key has a value that the vocabulary cannot be built from.
    #[error("key {key:?}, at byte {offset}: {fault}")]
    Key {
        /// The key.
        key: &'static str,
        /// Byte offset of its value in the file; 0 where the key is absent.
        offset: u64,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a key: found and expected.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A kind of tokenizer that this program does not have.
    #[error("tokenizer {found}, expected one of {known}: text cannot be split for this model")]
    UnknownModel {
        /// The file's word, quoted.
        found: String,
        /// The words known.
        known: String,
    },
    /// Split rules that this program does not have.
    #[error(
        "pre-tokenizer {found}, expected one of {known}: other rules would give tokens that the model was not trained on"
    )]
    UnknownPreTokenizer {
        /// The file's word, quoted.
        found: String,
        /// The words known.
        known: String,
    },
    /// No token at all.
    #[error("0 tokens, expected at least 1: the file has no vocabulary")]
    Empty,
    /// More tokens, or more bytes of text, than ids and offsets of 32 bits hold.
    #[error("{found} {what}, expected at most {max}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there may be.
        max: u64,
    },
    /// An array that goes with the tokens has another length.
    #[error("{found} elements, expected {expected}, one for each token")]
    Length {
        /// Elements found.
        found: usize,
        /// Number of tokens.
        expected: usize,
    },
    /// A token longer than any real one.
    #[error("token {index} has {found} bytes, expected at most {max}")]
    TokenLength {
        /// Which token.
        index: usize,
        /// Its length in bytes.
        found: usize,
        /// The longest allowed.
        max: usize,
    },
    /// Two tokens of one text: which of them a text becomes would be a guess.
    #[error("token {index} has the text {text} of token {first}, expected every text once")]
    DuplicateToken {
        /// The later token.
        index: usize,
        /// The earlier token.
        first: u32,
        /// Their text, quoted.
        text: String,
    },
    /// A token type that does not exist.
    #[error("token {index} has type {found}, expected 0 (undefined) to 6 (byte)")]
    TokenType {
        /// Which token.
        index: usize,
        /// The type found.
        found: i64,
    },
    /// A score that has no place in an order.
    #[error("token {index} has score NaN, expected a number")]
    Score {
        /// Which token.
        index: usize,
    },
    /// A map of characters that this program does not read.
    #[error("a compiled map of characters, expected none: text would be cut otherwise than the model was trained on")]
    CharsMap,
    /// A special token outside of the vocabulary.
    #[error("token id {found}, expected less than {n_vocab}, the number of tokens")]
    SpecialId {
        /// The id found.
        found: u32,
        /// Number of tokens.
        n_vocab: usize,
    },
    /// A merge that is not two tokens whose concatenation is a token.
    #[error("merge {index} is {text}, expected {expected}")]
    Merge {
        /// Which merge.
        index: usize,
        /// Its text, quoted.
        text: String,
        /// The rule it breaks.
        expected: &'static str,
    },
}

impl Fault {
    /// The error of this fault at a key.
    pub(super) fn at(self, meta: &Meta<'_>, key: &'static str) -> Error {
        Error::Key { key, offset: meta.offset(key).unwrap_or(0), fault: self }
    }
}

/// Bytes of a file, quoted, escaped and cut, fit for a log line.
pub(super) fn quote(bytes: &[u8]) -> String {
    const SHOWN: usize = 60;
    match bytes.get(..SHOWN) {
        Some(cut) if bytes.len() > SHOWN => format!("\"{}\"... ({} bytes)", cut.escape_ascii(), bytes.len()),
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}
