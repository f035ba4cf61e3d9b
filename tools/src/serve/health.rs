//! Whether it lives, whether it takes requests, and its numbers.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::call::Call;
use super::fault::{Fault, Result};
use super::reply;

/// What Ollama's clients look for.
pub async fn root(_: Call) -> Result<Response> {
    Ok(reply::text("Ollama is running"))
}

/// Whether it takes requests.
pub async fn health(call: Call) -> Result<Response> {
    match call.app.is_ready() {
        true => Ok(reply::json(&json!({"status": "ok"}))),
        false => Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, "Loading model")),
    }
}

/// Whether it lives.
pub async fn live(_: Call) -> Result<Response> {
    Ok(reply::json(&json!({"status": "ok"})))
}

/// Numbers for Prometheus.
pub async fn metrics(call: Call) -> Result<Response> {
    let page = call.app.metrics.page(&call.app.manager.running());
    Ok(reply::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page))
}
