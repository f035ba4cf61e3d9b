//! WordPiece (`tokenizer.ggml.model` = `bert`): words are cut at spaces, punctuation and ideographs, lowered and robbed
//! of their accents; each is then the longest tokens that follow each other, or unknown as a whole.
//!
//! Files write the start of a word U+2581; what continues a word stands for itself.

use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory};

use super::prefixes::Prefixes;
use super::spm::SPACE;
use super::vocab::{Kind, Vocab};

/// WordPiece of one model.
#[derive(Debug)]
pub(super) struct WordPiece {
    prefixes: Prefixes,
}

/// What a character does to the words.
enum Class {
    /// Goes away.
    Nothing,
    /// Ends a word.
    Space,
    /// Is a word.
    Alone,
    /// Is a part of a word.
    Part,
}

impl WordPiece {
    pub(super) fn new(vocab: &Vocab) -> WordPiece {
        WordPiece { prefixes: Prefixes::new(vocab, |id| vocab.kind(id) == Kind::Normal) }
    }

    /// Appends the tokens of a text. A word that has none becomes `unknown`, or nothing where there is none.
    pub(super) fn encode(&self, vocab: &Vocab, text: &str, unknown: Option<u32>, out: &mut Vec<u32>) {
        let mut word = String::new();
        for c in text.chars() {
            // Of a character that is a base and its marks, the base.
            let c =
                if c.is_ascii() { c.to_ascii_lowercase() } else { lower(std::iter::once(c).nfd().next().unwrap_or(c)) };
            match class(c) {
                Class::Nothing => {}
                Class::Space => self.end(vocab, &mut word, unknown, out),
                Class::Alone => {
                    self.end(vocab, &mut word, unknown, out);
                    word.extend([SPACE, c]);
                    self.end(vocab, &mut word, unknown, out);
                }
                Class::Part => {
                    if word.is_empty() {
                        word.push(SPACE);
                    }
                    word.push(c);
                }
            }
        }
        self.end(vocab, &mut word, unknown, out);
    }

    /// Appends the tokens of a word and begins the next one.
    fn end(&self, vocab: &Vocab, word: &mut String, unknown: Option<u32>, out: &mut Vec<u32>) {
        let (mut rest, before) = (word.as_bytes(), out.len());
        while !rest.is_empty() {
            let Some((len, id)) = self.prefixes.of(vocab, rest).last() else {
                out.truncate(before);
                out.extend(unknown);
                break;
            };
            out.push(id);
            rest = &rest[len..];
        }
        word.clear();
    }
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

fn class(c: char) -> Class {
    if c.is_whitespace() {
        return Class::Space;
    }
    if c.is_ascii() {
        return match c {
            _ if c.is_ascii_control() => Class::Nothing,
            _ if c.is_ascii_punctuation() => Class::Alone,
            _ => Class::Part,
        };
    }
    if is_ideograph(c) {
        return Class::Alone;
    }
    match c.general_category_group() {
        GeneralCategoryGroup::Punctuation => Class::Alone,
        GeneralCategoryGroup::Mark | GeneralCategoryGroup::Other => Class::Nothing,
        _ if c == char::REPLACEMENT_CHARACTER => Class::Nothing,
        _ => Class::Part,
    }
}

/// The blocks of Chinese characters, each of which is a word.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c), 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x2_0000..=0x2_a6df
        | 0x2_a700..=0x2_ceaf | 0x2_f800..=0x2_fa1f)
}
