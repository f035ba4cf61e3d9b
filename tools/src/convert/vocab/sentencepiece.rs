//! `tokenizer.model`, SentencePiece's own file: a message in Google's wire format, of which pieces, kind and two settings
//! are read.
//!
//! A message is fields one after another: a number (field and wire type), then a number, eight bytes, four bytes, or a
//! length and so many bytes.

use std::path::Path;

use super::{NORMAL, Vocabulary};
use crate::error::{Error, Result};

/// Fields of the model: a piece, the training settings, the normalizer's.
const PIECE: u64 = 1;
const TRAINER: u64 = 2;
const NORMALIZER: u64 = 3;
/// Fields of a piece.
const TEXT: u64 = 1;
const SCORE: u64 = 2;
const TYPE: u64 = 3;
/// The field of the training settings that tells the kind of model, and the kind that is read.
const KIND: u64 = 3;
const BPE: u64 = 2;
/// The field of the normalizer that tells whether a space is put before a text.
const SPACE: u64 = 3;

/// A value of a field.
enum Field<'a> {
    Number(u64),
    Float(f32),
    Bytes(&'a [u8]),
    Other,
}

/// The vocabulary of a file.
///
/// # Errors
/// It is no such file, or no byte-pair encoding.
pub fn read(path: &Path) -> Result<Vocabulary> {
    let bytes = std::fs::read(path).map_err(Error::io("cannot read", path))?;
    let fault = |why: &str| Error::Folder { path: path.into(), why: why.into() };
    parse(&bytes).map_err(|why| fault(&why))
}

fn parse(bytes: &[u8]) -> std::result::Result<Vocabulary, String> {
    let (mut tokens, mut types, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    // Where a file says nothing: a unigram model, and a space.
    let (mut kind, mut space) = (1, true);
    each(bytes, |field, value| {
        match (field, value) {
            (PIECE, Field::Bytes(piece)) => {
                let (mut text, mut score, mut of) = (String::new(), 0.0, NORMAL);
                each(piece, |field, value| {
                    match (field, value) {
                        (TEXT, Field::Bytes(found)) => text = String::from_utf8_lossy(found).into_owned(),
                        (SCORE, Field::Float(found)) => score = found,
                        (TYPE, Field::Number(found)) => {
                            of = i32::try_from(found)
                                .ok()
                                .filter(|t| (1..=6).contains(t))
                                .ok_or("a piece of no type")?;
                        }
                        _ => {}
                    }
                    Ok(())
                })?;
                tokens.push(Some(text));
                types.push(of);
                scores.push(score);
            }
            (TRAINER, Field::Bytes(inner)) => each(inner, |field, value| {
                if let (KIND, Field::Number(found)) = (field, value) {
                    kind = found;
                }
                Ok(())
            })?,
            (NORMALIZER, Field::Bytes(inner)) => each(inner, |field, value| {
                if let (SPACE, Field::Number(found)) = (field, value) {
                    space = found != 0;
                }
                Ok(())
            })?,
            _ => {}
        }
        Ok(())
    })?;
    if tokens.is_empty() {
        return Err("has no pieces: is it a model of SentencePiece?".into());
    }
    if kind != BPE {
        return Err(format!("is a model of kind {kind}: expected {BPE}, byte-pair encoding"));
    }
    let (scores, space_prefix) = (Some(scores), Some(space));
    Ok(Vocabulary { model: "llama", pre: "default", tokens, types, scores, merges: None, space_prefix })
}

/// Calls `take` with every field of a message.
fn each(
    mut bytes: &[u8],
    mut take: impl FnMut(u64, Field) -> std::result::Result<(), String>,
) -> std::result::Result<(), String> {
    while !bytes.is_empty() {
        let key = number(&mut bytes)?;
        let value = match key & 7 {
            0 => Field::Number(number(&mut bytes)?),
            1 => cut(&mut bytes, 8).map(|_| Field::Other)?,
            2 => {
                let length = number(&mut bytes)?;
                Field::Bytes(cut(&mut bytes, length)?)
            }
            5 => {
                let four = cut(&mut bytes, 4)?;
                Field::Float(f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            }
            other => return Err(format!("has a field of wire type {other}: is it a model of SentencePiece?")),
        };
        take(key >> 3, value)?;
    }
    Ok(())
}

/// Seven bits a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> std::result::Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = cut(bytes, 1)?[0];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Ok(value);
        }
    }
    Err("has a number of more than 64 bits".into())
}

fn cut<'a>(bytes: &mut &'a [u8], length: u64) -> std::result::Result<&'a [u8], String> {
    let (head, rest) = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length))
        .ok_or_else(|| format!("ends in the middle of {length} bytes"))?;
    *bytes = rest;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_settings() {
        // Piece "▁a" of score -1 and type 1; kind 2; no space in front.
        let file = b"\x0a\x0b\x0a\x04\xe2\x96\x81a\x15\x00\x00\x80\xbf\x12\x02\x18\x02\x1a\x02\x18\x00";
        let found = parse(file).unwrap();
        assert_eq!(found.tokens, [Some("▁a".to_string())]);
        assert_eq!((found.scores, found.types, found.space_prefix), (Some(vec![-1.0]), vec![NORMAL], Some(false)));
    }

    #[test]
    fn every_cut_and_every_flip_is_an_error_or_a_model() {
        let file = b"\x0a\x0b\x0a\x04\xe2\x96\x81a\x15\x00\x00\x80\xbf\x12\x02\x18\x02\x1a\x02\x18\x00";
        for end in 0..file.len() {
            drop(parse(&file[..end]));
            for bit in 0..8 {
                let mut bytes = file.to_vec();
                bytes[end] ^= 1 << bit;
                drop(parse(&bytes));
            }
        }
        assert!(parse(b"GGUF").is_err() && parse(b"").is_err() && parse(&[0xff; 20]).is_err());
    }
}
