//! Metadata values as they stand in a file: scalars are decoded, strings and arrays borrow.
//!
//! An array keeps its bytes, which the parser has walked once, and decodes an element when it is
//! asked for: a vocabulary of 262,144 strings costs no allocation.

use std::fmt;

use crate::error::quote;
use crate::reader::Reader;
use crate::{Endian, Part};

/// The type of a metadata value or of the elements of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Str = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [ValueType; 13] = {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Str, Array, U64, I64, F64]
    };

    /// The type of an id in a file.
    pub fn from_id(id: u32) -> Option<ValueType> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// The id in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Bytes of one value; `None` for strings and arrays, whose size varies.
    pub fn size(self) -> Option<u64> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::Str | ValueType::Array => None,
        }
    }

    /// The fewest bytes that one value takes in a file.
    pub(crate) fn min_size(self) -> u64 {
        match self {
            ValueType::Str => 8,
            ValueType::Array => 12,
            other => other.size().unwrap_or(1),
        }
    }

    /// Name, as in messages.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::Str => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value. Strings are the bytes of the file, which need not be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The type of the value.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::Str(_) => ValueType::Str,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The value of any integer type, if it fits.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U64(v) => Some(v),
            ref other => u64::try_from(other.as_i64()?).ok(),
        }
    }

    /// The value of any integer type, if it fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::I64(v) => Some(v),
            Value::U64(v) => i64::try_from(v).ok(),
            _ => None,
        }
    }

    /// The value of either float type, rounded to 32 bits.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }

    /// The value of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// The bytes of a string.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Value::Str(v) => Some(v),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Array<'a>> {
        match self {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }
}

/// Type and value, as in messages: `u32 7`, `string "llama"`, `array of 3 f32`.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.value_type().name();
        match self {
            Value::U8(v) => write!(f, "{name} {v}"),
            Value::I8(v) => write!(f, "{name} {v}"),
            Value::U16(v) => write!(f, "{name} {v}"),
            Value::I16(v) => write!(f, "{name} {v}"),
            Value::U32(v) => write!(f, "{name} {v}"),
            Value::I32(v) => write!(f, "{name} {v}"),
            Value::F32(v) => write!(f, "{name} {v}"),
            Value::Bool(v) => write!(f, "{name} {v}"),
            Value::U64(v) => write!(f, "{name} {v}"),
            Value::I64(v) => write!(f, "{name} {v}"),
            Value::F64(v) => write!(f, "{name} {v}"),
            Value::Str(v) => write!(f, "{name} {}", quote(v)),
            Value::Array(v) => write!(f, "{name} of {} {}", v.len(), v.elem_type()),
        }
    }
}

/// An array of metadata values, kept as the bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub(crate) elem: ValueType,
    pub(crate) endian: Endian,
    pub(crate) len: usize,
    /// Validated: holds exactly `len` elements.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// Type of the elements.
    pub fn elem_type(&self) -> ValueType {
        self.elem
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as they stand in the file, in the file's byte order.
    pub fn raw(&self) -> &'a [u8] {
        self.bytes
    }

    /// All elements, of whatever type.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let elem = self.elem;
        let mut reader = Reader::new(Part::whole(self.bytes), self.endian);
        (0..self.len).map_while(move |_| crate::parse::value(&mut reader, elem).ok())
    }

    /// The strings of an array of strings; nothing for an array of another type.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let len = if self.elem == ValueType::Str { self.len } else { 0 };
        let mut reader = Reader::new(Part::whole(self.bytes), self.endian);
        (0..len).map_while(move |_| reader.string().ok())
    }

    /// The numbers of an array of any integer type; `None` for another type, or where a `u64`
    /// exceeds `i64::MAX`.
    pub fn ints(&self) -> Option<impl Iterator<Item = i64> + use<'a>> {
        use ValueType::*;
        let Self { elem, endian, bytes, .. } = *self;
        if !matches!(elem, U8 | I8 | U16 | I16 | U32 | I32 | U64 | I64) {
            return None;
        }
        let width = elem.size()? as usize;
        if elem == U64 && bytes.chunks_exact(8).any(|b| endian.u64(b) > i64::MAX as u64) {
            return None;
        }
        Some(bytes.chunks_exact(width).map(move |b| match elem {
            U8 => i64::from(b[0]),
            I8 => i64::from(b[0] as i8),
            U16 => i64::from(endian.u16(b)),
            I16 => i64::from(endian.u16(b) as i16),
            U32 => i64::from(endian.u32(b)),
            I32 => i64::from(endian.u32(b) as i32),
            _ => endian.u64(b) as i64,
        }))
    }

    /// The numbers of an array of either float type, rounded to 32 bits; `None` for another type.
    pub fn floats(&self) -> Option<impl Iterator<Item = f32> + use<'a>> {
        let Self { elem, endian, bytes, .. } = *self;
        if !matches!(elem, ValueType::F32 | ValueType::F64) {
            return None;
        }
        let width = elem.size()? as usize;
        Some(bytes.chunks_exact(width).map(move |b| match elem {
            ValueType::F32 => f32::from_bits(endian.u32(b)),
            _ => f64::from_bits(endian.u64(b)) as f32,
        }))
    }

    /// The values of an array of booleans; `None` for another type.
    pub fn bools(&self) -> Option<impl Iterator<Item = bool> + use<'a>> {
        let bytes = self.bytes;
        (self.elem == ValueType::Bool).then(|| bytes.iter().map(|&b| b != 0))
    }

    /// The arrays of an array of arrays; `None` for another type.
    pub fn arrays(&self) -> Option<impl Iterator<Item = Array<'a>> + use<'a>> {
        let values = self.values();
        (self.elem == ValueType::Array).then(|| {
            values.filter_map(|v| match v {
                Value::Array(a) => Some(a),
                _ => None,
            })
        })
    }
}
