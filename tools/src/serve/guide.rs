//! Answers that follow a grammar: JSON, a JSON schema, a call of a tool.
//!
//! The set of tokens that may come next is worked out on another thread while the engine computes the next step, so that
//! it costs an answer nothing as a rule.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};

use engine::Constraint;
use engine::tokenizer::Tokenizer;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value as Json, json};
use tokio::runtime::Handle;

use super::fault::{Fault, Result};

/// A model's vocabulary, as grammars need it; made when the first grammar comes.
#[derive(Default)]
pub struct Guides(OnceLock<Arc<ParserFactory>>);

struct Vocabulary {
    trie: TokTrie,
    tokenizer: Arc<Tokenizer>,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, s: &[u8]) -> Vec<TokenId> {
        match std::str::from_utf8(s) {
            Ok(text) => {
                let how = engine::tokenizer::Encode { add_special: false, parse_special: false };
                self.tokenizer.encode(text, how)
            }
            Err(_) => self.trie.greedy_tokenize(s),
        }
    }

    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

fn factory(tokenizer: &Arc<Tokenizer>) -> Result<ParserFactory> {
    let end = tokenizer.eog().first().copied().or(tokenizer.eos());
    let end =
        end.ok_or_else(|| Fault::bad("the model has no token that ends an answer, so that none can follow a grammar"))?;
    let word = |id: u32| {
        if tokenizer.is_control(id) || tokenizer.is_eog(id) {
            // Marked as no text: a grammar of text never lets it come.
            [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.piece(id).as_bytes()].concat()
        } else {
            tokenizer.bytes(id).into_owned()
        }
    };
    let n = tokenizer.n_vocab() as u32;
    let words: Vec<Vec<u8>> = (0..n).map(word).collect();
    let trie = TokTrie::from(&TokRxInfo::new(n, end), &words);
    let environment: TokEnv = Arc::new(Vocabulary { trie, tokenizer: tokenizer.clone() });
    let mut factory = ParserFactory::new_simple(&environment).map_err(|e| Fault::internal(&e.to_string()))?;
    factory.limits_mut().verbose_errors = false;
    factory.quiet();
    Ok(factory)
}

/// What an answer must look like.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Any JSON object.
    Json,
    /// JSON of a schema.
    Schema(Json),
}

impl Shape {
    fn schema(&self) -> Json {
        match self {
            Shape::Json => json!({"type": "object"}),
            Shape::Schema(schema) => schema.clone(),
        }
    }
}

/// Words of a schema that are followed.
const FOLLOWED: [&str; 27] = [
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "const",
    "enum",
    "type",
    "items",
    "additionalItems",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "additionalProperties",
    "patternProperties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
/// Words that say nothing about what fits.
const REMARKS: [&str; 17] = [
    "$anchor",
    "$defs",
    "definitions",
    "$schema",
    "$id",
    "id",
    "$comment",
    "title",
    "description",
    "default",
    "readOnly",
    "writeOnly",
    "examples",
    "deprecated",
    "contentMediaType",
    "contentEncoding",
    "strict",
];
/// Words whose values are schemas by name, and such whose values are schemas or lists of them.
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];
const INNER: [&str; 7] = ["anyOf", "oneOf", "allOf", "items", "additionalItems", "prefixItems", "additionalProperties"];

/// Refuses a word that is neither followed nor a remark: without it other answers would fit. JSON is nested at most 128
/// deep when it was read, and so is this.
fn check(schema: &Json) -> Result<()> {
    let Json::Object(map) = schema else { return Ok(()) };
    for (word, value) in map {
        if !FOLLOWED.contains(&word.as_str()) && !REMARKS.contains(&word.as_str()) {
            let shown = crate::ui::format::printable(word);
            return Err(Fault::field("format", format!("the schema's word \"{shown}\" is not supported")));
        }
        match value {
            Json::Object(named) if NAMED.contains(&word.as_str()) => named.values().try_for_each(check)?,
            Json::Array(all) if INNER.contains(&word.as_str()) => all.iter().try_for_each(check)?,
            inner if INNER.contains(&word.as_str()) => check(inner)?,
            _ => {}
        }
    }
    Ok(())
}

/// The shape of a call of one of these tools, each `{"type": "function", "function": {"name", "parameters"}}`.
pub fn call_shape(tools: &[Json]) -> Shape {
    let one = |tool: &Json| {
        let function = &tool["function"];
        let parameters = function.get("parameters").filter(|p| p.is_object()).cloned();
        json!({
            "type": "object",
            "properties": {"name": {"const": function["name"]}, "arguments": parameters.unwrap_or(json!({"type": "object"}))},
            "required": ["name", "arguments"],
            "additionalProperties": false,
        })
    };
    Shape::Schema(json!({"anyOf": tools.iter().map(one).collect::<Vec<_>>()}))
}

impl Guides {
    /// A constraint for one answer. Takes time: not for a thread that serves others.
    ///
    /// # Errors
    /// The schema uses what is not supported, which is named, or is too large.
    pub fn start(&self, tokenizer: &Arc<Tokenizer>, shape: &Shape, handle: &Handle) -> Result<Box<dyn Constraint>> {
        let schema = shape.schema();
        check(&schema)?;
        let factory = match self.0.get() {
            Some(factory) => factory.clone(),
            None => {
                let new = Arc::new(factory(tokenizer)?);
                self.0.get_or_init(|| new).clone()
            }
        };
        let grammar = TopLevelGrammar::from_json_schema(schema);
        let mut matcher = Matcher::new(factory.create_parser(grammar));
        let mask =
            matcher.compute_mask_or_eos().map_err(|e| Fault::bad(format!("format: {}", first_line(&e.to_string()))))?;
        let warnings = matcher.grammar_warnings();
        if let Some(warning) = warnings.first() {
            return Err(Fault::bad(format!("format: {}", first_line(warning))));
        }
        Ok(Box::new(Guide { state: State::Ready(Box::new(matcher), mask), handle: handle.clone() }))
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

enum State {
    Ready(Box<Matcher>, SimpleVob),
    /// Another thread works on it.
    Away(Receiver<(Box<Matcher>, std::result::Result<SimpleVob, String>)>),
    Gone,
}

struct Guide {
    state: State,
    handle: Handle,
}

impl Guide {
    fn fetch(&mut self) -> std::result::Result<(), String> {
        if let State::Away(receiver) = &self.state {
            let (matcher, mask) = receiver.recv().map_err(|_| "the grammar's thread has ended".to_string())?;
            self.state = State::Ready(matcher, mask?);
        }
        Ok(())
    }
}

impl Constraint for Guide {
    fn allowed(&mut self) -> std::result::Result<&[u32], String> {
        self.fetch()?;
        match &self.state {
            State::Ready(_, mask) => Ok(mask.as_slice()),
            _ => Err("no token may follow".into()),
        }
    }

    fn accept(&mut self, id: u32) -> std::result::Result<(), String> {
        self.fetch()?;
        let State::Ready(mut matcher, _) = std::mem::replace(&mut self.state, State::Gone) else {
            return Err("no token may follow".into());
        };
        matcher.consume_token(id).map_err(|e| first_line(&e.to_string()).to_string())?;
        let (sender, receiver) = sync_channel(1);
        self.handle.spawn_blocking(move || {
            let mask = matcher.compute_mask_or_eos().map_err(|e| first_line(&e.to_string()).to_string());
            // Fails where the answer has ended meanwhile.
            let _ = sender.send((matcher, mask));
        });
        self.state = State::Away(receiver);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_one_of_the_tools() {
        let tools = [json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}})];
        let Shape::Schema(schema) = call_shape(&tools) else { panic!("a schema") };
        assert_eq!(schema["anyOf"][0]["properties"]["name"]["const"], "f");
    }
}
