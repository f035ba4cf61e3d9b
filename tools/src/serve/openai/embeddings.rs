//! `/v1/embeddings`.

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::super::call::Call;
use super::super::embed::{embed, shorten};
use super::super::fault::{Fault, Result};
use super::super::ollama::embed::{MOST, tokens};
use super::super::reply;
use super::{HARMLESS, token_ids};

/// `input`: texts, or token ids.
enum Input {
    Texts(Vec<String>),
    Tokens(Vec<Vec<u32>>),
}

fn input(value: Option<Json>) -> Result<Input> {
    let fault = || {
        Fault::field("input", "input must be a string, an array of strings, of token ids, or of arrays of token ids")
    };
    let found = match value.ok_or_else(fault)? {
        Json::String(text) => Input::Texts(vec![text]),
        Json::Array(items) if items.first().is_some_and(Json::is_number) => {
            Input::Tokens(vec![token_ids("input", &items)?])
        }
        Json::Array(items) if items.first().is_some_and(Json::is_array) => {
            let ids = |item: Json| item.as_array().ok_or_else(fault).and_then(|ids| token_ids("input", ids));
            Input::Tokens(items.into_iter().map(ids).collect::<Result<_>>()?)
        }
        Json::Array(items) => {
            let text = |item: Json| item.as_str().map(String::from).ok_or_else(fault);
            Input::Texts(items.into_iter().map(text).collect::<Result<_>>()?)
        }
        _ => return Err(fault()),
    };
    let n = match &found {
        Input::Texts(texts) => texts.len(),
        Input::Tokens(lists) => lists.len(),
    };
    match n {
        1..=MOST => Ok(found),
        n => Err(Fault::field("input", format!("input has {n} elements, allowed are 1 to {MOST}"))),
    }
}

/// The route.
pub async fn embeddings(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let name = fields.text("model")?.ok_or_else(|| Fault::field("model", "model is required"))?;
    let input = input(fields.take("input"))?;
    let dimensions = fields.size("dimensions", 1..=1 << 20)?;
    let base64 = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Fault::field("encoding_format", "encoding_format must be \"float\" or \"base64\"")),
    };
    let unknown = fields.unknown(&HARMLESS);
    let lease = call.app.lease(&name, true, None, None).await?;
    call.ticket.model(&lease.pack.name, &lease.pack.digest);
    let (lease, ids) = match input {
        Input::Texts(texts) => tokens(lease, texts, false).await?,
        Input::Tokens(lists) => (lease, lists),
    };
    let mut vectors = embed(&call.app, &call.ticket, &lease, &ids, call.caller.number).await?;
    vectors.iter_mut().for_each(|v| shorten(v, dimensions));
    let one = |(index, vector): (usize, &Vec<f32>)| {
        let encoded = match base64 {
            true => json!(STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())),
            false => json!(vector),
        };
        json!({"object": "embedding", "index": index, "embedding": encoded})
    };
    let n: usize = ids.iter().map(Vec::len).sum();
    let mut answer = json!({
        "object": "list",
        "model": name,
        "data": vectors.iter().enumerate().map(one).collect::<Vec<_>>(),
        "usage": {"prompt_tokens": n, "total_tokens": n},
    });
    if !unknown.is_empty() {
        answer["warnings"] =
            unknown.iter().map(|f| json!(format!("field {f} is not known and has no effect"))).collect();
    }
    Ok(reply::json(&answer))
}
