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
use super::super::voice::{Voice, stream};
use super::super::{prompt, reply};
use super::{Base, Chunks, Head, reason, timings, token_ids, usage};

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

/// A request, read.
struct Completions {
    base: Base,
    suffix: Option<String>,
    echo: bool,
    probs: bool,
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
    // What this dialect does where nothing is said.
    base.settings.max_tokens = base.settings.max_tokens.or(Some(16));
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
    let wanted = Completions { base, suffix, echo, probs: probs.is_some() };
    let mut head = Head::new("cmpl", wanted.base.model.clone(), wanted.base.warnings.clone());
    let (mut choices, mut ends, mut prompt_tokens) = (Vec::new(), Vec::<Timings>::new(), 0);
    for prompt in prompts {
        let (mut answers, before, warnings) = start(&call, &wanted, prompt).await?;
        head.warnings = warnings;
        if wanted.base.stream {
            let n = answers.len();
            let chunks = Chunks::new(head, "text_completion", wanted.base.include_usage, n);
            let events = Events { chunks, before, offsets: vec![0; n] };
            return stream(answers, events, &call.ticket).await;
        }
        for (index, whole) in collect(&mut answers).await?.iter().enumerate() {
            prompt_tokens += if index == 0 { whole.end.timings.prompt_tokens } else { 0 };
            ends.push(whole.end.timings);
            let logprobs = wanted.probs.then(|| logprobs(&answers, &whole.tokens, 0).0);
            let text = format!("{before}{}", whole.part.content);
            let reason = reason(&whole.end);
            choices.push(json!({"index": choices.len(), "text": text, "finish_reason": reason, "logprobs": logprobs}));
        }
    }
    let mut json = head.json("text_completion", choices);
    json["usage"] = usage(&ends);
    let generated = json["usage"]["completion_tokens"].as_u64().unwrap_or(0) as usize;
    json["usage"]["prompt_tokens"] = json!(prompt_tokens);
    json["usage"]["total_tokens"] = json!(prompt_tokens + generated);
    json["timings"] = timings(&ends[0]);
    head.warn(&mut json);
    Ok(reply::json(&json))
}

/// Submits one prompt. Gives its answers, the text that stands before them, and warnings.
async fn start(call: &Call, wanted: &Completions, prompt: Prompt) -> Result<(Answers, String, Vec<String>)> {
    let base = &wanted.base;
    let Asked { lease, settings } = ask(call, &base.model, base.settings.clone(), &base.options, base.keep).await?;
    let warnings = [&base.warnings[..], &settings.warnings[..]].concat();
    let form = Wanted {
        shape: None,
        answers: base.answers,
        scope: call.caller.number,
        most: call.app.config.limits.tokens,
        show_control: false,
    };
    let handle = tokio::runtime::Handle::current();
    let (suffix, echo) = (wanted.suffix.clone(), wanted.echo);
    let (lease, requests, before) = blocking(move || {
        let ids = tokens(&lease, &prompt, suffix.as_deref())?;
        let requests = ask::requests(&lease, &settings, &ids, &form, &handle)?;
        let before = match prompt {
            _ if !echo => String::new(),
            Prompt::Text(text) => text,
            Prompt::Tokens(ids) => lease.engine.tokenizer().decode(&ids, false),
        };
        Ok((lease, requests, before))
    })
    .await?;
    let reading = Reading { logprobs: wanted.probs, whole: !wanted.base.stream, ..Reading::default() };
    Ok((Answers::start(&call.app, &call.ticket, lease, requests, reading), before, warnings))
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
    chunks: Chunks,
    /// The prompt, where it is to be repeated.
    before: String,
    offsets: Vec<usize>,
}

fn choice(index: usize, text: &str, finish: Option<&str>, logprobs: Json) -> Json {
    json!({"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs})
}

impl Voice for Events {
    const DIALECT: Dialect = Dialect::OpenAi;

    fn start(&mut self, answers: &Answers) -> String {
        match self.before.is_empty() {
            true => String::new(),
            false => (0..answers.len()).map(|i| self.chunks.chunk(choice(i, &self.before, None, Json::Null))).collect(),
        }
    }

    fn more(&mut self, answers: &Answers, index: usize, part: Part, token: Option<Token>) -> String {
        let probs = token.map_or(Json::Null, |token| {
            let (json, at) = logprobs(answers, &[token], self.offsets[index]);
            self.offsets[index] = at;
            json
        });
        self.chunks.chunk(choice(index, &part.content, None, probs))
    }

    fn end(&mut self, _: &Answers, index: usize, end: &End) -> String {
        self.chunks.end(index, end, choice(index, "", Some(reason(end)), Json::Null))
    }

    fn finish(&mut self, _: &Answers) -> String {
        self.chunks.finish()
    }
}
