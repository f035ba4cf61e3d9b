//! Routes of llama.cpp's server: properties, slots, adapters, tokens. They are about the model that is in memory, or the one that
//! a field or the only name of the store says.

use axum::response::Response;
use engine::template::Message;
use engine::tokenizer::Encode;
use serde_json::{Value as Json, json};

use super::app::blocking;
use super::call::Call;
use super::fault::{Fault, Result};
use super::fields::{Fields, int};
use super::loaded::Lease;
use super::prompt::{self, Extras};
use super::{chats, options, reply};

/// The model of a request that names none: the one in memory, else the only one there is.
async fn lease(call: &Call, name: Option<String>) -> Result<Lease> {
    let name = match name {
        Some(name) => name,
        None => {
            let running = call.app.manager.running().into_iter().next().map(|r| r.loaded.pack.name.clone());
            match running.or_else(|| call.app.config.models.first().cloned()) {
                Some(name) => name,
                None => return Err(Fault::field("model", "no model is in memory: name one in the field \"model\"")),
            }
        }
    };
    let lease = call.app.lease(&name, false, None, None).await?;
    call.ticket.model(&lease.pack.name, &lease.pack.digest);
    Ok(lease)
}

/// `/props`.
pub async fn props(call: Call) -> Result<Response> {
    let running = call.app.manager.running();
    let Some(first) = running.first() else {
        return Ok(reply::json(&json!({"total_slots": 0, "model_alias": null, "build_info": build()})));
    };
    let (pack, engine) = (&first.loaded.pack, &first.loaded.engine);
    Ok(reply::json(&json!({
        "default_generation_settings": {"n_ctx": engine.ctx()},
        "total_slots": engine.sequences(),
        "model_alias": pack.name,
        "chat_template": first.loaded.template.as_ref().map(|t| t.source().to_string()).unwrap_or_default(),
        "modalities": {"vision": false, "audio": false},
        "build_info": build(),
    })))
}

fn build() -> &'static str {
    concat!("handmill ", env!("CARGO_PKG_VERSION"))
}

/// `/slots`.
pub async fn slots(call: Call) -> Result<Response> {
    let mut slots = Vec::new();
    for running in call.app.manager.running() {
        let engine = &running.loaded.engine;
        let busy = engine.busy().unwrap_or_default();
        for id in 0..engine.sequences() {
            slots.push(json!({
                "id": id,
                "model": running.loaded.pack.name,
                "n_ctx": engine.ctx(),
                "is_processing": id < busy.running,
            }));
        }
    }
    Ok(reply::json(&Json::Array(slots)))
}

/// `GET /lora-adapters`.
pub async fn adapters(call: Call) -> Result<Response> {
    let lease = lease(&call, None).await?;
    let list = lease.adapters().into_iter().enumerate();
    Ok(reply::json(&list.map(|(id, (path, scale))| json!({"id": id, "path": path, "scale": scale})).collect()))
}

/// `POST /lora-adapters`: how strong adapters are for requests that do not say; those that are not named, not at all.
pub async fn set_adapters(mut call: Call) -> Result<Response> {
    let body = call.bytes().await?;
    let json: Json = serde_json::from_slice(&body).map_err(|e| Fault::bad(format!("the body is no JSON: {e}")))?;
    let Json::Array(list) = json else { return Err(Fault::bad("the body must be an array of adapters")) };
    let lora = options::lora("adapters", list)?;
    lease(&call, None).await?.set_strengths(&lora)?;
    Ok(reply::json(&json!({"success": true})))
}

/// `/tokenize`.
pub async fn tokenize(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let text = fields.text("content")?.ok_or_else(|| fields.fault("content", "must be a string"))?;
    let how = Encode {
        add_special: fields.flag("add_special")?.unwrap_or(false),
        parse_special: fields.flag("parse_special")?.unwrap_or(true),
    };
    let pieces = fields.flag("with_pieces")?.unwrap_or(false);
    let lease = lease(&call, fields.text("model")?).await?;
    refuse_rest(&fields)?;
    let tokens = blocking(move || {
        let tokenizer = lease.engine.tokenizer();
        let ids = tokenizer.encode(&text, how);
        let piece = |id: &u32| {
            let bytes = tokenizer.bytes(*id);
            let piece = std::str::from_utf8(&bytes).map(|t| json!(t)).unwrap_or_else(|_| json!(bytes.to_vec()));
            json!({"id": id, "piece": piece})
        };
        Ok(if pieces { ids.iter().map(piece).collect::<Vec<_>>() } else { ids.iter().map(|id| json!(id)).collect() })
    });
    Ok(reply::json(&json!({"tokens": tokens.await?})))
}

/// `/detokenize`.
pub async fn detokenize(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let list = fields.list("tokens")?.ok_or_else(|| fields.fault("tokens", "must be an array of token ids"))?;
    let lease = lease(&call, fields.text("model")?).await?;
    refuse_rest(&fields)?;
    let n = lease.engine.tokenizer().n_vocab() as i64;
    let ids = list.iter().map(|id| int("tokens", id, 0..=n - 1).map(|id| id as u32)).collect::<Result<Vec<_>>>()?;
    let text = blocking(move || Ok(lease.engine.tokenizer().decode(&ids, true))).await?;
    Ok(reply::json(&json!({"content": text})))
}

/// `/apply-template`.
pub async fn apply_template(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let list = fields.list("messages")?.ok_or_else(|| fields.fault("messages", "must be an array of messages"))?;
    let one = |(at, json): (usize, Json)| {
        let mut fields = Fields::of(json, &format!("messages[{at}]"))?;
        Ok(Message::new(chats::role(&mut fields)?, fields.text("content")?.unwrap_or_default()))
    };
    let messages: Vec<Message> = list.into_iter().enumerate().map(one).collect::<Result<_>>()?;
    let lease = lease(&call, fields.text("model")?).await?;
    refuse_rest(&fields)?;
    let text = blocking(move || {
        let ids = prompt::chat(&lease, &messages, &Extras::default())?;
        Ok(lease.engine.tokenizer().decode(&ids, true))
    });
    Ok(reply::json(&json!({"prompt": text.await?})))
}

fn refuse_rest(fields: &Fields) -> Result<()> {
    match fields.unknown(&[]).first() {
        None => Ok(()),
        Some(name) => Err(Fault::field(name, format!("field {name} is not known"))),
    }
}
