//! The one error type of the engine: what was found, what was expected, where, and what to do about it.

use std::path::PathBuf;

/// Anything that can go wrong between a file and a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model file could not be opened or read.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A model file changed or was cut while it was read.
    #[error("{path} changed while it was being read ({detail}); load it again when nothing writes to it", path = .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What was seen.
        detail: String,
    },
    /// The bytes are no valid GGUF.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// The file's vocabulary cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] crate::tokenizer::Error),
    /// The file's chat template cannot be used.
    #[error(transparent)]
    Template(#[from] crate::template::Error),
    /// The sampler refused its parameters or the logits.
    #[error(transparent)]
    Sampler(#[from] crate::sampler::Error),
    /// The architecture is not one that this program knows.
    #[error("general.architecture is \"{found}\", which is not supported; supported are {known}")]
    Architecture {
        /// The file's word.
        found: String,
        /// The words of the registry.
        known: String,
    },
    /// A metadata key has a value that no model can have.
    #[error("{key} is {found}; expected {expected}")]
    Key {
        /// The key, whole.
        key: String,
        /// Its value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// A tensor is missing, of the wrong shape, of an unsupported format or of no use to the architecture.
    #[error("tensor {name}: {found}; expected {expected}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What the file has.
        found: String,
        /// What the model needs.
        expected: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "tensor {name} holds a value that is not finite at element {index}; the file is damaged or was converted with overflow"
    )]
    NotFinite {
        /// The tensor's name.
        name: String,
        /// Index of the first such element.
        index: u64,
    },
    /// Not enough memory for what was asked.
    #[error("{what} needs {needed} MiB, {available} MiB are available; {hint}")]
    Memory {
        /// What the memory is for.
        what: String,
        /// Mebibytes needed.
        needed: u64,
        /// Mebibytes available.
        available: u64,
        /// What to do.
        hint: &'static str,
    },
    /// The system gives no memory.
    #[error(
        "there is no memory for another {mebibytes} MiB: {reason}; lower the context (--ctx) or use a smaller model"
    )]
    Allocation {
        /// Mebibytes that were asked for.
        mebibytes: u64,
        /// What the system says.
        reason: String,
    },
    /// A device that is not the processor failed or has no room.
    #[error("{device}: {detail}; {hint}")]
    Device {
        /// Its name.
        device: String,
        /// What happened, with the numbers.
        detail: String,
        /// What to do.
        hint: &'static str,
    },
    /// An option is out of its range.
    #[error("{name} is {found}; expected {expected}")]
    Option {
        /// The option's name as the user knows it.
        name: &'static str,
        /// Its value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// The prompt does not fit.
    #[error("the prompt has {tokens} tokens, the context {ctx}; shorten the prompt or raise the context (--ctx)")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the context.
        ctx: usize,
    },
    /// There is nothing to start from.
    #[error("the prompt is empty, and the model has no start token to begin from; give at least one token")]
    PromptEmpty,
    /// Text was asked of a model that gives embeddings.
    #[error("the model was loaded for embeddings and gives no text; ask it for embeddings (handmill embed)")]
    HiddenOnly,
    /// Embeddings were asked of a model that was loaded for text.
    #[error("the model was loaded for text; load it for embeddings")]
    LogitsOnly,
    /// A token id that the vocabulary does not have.
    #[error("token {id} is not in the vocabulary of {n_vocab} tokens")]
    TokenRange {
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        n_vocab: usize,
    },
    /// The model produced logits that are not numbers.
    #[error(
        "the model produced a logit that is not a number at position {position}; the weights are damaged, or --precision f32 is needed"
    )]
    Logits {
        /// Position of the token.
        position: usize,
    },
    /// What the answer must look like leaves no token to go on with.
    #[error("the answer's grammar: {0}")]
    Constraint(String),
    /// A worker or the engine thread died. Always a bug of ours.
    #[error("internal error: {0}; this is a bug, please report it")]
    Internal(String),
}

/// The engine's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;
