//! Ollama's dialect: its routes, its fields, its lines of JSON.

pub mod chat;
pub mod embed;
pub mod generate;
pub mod manage;
pub mod models;

use std::time::{Duration, SystemTime};

use axum::response::Response;
use engine::Finish;
use serde_json::{Map, Value as Json, json};

use super::answers::{Answers, End, Token, collect};
use super::call::Ticket;
use super::duration::KeepAlive;
use super::fault::{Dialect, Fault, Result};
use super::fields::{Fields, wrong};
use super::guide::Shape;
use super::options::lora;
use super::reader::Part;
use super::reply;
use super::voice::{Voice, stream};
use crate::ui::format::rfc3339;

/// Fields that generate and chat share.
struct Base {
    model: String,
    stream: bool,
    options: Map<String, Json>,
    shape: Option<Shape>,
    keep: Option<KeepAlive>,
    think: Option<Json>,
    /// Number of most probable tokens that are wanted beside each token.
    probs: Option<u32>,
    truncate: bool,
    /// Strengths of adapters.
    lora: Option<Vec<(usize, f32)>>,
    render_only: bool,
    warnings: Vec<String>,
}

/// The name of the model, which every request has.
fn model(fields: &mut Fields) -> Result<String> {
    let name = fields.text("model")?;
    let old = fields.text("name")?;
    name.or(old).filter(|n| !n.is_empty()).ok_or_else(|| Fault::field("model", "model is required"))
}

fn keep_alive(fields: &mut Fields) -> Result<Option<KeepAlive>> {
    let Some(value) = fields.take("keep_alive") else { return Ok(None) };
    KeepAlive::of_json(&value).map(Some).ok_or_else(|| {
        Fault::field("keep_alive", format!("keep_alive is {value}, expected seconds or a duration such as \"10m\""))
    })
}

fn shape(fields: &mut Fields) -> Result<Option<Shape>> {
    match fields.take("format") {
        None => Ok(None),
        Some(Json::String(s)) if s.is_empty() => Ok(None),
        Some(Json::String(s)) if s == "json" => Ok(Some(Shape::Json)),
        Some(schema @ Json::Object(_)) => Ok(Some(Shape::Schema(schema))),
        Some(other) => {
            Err(Fault::field("format", format!("format is {}, expected \"json\" or a JSON schema", brief(&other))))
        }
    }
}

fn brief(value: &Json) -> String {
    value.to_string().chars().take(60).collect()
}

fn options(fields: &mut Fields) -> Result<Map<String, Json>> {
    Ok(fields.object("options")?.map(Fields::into_map).unwrap_or_default())
}

impl Base {
    fn take(fields: &mut Fields) -> Result<Base> {
        let mut warnings = Vec::new();
        let probs = fields.flag("logprobs")?.unwrap_or(false);
        let top = fields.take("top_logprobs");
        let top = match top {
            None => 0,
            Some(n) => n
                .as_u64()
                .filter(|n| *n <= 20)
                .ok_or_else(|| Fault::field("top_logprobs", "top_logprobs must be between 0 and 20"))?,
        };
        if fields.flag("shift")? == Some(true) {
            warnings.push("shift has no effect: an answer ends where the context is full".into());
        }
        let think = fields.take("think");
        if let Some(think) = &think
            && !(think.is_boolean() || think.is_string())
        {
            return Err(wrong("think", "a boolean or a string", think));
        }
        if let Some(level) = think.as_ref().and_then(Json::as_str)
            && !matches!(level, "low" | "medium" | "high" | "max")
        {
            return Err(Fault::field("think", "think must be true, false, \"low\", \"medium\", \"high\" or \"max\""));
        }
        Ok(Base {
            model: model(fields)?,
            stream: fields.flag("stream")?.unwrap_or(true),
            options: options(fields)?,
            shape: shape(fields)?,
            keep: keep_alive(fields)?,
            think,
            probs: probs.then_some(top as u32),
            truncate: fields.flag("truncate")?.unwrap_or(true),
            lora: fields.list("lora")?.map(|list| lora("lora", list)).transpose()?,
            render_only: fields.flag("_debug_render_only")?.unwrap_or(false),
            warnings,
        })
    }

    /// Warns of fields that nobody knows.
    fn rest(&mut self, fields: &Fields) {
        self.warnings.extend(fields.unknown(&[]).iter().map(|f| format!("field {f} is not known and has no effect")));
    }

    /// Whether this asks to load or unload a model and nothing else; unload it is.
    fn unloads(&self) -> bool {
        self.keep == Some(KeepAlive::For(Duration::ZERO))
    }
}

/// Refuses images: no model that sees is supported.
fn no_images(fields: &mut Fields, model: &str) -> Result<()> {
    match fields.list("images")? {
        Some(images) if !images.is_empty() => {
            Err(Fault::field("images", format!("\"{model}\" does not support images")))
        }
        _ => Ok(()),
    }
}

/// The time now, as Go writes it.
pub fn now() -> String {
    stamp(SystemTime::now())
}

/// A time as Go writes it, in UTC with nanoseconds.
pub fn stamp(time: SystemTime) -> String {
    let nanos = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let seconds = rfc3339(time);
    format!("{}.{nanos:09}Z", seconds.trim_end_matches('Z'))
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndOfText | Finish::StopString => "stop",
        Finish::MaxTokens | Finish::ContextFull => "length",
    }
}

/// Adds what the last line of an answer says.
fn finish(line: &mut Map<String, Json>, answers: &Answers, end: &End, warnings: &[String]) {
    let t = end.timings;
    line.insert("done".into(), json!(true));
    line.insert("done_reason".into(), json!(reason(end.finish)));
    let load = answers.lease.load;
    for (name, value) in [
        ("total_duration", (load + answers.elapsed()).as_nanos() as u64),
        ("load_duration", load.as_nanos() as u64),
        ("prompt_eval_count", t.prompt_tokens as u64),
        ("prompt_eval_cached_count", t.cached_tokens as u64),
        ("prompt_eval_duration", t.prompt_ns),
        ("eval_count", t.generated_tokens as u64),
        ("eval_duration", t.generate_ns),
    ] {
        line.insert(name.into(), json!(value));
    }
    if !warnings.is_empty() {
        line.insert("warnings".into(), json!(warnings));
    }
}

/// A token with its probabilities.
fn logprob(answers: &Answers, token: &Token) -> Json {
    let tokenizer = answers.lease.engine.tokenizer();
    let one = |id: u32, logprob: f32| {
        let bytes = tokenizer.bytes(id);
        json!({"token": String::from_utf8_lossy(&bytes), "logprob": logprob, "bytes": bytes.to_vec()})
    };
    let mut json = one(token.id, token.logprob);
    json["top_logprobs"] = token.top.iter().map(|(id, p)| one(*id, *p)).collect();
    json
}

/// A line of JSON.
fn line(map: Map<String, Json>) -> String {
    format!("{}\n", Json::Object(map))
}

/// How both routes write an answer: a line a piece, or one line for all.
struct Lines {
    model: String,
    warnings: Vec<String>,
    /// A piece in the route's own form.
    said: fn(Part) -> Map<String, Json>,
    /// The prompt, where the last line tells the conversation so far.
    context: Option<Vec<u32>>,
}

impl Lines {
    fn map(&self, answers: &Answers, part: Part, tokens: &[Token]) -> Map<String, Json> {
        let mut map = Map::new();
        map.insert("model".into(), json!(self.model));
        map.insert("created_at".into(), json!(now()));
        map.extend((self.said)(part));
        map.insert("done".into(), json!(false));
        if !tokens.is_empty() {
            map.insert("logprobs".into(), tokens.iter().map(|t| logprob(answers, t)).collect());
        }
        map
    }

    fn last(&self, answers: &Answers, part: Part, tokens: &[Token], end: &End) -> Map<String, Json> {
        let mut map = self.map(answers, part, tokens);
        if let Some(prompt) = &self.context {
            let context: Vec<u32> = prompt.iter().chain(&answers.ids[0]).copied().collect();
            map.insert("context".into(), json!(context));
        }
        finish(&mut map, answers, end, &self.warnings);
        map
    }

    /// The answer, as a stream or as one object.
    async fn respond(self, mut answers: Answers, streamed: bool, ticket: &Ticket) -> Result<Response> {
        if streamed {
            return stream(answers, self, ticket).await;
        }
        let whole = collect(&mut answers).await?.remove(0);
        Ok(reply::json(&Json::Object(self.last(&answers, whole.part, &whole.tokens, &whole.end))))
    }
}

impl Voice for Lines {
    const DIALECT: Dialect = Dialect::Ollama;

    fn more(&mut self, answers: &Answers, _: usize, part: Part, token: Option<Token>) -> String {
        line(self.map(answers, part, token.as_slice()))
    }

    fn end(&mut self, answers: &Answers, _: usize, end: &End) -> String {
        line(self.last(answers, Part::default(), &[], end))
    }
}
