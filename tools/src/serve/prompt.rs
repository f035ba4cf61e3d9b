//! From messages or texts to the tokens of a prompt.

use std::time::{SystemTime, UNIX_EPOCH};

use engine::Engine;
use engine::template::{ChatTemplate, Message, Render};
use engine::tokenizer::{Encode, Role};
use serde_json::{Map, Value as Json};

use super::fault::{Fault, Result};
use super::go::GoTemplate;
use super::loaded::Loaded;
use super::shelf::Pack;

/// What turns messages into text.
pub enum Template {
    /// The one in the model's file.
    File(ChatTemplate),
    /// One in Go's language, from whoever made the model.
    Go(GoTemplate),
}

/// What a conversation brings beside its messages.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Tools, each `{"type": "function", "function": {...}}`.
    pub tools: Option<Json>,
    /// Whether the model is to think first, and how much; none leaves it to the template.
    pub think: Option<Json>,
    /// Whether the last message is to be continued.
    pub go_on: bool,
}

impl Template {
    /// The template of a model.
    ///
    /// # Errors
    /// A Go template that uses what is not supported.
    pub fn of(pack: &Pack, engine: &Engine) -> Result<Option<Template>> {
        match &pack.template {
            Some(source) if !source.trim().is_empty() => {
                let template = GoTemplate::parse(source)
                    .map_err(|e| Fault::bad(format!("the template of model '{}': {e}", pack.name)))?;
                Ok(Some(Template::Go(template)))
            }
            _ => Ok(engine.template().cloned().map(Template::File)),
        }
    }

    /// Its source.
    pub fn source(&self) -> &str {
        match self {
            Template::File(t) => t.source(),
            Template::Go(t) => t.source(),
        }
    }

    /// Whether it looks at tools.
    pub fn takes_tools(&self) -> bool {
        mentions_tools(self.source())
    }

    /// Whether it knows of thinking.
    pub fn thinks(&self) -> bool {
        mentions_thinking(self.source())
    }

    fn render(&self, messages: &[Message], extras: &Extras) -> Result<String> {
        match self {
            Template::Go(t) => t.chat(messages, extras).map_err(Fault::bad),
            Template::File(t) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| d.as_secs().try_into().ok());
                let mut more = Map::new();
                if let Some(think) = &extras.think {
                    let on = think.as_bool().unwrap_or(true);
                    more.insert("enable_thinking".into(), Json::Bool(on));
                    more.insert("thinking".into(), Json::Bool(on));
                    if let Json::String(effort) = think {
                        more.insert("reasoning_effort".into(), Json::String(effort.clone()));
                    }
                }
                let how = Render {
                    add_generation_prompt: !extras.go_on,
                    tools: extras.tools.as_ref(),
                    extra: Some(&more),
                    now,
                };
                let text = t.render(messages, how).map_err(engine::Error::from)?;
                Ok(if extras.go_on { cut_end_of_turn(&text, messages) } else { text })
            }
        }
    }
}

/// Whether a template's source looks at tools.
pub fn mentions_tools(source: &str) -> bool {
    source.contains(".Tools") || (source.contains("tools") && !source.contains("{{ ."))
}

/// Whether a template's source knows of thinking.
pub fn mentions_thinking(source: &str) -> bool {
    ["enable_thinking", "<think>", ".Think", "reasoning_content"].iter().any(|word| source.contains(word))
}

/// A conversation that ends in an answer's beginning: what the template puts after it is taken away again.
fn cut_end_of_turn(text: &str, messages: &[Message]) -> String {
    let last = messages.last().and_then(|m| m.content.as_str()).unwrap_or_default();
    match text.rfind(last) {
        Some(at) if !last.is_empty() => text[..at + last.len()].to_string(),
        _ => text.to_string(),
    }
}

/// The tokens of a conversation.
///
/// # Errors
/// The model has no template, or it refuses the messages.
pub fn chat(model: &Loaded, messages: &[Message], extras: &Extras) -> Result<Vec<u32>> {
    let Some(template) = &model.template else {
        return Err(Fault::bad(format!(
            "\"{}\" does not support chat: it has no chat template; use generate or completions, or create a model from it with a TEMPLATE",
            model.pack.name
        )));
    };
    let mut all = model.pack.messages.clone();
    if !messages.iter().any(|m| m.role == "system")
        && let Some(system) = model.pack.system.as_ref().filter(|s| !s.is_empty())
    {
        all.insert(0, Message::new("system", system.as_str()));
    }
    all.extend_from_slice(messages);
    let text = template.render(&all, extras)?;
    let ids = model.engine.tokenizer().encode_chat(&text);
    if ids.is_empty() {
        return Err(engine::Error::PromptEmpty.into());
    }
    Ok(ids)
}

/// The tokens of a text as it stands, special tokens in it counting as such.
pub fn raw(model: &Loaded, text: &str) -> Vec<u32> {
    let tokenizer = model.engine.tokenizer();
    match text {
        // From nothing: the start token alone.
        "" => tokenizer.bos().or(tokenizer.eos()).into_iter().collect(),
        _ => tokenizer.encode(text, Encode { add_special: true, parse_special: true }),
    }
}

/// The tokens before a gap between two texts.
///
/// # Errors
/// The model has no tokens for it.
pub fn fill(model: &Loaded, prefix: &str, suffix: &str) -> Result<Vec<u32>> {
    let tokenizer = model.engine.tokenizer();
    let roles = [Role::FimPrefix, Role::FimSuffix, Role::FimMiddle].map(|role| tokenizer.special(role));
    let [Some(before), Some(after), Some(middle)] = roles else {
        return Err(Fault::field("suffix", format!("\"{}\" does not support insert", model.pack.name)));
    };
    let plain = |text: &str| tokenizer.encode(text, Encode { add_special: false, parse_special: false });
    let mut ids: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.add_bos()).into_iter().collect();
    ids.push(before);
    ids.extend(plain(prefix));
    ids.push(after);
    ids.extend(plain(suffix));
    ids.push(middle);
    Ok(ids)
}
