//! A page to chat with: one file, no build step, nothing from elsewhere.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::call::Call;
use super::fault::Result;
use super::reply;

const PAGE: &str = include_str!("ui.html");

/// The page.
pub async fn page(_: Call) -> Result<Response> {
    let mut response = reply::with_type(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash("script"),
        hash("style")
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

/// The source expression that allows the page's own element of this kind, and no other.
fn hash(tag: &str) -> String {
    let inner = PAGE.split(&format!("<{tag}>")).nth(1).and_then(|rest| rest.split(&format!("</{tag}>")).next());
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(inner.unwrap_or_default().as_bytes())))
}
