//! The GGUF file format: metadata, tensor table, block formats, writer.
//!
//! This is the lowest crate of Handmill: it knows bits and nothing of models. It takes the bytes of
//! a file, or of its start and end, and never opens one, so it works wherever bytes do. Whatever the bytes are, it answers with a value or an [`Error`] and never panics.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bytes = std::fs::read("model.gguf")?;
//! let file = gguf::Gguf::parse(&bytes)?;
//! let arch = file.meta().str("general.architecture")?;
//! for tensor in file.tensors() {
//!     println!("{arch} {} {} {:?}", tensor.name, tensor.format, tensor.shape);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`mod@format`] | THE list of tensor formats, [`Block`], decoding and encoding |
//! | [`value`] | metadata values; arrays stay bytes of the file until they are read |
//! | [`meta`] | typed getters whose errors name the key, the offset, the found and the expected |
//! | [`tensor`] | names, shapes, offsets |
//! | [`split`] | models cut into several files |
//! | [`mod@write`] | a streaming writer |
#![forbid(unsafe_code)]

pub mod error;
pub mod format;
pub mod meta;
mod parse;
mod reader;
pub mod split;
pub mod tensor;
pub mod value;
pub mod write;

use std::borrow::Cow;

pub use error::{Error, Fault, Site};
pub use format::{Block, Encode, Format};
pub use meta::Meta;
pub use split::Split;
pub use tensor::{Shape, TensorInfo};
pub use value::{Array, Value, ValueType};
pub use write::{Builder, ValueBuf, Writer};

/// Byte order of a file. Every number in it has this order: counts, lengths, metadata and the
/// fields of tensor blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first: nearly every file.
    Little,
    /// Most significant byte first: files converted for s390x or old POWER machines.
    Big,
}

/// What is in memory of one file of a model.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    head: &'a [u8],
    tail: &'a [u8],
    len: u64,
}

impl<'a> Part<'a> {
    /// Bytes of a file's end that parsing may look at: the padding behind the last tensor.
    pub const TAIL: u64 = parse::MAX_TRAILING_ZEROS;

    /// A file of which everything is in memory.
    pub fn whole(bytes: &'a [u8]) -> Part<'a> {
        Part { head: bytes, tail: bytes, len: bytes.len() as u64 }
    }

    /// A file of `len` bytes of which the first and the last are in memory; they may overlap. Of the last,
    /// [`Part::TAIL`] are always enough.
    pub fn ends(head: &'a [u8], tail: &'a [u8], len: u64) -> Part<'a> {
        let most = usize::try_from(len).unwrap_or(usize::MAX);
        Part { head: &head[..head.len().min(most)], tail: &tail[tail.len().saturating_sub(most)..], len }
    }

    /// Its last `n` bytes; none where they are not in memory.
    fn last(&self, n: u64) -> Option<&'a [u8]> {
        let n = usize::try_from(n).ok()?;
        self.tail.get(self.tail.len().checked_sub(n)?..)
    }
}

/// A parsed and validated GGUF model, borrowing the bytes of its file or files.
///
/// Every tensor lies inside its part, no two overlap, every name and key is unique, and every
/// metadata value can be decoded: nothing read later through this type can fail on bounds.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    parts: Vec<Part<'a>>,
    version: u32,
    endian: Endian,
    alignment: u64,
    meta: Meta<'a>,
    tensors: tensor::Tensors,
}

impl<'a> Gguf<'a> {
    /// Parses one file. A part of a split model parses too, with the tensors it holds itself; see
    /// [`Gguf::split`].
    ///
    /// # Errors
    /// [`Error::Malformed`] with place, byte offset, what was found and what was expected.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, Error> {
        parse::parse(Part::whole(bytes))
    }

    /// Parses the parts of a split model, given in order. The metadata is that of the first part;
    /// the tensors of all parts follow each other.
    ///
    /// # Errors
    /// As [`Gguf::parse`], wrapped in [`Error::Part`], and [`Error::Malformed`] where `split.no`,
    /// `split.count` or `split.tensors.count` disagree with what was given, or two parts define one
    /// tensor.
    pub fn parse_split(parts: &[&'a [u8]]) -> Result<Gguf<'a>, Error> {
        let parts: Vec<Part<'a>> = parts.iter().map(|bytes| Part::whole(bytes)).collect();
        split::parse(&parts)
    }

    /// Parses a model of one or several files of which not all bytes are in memory: [`Gguf::parse`] or
    /// [`Gguf::parse_split`], by the number of parts. [`Gguf::data`] is empty for what was not given.
    ///
    /// # Errors
    /// As those; where a part's header goes on behind its first bytes given, [`Error::more_needed`] says which and how
    /// far.
    pub fn parse_parts(parts: &[Part<'a>]) -> Result<Gguf<'a>, Error> {
        match *parts {
            [one] => parse::parse(one),
            _ => split::parse(parts),
        }
    }

    /// The format version of the (first) file: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The byte order of the file, the same in all parts.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// The alignment of tensor data in bytes, a power of two (of the first part).
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// The metadata (of the first part).
    pub fn meta(&self) -> &Meta<'a> {
        &self.meta
    }

    /// Which part of a split model this file is, `None` for a whole model.
    ///
    /// # Errors
    /// Where the `split.*` keys are of a wrong type or out of range.
    pub fn split(&self) -> Result<Option<Split>, Error> {
        Split::read(&self.meta)
    }

    /// All tensors, in file order, part after part.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.tensors.as_slice()
    }

    /// The tensor of this name. Binary search.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// The bytes of a tensor as they stand in the file. Empty for a [`TensorInfo`] that is not of
    /// this model and points outside it, and for bytes that were not given to [`Gguf::parse_parts`].
    pub fn data(&self, t: &TensorInfo) -> &'a [u8] {
        let range = || {
            let start = usize::try_from(t.offset).ok()?;
            let end = start.checked_add(usize::try_from(t.size).ok()?)?;
            self.parts.get(t.part)?.head.get(start..end)
        };
        range().unwrap_or(&[])
    }

    /// The bytes of a tensor with every block field in little-endian order, which is what
    /// [`Format::decoder`] and the kernels take. Borrowed unless the file is big-endian and the
    /// format has fields of more than one byte.
    pub fn little_endian(&self, t: &TensorInfo) -> Cow<'a, [u8]> {
        let data = self.data(t);
        match self.endian {
            Endian::Little => Cow::Borrowed(data),
            Endian::Big if t.format.fields().is_empty() => Cow::Borrowed(data),
            Endian::Big => {
                let mut swapped = data.to_vec();
                t.format.swap_bytes(&mut swapped);
                Cow::Owned(swapped)
            }
        }
    }
}
