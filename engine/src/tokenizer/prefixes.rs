//! Which tokens a text begins with: the list of tokens in the order of their texts, searched byte by byte.

use super::vocab::Vocab;
use std::ops::Range;

/// Tokens in the order of their texts.
#[derive(Debug)]
pub(super) struct Prefixes {
    sorted: Vec<u32>,
    /// Where the tokens of each first byte stand.
    first: Vec<u32>,
}

impl Prefixes {
    /// Of those tokens that `wanted` picks.
    pub(super) fn new(vocab: &Vocab, wanted: impl Fn(u32) -> bool) -> Prefixes {
        let mut sorted: Vec<u32> =
            (0..vocab.len() as u32).filter(|&id| !vocab.text(id).is_empty() && wanted(id)).collect();
        sorted.sort_unstable_by_key(|&id| vocab.text(id));
        let before = |byte: usize| sorted.partition_point(|&id| usize::from(vocab.text(id)[0]) < byte) as u32;
        let first = (0..=256).map(before).collect();
        Prefixes { sorted, first }
    }

    /// The tokens that are prefixes of `text`, shortest first: length and id.
    pub(super) fn of<'a>(&'a self, vocab: &'a Vocab, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let byte = text.first().map_or(256, |&b| usize::from(b));
        let mut range = match self.first.get(byte..byte + 2) {
            Some(&[start, end]) => start as usize..end as usize,
            _ => 0..0,
        };
        let mut depth = 0;
        std::iter::from_fn(move || {
            // All of the range share the first `depth` bytes; the shortest stands first.
            while depth < text.len() && !range.is_empty() {
                range = self.narrow(vocab, range.clone(), depth, text[depth]);
                depth += 1;
                let shortest = self.sorted.get(range.start).filter(|_| !range.is_empty());
                if let Some(&id) = shortest.filter(|&&id| vocab.text(id).len() == depth) {
                    return Some((depth, id));
                }
            }
            None
        })
    }

    /// Those of a range whose byte at `depth` is `byte`.
    fn narrow(&self, vocab: &Vocab, range: Range<usize>, depth: usize, byte: u8) -> Range<usize> {
        let all = &self.sorted[range.clone()];
        let at = |id: &u32| vocab.text(*id).get(depth).copied();
        let start = all.partition_point(|id| at(id) < Some(byte));
        let end = start + all[start..].partition_point(|id| at(id) == Some(byte));
        range.start + start..range.start + end
    }
}
