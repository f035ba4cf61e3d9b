//! `/v1/chat/completions`.

use axum::response::Response;
use engine::Timings;
use engine::template::Message;
use serde_json::{Map, Value as Json, json};

use super::super::answers::{Answers, End, Reading, Token, Whole, collect};
use super::super::app::blocking;
use super::super::ask::{self, Asked, Wanted, ask};
use super::super::call::Call;
use super::super::fault::{Dialect, Fault, Result};
use super::super::fields::{Fields, wrong};
use super::super::guide::{Shape, call_shape};
use super::super::loaded::Loaded;
use super::super::prompt::{self, Extras};
use super::super::reader::{Call as ToolCall, Part};
use super::super::voice::{Voice, stream};
use super::super::{chats, reply};
use super::{Base, Chunks, Head, logprob, reason, timings, usage};

/// Which tools may or must be called.
enum Choice {
    Auto,
    None,
    /// One of these.
    Must(Vec<Json>),
}

struct Chat {
    base: Base,
    messages: Vec<Message>,
    tools: Option<Vec<Json>>,
    choice: Choice,
    shape: Option<Shape>,
    think: Option<Json>,
    probs: bool,
}

impl Chat {
    fn take(mut fields: Fields) -> Result<Chat> {
        let mut base = Base::take(&mut fields)?;
        let messages = messages(&mut fields)?;
        let tools = fields.list("tools")?.filter(|t| !t.is_empty()).map(chats::tools).transpose()?;
        let choice = choice(&mut fields, tools.as_deref())?;
        let probs = fields.flag("logprobs")?.unwrap_or(false);
        let top = fields.size("top_logprobs", 0..=20)?;
        if top.is_some() && !probs {
            return Err(Fault::field("top_logprobs", "top_logprobs needs logprobs to be true"));
        }
        if probs {
            base.settings.sampling.n_probs = Some(top.unwrap_or(0) as u32);
        }
        let think = match fields.text("reasoning_effort")?.as_deref() {
            None => fields.take("think"),
            Some("none") => Some(json!(false)),
            Some(level) => Some(json!(level)),
        };
        let shape = shape(&mut fields)?;
        base.rest(&fields);
        Ok(Chat { base, messages, tools, choice, shape, think, probs })
    }
}

/// `tool_choice`.
fn choice(fields: &mut Fields, tools: Option<&[Json]>) -> Result<Choice> {
    let known =
        || "tool_choice must be \"auto\", \"none\", \"required\" or {\"type\": \"function\", \"function\": {\"name\"}}";
    let wanted = fields.take("tool_choice");
    let need = || tools.ok_or_else(|| Fault::field("tool_choice", "tool_choice needs tools"));
    match wanted {
        None => Ok(Choice::Auto),
        Some(Json::String(word)) => match word.as_str() {
            "auto" => Ok(Choice::Auto),
            "none" => Ok(Choice::None),
            "required" => Ok(Choice::Must(need()?.to_vec())),
            _ => Err(Fault::field("tool_choice", known())),
        },
        Some(other) => {
            let name = other["function"]["name"].as_str().ok_or_else(|| Fault::field("tool_choice", known()))?;
            let tool = need()?.iter().find(|t| t["function"]["name"] == name);
            let tool =
                tool.ok_or_else(|| Fault::field("tool_choice", "tool_choice names a tool that is not in tools"))?;
            Ok(Choice::Must(vec![tool.clone()]))
        }
    }
}

/// `response_format`.
fn shape(fields: &mut Fields) -> Result<Option<Shape>> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(None) };
    match format.text("type")?.as_deref() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Shape::Json)),
        Some("json_schema") => {
            let mut inner = format.object("json_schema")?.ok_or_else(|| format.fault("json_schema", "is missing"))?;
            let schema = inner.take("schema").filter(Json::is_object);
            Ok(Some(Shape::Schema(schema.ok_or_else(|| inner.fault("schema", "must be an object"))?)))
        }
        _ => Err(format.fault("type", "must be \"text\", \"json_object\" or \"json_schema\"")),
    }
}

/// The messages: contents as text, or as parts of which only texts are supported.
fn messages(fields: &mut Fields) -> Result<Vec<Message>> {
    let list = fields.list("messages")?.filter(|m| !m.is_empty());
    let list = list.ok_or_else(|| Fault::field("messages", "messages must be an array of at least one message"))?;
    let one = |(at, json): (usize, Json)| {
        let name = format!("messages[{at}]");
        let mut fields = Fields::of(json, &name)?;
        let role = chats::role(&mut fields)?;
        let content = content(&name, fields.take("content"))?;
        let mut message = Message::new(role, content);
        if let Some(calls) = fields.list("tool_calls")? {
            message.extra.insert("tool_calls".into(), chats::past_calls(calls)?);
        }
        for name in ["reasoning_content", "reasoning"] {
            if let Some(text) = fields.text(name)? {
                message.extra.insert("reasoning_content".into(), json!(text));
                message.extra.insert("thinking".into(), json!(text));
            }
        }
        for (name, more) in [("tool_call_id", "tool_call_id"), ("name", "tool_name")] {
            if let Some(text) = fields.text(name)? {
                message.extra.insert(name.into(), json!(text));
                message.extra.insert(more.into(), json!(text));
            }
        }
        Ok(message)
    };
    list.into_iter().enumerate().map(one).collect()
}

fn content(name: &str, value: Option<Json>) -> Result<String> {
    let name = format!("{name}.content");
    match value {
        None => Ok(String::new()),
        Some(Json::String(text)) => Ok(text),
        Some(Json::Array(parts)) => {
            let mut texts = Vec::new();
            for part in parts {
                let mut part = Fields::of(part, &name)?;
                match part.text("type")?.as_deref() {
                    Some("text") => texts.push(part.text("text")?.ok_or_else(|| part.fault("text", "is missing"))?),
                    Some(other @ ("image_url" | "input_audio" | "file" | "refusal")) => {
                        return Err(Fault::field(&name, format!("{name}: parts of type {other} are not supported")));
                    }
                    _ => return Err(Fault::field(&name, format!("{name}: a part's type must be \"text\""))),
                }
            }
            Ok(texts.join("\n"))
        }
        Some(other) => Err(wrong(&name, "a string or an array of parts", &other)),
    }
}

/// The route.
pub async fn chat(mut call: Call) -> Result<Response> {
    let mut chat = Chat::take(call.fields().await?)?;
    let base = &chat.base;
    let Asked { lease, settings } = ask(&call, &base.model, base.settings.clone(), &base.options, base.keep).await?;
    chat.base.warnings.extend(settings.warnings.iter().cloned());
    let thinks = lease.template.as_ref().is_some_and(|t| t.thinks());
    let (wanted, extras, think) = chat.plan(&call, &lease)?;
    let has_tools = extras.tools.is_some();
    let handle = tokio::runtime::Handle::current();
    let (chat, lease, prompt, requests) = blocking(move || {
        let prompt = prompt::chat(&lease, &chat.messages, &extras)?;
        let requests = ask::requests(&lease, &settings, &prompt, &wanted, &handle)?;
        Ok((chat, lease, prompt, requests))
    })
    .await?;
    let think = think && thinks;
    let reading = Reading {
        tools: has_tools,
        think,
        thinking: think && ask::opens_thought(&lease, &prompt),
        logprobs: chat.probs,
        whole: !chat.base.stream,
    };
    respond(&call, chat, Answers::start(&call.app, &call.ticket, lease, requests, reading)).await
}

impl Chat {
    /// What the answer is to be, what the template gets, and whether thoughts are looked for.
    fn plan(&mut self, call: &Call, model: &Loaded) -> Result<(Wanted, Extras, bool)> {
        if matches!(self.choice, Choice::None) {
            self.tools = None;
        }
        let template = model.template.as_ref();
        let must = matches!(self.choice, Choice::Must(_));
        // A call that must come is made by its grammar, whatever the template knows of tools.
        if self.tools.is_some() && !template.is_some_and(|t| t.takes_tools()) && !must {
            let name = &self.base.model;
            let message =
                format!("\"{name}\" does not support tools; only a tool_choice that requires a call works with it");
            return Err(Fault::field("tools", message));
        }
        let last = self.messages.last();
        let go_on = last.is_some_and(|m| m.role == "assistant" && !m.extra.contains_key("tool_calls"));
        let wanted = Wanted {
            shape: match &self.choice {
                Choice::Must(tools) => Some(call_shape(tools)),
                _ => self.shape.clone(),
            },
            answers: self.base.answers,
            scope: call.caller.number,
            most: call.app.config.limits.tokens,
            show_control: false,
        };
        let think = self.think.clone().filter(|_| template.is_some_and(|t| t.thinks()));
        let extras = Extras { tools: self.tools.take().map(Json::Array), think, go_on };
        Ok((wanted, extras, self.think != Some(json!(false)) && !must))
    }
}

async fn respond(call: &Call, chat: Chat, mut answers: Answers) -> Result<Response> {
    let head = Head::new("chatcmpl", chat.base.model, chat.base.warnings);
    if chat.base.stream {
        let n = answers.len();
        let chunks = Chunks::new(head, "chat.completion.chunk", chat.base.include_usage, n);
        let events = Events { chunks, calls: vec![0; n] };
        return stream(answers, events, &call.ticket).await;
    }
    let all = collect(&mut answers).await?;
    let choices = all.iter().enumerate().map(|(index, whole)| one(&answers, index, whole, chat.probs)).collect();
    let mut json = head.json("chat.completion", choices);
    let ends: Vec<Timings> = all.iter().map(|w| w.end.timings).collect();
    json["usage"] = usage(&ends);
    json["timings"] = timings(&ends[0]);
    head.warn(&mut json);
    Ok(reply::json(&json))
}

/// A complete choice.
fn one(answers: &Answers, index: usize, whole: &Whole, probs: bool) -> Json {
    let mut message = Map::new();
    message.insert("role".into(), json!("assistant"));
    let calls = &whole.part.calls;
    let content = match whole.part.content.is_empty() && !calls.is_empty() {
        true => Json::Null,
        false => json!(whole.part.content),
    };
    message.insert("content".into(), content);
    message.insert("refusal".into(), Json::Null);
    if !whole.part.thinking.is_empty() {
        message.insert("reasoning".into(), json!(whole.part.thinking));
        message.insert("reasoning_content".into(), json!(whole.part.thinking));
    }
    if !calls.is_empty() {
        message.insert(
            "tool_calls".into(),
            calls.iter().enumerate().map(|(at, call)| tool_call(at, call, false)).collect(),
        );
    }
    let tokens: Vec<Json> = whole.tokens.iter().map(|t| logprob(answers, t)).collect();
    json!({
        "index": index,
        "message": message,
        "finish_reason": reason(&whole.end),
        "logprobs": if probs { json!({"content": tokens, "refusal": null}) } else { Json::Null },
    })
}

fn tool_call(index: usize, call: &ToolCall, streamed: bool) -> Json {
    let function = json!({"name": call.name, "arguments": call.arguments.to_string()});
    let mut json = json!({"id": chats::call_id(), "type": "function", "function": function});
    if streamed {
        json["index"] = json!(index);
    }
    json
}

struct Events {
    chunks: Chunks,
    /// Calls of each answer so far.
    calls: Vec<usize>,
}

fn piece(index: usize, delta: Json, finish: Option<&str>, probs: Json) -> Json {
    json!({"index": index, "delta": delta, "finish_reason": finish, "logprobs": probs})
}

impl Voice for Events {
    const DIALECT: Dialect = Dialect::OpenAi;

    fn start(&mut self, answers: &Answers) -> String {
        let first = |index| piece(index, json!({"role": "assistant", "content": ""}), None, Json::Null);
        (0..answers.len()).map(|index| self.chunks.chunk(first(index))).collect()
    }

    fn more(&mut self, answers: &Answers, index: usize, part: Part, token: Option<Token>) -> String {
        let mut delta = Map::new();
        if !part.content.is_empty() {
            delta.insert("content".into(), json!(part.content));
        }
        if !part.thinking.is_empty() {
            delta.insert("reasoning".into(), json!(part.thinking));
            delta.insert("reasoning_content".into(), json!(part.thinking));
        }
        if !part.calls.is_empty() {
            let before = self.calls[index];
            self.calls[index] += part.calls.len();
            let calls = part.calls.iter().enumerate().map(|(at, call)| tool_call(before + at, call, true));
            delta.insert("tool_calls".into(), calls.collect());
        }
        let probs = token.map_or(Json::Null, |t| json!({"content": [logprob(answers, &t)], "refusal": null}));
        self.chunks.chunk(piece(index, Json::Object(delta), None, probs))
    }

    fn end(&mut self, _: &Answers, index: usize, end: &End) -> String {
        self.chunks.end(index, end, piece(index, json!({}), Some(reason(end)), Json::Null))
    }

    fn finish(&mut self, _: &Answers) -> String {
        self.chunks.finish()
    }
}
