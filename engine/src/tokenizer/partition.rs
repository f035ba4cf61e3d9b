//! Finding special tokens in a text before anything else looks at it.
//!
//! Of the tokens that start at a place the longest one is taken. User-defined tokens are always found, control and
//! unknown tokens only when asked for. One linear scan, whatever the number of tokens.

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

use super::error::Fault;
use super::vocab::{Kind, Vocab};

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'t> {
    /// Text between special tokens, never empty.
    Text(&'t str),
    /// A special token.
    Token(u32),
}

/// Which white space around a special token belongs to it, as some tokenizers were trained.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strip {
    /// White space before the token goes away.
    pub(super) left: bool,
    /// White space after the token goes away.
    pub(super) right: bool,
}

/// The special tokens of a vocabulary.
#[derive(Debug)]
pub(super) struct Partition {
    user: Finder,
    all: Finder,
}

impl Partition {
    /// Collects the special tokens. `strip` says what white space goes with each.
    pub(super) fn new(vocab: &Vocab, strip: impl Fn(&[u8], Kind) -> Strip) -> Result<Partition, Fault> {
        let of = |kinds: &[Kind]| {
            let special = |&id: &u32| {
                // A text that is not UTF-8 could only match inside of a character.
                let text = vocab.text(id);
                kinds.contains(&vocab.kind(id)) && !text.is_empty() && std::str::from_utf8(text).is_ok()
            };
            let ids: Vec<u32> = (0..vocab.len() as u32).filter(special).collect();
            Finder::new(ids, vocab, &strip)
        };
        Ok(Partition { user: of(&[Kind::User])?, all: of(&[Kind::User, Kind::Control, Kind::Unknown])? })
    }

    /// Cuts a text at its special tokens; control tokens count only with `control`.
    pub(super) fn split<'t>(&self, text: &'t str, control: bool) -> impl Iterator<Item = Fragment<'t>> {
        if control { self.all.split(text) } else { self.user.split(text) }
    }
}

/// A set of tokens to look for. Without a searcher it is empty.
#[derive(Debug, Default)]
struct Finder {
    searcher: Option<AhoCorasick>,
    tokens: Vec<(u32, Strip)>,
}

impl Finder {
    fn new(ids: Vec<u32>, vocab: &Vocab, strip: impl Fn(&[u8], Kind) -> Strip) -> Result<Finder, Fault> {
        if ids.is_empty() {
            return Ok(Finder::default());
        }
        // Vocabularies have up to some thousand special tokens: the plain automaton is built quickest. Building fails
        // only beyond 2^31 states, one for each byte.
        let bytes = ids.iter().map(|&id| vocab.text(id).len() as u64).sum();
        let searcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(ids.iter().map(|&id| vocab.text(id)))
            .map_err(|_| Fault::TooMany { what: "bytes of special tokens", found: bytes, max: i32::MAX as u64 })?;
        let tokens = ids.iter().map(|&id| (id, strip(vocab.text(id), vocab.kind(id)))).collect();
        Ok(Finder { searcher: Some(searcher), tokens })
    }

    fn split<'t>(&self, text: &'t str) -> impl Iterator<Item = Fragment<'t>> {
        let mut at = 0;
        let mut done = false;
        let mut waiting = None;
        std::iter::from_fn(move || {
            while !done {
                if let Some(token) = waiting.take() {
                    return Some(Fragment::Token(token));
                }
                let found = self.searcher.as_ref().and_then(|s| s.find(Input::new(text).range(at..)));
                let Some(found) = found else {
                    done = true;
                    return text.get(at..).filter(|t| !t.is_empty()).map(Fragment::Text);
                };
                let (id, strip) = self.tokens[found.pattern().as_usize()];
                let mut before = &text[at..found.start()];
                if strip.left {
                    before = before.trim_end_matches(is_space);
                }
                let after = &text[found.end()..];
                let skipped = if strip.right { after.len() - after.trim_start_matches(is_space).len() } else { 0 };
                at = found.end() + skipped;
                waiting = Some(id);
                if !before.is_empty() {
                    return Some(Fragment::Text(before));
                }
            }
            None
        })
    }
}

/// White space of ASCII.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}
