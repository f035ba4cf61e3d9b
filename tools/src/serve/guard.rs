//! Checks that every request goes through before a route sees it: whom it thinks it talks to, which web page sends it,
//! whose key it brings, what kind of body it has.
//!
//! A web page of a stranger can make a browser send requests to this machine (cross-site requests), and can make its own
//! name point to it (DNS rebinding). The first kind has an `Origin` that is not allowed, the second a `Host` that is no
//! name of this server.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::config::Config;
use super::fault::{Fault, Result};
use super::keys::{Caller, Refusal, Scope};

/// Origins of programs that show local pages.
const LOCAL_SCHEMES: [&str; 5] = ["app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"];

/// Bytes of all headers together.
const HEAD: usize = 64 << 10;

/// Checks the size of the head, which the connection bounds only roughly.
///
/// # Errors
/// It is too large.
pub fn size(headers: &HeaderMap) -> Result<()> {
    match headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>() > HEAD {
        true => Err(Fault::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")),
        false => Ok(()),
    }
}

/// Checks `Host`.
///
/// # Errors
/// There is none, or it is no name of this server.
pub fn host(config: &Config, headers: &HeaderMap) -> Result<()> {
    let mut all = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (all.next(), all.next()) else {
        return Err(Fault::bad("a request must have one Host header"));
    };
    let name = host.to_str().map(bare).unwrap_or_default().to_ascii_lowercase();
    let allowed = match name.parse::<IpAddr>() {
        // Rebinding needs a name; whoever uses an address means it.
        Ok(ip) => ip.is_loopback() || !config.address.ip().is_loopback(),
        Err(_) => {
            name == "localhost"
                || name.ends_with(".localhost")
                || config.hosts.contains(&name)
                // With keys a stranger's page can do nothing.
                || (!config.address.ip().is_loopback() && !config.keys.is_empty())
        }
    };
    match allowed {
        true => Ok(()),
        false => Err(Fault::new(StatusCode::FORBIDDEN, "this host name is not allowed; --allow-host adds it")),
    }
}

/// The host of `host[:port]`, without brackets.
fn bare(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// Checks `Origin`; gives it back where it is allowed and has to be named in the answer.
///
/// # Errors
/// It is not allowed.
pub fn origin(config: &Config, headers: &HeaderMap) -> Result<Option<HeaderValue>> {
    let refuse = || Fault::new(StatusCode::FORBIDDEN, "this origin is not allowed; --allow-origin adds it");
    let Some(origin) = headers.get(header::ORIGIN) else {
        // Browsers that send no origin say at least whether the page is another site's.
        let cross = headers.get("sec-fetch-site").is_some_and(|v| v == "cross-site");
        return if cross { Err(refuse()) } else { Ok(None) };
    };
    let text = origin.to_str().map_err(|_| refuse())?;
    let own = headers.get(header::HOST).and_then(|h| h.to_str().ok());
    let allowed = LOCAL_SCHEMES.iter().any(|s| text.starts_with(s))
        || config.origins.iter().any(|o| o.eq_ignore_ascii_case(text))
        || text.split_once("://").is_some_and(|(scheme, rest)| {
            let web = matches!(scheme, "http" | "https");
            let local =
                matches!(bare(rest).to_ascii_lowercase().as_str(), "localhost" | "127.0.0.1" | "::1" | "0.0.0.0");
            web && (local || own.is_some_and(|own| own.eq_ignore_ascii_case(rest)))
        });
    if allowed { Ok(Some(origin.clone())) } else { Err(refuse()) }
}

/// Checks the key.
///
/// # Errors
/// 401 without a valid key, 403 with one that may not do this.
pub fn key(config: &Config, headers: &HeaderMap, scope: Scope) -> Result<Caller> {
    let text = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let bearer = text.and_then(|t| t.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    config.keys.caller(bearer.map(|b| b.1.trim()), scope).map_err(|refusal| match refusal {
        Refusal::Unknown => Fault {
            code: Some("invalid_api_key"),
            ..Fault::new(StatusCode::UNAUTHORIZED, "a valid API key is needed: Authorization: Bearer KEY")
        },
        Refusal::Scope => Fault::new(StatusCode::FORBIDDEN, "this API key has not the scope that the route needs"),
    })
}

/// Checks the kind of a body that should be JSON. `curl -d` says that it sends a form, and means JSON; a browser that
/// says so may be a stranger's page.
///
/// # Errors
/// It is of another kind, or compressed.
pub fn json(headers: &HeaderMap) -> Result<()> {
    let refuse = |what: &str| {
        Err(Fault::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("{what} is not supported; send plain application/json"),
        ))
    };
    if headers.get(header::CONTENT_ENCODING).is_some_and(|v| v != "identity") {
        return refuse("a compressed body");
    }
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let browser = [header::ORIGIN, header::REFERER, HeaderName::from_static("sec-fetch-site")];
    match kind.as_str() {
        "application/json" => Ok(()),
        "" | "application/x-www-form-urlencoded" if !browser.iter().any(|h| headers.contains_key(h)) => Ok(()),
        _ => refuse("this content type"),
    }
}

/// Headers that let a page of an allowed origin read the answer.
pub fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

/// The answer to a browser that asks before it sends.
pub fn preflight(headers: &mut HeaderMap) {
    let allowed = "Authorization, Content-Type, User-Agent, Accept, X-Requested-With, OpenAI-Beta, x-stainless-arch, \
        x-stainless-async, x-stainless-custom-poll-interval, x-stainless-helper-method, x-stainless-lang, x-stainless-os, \
        x-stainless-package-version, x-stainless-poll-helper, x-stainless-retry-count, x-stainless-runtime, \
        x-stainless-runtime-version, x-stainless-timeout";
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, DELETE"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

/// Whether a request is such a question.
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
