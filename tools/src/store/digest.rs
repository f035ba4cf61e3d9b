//! Digests: how the store names bytes. Parsing is strict, and the file name is made from the parsed bytes, so that no
//! text from outside ever becomes part of a path.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// A sha256 digest. Prints as `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest of everything that `reader` gives, and its length in bytes; `seen` hears of every piece read.
    pub fn of_reader(reader: &mut dyn Read, seen: &mut dyn FnMut(u64)) -> io::Result<(Digest, u64)> {
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            hasher.update(&buffer[..n]);
            seen(n as u64);
        }
    }

    /// A digest from hexadecimal digits alone, as tables and `sha256sum` print it.
    pub fn from_hex(text: &str) -> Result<Digest, Error> {
        let wrong = || Error::Digest(text.to_string());
        if text.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Some(c - b'0'),
                b'a'..=b'f' => Some(c - b'a' + 10),
                _ => None,
            };
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(wrong()) };
            *byte = high << 4 | low;
        }
        Ok(Digest(bytes))
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The name of the blob's file.
    pub fn file_name(&self) -> String {
        format!("sha256-{}", self.hex())
    }

    /// The digest that a blob's file name stands for.
    pub fn from_file_name(name: &str) -> Option<Digest> {
        Digest::from_hex(name.strip_prefix("sha256-")?).ok()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest, Error> {
        let hex = text.strip_prefix("sha256:").ok_or_else(|| Error::Digest(text.to_string()))?;
        Digest::from_hex(hex).map_err(|_| Error::Digest(text.to_string()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Digest, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes while bytes pass by.
#[derive(Default)]
pub struct Hasher {
    state: Sha256,
    len: u64,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.len += bytes.len() as u64;
    }

    /// The digest and the number of bytes.
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.state.finalize().into()), self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_value() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").hex(), abc);
        assert_eq!(Digest::of_reader(&mut &b"abc"[..], &mut |_| ()).unwrap(), (Digest::from_hex(abc).unwrap(), 3));
    }

    #[test]
    fn refused() {
        let hex = "a".repeat(64);
        let refused = [
            String::new(),
            hex.clone(),
            format!("sha256-{hex}"),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}a"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha512:{hex}"),
            format!("sha256:../{}", &hex[3..]),
            format!("sha256:{}\n", &hex[1..]),
            format!("sha256:{}é", &hex[2..]),
        ];
        for text in refused {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was taken");
        }
        assert!(Digest::from_file_name("sha256-../../etc/passwd").is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_printed_back(text in ".{0,80}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }

        #[test]
        fn round_trip(bytes: [u8; 32]) {
            let digest = Digest(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
            prop_assert_eq!(Digest::from_file_name(&digest.file_name()), Some(digest));
        }
    }
}
