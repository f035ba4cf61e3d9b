//! `/api/embed`, and `/api/embeddings`, which is older.

use axum::response::Response;
use serde_json::{Value as Json, json};

use super::super::app::blocking;
use super::super::call::Call;
use super::super::embed::{embed as vectors, shorten};
use super::super::fault::{Fault, Result};
use super::super::loaded::Lease;
use super::super::options::Settings;
use super::super::{prompt, reply};
use super::{keep_alive, model, options};

/// Most texts of a request.
pub const MOST: usize = 2048;

/// The tokens of texts; such as are too long are cut where that is allowed.
///
/// # Errors
/// One is too long.
pub async fn tokens(lease: Lease, texts: Vec<String>, truncate: bool) -> Result<(Lease, Vec<Vec<u32>>)> {
    blocking(move || {
        let ctx = lease.engine.ctx();
        let mut all = Vec::new();
        for text in &texts {
            let mut ids = prompt::raw(&lease, text);
            if ids.len() > ctx && !truncate {
                let message = format!("the input length exceeds the context length: {} tokens, {ctx} fit", ids.len());
                return Err(Fault::field("input", message));
            }
            ids.truncate(ctx);
            all.push(ids);
        }
        Ok((lease, all))
    })
    .await
}

/// `/api/embed`.
pub async fn embed(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let name = model(&mut fields)?;
    let texts = match fields.take("input") {
        None => Vec::new(),
        Some(Json::String(text)) => vec![text],
        Some(Json::Array(items)) => {
            let text =
                |item: Json| item.as_str().map(String::from).ok_or_else(|| Fault::field("input", "invalid input type"));
            items.into_iter().map(text).collect::<Result<_>>()?
        }
        Some(_) => return Err(Fault::field("input", "invalid input type")),
    };
    if texts.len() > MOST {
        return Err(Fault::field("input", format!("there are {} texts, at most {MOST} are allowed", texts.len())));
    }
    let truncate = fields.flag("truncate")?.unwrap_or(true);
    let dimensions = fields.size("dimensions", 1..=1 << 20)?;
    let mut settings = Settings::default();
    settings.set_all(&options(&mut fields)?)?;
    let keep = keep_alive(&mut fields)?;
    let mut warnings = settings.warnings.clone();
    warnings.extend(fields.unknown(&[]).iter().map(|f| format!("field {f} is not known and has no effect")));
    let lease = call.app.lease(&name, true, settings.ctx, keep).await?;
    call.ticket.model(&lease.pack.name, &lease.pack.digest);
    let start = std::time::Instant::now();
    let (lease, ids) = tokens(lease, texts, truncate).await?;
    let mut found = vectors(&call.app, &call.ticket, &lease, &ids, call.caller.number).await?;
    found.iter_mut().for_each(|v| shorten(v, dimensions));
    let mut answer = json!({
        "model": name,
        "embeddings": found,
        "total_duration": (lease.load + start.elapsed()).as_nanos() as u64,
        "load_duration": lease.load.as_nanos() as u64,
        "prompt_eval_count": ids.iter().map(Vec::len).sum::<usize>(),
    });
    if !warnings.is_empty() {
        answer["warnings"] = json!(warnings);
    }
    Ok(reply::json(&answer))
}

/// `/api/embeddings`: one text, and the vector as it is.
pub async fn embeddings(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let name = model(&mut fields)?;
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let mut settings = Settings::default();
    settings.set_all(&options(&mut fields)?)?;
    let keep = keep_alive(&mut fields)?;
    let lease = call.app.lease(&name, true, settings.ctx, keep).await?;
    call.ticket.model(&lease.pack.name, &lease.pack.digest);
    if prompt.is_empty() {
        return Ok(reply::json(&json!({"embedding": []})));
    }
    let (lease, ids) = tokens(lease, vec![prompt], true).await?;
    let found = vectors(&call.app, &call.ticket, &lease, &ids, call.caller.number).await?;
    Ok(reply::json(&json!({"embedding": found[0]})))
}
