//! Metadata by key, with getters that say what is wrong when the type is not the expected one.

use crate::error::{Error, Fault, Site};
use crate::tensor::sorted_unique;
use crate::value::{Array, Value, ValueType};

/// One metadata entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a str,
    pub(crate) value: Value<'a>,
    /// Byte offset of the entry, where its key starts.
    pub(crate) start: u64,
    /// Byte offset of the value (after its type id).
    pub(crate) offset: u64,
}

/// The metadata of a model. Keys are unique.
///
/// Each typed getter has two forms: `u32(key)` fails where the key is missing, `opt_u32(key)`
/// answers `Ok(None)`. Both fail where the value is of another type or does not fit, with an error
/// that names the key, its byte offset, the type and value found and the type expected.
#[derive(Clone, Debug)]
pub struct Meta<'a> {
    entries: Vec<Entry<'a>>,
    by_key: Vec<u32>,
    end: u64,
}

/// Makes the required and the optional form of a typed getter.
macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident, $opt:ident: $ty:ty = $expected:literal, $read:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::Missing`], or [`Error::Type`] for a value of another type or out of range.
        pub fn $name(&self, key: &str) -> Result<$ty, Error> {
            self.$opt(key)?.ok_or_else(|| self.missing(key, $expected))
        }

        /// As the getter of the same name without `opt_`, but `Ok(None)` where the key is absent.
        ///
        /// # Errors
        /// [`Error::Type`] for a value of another type or out of range.
        pub fn $opt(&self, key: &str) -> Result<Option<$ty>, Error> {
            self.typed(key, $expected, $read)
        }
    )*};
}

impl<'a> Meta<'a> {
    /// Builds the key index; fails where a key occurs twice. `end` is the byte offset of the end of
    /// the metadata.
    pub(crate) fn new(entries: Vec<Entry<'a>>, end: u64) -> Result<Meta<'a>, Error> {
        match sorted_unique(entries.len(), |i| entries[i].key.as_bytes()) {
            Ok(by_key) => Ok(Meta { entries, by_key, end }),
            Err((later, earlier)) => {
                let site = Site::key(later, entries[later].key.as_bytes());
                Err(Fault::Duplicate { first: entries[earlier].start, part: None }.at(site, entries[later].start))
            }
        }
    }

    /// Position in the file and entry of a key.
    pub(crate) fn entry(&self, key: &str) -> Option<(usize, &Entry<'a>)> {
        let find = self.by_key.binary_search_by(|&i| self.entries[i as usize].key.cmp(key));
        let index = self.by_key[find.ok()?] as usize;
        Some((index, &self.entries[index]))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.entry(key).map(|(_, e)| &e.value)
    }

    /// Byte offset of a key's value in the file: for messages about it.
    pub fn offset(&self, key: &str) -> Option<u64> {
        self.entry(key).map(|(_, e)| e.offset)
    }

    /// All keys and values, in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, &Value<'a>)> {
        self.entries.iter().map(|e| (e.key, &e.value))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some((_, entry)) = self.entry(key) else {
            return Ok(None);
        };
        read(&entry.value).map(Some).ok_or_else(|| Error::Type {
            key: key.to_owned(),
            offset: entry.offset,
            found: entry.value.to_string(),
            expected,
        })
    }

    fn missing(&self, key: &str, expected: &'static str) -> Error {
        Error::Missing { key: key.to_owned(), expected, end: self.end }
    }

    getters! {
        /// An integer of any type that fits 32 bits without sign.
        u32, opt_u32: u32 = "an integer from 0 to 4294967295",
            |v| v.as_u64().and_then(|v| u32::try_from(v).ok());
        /// An integer of any type that is not negative.
        u64, opt_u64: u64 = "an integer, 0 or more", Value::as_u64;
        /// A float of either type, rounded to 32 bits.
        f32, opt_f32: f32 = "f32 or f64", Value::as_f32;
        /// A boolean.
        bool, opt_bool: bool = "bool", Value::as_bool;
        /// A string, checked to be UTF-8.
        str, opt_str: &'a str = "a string of valid UTF-8",
            |v| v.as_bytes().and_then(|b| std::str::from_utf8(b).ok());
        /// A string as the bytes of the file.
        bytes, opt_bytes: &'a [u8] = "a string", Value::as_bytes;
        /// An array of any type.
        array, opt_array: Array<'a> = "an array", |v| v.as_array().copied();
        /// An array of strings, empty or not.
        strings, opt_strings: Array<'a> = "an array of strings", |v| array_of(v, &[ValueType::Str]);
        /// An array of either float type, empty or not.
        floats, opt_floats: Array<'a> = "an array of f32 or f64",
            |v| array_of(v, &[ValueType::F32, ValueType::F64]);
        /// An array of any integer type whose elements fit `i64`, empty or not.
        ints, opt_ints: Array<'a> = "an array of integers below 2^63",
            |v| v.as_array().filter(|a| a.ints().is_some()).copied();
        /// An array of booleans, empty or not.
        bools, opt_bools: Array<'a> = "an array of bool", |v| array_of(v, &[ValueType::Bool]);
    }
}

fn array_of<'a>(value: &Value<'a>, types: &[ValueType]) -> Option<Array<'a>> {
    value.as_array().filter(|a| types.contains(&a.elem)).copied()
}
