//! Unigram language models of SentencePiece (`tokenizer.ggml.model` = `t5`): of all ways to cut a text into tokens the
//! one with the largest sum of scores (Kudo, 2018), found from left to right in linear time.

use gguf::Meta;

use super::error::{Error, Fault};
use super::prefixes::Prefixes;
use super::spm::{SPACE, scores};
use super::vocab::{Kind, Vocab};

/// Key of the compiled map of characters, which is not read.
const CHARS_MAP: &str = "tokenizer.ggml.precompiled_charsmap";
/// How much less probable than the least probable token a character without one is.
const UNKNOWN_PENALTY: f64 = 10.0;

/// The scores of one model.
#[derive(Debug)]
pub(super) struct Unigram {
    prefixes: Prefixes,
    scores: Vec<f32>,
    unknown_score: f64,
}

/// The best way to a place in the text.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// Where its last token starts, and that token.
    start: u32,
    id: Option<u32>,
}

impl Unigram {
    pub(super) fn from_meta(meta: &Meta<'_>, vocab: &Vocab) -> Result<Unigram, Error> {
        if meta.get(CHARS_MAP).is_some() {
            return Err(Fault::CharsMap.at(meta, CHARS_MAP));
        }
        let scores = scores(meta, vocab)?;
        let normal = |id: u32| vocab.kind(id) == Kind::Normal;
        let least = (0..vocab.len() as u32).filter(|&id| normal(id)).map(|id| scores[id as usize]);
        let least = least.fold(f32::INFINITY, f32::min);
        let wanted = |id| matches!(vocab.kind(id), Kind::Normal | Kind::User | Kind::Unused);
        Ok(Unigram {
            prefixes: Prefixes::new(vocab, wanted),
            scores,
            unknown_score: f64::from(least) - UNKNOWN_PENALTY,
        })
    }

    /// Appends the tokens of a text whose spaces are written U+2581. Characters that have none become `unknown`, one
    /// for a run of them, or nothing where there is none.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, unknown: Option<u32>, out: &mut Vec<u32>) {
        let nowhere = Best { score: f64::NEG_INFINITY, start: 0, id: None };
        let mut best = vec![nowhere; text.len() + 1];
        best[0].score = 0.0;
        for (at, c) in text.char_indices() {
            let here = best[at].score;
            let mut offer = |len: usize, score: f64, id: Option<u32>| {
                if here + score > best[at + len].score {
                    best[at + len] = Best { score: here + score, start: at as u32, id };
                }
            };
            let mut whole = false;
            for (len, id) in self.prefixes.of(vocab, &text.as_bytes()[at..]) {
                // Tokens of users are always taken.
                let score = if vocab.kind(id) == Kind::User { 0.0 } else { f64::from(self.scores[id as usize]) };
                whole |= len == c.len_utf8();
                offer(len, score, Some(id));
            }
            if !whole {
                offer(c.len_utf8(), self.unknown_score, None);
            }
        }
        let (first, mut at) = (out.len(), text.len());
        let mut after_unknown = false;
        while at > 0 {
            let step = best[at];
            if step.id.is_some() || !after_unknown {
                out.extend(step.id.or(unknown));
            }
            after_unknown = step.id.is_none();
            at = step.start as usize;
        }
        out[first..].reverse();
    }

    /// A text as it is cut: spaces at its ends and all but one of a run go away, one stands before the first word.
    pub(super) fn normalize(text: &str, prefix: bool, keep_spaces: bool) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        if keep_spaces {
            out.extend(prefix.then_some(SPACE));
            out.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
            return out;
        }
        for (i, word) in text.split(' ').filter(|w| !w.is_empty()).enumerate() {
            out.extend((i > 0 || prefix).then_some(SPACE));
            out.push_str(word);
        }
        out
    }
}
