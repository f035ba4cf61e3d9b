//! THE table of routes, and what happens to a request before and after its handler.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use futures_util::FutureExt;

use super::app::App;
use super::call::{Call, Ticket};
use super::fault::{Dialect, Fault, Result};
use super::keys::Scope;
use super::{guard, health, llama, ollama, openai, ui};

type Handler = fn(Call) -> Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// What a body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// JSON, or nothing.
    Plain,
    /// JSON, and the route asks a model: there may be too many of these.
    Ask,
    /// Bytes.
    Raw,
}

struct Route {
    method: Method,
    path: &'static str,
    scope: Scope,
    dialect: Dialect,
    kind: Kind,
    handler: Handler,
}

macro_rules! routes {
    ($($method:ident $path:literal $scope:ident $dialect:ident $kind:ident $handler:path;)*) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            scope: Scope::$scope,
            dialect: Dialect::$dialect,
            kind: Kind::$kind,
            handler: |call| Box::pin($handler(call)),
        }),*]
    };
}

/// THE table. A path that ends in `{*rest}` stands for all below it; HEAD is answered where GET is.
const ROUTES: &[Route] = routes! {
    GET    "/"                      Open    Ollama Plain health::root;
    GET    "/health"                Open    Llama  Plain health::health;
    GET    "/v1/health"             Open    Llama  Plain health::health;
    GET    "/api/health"            Open    Llama  Plain health::health;
    GET    "/live"                  Open    Llama  Plain health::live;
    GET    "/ui"                    Open    Ollama Plain ui::page;
    GET    "/metrics"               Metrics Ollama Plain health::metrics;
    GET    "/api/metrics"           Metrics Ollama Plain health::metrics;
    GET    "/api/version"           Infer   Ollama Plain ollama::models::version;
    GET    "/api/tags"              Infer   Ollama Plain ollama::models::tags;
    GET    "/api/ps"                Infer   Ollama Plain ollama::models::ps;
    POST   "/api/show"              Infer   Ollama Plain ollama::models::show;
    POST   "/api/generate"          Infer   Ollama Ask   ollama::generate::generate;
    POST   "/api/chat"              Infer   Ollama Ask   ollama::chat::chat;
    POST   "/api/embed"             Infer   Ollama Ask   ollama::embed::embed;
    POST   "/api/embeddings"        Infer   Ollama Ask   ollama::embed::embeddings;
    POST   "/api/copy"              Manage  Ollama Plain ollama::manage::copy;
    DELETE "/api/delete"            Manage  Ollama Plain ollama::manage::delete;
    POST   "/api/create"            Manage  Ollama Plain ollama::manage::create;
    POST   "/api/pull"              Manage  Ollama Plain ollama::manage::pull;
    GET    "/api/blobs/{*rest}"     Manage  Ollama Raw   ollama::manage::has_blob;
    POST   "/api/blobs/{*rest}"     Manage  Ollama Raw   ollama::manage::add_blob;
    GET    "/v1/models"             Infer   OpenAi Plain openai::models::list;
    GET    "/v1/models/{*rest}"     Infer   OpenAi Plain openai::models::one;
    POST   "/v1/chat/completions"   Infer   OpenAi Ask   openai::chat::chat;
    POST   "/v1/completions"        Infer   OpenAi Ask   openai::completions::completions;
    POST   "/v1/embeddings"         Infer   OpenAi Ask   openai::embeddings::embeddings;
    GET    "/props"                 Infer   Llama  Plain llama::props;
    GET    "/slots"                 Infer   Llama  Plain llama::slots;
    GET    "/lora-adapters"         Infer   Llama  Plain llama::adapters;
    POST   "/lora-adapters"         Manage  Llama  Plain llama::set_adapters;
    POST   "/tokenize"              Infer   Llama  Plain llama::tokenize;
    POST   "/detokenize"            Infer   Llama  Plain llama::detokenize;
    POST   "/apply-template"        Infer   Llama  Plain llama::apply_template;
};

/// A router for the table.
pub fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    let mut known: Vec<&str> = Vec::new();
    for path in ROUTES.iter().map(|r| r.path) {
        if known.contains(&path) {
            continue;
        }
        known.push(path);
        let app = app.clone();
        router = router.route(path, any(move |request| dispatch(app.clone(), Some(path), request)));
    }
    router.fallback(move |request| dispatch(app.clone(), None, request))
}

/// The dialect of a path that has no route.
fn dialect_of(path: &str) -> Dialect {
    if path.starts_with("/v1/") { Dialect::OpenAi } else { Dialect::Ollama }
}

async fn dispatch(app: Arc<App>, path: Option<&'static str>, request: Request) -> Response {
    let rows: Vec<&Route> = ROUTES.iter().filter(|r| Some(r.path) == path).collect();
    let dialect = rows.first().map_or_else(|| dialect_of(request.uri().path()), |r| r.dialect);
    let headers = request.headers();
    let origin = guard::size(headers)
        .and_then(|()| guard::host(&app.config, headers))
        .and_then(|()| guard::origin(&app.config, headers));
    let origin = match origin {
        Ok(origin) => origin,
        Err(fault) => {
            app.metrics.refuse("head, host or origin");
            return refused(&app, path, &fault, dialect);
        }
    };
    let preflight = guard::is_preflight(request.method(), request.headers());
    let mut response = if preflight {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        guard::preflight(response.headers_mut());
        response
    } else {
        match answer(&app, &rows, request).await {
            Ok(response) => response,
            Err((fault, ticket)) => match ticket {
                Some(ticket) => {
                    ticket.status(fault.status);
                    fault.respond(dialect)
                }
                None => refused(&app, path, &fault, dialect),
            },
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin {
        guard::allow(headers, origin);
    }
    response
}

/// An error before the handler; it is counted and written down as others are.
fn refused(app: &Arc<App>, path: Option<&'static str>, fault: &Fault, dialect: Dialect) -> Response {
    Ticket::new(app, path.unwrap_or("-"), "-").status(fault.status);
    let mut response = fault.respond(dialect);
    if fault.status == StatusCode::METHOD_NOT_ALLOWED {
        let methods: Vec<&str> = ROUTES.iter().filter(|r| Some(r.path) == path).map(|r| r.method.as_str()).collect();
        if let Ok(value) = HeaderValue::from_str(&methods.join(", ")) {
            response.headers_mut().insert(header::ALLOW, value);
        }
    }
    response
}

type Failed = (Fault, Option<Ticket>);

/// Finds the route, checks key and body, and runs the handler; a handler that panics fails its own request alone.
async fn answer(app: &Arc<App>, rows: &[&Route], request: Request) -> std::result::Result<Response, Failed> {
    let early = |fault: Fault| (fault, None);
    if rows.is_empty() {
        return Err(early(Fault::new(StatusCode::NOT_FOUND, "there is no such route")));
    }
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let row = rows.iter().find(|r| r.method == *method);
    let row =
        row.ok_or_else(|| early(Fault::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here")))?;
    let caller = guard::key(&app.config, request.headers(), row.scope).map_err(|fault| {
        app.metrics.refuse("key");
        early(fault)
    })?;
    let ticket = Ticket::new(app, row.path, &caller.name);
    let late = |fault: Fault| (fault, Some(ticket.clone()));
    if row.kind != Kind::Raw && row.method != Method::GET {
        guard::json(request.headers()).map_err(late)?;
    }
    if row.kind == Kind::Ask {
        ticket.hold(app.admit().map_err(late)?);
    }
    let rest = rest(row.path, request.uri().path()).map_err(late)?;
    let (parts, body) = request.into_parts();
    let call =
        Call { app: app.clone(), caller, rest, headers: parts.headers, ticket: ticket.clone(), body: body.into() };
    let done = AssertUnwindSafe((row.handler)(call)).catch_unwind().await;
    let response = done.unwrap_or_else(|_| Err(Fault::internal(&format!("the handler of {} panicked", row.path))));
    let response = response.map_err(late)?;
    ticket.status(response.status());
    Ok(response)
}

/// The part of a path that stands for `{*rest}`, decoded.
fn rest(route: &str, path: &str) -> Result<String> {
    let Some((before, _)) = route.split_once("{*") else { return Ok(String::new()) };
    let raw = path.get(before.len()..).unwrap_or_default();
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| Fault::bad("the path is not UTF-8"))
}
