//! OpenAI's dialect: its routes, its fields, its events.

pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod models;

use std::time::{SystemTime, UNIX_EPOCH};

use engine::sampler::Params;
use engine::{Finish, Timings};
use serde_json::{Map, Value as Json, json};

use super::answers::{Answers, End, Token};
use super::chats;
use super::duration::KeepAlive;
use super::fault::{Fault, Result};
use super::fields::{Fields, int, number, wrong};
use super::options::{self, Settings, stops};

/// Most answers to one prompt.
const MOST_ANSWERS: usize = 128;

/// Fields that say nothing about the answer.
const HARMLESS: [&str; 8] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
    "verbosity",
];

/// Fields of an answer that are not supported: without them it would be another answer.
const REFUSED: [&str; 7] =
    ["audio", "modalities", "prediction", "web_search_options", "functions", "function_call", "best_of"];

/// Fields that chat and completions share.
struct Base {
    model: String,
    stream: bool,
    include_usage: bool,
    answers: usize,
    settings: Settings,
    /// Options under Ollama's names, which some clients send along.
    options: Map<String, Json>,
    keep: Option<KeepAlive>,
    warnings: Vec<String>,
}

/// Defaults of this dialect.
fn defaults() -> Settings {
    let sampling = Params { temperature: 1.0, top_p: 1.0, top_k: 0, ..Params::ollama() };
    Settings { sampling, ..Settings::default() }
}

impl Base {
    fn take(fields: &mut Fields) -> Result<Base> {
        if let Some(name) = REFUSED.iter().find(|name| fields.has(name)) {
            return Err(Fault::field(name, format!("{name} is not supported")));
        }
        let model = fields.text("model")?.filter(|m| !m.is_empty());
        let model = model.ok_or_else(|| Fault::field("model", "model is required"))?;
        let mut stream_options = fields.object("stream_options")?.unwrap_or_default();
        let include_usage = stream_options.flag("include_usage")?.unwrap_or(false);
        let mut options = fields.object("options")?.map(Fields::into_map).unwrap_or_default();
        let table = [
            ("temperature", "temperature"),
            ("top_p", "top_p"),
            ("frequency_penalty", "frequency_penalty"),
            ("presence_penalty", "presence_penalty"),
            ("seed", "seed"),
            // Known to other servers of this dialect.
            ("top_k", "top_k"),
            ("min_p", "min_p"),
            ("repeat_penalty", "repeat_penalty"),
            ("repetition_penalty", "repeat_penalty"),
            ("ignore_eos", "ignore_eos"),
        ];
        let mut settings = defaults();
        for (name, ours) in table {
            if let Some(value) = fields.take(name) {
                settings.set(ours, &value).map_err(|f| renamed(f, &format!("options.{ours}"), name))?;
                options.insert(ours.into(), value);
            }
        }
        within_bounds(&options)?;
        let keep = fields
            .take("keep_alive")
            .map(|v| KeepAlive::of_json(&v).ok_or_else(|| wrong("keep_alive", "a duration", &v)));
        let limit = fields.size("max_completion_tokens", 0..=1 << 31)?;
        let old_limit = fields.size("max_tokens", 0..=1 << 31)?;
        if let Some(most) = limit.or(old_limit) {
            settings.max_tokens = Some(most);
            options.insert("num_predict".into(), json!(most));
        }
        if let Some(value) = fields.take("stop") {
            options.insert("stop".into(), json!(stops("stop", &value)?));
        }
        settings.sampling.logit_bias = logit_bias(fields)?;
        settings.lora = fields.list("lora")?.map(|list| options::lora("lora", list)).transpose()?;
        Ok(Base {
            model,
            stream: fields.flag("stream")?.unwrap_or(false),
            include_usage,
            answers: fields.size("n", 1..=MOST_ANSWERS)?.unwrap_or(1),
            settings,
            options,
            keep: keep.transpose()?,
            warnings: Vec::new(),
        })
    }

    /// Warns of fields that nobody knows.
    fn rest(&mut self, fields: &Fields) {
        let unknown = fields.unknown(&HARMLESS);
        self.warnings.extend(unknown.iter().map(|f| format!("field {f} is not known and has no effect")));
    }
}

/// Whether options are within what this dialect allows, which is less than what other dialects do.
fn within_bounds(options: &Map<String, Json>) -> Result<()> {
    let bounds = [("temperature", 0.0..=2.0), ("frequency_penalty", -2.0..=2.0), ("presence_penalty", -2.0..=2.0)];
    bounds.into_iter().try_for_each(|(name, bound)| match options.get(name) {
        None => Ok(()),
        Some(value) => number(name, value, bound).map(drop),
    })
}

/// An error under the name that the client used.
fn renamed(fault: Fault, from: &str, to: &str) -> Fault {
    Fault { message: fault.message.replace(from, to), param: Some(to.to_string()), ..fault }
}

/// `logit_bias`: token ids to numbers.
fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>> {
    let Some(bias) = fields.object("logit_bias")? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for (id, value) in bias.into_map() {
        let name = format!("logit_bias.{}", crate::ui::format::printable(&id));
        let token: u32 = id.parse().map_err(|_| Fault::field("logit_bias", format!("{name} is no token id")))?;
        let value = number(&name, &value, -100.0..=100.0)? as f32;
        // The ends of the range mean never and nothing else.
        all.push((token, if value <= -100.0 { f32::NEG_INFINITY } else { value }));
    }
    Ok(all)
}

/// Ids of tokens in a request.
fn token_ids(name: &str, values: &[Json]) -> Result<Vec<u32>> {
    values.iter().map(|v| int(name, v, 0..=i64::from(u32::MAX)).map(|id| id as u32)).collect()
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What all answers of a request have in common.
struct Head {
    id: String,
    created: u64,
    model: String,
    warnings: Vec<String>,
}

impl Head {
    fn new(prefix: &str, model: String, warnings: Vec<String>) -> Head {
        Head { id: format!("{prefix}-{}", chats::token(24)), created: seconds(SystemTime::now()), model, warnings }
    }

    fn json(&self, object: &str, choices: Vec<Json>) -> Json {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": concat!("handmill-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    fn warn(&self, json: &mut Json) {
        if !self.warnings.is_empty() {
            json["warnings"] = json!(self.warnings);
        }
    }
}

/// What the streams of both routes have in common: their chunks and how they end.
struct Chunks {
    head: Head,
    object: &'static str,
    include_usage: bool,
    ends: Vec<Timings>,
}

impl Chunks {
    fn new(head: Head, object: &'static str, include_usage: bool, answers: usize) -> Chunks {
        Chunks { head, object, include_usage, ends: vec![Timings::default(); answers] }
    }

    /// A chunk of one of the answers.
    fn chunk(&self, choice: Json) -> String {
        event(&self.head.json(self.object, vec![choice]))
    }

    /// The last chunk of one of the answers.
    fn end(&mut self, index: usize, end: &End, choice: Json) -> String {
        self.ends[index] = end.timings;
        let mut chunk = self.head.json(self.object, vec![choice]);
        chunk["timings"] = timings(&end.timings);
        self.head.warn(&mut chunk);
        event(&chunk)
    }

    /// What comes after all answers.
    fn finish(&self) -> String {
        let mut text = String::new();
        if self.include_usage {
            let mut chunk = self.head.json(self.object, Vec::new());
            chunk["usage"] = usage(&self.ends);
            text += &event(&chunk);
        }
        text + DONE
    }
}

/// An event of a stream.
fn event(json: &Json) -> String {
    format!("data: {json}\n\n")
}

const DONE: &str = "data: [DONE]\n\n";

fn reason(end: &End) -> &'static str {
    match end.finish {
        Finish::EndOfText | Finish::StopString if end.called => "tool_calls",
        Finish::EndOfText | Finish::StopString => "stop",
        Finish::MaxTokens | Finish::ContextFull => "length",
    }
}

/// Counts over all answers: the prompt counts once.
fn usage(ends: &[Timings]) -> Json {
    let first = ends.first().copied().unwrap_or_default();
    let generated: usize = ends.iter().map(|t| t.generated_tokens).sum();
    json!({
        "prompt_tokens": first.prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": first.prompt_tokens + generated,
        "prompt_tokens_details": {"cached_tokens": first.cached_tokens},
    })
}

/// Durations under the names of llama.cpp's server.
fn timings(t: &Timings) -> Json {
    let ms = |ns: u64| ns as f64 / 1e6;
    let computed = t.prompt_tokens - t.cached_tokens.min(t.prompt_tokens);
    let per = |ns: u64, n: usize| if n == 0 { 0.0 } else { ms(ns) / n as f64 };
    json!({
        "cache_n": t.cached_tokens,
        "prompt_n": computed,
        "prompt_ms": ms(t.prompt_ns),
        "prompt_per_token_ms": per(t.prompt_ns, computed),
        "prompt_per_second": t.prompt_rate(),
        "predicted_n": t.generated_tokens,
        "predicted_ms": ms(t.generate_ns),
        "predicted_per_token_ms": per(t.generate_ns, t.generated_tokens.saturating_sub(1)),
        "predicted_per_second": t.generate_rate(),
    })
}

/// A token of `logprobs.content`.
fn logprob(answers: &Answers, token: &Token) -> Json {
    let tokenizer = answers.lease.engine.tokenizer();
    let one = |id: u32, logprob: f32| {
        let bytes = tokenizer.bytes(id);
        // JSON has no minus infinity; no probability is below this.
        let logprob = if logprob.is_finite() { logprob } else { -9999.0 };
        json!({"token": String::from_utf8_lossy(&bytes), "logprob": logprob, "bytes": bytes.to_vec()})
    };
    let mut json = one(token.id, token.logprob);
    json["top_logprobs"] = token.top.iter().map(|(id, p)| one(*id, *p)).collect();
    json
}
