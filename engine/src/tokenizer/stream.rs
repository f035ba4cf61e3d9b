//! Tokens to text: whole, or token by token without ever cutting a character.

use std::sync::Arc;

use super::Tokenizer;

/// Turns tokens into text as they come.
///
/// A character may be spread over several tokens: its bytes are held back until it is whole. Bytes that cannot become
/// a character are U+FFFD, one for each maximal part of a character, so that the text is the same as that of all
/// bytes at once.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    special: bool,
    /// The next text loses its first space.
    strip: bool,
    /// Bytes of a character that is not whole yet: at most 3.
    held: Vec<u8>,
}

impl Detokenizer {
    /// Text that goes on: what the first token says is kept, a leading space too. Control tokens are written out with
    /// `special`, else left out.
    pub fn new(tokenizer: Arc<Tokenizer>, special: bool) -> Detokenizer {
        Detokenizer { tokenizer, special, strip: false, held: Vec::new() }
    }

    /// Text from its start, or from a special token on: the space that SentencePiece puts there is taken away.
    pub fn at_start(mut self) -> Detokenizer {
        self.strip = self.tokenizer.adds_space();
        self
    }

    /// Takes a token; returns the text that is certain by now, which may be empty. An id outside of the vocabulary
    /// adds nothing.
    pub fn push(&mut self, id: u32) -> String {
        let mut held = std::mem::take(&mut self.held);
        append(&self.tokenizer, id, self.special, &mut self.strip, &mut held);
        let mut text = String::new();
        self.held = take_text(&held, &mut text).to_vec();
        text
    }

    /// The end: what is held back becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

/// The text of tokens from the start of a text on.
pub(super) fn decode(tokenizer: &Tokenizer, ids: &[u32], special: bool) -> String {
    let mut strip = tokenizer.adds_space();
    let mut bytes = Vec::new();
    for &id in ids {
        append(tokenizer, id, special, &mut strip, &mut bytes);
    }
    match String::from_utf8_lossy(&bytes) {
        std::borrow::Cow::Owned(text) => text,
        std::borrow::Cow::Borrowed(_) => String::from_utf8(bytes).unwrap_or_default(),
    }
}

/// Appends the bytes of a token. The first text loses a leading space where `strip` says so.
fn append(tokenizer: &Tokenizer, id: u32, special: bool, strip: &mut bool, out: &mut Vec<u8>) {
    if tokenizer.is_control(id) {
        if special {
            out.extend_from_slice(&tokenizer.bytes(id));
        }
        return;
    }
    let bytes = tokenizer.bytes(id);
    let text = if *strip { bytes.strip_prefix(b" ").unwrap_or(&bytes) } else { &bytes };
    *strip &= bytes.is_empty();
    out.extend_from_slice(text);
}

/// Appends to `text` all of `bytes` that no later byte can change; returns the rest, an unfinished character.
fn take_text<'b>(bytes: &'b [u8], text: &mut String) -> &'b [u8] {
    let mut rest = bytes;
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return &[];
            }
            Err(error) => {
                let (valid, after) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                let Some(bad) = error.error_len() else {
                    return after;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &after[bad..];
            }
        }
    }
}
