//! Chat templates: from messages to the text that a model was trained on.
//!
//! A model file brings a template in the language of Jinja, which is a program from a stranger. This module runs it:
//! it reads no file, no clock and no environment, and every rendering is bounded in steps, memory, output and nesting
//! (`budget`), so that a hostile one is an error and not the end of the process. A general engine cannot promise that:
//! of the one in use in this field, 98 bytes of template took 2.6 GB, and 52 bytes ended the process by a value that
//! contains itself. Hence the language is interpreted here, as much of it as templates of models use.
//!
//! | module | what it knows |
//! | --- | --- |
//! | `lex`, `parse`, `expression`, `ast` | source to tree |
//! | `budget` | what a rendering may cost |
//! | `value`, `text`, `json` | values, and how Python and JSON write them |
//! | `machine`, `exec` | expressions and statements |
//! | `functions`, `filters`, `list_filters`, `checks`, `methods`, `format`, `time` | what a template may call |

mod ast;
mod budget;
mod checks;
mod error;
mod exec;
mod expression;
mod filters;
mod format;
mod functions;
mod json;
mod lex;
mod list_filters;
mod machine;
mod methods;
mod parse;
mod text;
mod time;
mod value;

use std::sync::Arc;

use gguf::Meta;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

pub use error::Error;

use ast::{Stmt, Str};
use budget::Budget;
use error::Eval;
use json::from_json;
use machine::Machine;
use value::Value;

/// Key of the template.
const KEY: &str = "tokenizer.chat_template";
/// Key of a template for conversations with tools, which few models have beside the other one.
const TOOL_KEY: &str = "tokenizer.chat_template.tool_use";

/// One message of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// What is said: a string as a rule, or what else the template understands.
    #[serde(default)]
    pub content: Json,
    /// Whatever else a template may look for: `tool_calls`, `name`, `reasoning_content`, ...
    #[serde(flatten)]
    pub extra: Map<String, Json>,
}

impl Message {
    /// A message of text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: Json::String(content.into()), extra: Map::new() }
    }
}

/// What a rendering is given beside the messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Render<'a> {
    /// Ends the text with what precedes an answer.
    pub add_generation_prompt: bool,
    /// A list of tools, each a function with its JSON schema.
    pub tools: Option<&'a Json>,
    /// More variables, such as `enable_thinking`.
    pub extra: Option<&'a Map<String, Json>>,
    /// The time that the template may write: seconds since the start of 1970 on a clock of the wanted time zone.
    /// Without it `strftime_now` is not defined.
    pub now: Option<i64>,
}

/// A template that was read.
#[derive(Clone, Debug)]
struct Code {
    source: Arc<str>,
    /// A source that cannot be read does not keep a model from loading: it is an error when it is used.
    tree: Result<Arc<Vec<Stmt>>, Error>,
}

impl Code {
    fn new(source: &str) -> Code {
        Code { source: Arc::from(source), tree: parse::parse(source).map(Arc::new) }
    }
}

/// The chat template of a model.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    code: Code,
    with_tools: Option<Code>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Reads a template. `bos` and `eos` are the texts of those tokens, empty where the model has none.
    ///
    /// # Errors
    /// [`Error::Syntax`] with the line, what was found and what was expected.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate, Error> {
        let code = Code::new(source);
        code.tree.clone()?;
        Ok(ChatTemplate { code, with_tools: None, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The template of a model file, `None` where it has none. Nothing is rendered; a template that cannot be read is
    /// an error of [`ChatTemplate::render`], so that the model can still be used without it.
    ///
    /// # Errors
    /// [`Error::Meta`] where a key is of the wrong type.
    pub fn from_meta(meta: &Meta<'_>) -> Result<Option<ChatTemplate>, Error> {
        let Some(source) = meta.opt_str(KEY)? else {
            return Ok(None);
        };
        let text = |key| Ok::<_, Error>(token_text(meta, meta.opt_u32(key)?).unwrap_or_default());
        Ok(Some(ChatTemplate {
            code: Code::new(source),
            with_tools: meta.opt_str(TOOL_KEY)?.map(Code::new),
            bos: text("tokenizer.ggml.bos_token_id")?,
            eos: text("tokenizer.ggml.eos_token_id")?,
        }))
    }

    /// The source, for display.
    pub fn source(&self) -> &str {
        &self.code.source
    }

    /// Whether the source looks at a variable, by its name alone.
    pub fn mentions(&self, variable: &str) -> bool {
        self.code.source.contains(variable) || self.with_tools.as_ref().is_some_and(|c| c.source.contains(variable))
    }

    /// The text of a conversation.
    ///
    /// # Errors
    /// [`Error::Raised`] where the template refuses the conversation, [`Error::Render`] where it does something
    /// impossible, [`Error::Limit`] where it does too much, and [`Error::Syntax`] where it could not be read.
    pub fn render(&self, messages: &[Message], how: Render<'_>) -> Result<String, Error> {
        let has_tools = how.tools.is_some_and(|t| t.as_array().is_none_or(|tools| !tools.is_empty()));
        let code = self.with_tools.as_ref().filter(|_| has_tools).unwrap_or(&self.code);
        let tree = code.tree.as_ref().map_err(Clone::clone)?;
        let budget = Budget::new(input_size(messages, how));
        let vars = self.variables(messages, how, &budget).map_err(|stop| stop.at(1))?;
        let mut machine = Machine::new(&budget, how.now, vars);
        match machine.run(tree) {
            Ok(_) => Ok(machine.out.pop().unwrap_or_default()),
            Err(stop) => Err(stop.at(machine.line)),
        }
    }

    /// The variables of a conversation.
    fn variables(&self, messages: &[Message], how: Render<'_>, budget: &Budget) -> Eval<Vec<(Str, Value)>> {
        let messages = messages.iter().map(|m| message(m, budget)).collect::<Eval<_>>()?;
        let mut vars = vec![
            (Str::from("messages"), Value::list(budget, messages)?),
            (Str::from("add_generation_prompt"), Value::Bool(how.add_generation_prompt)),
            (Str::from("bos_token"), Value::text(budget, &self.bos)?),
            (Str::from("eos_token"), Value::text(budget, &self.eos)?),
            (Str::from("tools"), how.tools.map_or(Ok(Value::None), |t| from_json(t, budget))?),
            (Str::from("documents"), Value::None),
        ];
        for (name, json) in how.extra.into_iter().flatten() {
            let value = from_json(json, budget)?;
            match vars.iter_mut().find(|v| *v.0 == **name) {
                Some(var) => var.1 = value,
                None => vars.push((Str::from(name.as_str()), value)),
            }
        }
        Ok(vars)
    }
}

/// A message as a template sees it.
fn message(message: &Message, budget: &Budget) -> Eval<Value> {
    let key = |name: &str| Value::text(budget, name);
    let mut entries = vec![(key("role")?, Value::text(budget, &message.role)?)];
    entries.push((key("content")?, from_json(&message.content, budget)?));
    for (name, json) in &message.extra {
        if !matches!(name.as_str(), "role" | "content") {
            entries.push((key(name)?, from_json(json, budget)?));
        }
    }
    Value::dict(budget, entries)
}

/// Roughly the bytes of a conversation: what the bounds of its rendering grow with.
fn input_size(messages: &[Message], how: Render<'_>) -> u64 {
    let extra = |map: &Map<String, Json>| map.iter().map(|(k, v)| k.len() as u64 + json_size(v)).sum::<u64>();
    let message = |m: &Message| 16 + m.role.len() as u64 + json_size(&m.content) + extra(&m.extra);
    messages.iter().map(message).sum::<u64>() + how.tools.map_or(0, json_size) + how.extra.map_or(0, extra)
}

/// Roughly the bytes of a value of JSON. Recursion ends where JSON was allowed to nest when it was read.
fn json_size(json: &Json) -> u64 {
    2 + match json {
        Json::String(s) => s.len() as u64,
        Json::Array(items) => items.iter().map(json_size).sum(),
        Json::Object(map) => map.iter().map(|(k, v)| 2 + k.len() as u64 + json_size(v)).sum(),
        _ => 2,
    }
}

/// The text of a token as the file writes it.
fn token_text(meta: &Meta<'_>, id: Option<u32>) -> Option<String> {
    let tokens = meta.opt_strings("tokenizer.ggml.tokens").ok()??;
    Some(String::from_utf8_lossy(tokens.strings().nth(id? as usize)?).into_owned())
}
