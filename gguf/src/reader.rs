//! A cursor over bytes that cannot read past their end.
//!
//! All arithmetic is on `u64` and compares against the bytes left, so no length read from a file
//! can wrap; a failed read leaves the cursor where it was.

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use crate::error::{Error, Fault, Site};
use crate::{Endian, Part};

/// A fault and its place in the bytes, before it is known which entry it belongs to.
#[derive(Debug)]
pub(crate) struct Bad {
    pub(crate) offset: u64,
    pub(crate) fault: Fault,
}

impl Bad {
    /// The error of this fault in an entry.
    pub(crate) fn in_site(self, site: Site) -> Error {
        self.fault.at(site, self.offset)
    }
}

impl Endian {
    /// The first two bytes of `b` as a number. The callers pass slices of the right length.
    pub(crate) fn u16(self, b: &[u8]) -> u16 {
        match self {
            Endian::Little => LittleEndian::read_u16(b),
            Endian::Big => BigEndian::read_u16(b),
        }
    }

    /// The first four bytes of `b` as a number.
    pub(crate) fn u32(self, b: &[u8]) -> u32 {
        match self {
            Endian::Little => LittleEndian::read_u32(b),
            Endian::Big => BigEndian::read_u32(b),
        }
    }

    /// The first eight bytes of `b` as a number.
    pub(crate) fn u64(self, b: &[u8]) -> u64 {
        match self {
            Endian::Little => LittleEndian::read_u64(b),
            Endian::Big => BigEndian::read_u64(b),
        }
    }
}

/// Bounded cursor. Copying it marks a place to return to.
///
/// Lengths are judged by the bytes that the file has, of which only the first may be in memory: what lies behind those
/// is [`Fault::Beyond`], which says how much more to bring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    len: u64,
    pos: usize,
    pub(crate) endian: Endian,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(part: Part<'a>, endian: Endian) -> Reader<'a> {
        Reader { bytes: part.head, len: part.len, pos: 0, endian }
    }

    /// Bytes from the start.
    pub(crate) fn pos(&self) -> u64 {
        self.pos as u64
    }

    /// Bytes of the file still to be read.
    pub(crate) fn left(&self) -> u64 {
        self.len - self.pos as u64
    }

    /// A fault at the next byte.
    pub(crate) fn bad(&self, fault: Fault) -> Bad {
        Bad { offset: self.pos(), fault }
    }

    /// The next `n` bytes.
    #[inline]
    pub(crate) fn take(&mut self, n: u64) -> Result<&'a [u8], Bad> {
        let left = self.left();
        if n > left {
            return Err(self.bad(Fault::Cut { need: n, left }));
        }
        // No overflow: `n <= left`, so the sum is at most the length of the file.
        let end = self.pos as u64 + n;
        if end > self.bytes.len() as u64 {
            return Err(self.bad(Fault::Beyond { need: end }));
        }
        let start = self.pos;
        self.pos = end as usize;
        Ok(&self.bytes[start..self.pos])
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Bad> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Bad> {
        Ok(self.endian.u16(self.take(2)?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Bad> {
        Ok(self.endian.u32(self.take(4)?))
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Bad> {
        Ok(self.endian.u64(self.take(8)?))
    }

    /// A string: its length in 8 bytes, then its bytes. On failure the cursor has not moved.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Bad> {
        let mark = *self;
        let len = self.u64()?;
        self.take(len).inspect_err(|_| *self = mark)
    }

    /// The bytes between an earlier position and this one.
    pub(crate) fn since(&self, start: u64) -> &'a [u8] {
        &self.bytes[(start as usize).min(self.pos)..self.pos]
    }
}
