//! From what a dialect has read to requests in the engine: what all dialects have in common.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use engine::Request;
use engine::template::Message;
use serde_json::{Map, Value as Json};
use tokio::runtime::Handle;

use super::app::{App, blocking};
use super::call::Call;
use super::duration::KeepAlive;
use super::fault::{Fault, Result};
use super::guide::Shape;
use super::loaded::{Lease, Loaded};
use super::options::Settings;
use super::prompt::{self, Extras};
use super::shelf::Pack;

/// A model that was asked for, in memory, with the settings of the request.
pub struct Asked {
    /// The model.
    pub lease: Lease,
    /// Settings: those of the model's makers, then those of the request.
    pub settings: Settings,
}

/// The pack of a name.
///
/// # Errors
/// There is none.
pub async fn find(app: &Arc<App>, name: &str) -> Result<Pack> {
    let (shelf, name) = (app.shelf().clone(), name.to_string());
    blocking(move || shelf.find(&name)).await
}

/// Loads the model of a request. `settings` are the dialect's own defaults; `options` those of the request.
///
/// # Errors
/// There is no such model, it cannot be loaded, or an option is wrong.
pub async fn ask(
    call: &Call,
    name: &str,
    mut settings: Settings,
    options: &Map<String, Json>,
    keep: Option<KeepAlive>,
) -> Result<Asked> {
    let pack = find(&call.app, name).await?;
    call.ticket.model(&pack.name, &pack.digest);
    settings.set_all(&pack.parameters)?;
    settings.ctx = None;
    settings.warnings.clear();
    settings.set_all(options)?;
    let keep = keep.unwrap_or(call.app.config.keep_alive);
    let lease = call.app.manager.lease(pack, false, settings.ctx, keep).await?;
    Ok(Asked { lease, settings })
}

/// A number that nobody can guess, for draws without a seed.
fn entropy() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// What an answer is to be, beside its settings.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// What it must look like.
    pub shape: Option<Shape>,
    /// How many of them.
    pub answers: usize,
    /// Scope of shared prefixes.
    pub scope: u32,
    /// Most tokens that the server allows.
    pub most: Option<usize>,
    /// Whether control tokens are part of the text.
    pub show_control: bool,
}

/// Requests for the engine.
///
/// # Errors
/// The prompt does not fit, a setting is out of range, or the shape cannot be followed.
pub fn requests(
    model: &Loaded,
    settings: &Settings,
    prompt: &[u32],
    wanted: &Wanted,
    handle: &Handle,
) -> Result<Vec<Request>> {
    let ctx = settings.ctx.unwrap_or(usize::MAX).min(model.engine.ctx());
    if prompt.len() > ctx {
        return Err(engine::Error::PromptTooLong { tokens: prompt.len(), ctx }.into());
    }
    if prompt.is_empty() {
        return Err(engine::Error::PromptEmpty.into());
    }
    settings.sampling.validate().map_err(engine::Error::from)?;
    if let Some((id, _)) = settings.sampling.logit_bias.iter().find(|b| b.0 as usize >= model.engine.spec().n_vocab) {
        return Err(Fault::field(
            "logit_bias",
            format!("logit_bias names token {id}, the vocabulary has {}", model.engine.spec().n_vocab),
        ));
    }
    let strengths = model.strengths(settings.lora.as_deref())?;
    let room = (ctx - prompt.len()).max(1);
    let most = wanted.most.unwrap_or(usize::MAX).min(room);
    let mut all = Vec::new();
    for index in 0..wanted.answers.max(1) {
        let mut request = Request::new(prompt.to_vec(), settings.sampling.clone());
        request.entropy = entropy();
        // Answers of one seed differ, and the first is the one that comes alone.
        request.sampling.seed = settings.sampling.seed.map(|s| s.wrapping_add(index as u64));
        request.max_tokens = Some(settings.max_tokens.unwrap_or(usize::MAX).min(most));
        request.stop = settings.stop.clone();
        request.ignore_eog = settings.ignore_eog;
        request.show_control = wanted.show_control;
        request.scope = wanted.scope;
        request.adapters = Some(strengths.clone());
        if let Some(shape) = &wanted.shape {
            request.constraint = Some(model.guides.start(model.engine.tokenizer(), shape, handle)?);
        }
        all.push(request);
    }
    Ok(all)
}

/// The tokens of a conversation; where they are too many, the oldest messages are left out, but never the system's and
/// the last one.
///
/// # Errors
/// As [`prompt::chat`].
pub fn fit(model: &Loaded, messages: &[Message], extras: &Extras, ctx: usize) -> Result<(Vec<u32>, usize)> {
    let without = |n: usize| {
        let mut left = n;
        let last = messages.len().saturating_sub(1);
        let keep = |(at, m): (usize, &Message)| {
            let goes = left > 0 && at < last && m.role != "system";
            left -= usize::from(goes);
            (!goes).then(|| m.clone())
        };
        let kept: Vec<Message> = messages.iter().enumerate().filter_map(keep).collect();
        prompt::chat(model, &kept, extras)
    };
    let whole = without(0)?;
    if whole.len() < ctx {
        return Ok((whole, 0));
    }
    let (mut low, mut high) = (0, messages.iter().rev().skip(1).filter(|m| m.role != "system").count());
    let mut best = None;
    // Fewer messages are fewer tokens: the least number that has to go is found by halving.
    while low < high {
        let middle = low + (high - low) / 2;
        // A template may refuse a conversation that begins with an answer: then one more goes.
        match without(middle) {
            Ok(ids) if ids.len() < ctx => {
                high = middle;
                best = Some((ids, middle));
            }
            _ => low = middle + 1,
        }
    }
    match best.filter(|b| b.1 == high) {
        Some(best) => Ok(best),
        None => Ok((without(high)?, high)),
    }
}

/// The context that a request may use.
pub fn context(model: &Loaded, settings: &Settings) -> usize {
    settings.ctx.unwrap_or(usize::MAX).min(model.engine.ctx())
}

/// Whether a prompt ends in the beginning of a thought.
pub fn opens_thought(model: &Loaded, prompt: &[u32]) -> bool {
    let tail = &prompt[prompt.len().saturating_sub(8)..];
    model.engine.tokenizer().decode(tail, true).trim_end().ends_with("<think>")
}
