//! Byte-level byte-pair encoding (`tokenizer.ggml.model` = `gpt2`).
//!
//! Token texts are written in an alphabet of 256 printable characters, one a byte. Text is cut into words by the
//! model's split rules; in each word the bytes are merged in the order of the file's list of merges.

use std::borrow::Cow;

use gguf::Meta;

use super::error::{Error, Fault, quote};
use super::merge::{Merger, NONE, Pair, Pairs, Symbol};
use super::pretokenize::{Rules, Splitter};
use super::vocab::Vocab;

/// Key of the merges.
const MERGES: &str = "tokenizer.ggml.merges";
/// Key of the name of the split rules.
const PRE: &str = "tokenizer.ggml.pre";

/// Byte-level BPE of one model.
#[derive(Debug)]
pub(super) struct Bpe {
    splitter: Splitter,
    ignore_merges: bool,
    merges: Merges,
    /// The token of every single byte, or [`NONE`]: some vocabularies lack bytes that never occur in UTF-8.
    bytes: Box<[u32; 256]>,
}

impl Bpe {
    /// The split rules that a file names. A file that names none gets `default`, as old files were made for.
    pub(super) fn rules(meta: &Meta<'_>) -> Result<&'static Rules, Error> {
        let name = meta.opt_str(PRE)?.unwrap_or("default");
        Rules::find(name).ok_or_else(|| {
            Fault::UnknownPreTokenizer { found: quote(name.as_bytes()), known: Rules::known() }.at(meta, PRE)
        })
    }

    pub(super) fn from_meta(meta: &Meta<'_>, vocab: &Vocab, rules: &Rules) -> Result<Bpe, Error> {
        let merges = Merges::from_meta(meta, vocab)?;
        let mut bytes = Box::new([NONE; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            let mut buffer = [0; 2];
            let text = to_char(byte as u8).encode_utf8(&mut buffer);
            *id = vocab.id(text.as_bytes()).unwrap_or(NONE);
        }
        Ok(Bpe { splitter: Splitter::new(rules), ignore_merges: rules.ignore_merges, merges, bytes })
    }

    /// Appends the tokens of a text. Bytes that the vocabulary has no token for are left out.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut mapped = String::new();
        for word in self.splitter.split(text) {
            let word = &text.as_bytes()[word];
            if self.ignore_merges && word.len() <= vocab.longest() {
                mapped.clear();
                mapped.extend(word.iter().map(|&b| to_char(b)));
                if let Some(id) = vocab.id(mapped.as_bytes()) {
                    out.push(id);
                    continue;
                }
            }
            merger.clear();
            for &byte in word {
                merger.push(1, self.bytes[usize::from(byte)]);
            }
            out.extend(merger.run(&self.merges).map(|s| s.id).filter(|&id| id != NONE));
        }
    }
}

/// The list of merges, by left token: which right tokens it merges with, when, and into what.
#[derive(Debug)]
struct Merges {
    /// Where the entries of a left token start; one more at the end.
    starts: Vec<u32>,
    /// Sorted by right token within a left token.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    right: u32,
    pair: Pair,
}

impl Merges {
    fn from_meta(meta: &Meta<'_>, vocab: &Vocab) -> Result<Merges, Error> {
        let list = meta.strings(MERGES)?;
        if list.len() >= NONE as usize {
            let fault = Fault::TooMany { what: "merges", found: list.len() as u64, max: u64::from(NONE) - 1 };
            return Err(fault.at(meta, MERGES));
        }
        let mut joined = Vec::new();
        let mut merges = Vec::with_capacity(list.len());
        for (index, text) in list.strings().enumerate() {
            let (left, right, id) = resolve(vocab, text, &mut joined)
                .map_err(|expected| Fault::Merge { index, text: quote(text), expected }.at(meta, MERGES))?;
            merges.push((left, Entry { right, pair: Pair { rank: index as u32, id } }));
        }
        Ok(Merges::new(vocab.len(), &merges))
    }

    /// Sorts the merges by left token (counting), then by right token; of equal ones the first wins.
    fn new(n_vocab: usize, merges: &[(u32, Entry)]) -> Merges {
        let mut starts = vec![0u32; n_vocab + 1];
        for &(left, _) in merges {
            starts[left as usize + 1] += 1;
        }
        for i in 0..n_vocab {
            starts[i + 1] += starts[i];
        }
        let mut entries = vec![Entry { right: 0, pair: Pair { rank: 0, id: 0 } }; merges.len()];
        let mut next = starts.clone();
        for &(left, entry) in merges {
            let at = &mut next[left as usize];
            entries[*at as usize] = entry;
            *at += 1;
        }
        for bounds in starts.windows(2) {
            entries[bounds[0] as usize..bounds[1] as usize].sort_unstable_by_key(|e| (e.right, e.pair.rank));
        }
        Merges { starts, entries }
    }
}

impl Pairs for Merges {
    fn pair(&self, left: &Symbol, right: &Symbol) -> Option<Pair> {
        let left = left.id as usize;
        let (&start, &end) = (self.starts.get(left)?, self.starts.get(left.checked_add(1)?)?);
        let entries = &self.entries[start as usize..end as usize];
        let at = entries.partition_point(|e| e.right < right.id);
        entries.get(at).filter(|e| e.right == right.id).map(|e| e.pair)
    }
}

/// The tokens that a line of the list names: left, right, and both joined.
fn resolve(vocab: &Vocab, text: &[u8], joined: &mut Vec<u8>) -> Result<(u32, u32, u32), &'static str> {
    // The alphabet has no space, but a first part may be one in lists made by hand: look from the second byte on.
    let space = text.iter().skip(1).position(|&b| b == b' ').ok_or("two tokens with a space between them")? + 1;
    let (left, right) = (&text[..space], &text[space + 1..]);
    joined.clear();
    joined.extend_from_slice(left);
    joined.extend_from_slice(right);
    let left = vocab.id(left).ok_or("a first part that is a token")?;
    let right = vocab.id(right).ok_or("a second part that is a token")?;
    let id = vocab.id(joined).ok_or("two parts that are a token when joined")?;
    Ok((left, right, id))
}

/// The characters that stand for the bytes 0 to 255: printable Latin-1 for itself, the others from U+0100 on.
const CHARS: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut next = 0x100;
    let mut byte = 0;
    while byte < 256 {
        chars[byte] = match byte as u8 {
            b @ (b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) => b as char,
            _ => {
                next += 1;
                match char::from_u32(next - 1) {
                    Some(c) => c,
                    None => '\0',
                }
            }
        };
        byte += 1;
    }
    chars
};

/// The bytes of the characters up to U+0143, the last one of the alphabet; 256 for a character outside of it.
const BYTES: [u16; 0x144] = {
    let mut bytes = [256; 0x144];
    let mut byte = 0;
    while byte < 256 {
        bytes[CHARS[byte] as usize] = byte as u16;
        byte += 1;
    }
    bytes
};

/// The character that stands for a byte.
pub(super) fn to_char(byte: u8) -> char {
    CHARS[usize::from(byte)]
}

/// The bytes that a token's text stands for. What is not of the alphabet stands for itself.
pub(super) fn unmap(text: &[u8]) -> Cow<'_, [u8]> {
    let Ok(text) = std::str::from_utf8(text) else {
        return Cow::Borrowed(text);
    };
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match BYTES.get(c as usize).and_then(|&b| u8::try_from(b).ok()) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        let text: String = (0..=255).map(to_char).collect();
        assert_eq!(unmap(text.as_bytes()).as_ref(), (0..=255).collect::<Vec<u8>>());
        assert_eq!(to_char(b' '), 'Ġ');
        assert_eq!(to_char(b'\n'), 'Ċ');
        assert_eq!(to_char(0xad), '\u{143}');
    }

    #[test]
    fn characters_outside_of_the_alphabet_stand_for_themselves() {
        assert_eq!(unmap("Ġ日".as_bytes()).as_ref(), " 日".as_bytes());
        assert_eq!(unmap(&[0xff, b'a']).as_ref(), &[0xff, b'a']);
    }

    #[test]
    fn of_equal_merges_the_first_counts() {
        let entry = |right, rank, id| Entry { right, pair: Pair { rank, id } };
        let merges = Merges::new(3, &[(1, entry(2, 0, 7)), (1, entry(2, 1, 8)), (1, entry(0, 2, 9))]);
        let mut merger = Merger::default();
        for id in [1, 2, 1, 0, 1] {
            merger.push(1, id);
        }
        assert_eq!(merger.run(&merges).map(|s| s.id).collect::<Vec<_>>(), [7, 9, 1]);
    }
}
