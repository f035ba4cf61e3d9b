//! Answers in one piece.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::Value as Json;

/// An answer of this type.
pub fn with_type(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// JSON with a status.
pub fn json_with(status: StatusCode, json: &Json) -> Response {
    with_type(status, "application/json; charset=utf-8", json.to_string())
}

/// JSON with status 200.
pub fn json(json: &Json) -> Response {
    json_with(StatusCode::OK, json)
}

/// Plain text with status 200.
pub fn text(text: impl Into<Body>) -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", text)
}

/// Status 200 and nothing else.
pub fn nothing() -> Response {
    Response::new(Body::empty())
}
