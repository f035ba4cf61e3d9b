//! `/v1/completions`: text, or tokens, and what follows them.

use axum::response::Response;
use engine::Timings;
use serde_json::{Value as Json, json};

use super::super::answers::{Answers, End, Reading, Token, collect};
use super::super::app::blocking;
use super::super::ask::{self, Asked, Wanted, ask};
use super::super::call::Call;
use super::super::fault::{Dialect, Fault, Result};
use super::super::fields::Fields;
use super::super::loaded::Loaded;
use super::super::reader::Part;
use super::super::voice::{Voice, error_line, stream};
use super::super::{prompt, reply};
use super::{Base, DONE, Head, event, reason, timings, token_ids, usage};

/// Most prompts of a request.
const MOST_PROMPTS: usize = 64;

/// A prompt as it came.
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// `prompt`: a text, texts, tokens, or lists of tokens.
fn prompts(fields: &mut Fields) -> Result<Vec<Prompt>> {
    let fault = || {
        Fault::field("prompt", "prompt must be a string, an array of strings, of token ids, or of arrays of token ids")
    };
    let all: Vec<Prompt> = match fields.take("prompt") {
        None => vec![Prompt::Text(String::new())],
        Some(Json::String(text)) => vec![Prompt::Text(text)],
        Some(Json::Array(items)) if items.first().is_some_and(Json::is_number) => {
            vec![Prompt::Tokens(token_ids("prompt", &items)?)]
        }
        Some(Json::Array(items)) => {
            let one = |item| match item {
                Json::String(text) => Ok(Prompt::Text(text)),
                Json::Array(ids) => Ok(Prompt::Tokens(token_ids("prompt", &ids)?)),
                _ => Err(fault()),
            };
            items.into_iter().map(one).collect::<Result<_>>()?
        }
        Some(_) => return Err(fault()),
    };
    match all.len() {
        0 => Err(fault()),
        1..=MOST_PROMPTS => Ok(all),
        n => Err(Fault::field("prompt", format!("there are {n} prompts, at most {MOST_PROMPTS} are allowed"))),
    }
}

fn tokens(model: &Loaded, prompt: &Prompt, suffix: Option<&str>) -> Result<Vec<u32>> {
    match (prompt, suffix) {
        (Prompt::Text(text), Some(suffix)) => prompt::fill(model, text, suffix),
        (Prompt::Text(text), None) => Ok(prompt::raw(model, text)),
        (Prompt::Tokens(ids), None) => Ok(ids.clone()),
        (Prompt::Tokens(_), Some(_)) => Err(Fault::field("suffix", "suffix needs a prompt of text")),
    }
}

/// The route.
pub async fn completions(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let mut base = Base::take(&mut fields)?;
    let prompts = prompts(&mut fields)?;
    let suffix = fields.text("suffix")?.filter(|s| !s.is_empty());
    let echo = fields.flag("echo")?.unwrap_or(false);
    let probs = fields.size("logprobs", 0..=20)?;
    base.settings.sampling.n_probs = probs.map(|n| n as u32);
    base.rest(&fields);
    if base.stream && prompts.len() > 1 {
        return Err(Fault::field("stream", "a stream has one prompt"));
    }
    if echo && probs.is_some() {
        return Err(Fault::field(
            "echo",
            "echo with logprobs is not supported: `handmill score` gives those of a prompt",
        ));
    }
    let mut choices = Vec::new();
    let mut ends: Vec<Timings> = Vec::new();
    let mut all_ends: Vec<Timings> = Vec::new();
    let mut head = Head::new("cmpl", base.model.clone(), Vec::new());
    for prompt in prompts {
        let Asked { lease, settings } =
            ask(&call, &base.model, base.settings.clone(), &base.options, base.keep).await?;
        head.warnings = [&base.warnings[..], &settings.warnings[..]].concat();
        let wanted = Wanted {
            shape: None,
            answers: base.answers,
            scope: call.caller.number,
            most: call.app.config.limits.tokens,
            show_control: false,
        };
        let handle = tokio::runtime::Handle::current();
        let (suffix, echoed) = (suffix.clone(), echo);
        let (lease, requests, before) = blocking(move || {
            let ids = tokens(&lease, &prompt, suffix.as_deref())?;
            let mut settings = settings;
            // What this dialect does where nothing is said.
            settings.max_tokens = settings.max_tokens.or(Some(16));
            let requests = ask::requests(&lease, &settings, &ids, &wanted, &handle)?;
            let before = match prompt {
                _ if !echoed => String::new(),
                Prompt::Text(text) => text,
                Prompt::Tokens(ids) => lease.engine.tokenizer().decode(&ids, false),
            };
            Ok((lease, requests, before))
        })
        .await?;
        let reading = Reading { logprobs: probs.is_some(), ..Reading::default() };
        let mut answers = Answers::start(&call.app, &call.ticket, lease, requests, reading);
        if base.stream {
            let n = answers.len();
            let events = Events {
                head,
                before,
                include_usage: base.include_usage,
                offsets: vec![0; n],
                ends: vec![Timings::default(); n],
            };
            return stream(answers, events, &call.ticket).await;
        }
        ends.clear();
        for whole in collect(&mut answers).await? {
            ends.push(whole.end.timings);
            let logprobs = probs.map(|_| logprobs(&answers, &whole.tokens, 0).0);
            choices.push(json!({
                "index": choices.len(),
                "text": format!("{before}{}", whole.part.content),
                "finish_reason": reason(&whole.end),
                "logprobs": logprobs,
            }));
        }
        all_ends.extend(&ends);
    }
    let mut json = head.json("text_completion", choices);
    json["usage"] = usage(&all_ends);
    json["usage"]["prompt_tokens"] =
        json!(all_ends.iter().step_by(base.answers).map(|t| t.prompt_tokens).sum::<usize>());
    let total =
        json["usage"]["prompt_tokens"].as_u64().unwrap_or(0) + json["usage"]["completion_tokens"].as_u64().unwrap_or(0);
    json["usage"]["total_tokens"] = json!(total);
    json["timings"] = timings(&ends[0]);
    head.warn(&mut json);
    Ok(reply::json(&json))
}

/// Tokens in this route's older form, and where the next one begins.
fn logprobs(answers: &Answers, tokens: &[Token], offset: usize) -> (Json, usize) {
    let tokenizer = answers.lease.engine.tokenizer();
    let text = |id: u32| String::from_utf8_lossy(&tokenizer.bytes(id)).into_owned();
    let mut at = offset;
    let (mut texts, mut probs, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        let word = text(token.id);
        offsets.push(at);
        at += word.chars().count();
        texts.push(word);
        probs.push(token.logprob);
        let top: serde_json::Map<String, Json> = token.top.iter().map(|(id, p)| (text(*id), json!(p))).collect();
        tops.push(Json::Object(top));
    }
    (json!({"tokens": texts, "token_logprobs": probs, "top_logprobs": tops, "text_offset": offsets}), at)
}

struct Events {
    head: Head,
    /// The prompt, where it is to be repeated.
    before: String,
    include_usage: bool,
    offsets: Vec<usize>,
    ends: Vec<Timings>,
}

impl Events {
    fn chunk(&self, index: usize, text: &str, finish: Option<&str>, logprobs: Json) -> Json {
        let choice = json!({"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs});
        self.head.json("text_completion", vec![choice])
    }
}

impl Voice for Events {
    fn start(&mut self, answers: &Answers) -> String {
        match self.before.is_empty() {
            true => String::new(),
            false => (0..answers.len()).map(|i| event(&self.chunk(i, &self.before, None, Json::Null))).collect(),
        }
    }

    fn more(&mut self, answers: &Answers, index: usize, part: Part, token: Option<Token>) -> String {
        let probs = token.map_or(Json::Null, |token| {
            let (json, at) = logprobs(answers, &[token], self.offsets[index]);
            self.offsets[index] = at;
            json
        });
        event(&self.chunk(index, &part.content, None, probs))
    }

    fn end(&mut self, _: &Answers, index: usize, end: &End) -> String {
        self.ends[index] = end.timings;
        let mut chunk = self.chunk(index, "", Some(reason(end)), Json::Null);
        chunk["timings"] = timings(&end.timings);
        self.head.warn(&mut chunk);
        event(&chunk)
    }

    fn finish(&mut self, _: &Answers) -> String {
        let mut text = String::new();
        if self.include_usage {
            let mut chunk = self.head.json("text_completion", Vec::new());
            chunk["usage"] = usage(&self.ends);
            text += &event(&chunk);
        }
        text + DONE
    }

    fn fault(&mut self, fault: &Fault) -> String {
        error_line(Dialect::OpenAi, fault)
    }

    fn content_type(&self) -> &'static str {
        "text/event-stream"
    }
}
