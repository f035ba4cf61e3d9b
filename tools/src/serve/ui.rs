//! A page to chat with: one file, no build step, nothing from elsewhere.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::call::Call;
use super::fault::Result;
use super::reply;

const PAGE: &str = include_str!("ui.html");

/// The page.
pub async fn page(_: Call) -> Result<Response> {
    let mut response = reply::with_type(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
        base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    Ok(response)
}
