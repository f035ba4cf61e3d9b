//! `/api/chat`: a conversation.

use axum::response::Response;
use engine::template::Message;
use serde_json::{Map, Value as Json, json};

use super::super::answers::{Answers, Reading};
use super::super::app::blocking;
use super::super::ask::{self, Asked, Wanted, ask};
use super::super::call::Call;
use super::super::fault::{Fault, Result};
use super::super::fields::{Fields, wrong};
use super::super::loaded::Loaded;
use super::super::options::Settings;
use super::super::prompt::Extras;
use super::super::reader::{Call as ToolCall, Part};
use super::super::{chats, reply};
use super::{Base, Lines, generate::rendered, no_images, now};

/// The route.
pub async fn chat(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let mut base = Base::take(&mut fields)?;
    let messages = messages(&mut fields, &base.model)?;
    let tools = fields.list("tools")?.filter(|t| !t.is_empty()).map(chats::tools).transpose()?;
    base.rest(&fields);
    if messages.is_empty() && base.unloads() {
        let pack = ask::find(&call.app, &base.model).await?;
        call.app.manager.unload(&pack.name);
        return Ok(idle(&base.model, "unload"));
    }
    let mut settings = Settings::default();
    settings.sampling.n_probs = base.probs;
    settings.lora.clone_from(&base.lora);
    let asked = ask(&call, &base.model, settings, &base.options, base.keep).await?;
    if messages.is_empty() {
        asked.lease.warm_beside();
        return Ok(idle(&base.model, "load"));
    }
    supports(&base, tools.is_some(), &asked.lease)?;
    answer(&call, base, messages, tools, asked).await
}

/// Whether the model can do what is asked.
fn supports(base: &Base, tools: bool, model: &Loaded) -> Result<()> {
    let template = model.template.as_ref();
    if base.think.as_ref().is_some_and(|t| *t != Json::Bool(false)) && !template.is_some_and(|t| t.thinks()) {
        return Err(Fault::field("think", format!("\"{}\" does not support thinking", base.model)));
    }
    if tools && !template.is_some_and(|t| t.takes_tools()) {
        return Err(Fault::field("tools", format!("\"{}\" does not support tools", base.model)));
    }
    Ok(())
}

async fn answer(
    call: &Call,
    mut base: Base,
    messages: Vec<Message>,
    tools: Option<Vec<Json>>,
    asked: Asked,
) -> Result<Response> {
    let Asked { lease, settings } = asked;
    let extras = Extras { tools: tools.map(Json::Array), think: base.think.clone(), go_on: false };
    let wanted = Wanted {
        shape: base.shape.clone(),
        answers: 1,
        scope: call.caller.number,
        most: call.app.config.limits.tokens,
        show_control: false,
    };
    base.warnings.extend(settings.warnings.iter().cloned());
    let handle = tokio::runtime::Handle::current();
    let has_tools = extras.tools.is_some();
    let (base, lease, prompt, requests) = blocking(move || {
        let ctx = if base.truncate { ask::context(&lease, &settings) } else { usize::MAX };
        let (prompt, left_out) = ask::fit(&lease, &messages, &extras, ctx)?;
        if left_out > 0 {
            base.warnings.push(format!("the {left_out} oldest messages were left out: the context is {ctx} tokens"));
        }
        let requests = match base.render_only {
            true => Vec::new(),
            false => ask::requests(&lease, &settings, &prompt, &wanted, &handle)?,
        };
        Ok((base, lease, prompt, requests))
    })
    .await?;
    if base.render_only {
        return Ok(rendered(&lease, &base.model, &prompt));
    }
    let think = lease.template.as_ref().is_some_and(|t| t.thinks()) && base.think != Some(Json::Bool(false));
    let thinking = think && ask::opens_thought(&lease, &prompt);
    let reading = Reading { tools: has_tools, think, thinking, logprobs: base.probs.is_some(), whole: !base.stream };
    let answers = Answers::start(&call.app, &call.ticket, lease, requests, reading);
    let lines = Lines { model: base.model, warnings: base.warnings, said, context: None };
    lines.respond(answers, base.stream, &call.ticket).await
}

/// A model was loaded or unloaded, and nothing was asked.
fn idle(model: &str, reason: &str) -> Response {
    let message = json!({"role": "assistant", "content": ""});
    reply::json(&json!({"model": model, "created_at": now(), "message": message, "done": true, "done_reason": reason}))
}

/// The messages of a request.
fn messages(fields: &mut Fields, model: &str) -> Result<Vec<Message>> {
    let list = fields.list("messages")?.unwrap_or_default();
    let one = |(at, json): (usize, Json)| {
        let mut fields = Fields::of(json, &format!("messages[{at}]"))?;
        no_images(&mut fields, model)?;
        let role = chats::role(&mut fields)?;
        let content = match fields.take("content") {
            None => String::new(),
            Some(Json::String(text)) => text,
            Some(other) => return Err(wrong(&format!("messages[{at}].content"), "a string", &other)),
        };
        let mut message = Message::new(role, content);
        if let Some(thinking) = fields.text("thinking")? {
            message.extra.insert("thinking".into(), json!(thinking));
            message.extra.insert("reasoning_content".into(), json!(thinking));
        }
        if let Some(calls) = fields.list("tool_calls")? {
            message.extra.insert("tool_calls".into(), chats::past_calls(calls)?);
        }
        for (name, more) in [("tool_name", "name"), ("tool_call_id", "tool_call_id")] {
            if let Some(text) = fields.text(name)? {
                message.extra.insert(name.into(), json!(text));
                message.extra.insert(more.into(), json!(text));
            }
        }
        Ok(message)
    };
    list.into_iter().enumerate().map(one).collect()
}

/// Calls of tools, as answers have them.
fn calls(calls: &[ToolCall]) -> Json {
    let one = |(index, call): (usize, &ToolCall)| json!({"id": chats::call_id(), "function": {"index": index, "name": call.name, "arguments": call.arguments}});
    calls.iter().enumerate().map(one).collect()
}

fn said(part: Part) -> Map<String, Json> {
    let mut message = Map::new();
    message.insert("role".into(), json!("assistant"));
    message.insert("content".into(), json!(part.content));
    if !part.thinking.is_empty() {
        message.insert("thinking".into(), json!(part.thinking));
    }
    if !part.calls.is_empty() {
        message.insert("tool_calls".into(), calls(&part.calls));
    }
    Map::from_iter([("message".into(), Json::Object(message))])
}
