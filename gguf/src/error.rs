//! What can be wrong, and where: one error type for the crate.
//!
//! Messages may quote bytes of a hostile file, so names are escaped and cut before they are kept.

use std::fmt;

use crate::format::Format;
use crate::value::ValueType;

/// Why a file, a key or a tensor was refused.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes break a rule of the format.
    #[error("{site}, at byte {offset}: {fault}")]
    Malformed {
        /// Which entry of the file.
        site: Site,
        /// Where, in bytes from the start of the file.
        offset: u64,
        /// Which rule, with the value found and the values allowed.
        fault: Fault,
    },
    /// A required metadata key is absent.
    #[error(
        "key {key:?} is missing from the metadata, which ends at byte {end}; \
         expected {expected}: convert the model again"
    )]
    Missing {
        /// The key looked for.
        key: String,
        /// The type it should have.
        expected: &'static str,
        /// Byte offset of the end of the metadata.
        end: u64,
    },
    /// A metadata key has a value of the wrong type or out of range.
    #[error("key {key:?}, at byte {offset}: found {found}, expected {expected}")]
    Type {
        /// The key.
        key: String,
        /// Byte offset of the value.
        offset: u64,
        /// The type found and, if short, the value.
        found: String,
        /// The type or range expected.
        expected: &'static str,
    },
    /// A part of a split model is wrong.
    #[error("part {} of {count}: {error}", .index + 1)]
    Part {
        /// Which part, from 0.
        index: usize,
        /// How many parts were given.
        count: usize,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// The writer was given something that a GGUF file cannot hold.
    #[error("cannot write {site}: {fault}")]
    Unwritable {
        /// Which entry.
        site: Site,
        /// Which rule it breaks.
        fault: Fault,
    },
    /// The writer's calls came in an order or number that leaves the file incomplete.
    #[error("cannot write tensor data: {0}")]
    Unfinished(String),
    /// The sink of the writer failed.
    #[error("cannot write: {0}")]
    Io(#[from] std::io::Error),
}

/// The entry of a file that an error is about.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Site {
    /// Magic, version and counts.
    Header,
    /// A metadata entry, by position and (if it could be read) name.
    Key {
        /// Position in the file, from 0.
        index: u64,
        /// Quoted and escaped name, empty quotes where it could not be read.
        name: String,
    },
    /// A tensor, by position and (if it could be read) name.
    Tensor {
        /// Position in the file, from 0.
        index: u64,
        /// Quoted and escaped name, empty quotes where it could not be read.
        name: String,
    },
    /// Bytes between or after the tensors.
    Data,
    /// The set of files of a split model.
    Split,
}

impl Error {
    /// Where a file was refused only because too little of it was given (see [`crate::Part`]): the part, from 0, and
    /// how many bytes of its start are needed at least.
    pub fn more_needed(&self) -> Option<(usize, u64)> {
        match self {
            Error::Malformed { fault: Fault::Beyond { need }, .. } => Some((0, *need)),
            Error::Part { index, error, .. } => error.more_needed().map(|(_, need)| (*index, need)),
            _ => None,
        }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Site::Header => f.write_str("header"),
            Site::Key { index, name } => write!(f, "key {index} {name}"),
            Site::Tensor { index, name } => write!(f, "tensor {index} {name}"),
            Site::Data => f.write_str("tensor data"),
            Site::Split => f.write_str("split model"),
        }
    }
}

impl Site {
    pub(crate) fn key(index: usize, name: &[u8]) -> Site {
        Site::Key { index: index as u64, name: quote(name) }
    }

    pub(crate) fn tensor(index: usize, name: &[u8]) -> Site {
        Site::Tensor { index: index as u64, name: quote(name) }
    }
}

/// A rule of the format that was broken: found and expected.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The magic is absent.
    #[error("found {found}, expected \"GGUF\": this is no GGUF file")]
    Magic {
        /// The first bytes, quoted.
        found: String,
    },
    /// A version that is not read.
    #[error("GGUF version {found}, expected 2 or 3: convert the model again with a current tool")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The file ends inside an entry, or a length is larger than the file.
    #[error("needs {need} bytes, expected at most the {left} left in the file: it was cut short or a length is wrong")]
    Cut {
        /// Bytes needed.
        need: u64,
        /// Bytes left.
        left: u64,
    },
    /// Only the start of the file was given, and the header goes on behind it.
    #[error("the header goes on to byte {need} at least, expected it to end within the bytes that were read")]
    Beyond {
        /// Bytes from the start of the file that are needed to go on.
        need: u64,
    },
    /// More entries are announced than the rest of the file can hold.
    #[error(
        "{found} {what} announced, expected at most {max}: more do not fit the rest of the file, or exceed what is accepted"
    )]
    Count {
        /// What is counted.
        what: &'static str,
        /// The count found.
        found: u64,
        /// The most that could follow.
        max: u64,
    },
    /// An unknown metadata type.
    #[error("metadata type id {found}, expected 0 (u8) to 12 (f64)")]
    ValueType {
        /// The id found.
        found: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("boolean of value {found}, expected 0 or 1")]
    Bool {
        /// The byte found.
        found: u8,
    },
    /// Arrays inside arrays inside arrays ...
    #[error("arrays nested deeper than {max} levels, expected at most {max}")]
    Depth {
        /// The deepest nesting accepted.
        max: usize,
    },
    /// A name that is empty or too long.
    #[error("name of {found} bytes, expected 1 to {max}")]
    NameLength {
        /// Length found, in bytes.
        found: u64,
        /// Longest allowed, in bytes.
        max: u64,
    },
    /// A name with a NUL byte, which other readers would cut there.
    #[error("name with a NUL byte at position {position}, expected none")]
    NameNul {
        /// Position of the byte in the name.
        position: usize,
    },
    /// A name that is not UTF-8.
    #[error("name is not UTF-8 from its byte {position} on, expected UTF-8")]
    NameUtf8 {
        /// Position of the first bad byte in the name.
        position: usize,
    },
    /// A key or tensor name that was used before.
    #[error("name already used at byte {first}{}, expected unique names", of_part(part))]
    Duplicate {
        /// Byte offset of the first use.
        first: u64,
        /// The part of the first use, from 0, where it is another one.
        part: Option<usize>,
    },
    /// A name given to the writer twice.
    #[error("name already used, expected unique names")]
    Reused,
    /// An array given to the writer with an element of another type.
    #[error("array of {expected} with an element of type {found}, expected one type")]
    Mixed {
        /// The type of the element.
        found: ValueType,
        /// The type of the array.
        expected: ValueType,
    },
    /// `general.alignment` of a wrong type or value.
    #[error("alignment {found}, expected a u32 that is a power of two from 1 to {max}")]
    Alignment {
        /// Type and value found.
        found: String,
        /// The largest accepted.
        max: u64,
    },
    /// Number of dimensions out of range.
    #[error("{found} dimensions, expected 1 to 4")]
    DimCount {
        /// The number found.
        found: u32,
    },
    /// A dimension of 0.
    #[error("dimension {dim} is 0, expected at least 1")]
    DimZero {
        /// Which dimension, from 0.
        dim: usize,
    },
    /// The number of elements or bytes does not fit 63 bits.
    #[error("dimensions {dims:?} overflow, expected a product below 2^63")]
    Overflow {
        /// The dimensions found.
        dims: Vec<u64>,
    },
    /// A tensor format that does not exist (any more).
    #[error("tensor format id {found}, expected one of {}", Format::known_ids())]
    Format {
        /// The id found.
        found: u32,
    },
    /// Rows that do not consist of whole blocks.
    #[error("rows of {k} elements, expected a multiple of {} for format {format}", format.block_len())]
    Row {
        /// Elements a row.
        k: u64,
        /// Format of the tensor.
        format: Format,
    },
    /// A data offset that is not aligned.
    #[error("data offset {found}, expected a multiple of the alignment {alignment}")]
    Misaligned {
        /// The offset found, from the start of the tensor data.
        found: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Tensor data outside the file.
    #[error(
        "data offset {found} and size {size}, expected an end within the {available} bytes \
         of tensor data: the file was cut short or the entry is wrong"
    )]
    Outside {
        /// The offset found, from the start of the tensor data.
        found: u64,
        /// Size of the tensor's data in bytes.
        size: u64,
        /// Bytes of tensor data in the file.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("data starts at byte {start}, expected at least {end}, where tensor {other} ends")]
    Overlap {
        /// Start of this tensor's data in the file.
        start: u64,
        /// End of the other tensor's data in the file.
        end: u64,
        /// Quoted name of the other tensor.
        other: String,
    },
    /// Bytes that belong to no tensor and are more than padding.
    #[error(
        "{found} bytes belong to no tensor, expected fewer than the alignment {alignment}: \
         a tensor is missing from the table or something was appended"
    )]
    Uncounted {
        /// How many bytes.
        found: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// Parts of a split model that do not belong together.
    #[error("{what} is {found}, expected {expected}: give all parts of one model, in order")]
    Split {
        /// Which number.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The number expected.
        expected: u64,
    },
}

impl Fault {
    /// The error of this fault at a place of the file.
    pub(crate) fn at(self, site: Site, offset: u64) -> Error {
        Error::Malformed { site, offset, fault: self }
    }
}

fn of_part(part: &Option<usize>) -> String {
    part.map(|p| format!(" of part {}", p + 1)).unwrap_or_default()
}

/// Bytes of a file as a quoted, escaped string of bounded length, fit for a log line.
pub(crate) fn quote(bytes: &[u8]) -> String {
    const SHOWN: usize = 80;
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    let text = format!("\"{}\"", shown.escape_ascii());
    if shown.len() < bytes.len() { format!("{text}... ({} bytes)", bytes.len()) } else { text }
}
