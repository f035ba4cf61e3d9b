//! Text to tokens and back, from the metadata of a model file.
//!
//! Stands beside the model: knows metadata, text and ids; must not know tensors, graphs, sampling or devices.
//!
//! | module | what it knows |
//! | --- | --- |
//! | `vocab` | the list of tokens and the map from text to id |
//! | `special` | roles: which tokens begin, end, pad; which end an answer |
//! | `partition` | finding special tokens in a text |
//! | `pretokenize` | the split rules of byte-level BPE, one row a family |
//! | `merge` | the merge loop, shared by `bpe` and `spm` |
//! | `bpe`, `spm`, `wordpiece`, `unigram` | the kinds of tokenizer |
//! | `prefixes` | which tokens a text begins with, for the last two |
//! | `stream` | tokens to text, whole or as they come |
//! | `stop` | stop strings in a stream of text |
//!
//! Every text costs time linear in its length (times the logarithm of its longest word), and nothing recurses on it.
//! Any bytes may come from a file: what cannot be used is an [`Error`], never a panic.

mod bpe;
mod error;
mod merge;
mod partition;
mod prefixes;
mod pretokenize;
mod special;
mod spm;
mod stop;
mod stream;
mod unigram;
mod vocab;
mod wordpiece;

use std::borrow::Cow;

use gguf::Meta;

pub use error::{Error, Fault};
pub use special::Role;
pub use stop::StopStrings;
pub use stream::Detokenizer;
pub use vocab::Kind;

use bpe::Bpe;
use error::quote;
use partition::{Fragment, Partition, Strip};
use special::Specials;
use spm::Spm;
use unigram::Unigram;
use vocab::Vocab;
use wordpiece::WordPiece;

/// How a text is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encode {
    /// Adds BOS and EOS as the model wants them.
    pub add_special: bool,
    /// Control tokens written out in the text (`<|im_end|>`) become those tokens. For templates, not for what users
    /// write.
    pub parse_special: bool,
}

/// The kind of tokenizer with its data.
#[derive(Debug)]
enum Model {
    Bpe(Bpe),
    Spm(Spm),
    WordPiece(WordPiece),
    Unigram(Unigram),
}

/// The words of `tokenizer.ggml.model` that are known.
const MODELS: &[&str] = &["gpt2", "llama", "bert", "t5"];
/// Key of the kind of tokenizer.
const MODEL: &str = "tokenizer.ggml.model";

/// Longest text that is merged in one piece, in bytes: positions are numbers of 32 bits.
const MAX_PIECE: usize = 1 << 30;

/// The tokenizer of a model.
#[derive(Debug)]
pub struct Tokenizer {
    vocab: Vocab,
    specials: Specials,
    partition: Partition,
    model: Model,
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
    /// Whether runs of spaces stay as they are (unigram models only).
    keep_spaces: bool,
}

impl Tokenizer {
    /// Builds the tokenizer of a model file.
    ///
    /// # Errors
    /// A tokenizer or split rules that are not known, or a vocabulary that contradicts itself: the message names the
    /// key, its place in the file, what was found and what was expected.
    pub fn from_meta(meta: &Meta<'_>) -> Result<Tokenizer, Error> {
        let model = meta.str(MODEL)?;
        if !MODELS.contains(&model) {
            let fault = Fault::UnknownModel { found: quote(model.as_bytes()), known: MODELS.join(", ") };
            return Err(fault.at(meta, MODEL));
        }
        let (kind, is_spm) = (model, model == "llama");
        let mut vocab = Vocab::from_meta(meta)?;
        // What SentencePiece models have where nothing is said.
        let defaults = [(Role::Unknown, 0), (Role::Bos, 1), (Role::Eos, 2)];
        let specials = Specials::from_meta(meta, &mut vocab, if is_spm { &defaults } else { &[] })?;
        let (model, add_bos, add_eos) = match kind {
            "llama" => (Model::Spm(Spm::from_meta(meta, &vocab)?), true, false),
            "bert" => (Model::WordPiece(WordPiece::new(&vocab)), true, true),
            "t5" => (Model::Unigram(Unigram::from_meta(meta, &vocab)?), false, true),
            _ => {
                let rules = Bpe::rules(meta)?;
                (Model::Bpe(Bpe::from_meta(meta, &vocab, rules)?), rules.add_bos, false)
            }
        };
        let partition = Partition::new(&vocab, strip_rule(meta)).map_err(|f| f.at(meta, vocab::TOKENS))?;
        let flag = |key, default| meta.opt_bool(key).map(|v| v.unwrap_or(default));
        Ok(Tokenizer {
            add_bos: flag("tokenizer.ggml.add_bos_token", add_bos)?,
            add_eos: flag("tokenizer.ggml.add_eos_token", add_eos)?,
            add_space_prefix: flag("tokenizer.ggml.add_space_prefix", true)? && (is_spm || kind == "t5"),
            keep_spaces: !flag("tokenizer.ggml.remove_extra_whitespaces", true)?,
            vocab,
            specials,
            partition,
            model,
        })
    }

    /// The tokens of a text. An empty text has none, not even BOS: a prompt of BOS alone is for the caller to ask for.
    pub fn encode(&self, text: &str, how: Encode) -> Vec<u32> {
        let mut out = Vec::new();
        if text.is_empty() {
            return out;
        }
        out.extend(self.bos().filter(|_| how.add_special && self.add_bos));
        // SentencePiece puts a space before a text, and before what follows a special token.
        let mut after_special = true;
        for fragment in self.partition.split(text, how.parse_special) {
            match fragment {
                Fragment::Token(id) => {
                    out.push(id);
                    after_special = true;
                }
                Fragment::Text(text) => {
                    self.encode_text(text, after_special, &mut out);
                    after_special = false;
                }
            }
        }
        out.extend(self.eos().filter(|_| how.add_special && self.add_eos));
        out
    }

    /// The tokens of a rendered chat: control tokens are parsed, and BOS and EOS are added where the model wants them
    /// and the template has not written them.
    pub fn encode_chat(&self, text: &str) -> Vec<u32> {
        let mut ids = self.encode(text, Encode { add_special: false, parse_special: true });
        if self.add_bos && ids.first().copied() != self.bos() {
            ids.splice(0..0, self.bos());
        }
        if self.add_eos && ids.last().copied() != self.eos() {
            ids.extend(self.eos());
        }
        ids
    }

    /// Appends the tokens of a text without special tokens.
    fn encode_text(&self, text: &str, after_special: bool, out: &mut Vec<u32>) {
        let mut rest = text;
        let mut first = after_special;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_PIECE));
            match &self.model {
                Model::Bpe(bpe) => bpe.encode(&self.vocab, piece, out),
                Model::WordPiece(words) => words.encode(&self.vocab, piece, self.special(Role::Unknown), out),
                Model::Unigram(unigram) => {
                    let text = Unigram::normalize(piece, first && self.add_space_prefix, self.keep_spaces);
                    unigram.encode(&self.vocab, &text, self.special(Role::Unknown), out);
                }
                Model::Spm(spm) => {
                    let mut escaped = String::with_capacity(piece.len() + piece.len() / 2);
                    escaped.extend((first && self.add_space_prefix).then_some(spm::SPACE));
                    escaped.extend(piece.chars().map(|c| if c == ' ' { spm::SPACE } else { c }));
                    spm.encode(&self.vocab, &escaped, self.specials.get(Role::Unknown), out);
                }
            }
            first = false;
            rest = after;
        }
    }

    /// Number of tokens, at least 1. Ids are smaller.
    pub fn n_vocab(&self) -> usize {
        self.vocab.len()
    }

    /// The token of a role, if the model has one.
    pub fn special(&self, role: Role) -> Option<u32> {
        self.specials.get(role)
    }

    /// Begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.edge(Role::Class, Role::Bos)
    }

    /// Ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.edge(Role::Separator, Role::Eos)
    }

    /// WordPiece models have their own words for the ends of a text.
    fn edge(&self, of_wordpiece: Role, of_others: Role) -> Option<u32> {
        let own = self.special(of_wordpiece).filter(|_| matches!(self.model, Model::WordPiece(_)));
        own.or_else(|| self.special(of_others))
    }

    /// Ends a turn of a chat.
    pub fn eot(&self) -> Option<u32> {
        self.special(Role::Eot)
    }

    /// Whether texts are to start with BOS.
    pub fn add_bos(&self) -> bool {
        self.add_bos && self.bos().is_some()
    }

    /// Whether texts are to end with EOS.
    pub fn add_eos(&self) -> bool {
        self.add_eos && self.eos().is_some()
    }

    /// Whether decoded texts lose the space that encoding put before them.
    pub fn adds_space(&self) -> bool {
        self.add_space_prefix
    }

    /// Whether a token ends an answer.
    pub fn is_eog(&self, id: u32) -> bool {
        self.specials.is_end(id)
    }

    /// All tokens that end an answer, in order of id.
    pub fn eog(&self) -> &[u32] {
        self.specials.ends()
    }

    /// Whether a token is structure rather than text: left out of decoded text unless asked for.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.vocab.kind(id), Kind::Control | Kind::Unknown)
    }

    /// What a token is for. Ids outside of the vocabulary count as unused.
    pub fn kind(&self, id: u32) -> Kind {
        self.vocab.kind(id)
    }

    /// The token of exactly this text, as the file writes it (a space is `Ġ` in byte-level BPE, `▁` in SentencePiece).
    pub fn token(&self, text: &str) -> Option<u32> {
        self.vocab.id(text.as_bytes())
    }

    /// The text of a token as the file writes it, for display; bytes that are not UTF-8 become U+FFFD.
    pub fn piece(&self, id: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.vocab.text(id))
    }

    /// The bytes that a token adds to a decoded text, control tokens included. They need not be whole characters.
    /// Nothing for unused tokens and for ids outside of the vocabulary.
    pub fn bytes(&self, id: u32) -> Cow<'_, [u8]> {
        let text = self.vocab.text(id);
        match (self.vocab.kind(id), &self.model) {
            (Kind::Unused, _) => Cow::Borrowed(&[]),
            (Kind::Control | Kind::User | Kind::Unknown, _) => Cow::Borrowed(text),
            (Kind::Byte, _) => match byte_of(text) {
                Some(byte) => Cow::Owned(vec![byte]),
                None => Cow::Borrowed(text),
            },
            (Kind::Normal, Model::Bpe(_)) => bpe::unmap(text),
            (Kind::Normal, Model::Spm(_) | Model::WordPiece(_) | Model::Unigram(_)) => {
                match std::str::from_utf8(text) {
                    Ok(s) if s.contains(spm::SPACE) => Cow::Owned(s.replace(spm::SPACE, " ").into_bytes()),
                    _ => Cow::Borrowed(text),
                }
            }
        }
    }

    /// The text of tokens that stand at the start of a text. Bytes that are no character become U+FFFD. Control tokens
    /// are written out with `special`, else left out.
    pub fn decode(&self, ids: &[u32], special: bool) -> String {
        stream::decode(self, ids, special)
    }
}

/// The character that vocabularies of byte-level BPE write for a byte: a space is `Ġ`.
pub fn byte_symbol(byte: u8) -> char {
    bpe::to_char(byte)
}

/// The expression by which GPT-2 cuts text, which its heirs name instead of writing it out.
pub const GPT2_SPLIT: &str = pretokenize::GPT2;

/// The name for `tokenizer.ggml.pre` of the rules that cut a text by these expressions one after the other; with
/// `whole_words`, a word that is a token is not merged from its bytes. None where there are no such rules.
pub fn split_rules(expressions: &[&str], whole_words: bool) -> Option<&'static str> {
    pretokenize::Rules::of_stages(expressions, whole_words).map(|rules| rules.names[0])
}

/// The byte of a text `<0xNN>`.
fn byte_of(text: &[u8]) -> Option<u8> {
    let hex = std::str::from_utf8(text).ok()?.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(hex, 16).ok()
}

/// Which white space around special tokens a model was trained to lose. Files do not say it; their names do.
fn strip_rule(meta: &Meta<'_>) -> impl Fn(&[u8], Kind) -> Strip {
    let text = |key| meta.get(key).and_then(gguf::Value::as_bytes).map(String::from_utf8_lossy).unwrap_or_default();
    let name = text("general.name").to_lowercase();
    let phi3 = name.contains("phi-3") || name.contains("phi3");
    let mask: &[u8] = if name.contains("modern-bert") {
        b"[MASK]"
    } else if text("tokenizer.ggml.pre").starts_with("jina-v2-") {
        b"<mask>"
    } else {
        b""
    };
    move |token, _| Strip {
        left: !mask.is_empty() && token == mask,
        right: phi3 && !matches!(token, b"<unk>" | b"<s>" | b"<|endoftext|>"),
    }
}
