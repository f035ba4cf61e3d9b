//! `/api/generate`: a prompt, or a model to be loaded.

use axum::response::Response;
use engine::template::Message;
use serde_json::{Map, Value as Json, json};

use super::super::answers::{Answers, Reading};
use super::super::app::blocking;
use super::super::ask::{self, Asked, Wanted, ask};
use super::super::call::Call;
use super::super::fault::{Fault, Result};
use super::super::fields::{Fields, int};
use super::super::go::GoTemplate;
use super::super::loaded::Loaded;
use super::super::options::Settings;
use super::super::prompt::{self, Extras};
use super::super::reader::Part;
use super::super::reply;
use super::{Base, Lines, no_images, now};

struct Generate {
    base: Base,
    prompt: String,
    suffix: Option<String>,
    system: Option<String>,
    template: Option<String>,
    context: Vec<u32>,
    raw: bool,
}

impl Generate {
    fn take(mut fields: Fields) -> Result<Generate> {
        let mut base = Base::take(&mut fields)?;
        no_images(&mut fields, &base.model)?;
        let context = fields.list("context")?.unwrap_or_default();
        let context = context.iter().map(|id| int("context", id, 0..=i64::from(u32::MAX)).map(|id| id as u32));
        let generate = Generate {
            prompt: fields.text("prompt")?.unwrap_or_default(),
            suffix: fields.text("suffix")?.filter(|s| !s.is_empty()),
            system: fields.text("system")?.filter(|s| !s.is_empty()),
            template: fields.text("template")?.filter(|s| !s.is_empty()),
            context: context.collect::<Result<_>>()?,
            raw: fields.flag("raw")?.unwrap_or(false),
            base: {
                base.rest(&fields);
                base
            },
        };
        if generate.raw && (generate.template.is_some() || generate.system.is_some() || !generate.context.is_empty()) {
            return Err(Fault::bad("raw mode does not support template, system, or context"));
        }
        Ok(generate)
    }

    /// The tokens of the prompt.
    fn prompt(&self, model: &Loaded) -> Result<Vec<u32>> {
        if let Some(suffix) = &self.suffix {
            return prompt::fill(model, &self.prompt, suffix);
        }
        if self.raw || (model.template.is_none() && self.template.is_none()) {
            let text = match &self.system {
                Some(system) => format!("{system}\n\n{}", self.prompt),
                None => self.prompt.clone(),
            };
            return Ok(self.after_context(model, prompt::raw(model, &text)));
        }
        let system = self.system.iter().map(|s| Message::new("system", s.as_str()));
        let messages: Vec<Message> = system.chain([Message::new("user", self.prompt.as_str())]).collect();
        let extras = Extras { think: self.base.think.clone(), ..Extras::default() };
        let ids = match &self.template {
            None => prompt::chat(model, &messages, &extras)?,
            Some(source) => {
                let template =
                    GoTemplate::parse(source).map_err(|e| Fault::field("template", format!("template: {e}")))?;
                model.engine.tokenizer().encode_chat(&template.chat(&messages, &extras).map_err(Fault::bad)?)
            }
        };
        Ok(self.after_context(model, ids))
    }

    fn after_context(&self, model: &Loaded, ids: Vec<u32>) -> Vec<u32> {
        if self.context.is_empty() {
            return ids;
        }
        let bos = model.engine.tokenizer().bos();
        let skip = usize::from(bos.is_some() && ids.first().copied() == bos);
        [&self.context[..], &ids[skip..]].concat()
    }
}

/// The route.
pub async fn generate(mut call: Call) -> Result<Response> {
    let mut generate = Generate::take(call.fields().await?)?;
    let empty = generate.prompt.is_empty() && generate.suffix.is_none();
    if empty && generate.base.unloads() {
        let pack = ask::find(&call.app, &generate.base.model).await?;
        call.app.manager.unload(&pack.name);
        return Ok(idle(&generate.base.model, "unload"));
    }
    let base = &generate.base;
    let mut settings = Settings::default();
    settings.sampling.n_probs = base.probs;
    settings.lora.clone_from(&base.lora);
    let Asked { lease, settings } = ask(&call, &base.model, settings, &base.options, base.keep).await?;
    if empty {
        lease.warm_beside();
        return Ok(idle(&base.model, "load"));
    }
    let thinks = lease.template.as_ref().is_some_and(|t| t.thinks()) && !generate.raw;
    if base.think.as_ref().is_some_and(|t| *t != Json::Bool(false)) && !thinks {
        return Err(Fault::field("think", format!("\"{}\" does not support thinking", base.model)));
    }
    let wanted = Wanted {
        shape: base.shape.clone(),
        answers: 1,
        scope: call.caller.number,
        most: call.app.config.limits.tokens,
        show_control: false,
    };
    generate.base.warnings.extend(settings.warnings.iter().cloned());
    let handle = tokio::runtime::Handle::current();
    let (generate, lease, prompt, requests) = blocking(move || {
        let prompt = generate.prompt(&lease)?;
        let requests = match generate.base.render_only {
            true => Vec::new(),
            false => ask::requests(&lease, &settings, &prompt, &wanted, &handle)?,
        };
        Ok((generate, lease, prompt, requests))
    })
    .await?;
    if generate.base.render_only {
        return Ok(rendered(&lease, &generate.base.model, &prompt));
    }
    let think = thinks && generate.base.think != Some(Json::Bool(false));
    let reading = Reading {
        tools: false,
        think,
        thinking: think && ask::opens_thought(&lease, &prompt),
        logprobs: generate.base.probs.is_some(),
        whole: !generate.base.stream,
    };
    let answers = Answers::start(&call.app, &call.ticket, lease, requests, reading);
    let context = (!generate.raw).then_some(prompt);
    let lines = Lines { model: generate.base.model, warnings: generate.base.warnings, said, context };
    lines.respond(answers, generate.base.stream, &call.ticket).await
}

/// A model was loaded or unloaded, and nothing was asked.
fn idle(model: &str, reason: &str) -> Response {
    reply::json(&json!({"model": model, "created_at": now(), "response": "", "done": true, "done_reason": reason}))
}

/// What the template made of a request, for whoever writes templates.
pub fn rendered(model: &Loaded, name: &str, prompt: &[u32]) -> Response {
    let text = model.engine.tokenizer().decode(prompt, true);
    reply::json(&json!({"model": name, "created_at": now(), "_debug_info": {"rendered_template": text}}))
}

fn said(part: Part) -> Map<String, Json> {
    let mut said = Map::from_iter([("response".into(), json!(part.content))]);
    if !part.thinking.is_empty() {
        said.insert("thinking".into(), json!(part.thinking));
    }
    said
}
