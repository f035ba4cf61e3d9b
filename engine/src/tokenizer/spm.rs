//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): Llama 2, Mistral, Phi-3, Gemma.
//!
//! Spaces are written U+2581. Characters merge with their neighbours whenever the joined text is a token, the token of
//! the highest score first. Characters that no token holds fall back to tokens of single bytes.

use gguf::Meta;

use super::error::{Error, Fault};
use super::merge::{Merger, NONE, Pair, Pairs, Symbol};
use super::vocab::Vocab;

/// Key of the scores.
const SCORES: &str = "tokenizer.ggml.scores";

/// What a space is written as.
pub(super) const SPACE: char = '\u{2581}';

/// SentencePiece BPE of one model.
#[derive(Debug)]
pub(super) struct Spm {
    /// Place of each token in the order of merging: 0 for the highest score, equal scores share one.
    ranks: Vec<u32>,
    /// The token of every single byte, or [`NONE`].
    bytes: Box<[u32; 256]>,
    /// Characters that stand before a space inside some token, sorted. Between any other one and a space nothing
    /// merges, so that the text may be cut there and merged word by word.
    before_space: Vec<char>,
}

impl Spm {
    pub(super) fn from_meta(meta: &Meta<'_>, vocab: &Vocab) -> Result<Spm, Error> {
        let scores = scores(meta, vocab)?;
        let mut bytes = Box::new([NONE; 256]);
        for (byte, id) in bytes.iter_mut().enumerate() {
            let text = format!("<0x{byte:02X}>");
            // Vocabularies without such tokens may have some bytes as texts.
            *id = vocab.id(text.as_bytes()).or_else(|| vocab.id(&[byte as u8])).unwrap_or(NONE);
        }
        Ok(Spm { ranks: ranks(&scores), bytes, before_space: before_space(vocab) })
    }

    /// Appends the tokens of a text whose spaces are written U+2581. A byte that has no token becomes `unknown`, or
    /// nothing where there is none.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, unknown: Option<u32>, out: &mut Vec<u32>) {
        let mut merger = Merger::default();
        let mut start = 0;
        let mut last = None;
        for (at, c) in text.char_indices() {
            if c == SPACE && last.is_some_and(|l| self.before_space.binary_search(&l).is_err()) {
                self.encode_word(vocab, &text[start..at], unknown, &mut merger, out);
                start = at;
            }
            last = Some(c);
        }
        self.encode_word(vocab, &text[start..], unknown, &mut merger, out);
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, unknown: Option<u32>, merger: &mut Merger, out: &mut Vec<u32>) {
        merger.clear();
        for c in word.chars() {
            merger.push(c.len_utf8() as u32, NONE);
        }
        let rules = Rules { vocab, ranks: &self.ranks, text: word.as_bytes() };
        for symbol in merger.run(&rules) {
            let text = rules.text_of(symbol.start, symbol.len);
            let merged = Some(symbol.id).filter(|&id| id != NONE);
            match merged.or_else(|| vocab.id(text)) {
                Some(id) => out.push(id),
                None => out.extend(text.iter().filter_map(|&b| match self.bytes[usize::from(b)] {
                    NONE => unknown,
                    id => Some(id),
                })),
            }
        }
    }
}

/// The scores of all tokens, none of them NaN.
pub(super) fn scores(meta: &Meta<'_>, vocab: &Vocab) -> Result<Vec<f32>, Error> {
    let scores = meta.floats(SCORES)?;
    if scores.len() != vocab.len() {
        return Err(Fault::Length { found: scores.len(), expected: vocab.len() }.at(meta, SCORES));
    }
    let scores: Vec<f32> = scores.floats().into_iter().flatten().collect();
    match scores.iter().position(|s| s.is_nan()) {
        Some(index) => Err(Fault::Score { index }.at(meta, SCORES)),
        None => Ok(scores),
    }
}

/// The merges of one word.
struct Rules<'a> {
    vocab: &'a Vocab,
    ranks: &'a [u32],
    text: &'a [u8],
}

impl Rules<'_> {
    fn text_of(&self, start: u32, len: u32) -> &[u8] {
        &self.text[start as usize..(start + len) as usize]
    }
}

impl Pairs for Rules<'_> {
    fn pair(&self, left: &Symbol, right: &Symbol) -> Option<Pair> {
        let len = left.len + right.len;
        if len as usize > self.vocab.longest() {
            return None;
        }
        let id = self.vocab.id(self.text_of(left.start, len))?;
        Some(Pair { rank: self.ranks[id as usize], id })
    }
}

/// Scores, none of them NaN, as places in falling order.
fn ranks(scores: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    let score = |id: u32| scores[id as usize];
    order.sort_unstable_by(|&a, &b| score(b).total_cmp(&score(a)));
    let mut ranks = vec![0; scores.len()];
    let mut rank = 0;
    for pair in order.windows(2) {
        rank += u32::from(score(pair[0]) != score(pair[1]));
        ranks[pair[1] as usize] = rank;
    }
    ranks
}

/// The characters before a space inside tokens, sorted, each once.
fn before_space(vocab: &Vocab) -> Vec<char> {
    let space = SPACE.encode_utf8(&mut [0; 4]).as_bytes().to_vec();
    let mut found = Vec::new();
    for text in vocab.texts() {
        for at in 1..(text.len() + 1).saturating_sub(space.len()) {
            if text[at..].starts_with(&space) {
                let before = String::from_utf8_lossy(&text[..at]);
                found.extend(before.chars().next_back());
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scores_share_a_rank() {
        assert_eq!(ranks(&[-1.0, 0.0, -2.0, -1.0, 0.0]), [1, 0, 2, 1, 0]);
        assert_eq!(ranks(&[-0.0, 0.0]), [0, 0]);
        assert_eq!(ranks(&[]), [0; 0]);
    }
}
