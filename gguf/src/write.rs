//! A streaming writer: first everything that stands before the tensor data, then the data in
//! pieces, so that a model larger than memory can be written.
//!
//! ```
//! # fn main() -> Result<(), gguf::Error> {
//! use gguf::{Endian, Format, Gguf};
//! let mut file = gguf::Builder::new(Endian::Little);
//! file.key("general.architecture", "llama")?;
//! file.key("tokenizer.ggml.tokens", vec!["a", "b"])?;
//! file.tensor("output_norm.weight", &[4], Format::F32)?;
//! let mut writer = file.start(Vec::new())?;
//! writer.data(bytemuck::cast_slice(&[1f32, 1.0, 1.0, 1.0]))?;
//! let bytes = writer.finish()?;
//! assert_eq!(Gguf::parse(&bytes)?.meta().str("general.architecture")?, "llama");
//! # Ok(())
//! # }
//! ```

use std::collections::HashSet;
use std::io::Write;

use byteorder::{BigEndian, LittleEndian, WriteBytesExt};

use crate::error::{Error, Fault, Site};
use crate::parse::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_DEPTH, MAX_KEY_BYTES, MAX_NAME_BYTES};
use crate::value::{Value, ValueType};
use crate::{Endian, Format, Shape};

/// A metadata value to be written: the owned form of [`Value`].
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum ValueBuf {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(Vec<u8>),
    /// Type of the elements (which an empty array has too) and the elements.
    Array(ValueType, Vec<ValueBuf>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl ValueBuf {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            ValueBuf::U8(_) => ValueType::U8,
            ValueBuf::I8(_) => ValueType::I8,
            ValueBuf::U16(_) => ValueType::U16,
            ValueBuf::I16(_) => ValueType::I16,
            ValueBuf::U32(_) => ValueType::U32,
            ValueBuf::I32(_) => ValueType::I32,
            ValueBuf::F32(_) => ValueType::F32,
            ValueBuf::Bool(_) => ValueType::Bool,
            ValueBuf::Str(_) => ValueType::Str,
            ValueBuf::Array(..) => ValueType::Array,
            ValueBuf::U64(_) => ValueType::U64,
            ValueBuf::I64(_) => ValueType::I64,
            ValueBuf::F64(_) => ValueType::F64,
        }
    }

    /// Checks that arrays hold what they say and are not nested too deep.
    fn check(&self, depth: usize) -> Result<(), Fault> {
        let ValueBuf::Array(elem, values) = self else { return Ok(()) };
        if depth >= MAX_DEPTH {
            return Err(Fault::Depth { max: MAX_DEPTH });
        }
        values.iter().try_for_each(|value| match value.value_type() {
            found if found != *elem => Err(Fault::Mixed { found, expected: *elem }),
            _ => value.check(depth + 1),
        })
    }
}

impl From<&Value<'_>> for ValueBuf {
    fn from(value: &Value<'_>) -> ValueBuf {
        match *value {
            Value::U8(v) => ValueBuf::U8(v),
            Value::I8(v) => ValueBuf::I8(v),
            Value::U16(v) => ValueBuf::U16(v),
            Value::I16(v) => ValueBuf::I16(v),
            Value::U32(v) => ValueBuf::U32(v),
            Value::I32(v) => ValueBuf::I32(v),
            Value::F32(v) => ValueBuf::F32(v),
            Value::Bool(v) => ValueBuf::Bool(v),
            Value::Str(v) => ValueBuf::Str(v.to_vec()),
            Value::U64(v) => ValueBuf::U64(v),
            Value::I64(v) => ValueBuf::I64(v),
            Value::F64(v) => ValueBuf::F64(v),
            Value::Array(v) => ValueBuf::Array(v.elem_type(), v.values().map(|v| (&v).into()).collect()),
        }
    }
}

/// A type that is written as one type of metadata value.
pub trait Element: Into<ValueBuf> {
    /// That type.
    const TYPE: ValueType;
}

macro_rules! elements {
    ($($ty:ty => $variant:ident, $from:expr;)*) => {$(
        impl From<$ty> for ValueBuf {
            fn from(value: $ty) -> ValueBuf {
                ValueBuf::$variant($from(value))
            }
        }
        impl Element for $ty {
            const TYPE: ValueType = ValueType::$variant;
        }
    )*};
}

elements! {
    u8 => U8, |v| v;
    i8 => I8, |v| v;
    u16 => U16, |v| v;
    i16 => I16, |v| v;
    u32 => U32, |v| v;
    i32 => I32, |v| v;
    f32 => F32, |v| v;
    bool => Bool, |v| v;
    u64 => U64, |v| v;
    i64 => I64, |v| v;
    f64 => F64, |v| v;
    &str => Str, |v: &str| v.as_bytes().to_vec();
    String => Str, String::into_bytes;
}

impl<T: Element> From<Vec<T>> for ValueBuf {
    fn from(values: Vec<T>) -> ValueBuf {
        ValueBuf::Array(T::TYPE, values.into_iter().map(Into::into).collect())
    }
}

struct Planned {
    name: String,
    shape: Shape,
    format: Format,
    offset: u64,
    size: u64,
}

/// Collects what stands before the tensor data: metadata and tensor table. Refuses what
/// [`crate::Gguf::parse`] would refuse.
pub struct Builder {
    endian: Endian,
    alignment: u64,
    keys: Vec<(String, ValueBuf)>,
    tensors: Vec<Planned>,
    /// End of the data of the tensors so far, with padding.
    end: u64,
    key_names: HashSet<String>,
    tensor_names: HashSet<String>,
}

impl Builder {
    /// An empty file of version 3.
    pub fn new(endian: Endian) -> Builder {
        Builder {
            endian,
            alignment: DEFAULT_ALIGNMENT,
            keys: Vec::new(),
            tensors: Vec::new(),
            end: 0,
            key_names: HashSet::new(),
            tensor_names: HashSet::new(),
        }
    }

    /// Appends a key. `general.alignment` sets the alignment and must come before all tensors.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for a bad or used name, an array of mixed types or nested too deep, or
    /// a bad alignment.
    pub fn key(&mut self, key: &str, value: impl Into<ValueBuf>) -> Result<(), Error> {
        let site = || Site::key(self.keys.len(), key.as_bytes());
        let refuse = |fault| Err(Error::Unwritable { site: site(), fault });
        let value = value.into();
        if let Err(fault) = check_name(key, MAX_KEY_BYTES).and_then(|()| value.check(0)) {
            return refuse(fault);
        }
        if key == ALIGNMENT_KEY {
            match value {
                ValueBuf::U32(v) if v.is_power_of_two() && u64::from(v) <= MAX_ALIGNMENT && self.tensors.is_empty() => {
                    self.alignment = v.into();
                }
                other => {
                    let value = match other {
                        ValueBuf::U32(v) => format!("u32 {v}"),
                        other => other.value_type().to_string(),
                    };
                    let found = format!("{value} after {} tensors", self.tensors.len());
                    return refuse(Fault::Alignment { found, max: MAX_ALIGNMENT });
                }
            }
        }
        if !self.key_names.insert(key.to_owned()) {
            return refuse(Fault::Reused);
        }
        self.keys.push((key.to_owned(), value));
        Ok(())
    }

    /// Appends a tensor to the table. Its data follows in [`Writer::data`], in this order.
    ///
    /// # Errors
    /// [`Error::Unwritable`] for a bad or used name, dimensions out of range, or rows that are not
    /// whole blocks.
    pub fn tensor(&mut self, name: &str, dims: &[u64], format: Format) -> Result<(), Error> {
        let plan = || {
            check_name(name, MAX_NAME_BYTES)?;
            if self.tensor_names.contains(name) {
                return Err(Fault::Reused);
            }
            let overflow = || Fault::Overflow { dims: dims.to_vec() };
            if !(1..=4).contains(&dims.len()) {
                return Err(Fault::DimCount { found: dims.len() as u32 });
            }
            if let Some(dim) = dims.iter().position(|&d| d == 0) {
                return Err(Fault::DimZero { dim });
            }
            let shape = Shape::new(dims).ok_or_else(overflow)?;
            let size = shape.bytes(format)?;
            let end = self.end.checked_add(size).ok_or_else(overflow)?;
            let end = end.checked_next_multiple_of(self.alignment).ok_or_else(overflow)?;
            Ok((Planned { name: name.to_owned(), shape, format, offset: self.end, size }, end))
        };
        let (planned, end) = plan()
            .map_err(|fault| Error::Unwritable { site: Site::tensor(self.tensors.len(), name.as_bytes()), fault })?;
        self.end = end;
        self.tensor_names.insert(name.to_owned());
        self.tensors.push(planned);
        Ok(())
    }

    /// Writes everything before the tensor data to `sink` and goes over to the data.
    ///
    /// # Errors
    /// [`Error::Io`] of the sink.
    pub fn start<W: Write>(self, sink: W) -> Result<Writer<W>, Error> {
        let mut out =
            Writer { sink, endian: self.endian, alignment: self.alignment, written: 0, left: Vec::new(), done: 0 };
        let head = self.head()?;
        out.put(&head)?;
        // Without tensors there is no data to align.
        if !self.tensors.is_empty() {
            out.pad()?;
        }
        out.left = self.tensors.iter().map(|t| (t.format, t.size)).collect();
        Ok(out)
    }

    fn head(&self) -> Result<Vec<u8>, Error> {
        let mut out = Numbers { bytes: b"GGUF".to_vec(), endian: self.endian };
        out.u32(3)?;
        out.u64(self.tensors.len() as u64)?;
        out.u64(self.keys.len() as u64)?;
        for (key, value) in &self.keys {
            out.string(key.as_bytes())?;
            out.u32(value.value_type().id())?;
            out.value(value)?;
        }
        for t in &self.tensors {
            out.string(t.name.as_bytes())?;
            out.u32(t.shape.dims().len() as u32)?;
            t.shape.dims().iter().try_for_each(|&d| out.u64(d))?;
            out.u32(t.format.id())?;
            out.u64(t.offset)?;
        }
        Ok(out.bytes)
    }
}

fn check_name(name: &str, max: u64) -> Result<(), Fault> {
    let found = name.len() as u64;
    if found == 0 || found > max {
        return Err(Fault::NameLength { found, max });
    }
    match name.bytes().position(|b| b == 0) {
        Some(position) => Err(Fault::NameNul { position }),
        None => Ok(()),
    }
}

/// Bytes that grow by numbers in one byte order.
struct Numbers {
    bytes: Vec<u8>,
    endian: Endian,
}

impl Numbers {
    fn u16(&mut self, v: u16) -> std::io::Result<()> {
        match self.endian {
            Endian::Little => self.bytes.write_u16::<LittleEndian>(v),
            Endian::Big => self.bytes.write_u16::<BigEndian>(v),
        }
    }

    fn u32(&mut self, v: u32) -> std::io::Result<()> {
        match self.endian {
            Endian::Little => self.bytes.write_u32::<LittleEndian>(v),
            Endian::Big => self.bytes.write_u32::<BigEndian>(v),
        }
    }

    fn u64(&mut self, v: u64) -> std::io::Result<()> {
        match self.endian {
            Endian::Little => self.bytes.write_u64::<LittleEndian>(v),
            Endian::Big => self.bytes.write_u64::<BigEndian>(v),
        }
    }

    fn string(&mut self, v: &[u8]) -> std::io::Result<()> {
        self.u64(v.len() as u64)?;
        self.bytes.write_all(v)
    }

    fn value(&mut self, value: &ValueBuf) -> std::io::Result<()> {
        match value {
            ValueBuf::U8(v) => self.bytes.write_u8(*v),
            ValueBuf::I8(v) => self.bytes.write_i8(*v),
            ValueBuf::Bool(v) => self.bytes.write_u8((*v).into()),
            ValueBuf::U16(v) => self.u16(*v),
            ValueBuf::I16(v) => self.u16(*v as u16),
            ValueBuf::U32(v) => self.u32(*v),
            ValueBuf::I32(v) => self.u32(*v as u32),
            ValueBuf::F32(v) => self.u32(v.to_bits()),
            ValueBuf::U64(v) => self.u64(*v),
            ValueBuf::I64(v) => self.u64(*v as u64),
            ValueBuf::F64(v) => self.u64(v.to_bits()),
            ValueBuf::Str(v) => self.string(v),
            ValueBuf::Array(elem, values) => {
                self.u32(elem.id())?;
                self.u64(values.len() as u64)?;
                values.iter().try_for_each(|v| self.value(v))
            }
        }
    }
}

/// Writes tensor data behind what a [`Builder`] has written.
pub struct Writer<W: Write> {
    sink: W,
    endian: Endian,
    alignment: u64,
    written: u64,
    /// Format and bytes still to come of each tensor.
    left: Vec<(Format, u64)>,
    /// Tensors complete.
    done: usize,
}

impl<W: Write> Writer<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.sink.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<(), Error> {
        let zeros = self.written.next_multiple_of(self.alignment) - self.written;
        self.put(&vec![0; zeros as usize])
    }

    /// Appends data to the tensor that is next in the table: all of it or a piece of whole blocks,
    /// in little-endian order whatever the order of the file.
    ///
    /// # Errors
    /// [`Error::Unfinished`] where the piece is not of whole blocks or longer than what the tensor
    /// has left, [`Error::Io`] of the sink.
    pub fn data(&mut self, blocks: &[u8]) -> Result<(), Error> {
        let index = self.done;
        let Some(&(format, left)) = self.left.get(index) else {
            let extra = format!("{} bytes after the last of {index} tensors", blocks.len());
            return Err(Error::Unfinished(extra));
        };
        let len = blocks.len() as u64;
        if len > left || !blocks.len().is_multiple_of(format.block_bytes()) {
            return Err(Error::Unfinished(format!(
                "{len} bytes for tensor {index}, expected whole blocks of {} bytes, {left} at most",
                format.block_bytes()
            )));
        }
        match self.endian {
            Endian::Little => self.put(blocks)?,
            Endian::Big => {
                let mut swapped = blocks.to_vec();
                format.swap_bytes(&mut swapped);
                self.put(&swapped)?;
            }
        }
        self.left[index].1 = left - len;
        if len == left {
            self.done += 1;
            self.pad()?;
        }
        Ok(())
    }

    /// Flushes and returns the sink.
    ///
    /// # Errors
    /// [`Error::Unfinished`] where data is missing, [`Error::Io`] of the sink.
    pub fn finish(mut self) -> Result<W, Error> {
        if let Some((format, left)) = self.left.get(self.done) {
            return Err(Error::Unfinished(format!(
                "tensor {} of format {format} lacks {left} bytes, expected all data of {} tensors",
                self.done,
                self.left.len()
            )));
        }
        self.sink.flush()?;
        Ok(self.sink)
    }
}
