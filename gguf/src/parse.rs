//! From bytes to [`Gguf`], in stages that each are a type made only from the one before:
//! [`Header`] -> [`Keys`] -> [`Infos`] -> placed tensors. Nothing after a stage reads what the
//! stage has not checked, and no memory is asked for before the count behind it is bounded by the
//! bytes left in the file and by a fixed cap.

use crate::error::{Error, Fault, Site, quote};
use crate::meta::{Entry, Meta};
use crate::reader::{Bad, Reader};
use crate::tensor::{Shape, TensorInfo, Tensors};
use crate::value::{Array, Value, ValueType};
use crate::{Endian, Format, Gguf, Part};

/// Most keys. With [`MAX_TENSORS`], what the parser allocates stays below 64 MiB; the largest
/// files known have under 100 keys and under 70,000 tensors.
const MAX_KEYS: u64 = 1 << 18;
/// Most tensors.
pub(crate) const MAX_TENSORS: u64 = 1 << 17;
/// Longest key in bytes, from the format's description.
pub(crate) const MAX_KEY_BYTES: u64 = 65_535;
/// Longest tensor name in bytes, from the format's description.
pub(crate) const MAX_NAME_BYTES: u64 = 64;
/// Largest alignment accepted. Files in use have 32, a few 64 or 4096.
pub(crate) const MAX_ALIGNMENT: u64 = 1 << 20;
/// Alignment of files that do not state one.
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;
/// The key that states it.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// Deepest nesting of arrays.
pub(crate) const MAX_DEPTH: usize = 16;
/// Smallest key entry: a name of one byte, a type, a value of one byte.
const MIN_KEY: u64 = 8 + 1 + 4 + 1;
/// Smallest tensor entry: a name of one byte, one dimension, format and offset.
const MIN_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// Zero bytes after the last tensor that are taken as padding to some block size.
pub(crate) const MAX_TRAILING_ZEROS: u64 = 1 << 20;

/// Parses one file.
pub(crate) fn parse(part: Part<'_>) -> Result<Gguf<'_>, Error> {
    Header::read(part)?.keys()?.infos()?.place()
}

/// Magic, version, byte order and bounded counts.
struct Header<'a> {
    part: Part<'a>,
    reader: Reader<'a>,
    version: u32,
    tensors: usize,
    keys: usize,
}

impl<'a> Header<'a> {
    fn read(part: Part<'a>) -> Result<Header<'a>, Error> {
        let mut reader = Reader::new(part, Endian::Little);
        let magic = part.head.get(..4).unwrap_or(part.head);
        if magic != b"GGUF" {
            return Err(Fault::Magic { found: quote(magic) }.at(Site::Header, 0));
        }
        let read = |reader: &mut Reader<'a>| {
            reader.take(4)?;
            let mut version = reader.u32()?;
            // Versions are small: a number with an empty lower half was written the other way.
            if version != 0 && version & 0xffff == 0 {
                reader.endian = Endian::Big;
                version = version.swap_bytes();
            }
            if !matches!(version, 2 | 3) {
                return Err(Bad { offset: 4, fault: Fault::Version { found: version } });
            }
            let tensors = reader.u64()?;
            let keys = reader.u64()?;
            let tensors = count(reader, 8, "tensors", tensors, (MIN_TENSOR, MAX_TENSORS))?;
            let keys = count(reader, 16, "keys", keys, (MIN_KEY, MAX_KEYS))?;
            Ok((version, tensors, keys))
        };
        let (version, tensors, keys) = read(&mut reader).map_err(|b| b.in_site(Site::Header))?;
        Ok(Header { part, reader, version, tensors, keys })
    }

    fn keys(self) -> Result<Keys<'a>, Error> {
        let mut reader = self.reader;
        let mut entries = Vec::with_capacity(self.keys);
        for index in 0..self.keys {
            entries.push(key(&mut reader, index)?);
        }
        let meta = Meta::new(entries, reader.pos())?;
        let alignment = alignment(&meta)?;
        Ok(Keys { header: Header { reader, ..self }, meta, alignment })
    }
}

/// A count of entries, bounded by the bytes left and by a cap. `offset` is where it was read.
fn count(
    reader: &Reader<'_>,
    offset: u64,
    what: &'static str,
    found: u64,
    (smallest, cap): (u64, u64),
) -> Result<usize, Bad> {
    let max = cap.min(reader.left() / smallest);
    if found > max {
        return Err(Bad { offset, fault: Fault::Count { what, found, max } });
    }
    // Fits: `found` is at most the number of bytes in memory.
    Ok(found as usize)
}

/// Metadata with unique keys and readable values, and a sane alignment.
struct Keys<'a> {
    header: Header<'a>,
    meta: Meta<'a>,
    alignment: u64,
}

impl<'a> Keys<'a> {
    fn infos(self) -> Result<Infos<'a>, Error> {
        let mut reader = self.header.reader;
        let mut tensors = Vec::with_capacity(self.header.tensors);
        for index in 0..self.header.tensors {
            tensors.push(tensor(&mut reader, index)?);
        }
        let tensors = Tensors::new(tensors, 1)?;
        let header = Header { reader, ..self.header };
        Ok(Infos { keys: Keys { header, ..self }, tensors })
    }
}

/// Tensors with unique names and with shapes, formats and sizes that agree. Their offsets are as
/// in the file: unchecked, and relative to the start of the tensor data.
struct Infos<'a> {
    keys: Keys<'a>,
    tensors: Tensors,
}

impl<'a> Infos<'a> {
    fn place(self) -> Result<Gguf<'a>, Error> {
        let Infos { keys: Keys { header, meta, alignment }, mut tensors } = self;
        let len = header.part.len;
        // No overflow: a file is shorter than 2^63 and the alignment at most 2^20.
        let start = header.reader.pos().next_multiple_of(alignment);
        let available = len.saturating_sub(start);
        for (index, t) in tensors.as_mut_slice().iter_mut().enumerate() {
            let fault = match t.offset.checked_add(t.size) {
                _ if !t.offset.is_multiple_of(alignment) => Fault::Misaligned { found: t.offset, alignment },
                Some(end) if end <= available => {
                    t.offset += start;
                    continue;
                }
                _ => Fault::Outside { found: t.offset, size: t.size, available },
            };
            return Err(fault.at(Site::tensor(index, t.name.as_bytes()), t.entry));
        }
        let end = no_overlap(tensors.as_slice(), start, alignment)?;
        trailing(header.part, end, alignment)?;
        Ok(Gguf {
            parts: vec![header.part],
            version: header.version,
            endian: header.reader.endian,
            alignment,
            meta,
            tensors,
        })
    }
}

/// Checks that the tensors follow each other with nothing but padding between; returns the end of
/// the last one, or `start` without tensors.
fn no_overlap(tensors: &[TensorInfo], start: u64, alignment: u64) -> Result<u64, Error> {
    let mut order: Vec<u32> = (0..tensors.len() as u32).collect();
    order.sort_unstable_by_key(|&i| (tensors[i as usize].offset, i));
    let mut end = start;
    let mut previous = "";
    for index in order {
        let t = &tensors[index as usize];
        if t.offset < end {
            let other = quote(previous.as_bytes());
            let site = Site::tensor(index as usize, t.name.as_bytes());
            return Err(Fault::Overlap { start: t.offset, end, other }.at(site, t.entry));
        }
        let found = t.offset - end;
        if found >= alignment {
            return Err(Fault::Uncounted { found, alignment }.at(Site::Data, end));
        }
        // No overflow: the end was checked against the length of the file.
        end = t.offset + t.size;
        previous = &t.name;
    }
    Ok(end)
}

/// Checks the bytes behind the last tensor. Fewer than the alignment are padding, whatever they
/// are; more are accepted as zeros up to a limit (files padded to a disk block), because anything
/// else is the sign of a tensor missing from the table, which shifts the data of all others.
fn trailing(part: Part<'_>, end: u64, alignment: u64) -> Result<(), Error> {
    // `end` exceeds the length only without tensors, where the data section may be absent.
    let found = part.len.saturating_sub(end);
    if found < alignment {
        return Ok(());
    }
    if found <= MAX_TRAILING_ZEROS {
        let rest = part.last(found).ok_or_else(|| Fault::Beyond { need: part.len }.at(Site::Data, end))?;
        if rest.iter().all(|&b| b == 0) {
            return Ok(());
        }
    }
    Err(Fault::Uncounted { found, alignment }.at(Site::Data, end))
}

/// The alignment that the metadata states, or the default.
fn alignment(meta: &Meta<'_>) -> Result<u64, Error> {
    let Some((index, entry)) = meta.entry(ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match entry.value {
        Value::U32(v) if v.is_power_of_two() && u64::from(v) <= MAX_ALIGNMENT => Ok(v.into()),
        other => {
            let fault = Fault::Alignment { found: other.to_string(), max: MAX_ALIGNMENT };
            Err(fault.at(Site::key(index, ALIGNMENT_KEY.as_bytes()), entry.offset))
        }
    }
}

/// A key or tensor name: not empty, not too long, without NUL, UTF-8. On failure also what of the
/// name could be read, for the message.
fn name<'a>(reader: &mut Reader<'a>, max: u64) -> Result<&'a str, (Bad, &'a [u8])> {
    let offset = reader.pos();
    let bytes = reader.string().map_err(|bad| (bad, &[][..]))?;
    let fault = if bytes.is_empty() || bytes.len() as u64 > max {
        Fault::NameLength { found: bytes.len() as u64, max }
    } else if let Some(position) = bytes.iter().position(|&b| b == 0) {
        Fault::NameNul { position }
    } else {
        match std::str::from_utf8(bytes) {
            Ok(name) => return Ok(name),
            Err(e) => Fault::NameUtf8 { position: e.valid_up_to() },
        }
    };
    Err((Bad { offset, fault }, bytes))
}

/// Reads one metadata entry.
fn key<'a>(reader: &mut Reader<'a>, index: usize) -> Result<Entry<'a>, Error> {
    let start = reader.pos();
    let key = name(reader, MAX_KEY_BYTES).map_err(|(bad, name)| bad.in_site(Site::key(index, name)))?;
    let read = |reader: &mut Reader<'a>| {
        let value_type = value_type(reader)?;
        let offset = reader.pos();
        Ok((value(reader, value_type)?, offset))
    };
    let (value, offset) = read(reader).map_err(|bad: Bad| bad.in_site(Site::key(index, key.as_bytes())))?;
    Ok(Entry { key, value, start, offset })
}

fn value_type(reader: &mut Reader<'_>) -> Result<ValueType, Bad> {
    let offset = reader.pos();
    let found = reader.u32()?;
    ValueType::from_id(found).ok_or(Bad { offset, fault: Fault::ValueType { found } })
}

/// Reads a value of a type; every element of an array is checked, none is kept.
pub(crate) fn value<'a>(reader: &mut Reader<'a>, of: ValueType) -> Result<Value<'a>, Bad> {
    Ok(match of {
        ValueType::U8 => Value::U8(reader.u8()?),
        ValueType::I8 => Value::I8(reader.u8()? as i8),
        ValueType::U16 => Value::U16(reader.u16()?),
        ValueType::I16 => Value::I16(reader.u16()? as i16),
        ValueType::U32 => Value::U32(reader.u32()?),
        ValueType::I32 => Value::I32(reader.u32()? as i32),
        ValueType::F32 => Value::F32(f32::from_bits(reader.u32()?)),
        ValueType::U64 => Value::U64(reader.u64()?),
        ValueType::I64 => Value::I64(reader.u64()? as i64),
        ValueType::F64 => Value::F64(f64::from_bits(reader.u64()?)),
        ValueType::Str => Value::Str(reader.string()?),
        ValueType::Array => Value::Array(array(reader, 1)?),
        ValueType::Bool => {
            let offset = reader.pos();
            let found = reader.u8()?;
            all_bools(&[found], offset)?;
            Value::Bool(found == 1)
        }
    })
}

fn all_bools(bytes: &[u8], offset: u64) -> Result<(), Bad> {
    match bytes.iter().enumerate().find(|(_, b)| **b > 1) {
        Some((i, &found)) => Err(Bad { offset: offset + i as u64, fault: Fault::Bool { found } }),
        None => Ok(()),
    }
}

/// Walks an array. Recursion is bounded by [`MAX_DEPTH`], work by the bytes of the file: every
/// element takes at least one.
fn array<'a>(reader: &mut Reader<'a>, depth: usize) -> Result<Array<'a>, Bad> {
    if depth > MAX_DEPTH {
        return Err(reader.bad(Fault::Depth { max: MAX_DEPTH }));
    }
    let elem = value_type(reader)?;
    let offset = reader.pos();
    let len = reader.u64()?;
    let len = count(reader, offset, "array elements", len, (elem.min_size(), u64::MAX))?;
    let start = reader.pos();
    match elem {
        ValueType::Str => (0..len).try_for_each(|_| reader.string().map(drop))?,
        ValueType::Array => (0..len).try_for_each(|_| array(reader, depth + 1).map(drop))?,
        // No overflow: the product is at most the bytes left, by the check of the count.
        fixed => {
            let bytes = reader.take(len as u64 * fixed.min_size())?;
            if fixed == ValueType::Bool {
                all_bools(bytes, start)?;
            }
        }
    }
    Ok(Array { elem, endian: reader.endian, len, bytes: reader.since(start) })
}

/// Reads one entry of the tensor table. The offset stays relative and unchecked.
fn tensor(reader: &mut Reader<'_>, index: usize) -> Result<TensorInfo, Error> {
    let entry = reader.pos();
    let name = name(reader, MAX_NAME_BYTES).map_err(|(bad, name)| bad.in_site(Site::tensor(index, name)))?;
    let mut read = || {
        let shape = shape(reader)?;
        let offset = reader.pos();
        let found = reader.u32()?;
        let format = Format::from_id(found).ok_or(Bad { offset, fault: Fault::Format { found } })?;
        let size = shape.bytes(format).map_err(|fault| Bad { offset, fault })?;
        let offset = reader.u64()?;
        let name = name.to_owned();
        Ok(TensorInfo { name, shape, format, part: 0, offset, size, entry })
    };
    read().map_err(|bad: Bad| bad.in_site(Site::tensor(index, name.as_bytes())))
}

fn shape(reader: &mut Reader<'_>) -> Result<Shape, Bad> {
    let offset = reader.pos();
    let bad = |fault| Bad { offset, fault };
    let found = reader.u32()?;
    if !(1..=4).contains(&found) {
        return Err(bad(Fault::DimCount { found }));
    }
    let mut dims = [0; 4];
    let dims = &mut dims[..found as usize];
    for (dim, value) in dims.iter_mut().enumerate() {
        let offset = reader.pos();
        *value = reader.u64()?;
        if *value == 0 {
            return Err(Bad { offset, fault: Fault::DimZero { dim } });
        }
    }
    Shape::new(dims).ok_or_else(|| bad(Fault::Overflow { dims: dims.to_vec() }))
}
