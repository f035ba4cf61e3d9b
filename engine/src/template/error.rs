//! Why a chat template was refused or stopped.

/// A chat template that cannot be read, or whose rendering was ended.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key of the template, or one of a token that it names, is of the wrong type.
    #[error("{0}")]
    Meta(String),
    /// The source is no template.
    #[error("chat template, line {line}: {detail}")]
    Syntax {
        /// Line of the source, from 1.
        line: u32,
        /// What was found and what was expected.
        detail: String,
    },
    /// A step of the rendering is not possible.
    #[error("chat template, line {line}: {detail}")]
    Render {
        /// Line of the source, from 1.
        line: u32,
        /// What was found and what was expected.
        detail: String,
    },
    /// The template itself refused the conversation.
    #[error("the model's chat template refuses this conversation: {message}")]
    Raised {
        /// The template's words.
        message: String,
    },
    /// A bound was reached.
    #[error("chat template, line {line}: more than {max} {what}; the template is broken or hostile")]
    Limit {
        /// Line of the source, from 1.
        line: u32,
        /// What was counted.
        what: &'static str,
        /// The bound.
        max: u64,
    },
}

impl From<gguf::Error> for Error {
    fn from(error: gguf::Error) -> Error {
        Error::Meta(error.to_string())
    }
}

/// What stops an evaluation, before the line is known.
#[derive(Debug)]
pub(super) enum Stop {
    /// A step that is not possible.
    Fault(String),
    /// `raise_exception`.
    Raised(String),
    /// A bound: what was counted, and how many are allowed.
    Limit(&'static str, u64),
}

impl Stop {
    /// The error of this stop in a line of the source.
    pub(super) fn at(self, line: u32) -> Error {
        match self {
            Stop::Fault(detail) => Error::Render { line, detail: cut(&detail) },
            Stop::Raised(message) => Error::Raised { message: cut(&message) },
            Stop::Limit(what, max) => Error::Limit { line, what, max },
        }
    }
}

/// A result of an evaluation.
pub(super) type Eval<T> = Result<T, Stop>;

/// A step that is not possible.
pub(super) fn fault<T>(detail: impl Into<String>) -> Eval<T> {
    Err(Stop::Fault(detail.into()))
}

/// Text of a message, kept short.
fn cut(text: &str) -> String {
    const SHOWN: usize = 600;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}
