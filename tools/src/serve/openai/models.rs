//! `/v1/models`.

use axum::response::Response;
use serde_json::{Value as Json, json};

use super::super::app::blocking;
use super::super::call::Call;
use super::super::fault::Result;
use super::super::reply;
use super::super::shelf::Pack;
use super::seconds;

fn model(pack: &Pack) -> Json {
    json!({"id": pack.name, "object": "model", "created": seconds(pack.modified), "owned_by": "library"})
}

/// All models.
pub async fn list(call: Call) -> Result<Response> {
    let shelf = call.app.shelf().clone();
    let packs = blocking(move || shelf.list()).await?;
    Ok(reply::json(&json!({"object": "list", "data": packs.iter().map(model).collect::<Vec<_>>()})))
}

/// One of them.
pub async fn one(call: Call) -> Result<Response> {
    let (shelf, name) = (call.app.shelf().clone(), call.rest.clone());
    let pack = blocking(move || shelf.find(&name)).await?;
    Ok(reply::json(&model(&pack)))
}
