//! Changes of the store: copy, delete, create, pull, blobs.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value as Json, json};
use tokio::sync::mpsc;

use super::super::app::blocking;
use super::super::call::{Call, declared, next_piece};
use super::super::fault::{Dialect, Fault, Result};
use super::super::fields::{Fields, wrong};
use super::super::{chats, reply};
use super::model;
use crate::error::Error;
use crate::make::{From, Recipe, make};
use crate::source::{Reach, Registry, Source, Url, catalogue, obtain};
use crate::store::{Digest, Expected, Name, Writer};
use crate::ui::{Ui, watched};

/// `/api/copy`.
pub async fn copy(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let name = |fields: &mut Fields, field: &str| -> Result<String> {
        fields.text(field)?.filter(|n| !n.is_empty()).ok_or_else(|| Fault::field(field, format!("{field} is required")))
    };
    let (from, to) = (name(&mut fields, "source")?, name(&mut fields, "destination")?);
    let shelf = call.app.shelf().clone();
    blocking(move || {
        let to: Name = to.parse()?;
        let recipe = Recipe { from: Some(From::Model(from.clone())), ..Recipe::default() };
        shelf.find(&from)?;
        Ok(make(&shelf, &to, &recipe, Ui::Silent)?)
    })
    .await?;
    Ok(reply::nothing())
}

/// `/api/delete`.
pub async fn delete(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let name = model(&mut fields)?;
    let app = call.app.clone();
    blocking(move || {
        let parsed: Name = name.parse()?;
        app.shelf().store().remove(&parsed).map_err(|e| match e {
            Error::NotInStore(_) => Fault::no_model(&name),
            other => other.into(),
        })?;
        app.manager.unload(&parsed.to_string());
        Ok(())
    })
    .await?;
    Ok(reply::nothing())
}

/// Work on the store, and its progress as lines; without a stream only the last one.
async fn progress(stream: bool, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Response> {
    let (lines, receiver) = mpsc::unbounded_channel::<Json>();
    let watch = lines.clone();
    let watcher = move |(words, amount): crate::ui::News| {
        let mut line = json!({"status": words});
        if let Some((done, total)) = amount {
            line["completed"] = json!(done);
            line["total"] = json!(total.unwrap_or(done));
            if let Some(digest) = words.strip_prefix("pulling ").filter(|d| d.len() == 12) {
                line["digest"] = json!(format!("sha256:{digest}"));
            }
        }
        // Fails where the client has left: the work goes on, so that it need not be done again.
        let _ = watch.send(line);
    };
    let running = blocking(move || watched(watcher, work));
    if !stream {
        running.await?;
        return Ok(reply::json(&json!({"status": "success"})));
    }
    let mut running = Box::pin(running);
    let mut receiver = receiver;
    // What fails at once has a status of its own.
    tokio::select! {
        biased;
        done = &mut running => {
            done?;
            lines.send(json!({"status": "success"})).ok();
            drop(lines);
        }
        Some(first) = receiver.recv() => {
            lines.send(first).ok();
            tokio::spawn(async move {
                let last = match running.await {
                    Ok(()) => json!({"status": "success"}),
                    Err(fault) => fault.json(Dialect::Ollama),
                };
                let _ = lines.send(last);
            });
        }
    }
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(format!("{line}\n"))), receiver))
    });
    Ok(reply::with_type(StatusCode::OK, "application/x-ndjson", Body::from_stream(body)))
}

/// `/api/create`.
pub async fn create(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let name = model(&mut fields)?;
    let stream = fields.flag("stream")?.unwrap_or(true);
    let recipe = recipe(&mut fields)?;
    if let Some(field) = fields.unknown(&["info"]).first() {
        return Err(Fault::field(field, format!("{field} is not supported by create")));
    }
    let app = call.app.clone();
    let name: Name = name.parse()?;
    if let Some(From::Model(parent)) = &recipe.from {
        let (shelf, parent) = (app.shelf().clone(), parent.clone());
        blocking(move || shelf.find(&parent)).await?;
    }
    progress(stream, move || Ok(make(app.shelf(), &name, &recipe, Ui::Watched)?)).await
}

fn recipe(fields: &mut Fields) -> Result<Recipe> {
    let mut recipe = Recipe::default();
    let from = fields.text("from")?.filter(|f| !f.is_empty());
    let files = fields.object("files")?.map(Fields::into_map).unwrap_or_default();
    recipe.from = match (from, files.len()) {
        // Files of the server's machine are nobody's business: only names.
        (Some(from), 0) => Some(From::Model(from)),
        (None, 1) => {
            let digest = files.values().next().and_then(Json::as_str).unwrap_or_default();
            Some(From::Blob(digest.parse()?))
        }
        (None, 0) => return Err(Fault::field("from", "neither 'from' or 'files' was specified")),
        (None, _) => return Err(Fault::field("files", "files must name one GGUF file")),
        (Some(_), _) => return Err(Fault::field("files", "from and files cannot both be given")),
    };
    recipe.template = fields.text("template")?;
    recipe.system = fields.text("system")?;
    recipe.licenses = fields.texts("license")?.unwrap_or_default();
    recipe.parameters = fields.object("parameters")?.map(Fields::into_map).unwrap_or_default();
    for (at, message) in fields.list("messages")?.unwrap_or_default().into_iter().enumerate() {
        let mut message = Fields::of(message, &format!("messages[{at}]"))?;
        let role = chats::role(&mut message)?;
        recipe.messages.push((role, message.text("content")?.unwrap_or_default()));
    }
    match fields.take("adapters") {
        Some(Json::Object(map)) if map == Map::new() => {}
        None => {}
        Some(_) => {
            return Err(Fault::field(
                "adapters",
                "adapters are not taken here: name the file in a Modelfile, and make the model with handmill create",
            ));
        }
    }
    if let Some(other) = fields.text("quantize")?.filter(|q| !q.is_empty()) {
        let shown = crate::ui::format::printable(&other);
        return Err(Fault::field(
            "quantize",
            format!("quantize to {shown} is not supported here: quantize the file first"),
        ));
    }
    if let Some(files) = fields.take("files") {
        return Err(wrong("files", "an object", &files));
    }
    Ok(recipe)
}

/// `/api/pull`.
pub async fn pull(mut call: Call) -> Result<Response> {
    let mut fields = call.fields().await?;
    let text = model(&mut fields)?;
    let stream = fields.flag("stream")?.unwrap_or(true);
    let insecure = fields.flag("insecure")?.unwrap_or(false);
    if let Some(field) = fields.unknown(&["username", "password"]).first() {
        return Err(Fault::field(field, format!("{field} is not supported by pull")));
    }
    let app = call.app.clone();
    if app.config.offline {
        return Err(Fault::new(StatusCode::FORBIDDEN, "the server is offline (--offline): it pulls nothing"));
    }
    let reach = if app.config.private_pull { Reach::All } else { Reach::Public };
    let (name, source) = source(&text, insecure, reach)?;
    progress(stream, move || {
        let address = source.describe();
        // What redirects lead to is refused on the way; this is the clearer answer.
        if address.contains("://") && !reach.allows(&address) {
            let message = "the address is of a private network; --allow-private-pull lets the server pull from there";
            return Err(Fault::new(StatusCode::FORBIDDEN, message));
        }
        crate::ui::Ui::Watched.say("pulling manifest");
        obtain(app.shelf().store(), &name, source.as_ref(), Ui::Watched)?;
        Ok(())
    })
    .await
}

/// Where a name or an address leads.
fn source(text: &str, insecure: bool, reach: Reach) -> Result<(Name, Box<dyn Source + Send>)> {
    if Url::is_one(text) {
        let url = Url::new(text, Expected::default())?.within(reach);
        let stem = url.file_name().trim_end_matches(".gguf").to_ascii_lowercase();
        return Ok((stem.parse()?, Box::new(url)));
    }
    let name: Name = text.parse()?;
    if let Some(source) = catalogue::find(&name)? {
        return Ok((name, Box::new(source)));
    }
    Ok((name, Box::new(Registry::new(text, insecure)?.within(reach))))
}

/// HEAD of a blob.
pub async fn has_blob(call: Call) -> Result<Response> {
    let digest: Digest = call.rest.parse()?;
    let store = call.app.shelf().store();
    match store.blob(&digest).is_file() || store.upload(&digest).is_file() {
        true => Ok(reply::nothing()),
        false => Err(Fault::new(StatusCode::NOT_FOUND, "there is no such blob")),
    }
}

/// A blob is uploaded: streamed to a file of its own, checked, and then given its name.
pub async fn add_blob(mut call: Call) -> Result<Response> {
    let digest: Digest = call.rest.parse()?;
    let store = call.app.shelf().store().clone();
    if store.blob(&digest).is_file() || store.upload(&digest).is_file() {
        return Ok(reply::nothing());
    }
    let length = declared(&call.headers);
    let (pieces, mut receiver) = mpsc::channel::<Bytes>(16);
    let writing = tokio::task::spawn_blocking(move || -> Result<()> {
        // Keeps the store from being tidied meanwhile.
        let writer = Writer::open(&store, Ui::Silent)?;
        if let Some(needed) = length {
            let free = fs4::available_space(writer.store().root()).unwrap_or(u64::MAX);
            if needed > free {
                return Err(Fault::new(StatusCode::INSUFFICIENT_STORAGE, "the store's disk has no room for this"));
            }
        }
        let mut blob = writer.upload(digest)?;
        while let Some(piece) = receiver.blocking_recv() {
            blob.write(&piece)?;
        }
        Ok(blob.keep()?)
    });
    let mut stream = call.take_body().into_data_stream();
    // A day: only silence between pieces is an error.
    let deadline = Instant::now() + Duration::from_secs(86_400);
    let mut received = Ok(());
    loop {
        match next_piece(&mut stream, deadline).await {
            Ok(Some(piece)) => {
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(fault) => {
                received = Err(fault);
                break;
            }
        }
    }
    drop(pieces);
    let written = writing.await.unwrap_or_else(|e| Err(Fault::internal(&format!("an upload ended early: {e}"))));
    received.and(written)?;
    let mut response = reply::nothing();
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}
