//! One HTTP request on its way through the server, and the record that is kept of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use engine::Timings;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use super::app::{App, Pending};
use super::fault::{Fault, Result};
use super::fields::Fields;
use super::keys::Caller;

/// A request after the checks that all requests go through.
pub struct Call {
    /// The server.
    pub app: Arc<App>,
    /// Who asks.
    pub caller: Caller,
    /// The rest of the path, where a route has one; the query, as it came.
    pub rest: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Its record.
    pub ticket: Ticket,
    /// Not read yet; behind a lock only so that references to a call can cross threads.
    pub body: Mutex<Body>,
}

impl Call {
    /// The body's fields.
    ///
    /// # Errors
    /// The body is too long, too slow, or no JSON object.
    pub async fn fields(&mut self) -> Result<Fields> {
        let body = self.bytes().await?;
        Fields::parse(&body)
    }

    /// The body, to be read in pieces.
    pub fn take_body(&mut self) -> Body {
        std::mem::take(self.body.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// The whole body.
    ///
    /// # Errors
    /// It is too long or too slow.
    pub async fn bytes(&mut self) -> Result<Bytes> {
        let most = self.app.config.limits.body;
        let too_long = || {
            Fault::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body has more than {most} bytes; --max-body changes the limit"),
            )
        };
        if declared(&self.headers).is_some_and(|n| n > most as u64) {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        let deadline = Instant::now() + self.app.config.limits.body_time;
        let mut stream = self.take_body().into_data_stream();
        while let Some(piece) = next_piece(&mut stream, deadline).await? {
            if bytes.len() + piece.len() > most {
                return Err(too_long());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }
}

/// The length that a request declares.
pub fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Longest time between two pieces of a body.
const PIECE: Duration = Duration::from_secs(10);

/// The next piece of a body.
///
/// # Errors
/// It does not come in time, or the client has gone.
pub async fn next_piece(stream: &mut axum::body::BodyDataStream, deadline: Instant) -> Result<Option<Bytes>> {
    let end = deadline.min(Instant::now() + PIECE);
    match tokio::time::timeout_at(end.into(), stream.next()).await {
        Err(_) => Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
        Ok(None) => Ok(None),
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(_))) => Err(Fault::bad("the body broke off")),
    }
}

/// What is kept of a request. Nothing of its words: only their hash.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The route's path.
    pub route: &'static str,
    /// The key's name.
    pub key: String,
    /// The model's name and digest.
    pub model: Option<(String, String)>,
    /// The status that the client saw; 499 where it left before the end.
    pub status: u16,
    /// Hash of the prompt's tokens.
    pub prompt_hash: Option<String>,
    /// Tokens of prompts.
    pub prompt_tokens: usize,
    /// Of them, from the cache.
    pub cached_tokens: usize,
    /// Tokens of answers.
    pub generated_tokens: usize,
}

/// A request's record, shared by all that work on it; when the last lets go, it is written down.
#[derive(Clone)]
pub struct Ticket(Arc<Inner>);

struct Inner {
    app: Arc<App>,
    start: Instant,
    record: Mutex<Record>,
    /// Its place among the requests that may wait.
    pending: Mutex<Option<Pending>>,
}

impl Ticket {
    /// A record that begins now.
    pub fn new(app: &Arc<App>, route: &'static str, key: &str) -> Ticket {
        let record = Record { route, key: key.to_string(), status: 499, ..Record::default() };
        Ticket(Arc::new(Inner {
            app: app.clone(),
            start: Instant::now(),
            record: Mutex::new(record),
            pending: Mutex::default(),
        }))
    }

    fn with(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.0.record.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Keeps a place until the record is written.
    pub fn hold(&self, pending: Pending) {
        *self.0.pending.lock().unwrap_or_else(PoisonError::into_inner) = Some(pending);
    }

    /// The model that it is about.
    pub fn model(&self, name: &str, digest: &str) {
        self.with(|r| r.model = Some((name.to_string(), digest.to_string())));
    }

    /// The prompt.
    pub fn prompt(&self, tokens: &[u32]) {
        let mut hash = Sha256::new();
        tokens.iter().for_each(|t| hash.update(t.to_le_bytes()));
        let hash = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        self.with(|r| r.prompt_hash = Some(hash));
    }

    /// One answer is complete.
    pub fn answered(&self, timings: &Timings) {
        self.with(|r| {
            r.prompt_tokens += timings.prompt_tokens;
            r.cached_tokens += timings.cached_tokens;
            r.generated_tokens += timings.generated_tokens;
        });
    }

    /// The status line was decided.
    pub fn status(&self, status: StatusCode) {
        self.with(|r| r.status = status.as_u16());
    }

    /// The stream broke off with an error.
    pub fn failed(&self, fault: &Fault) {
        self.status(fault.status);
    }

    /// The client left before the end.
    pub fn cut(&self) {
        self.with(|r| {
            if r.status < 400 {
                r.status = 499;
            }
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let record = std::mem::take(self.record.get_mut().unwrap_or_else(PoisonError::into_inner));
        let took = self.start.elapsed();
        self.app.metrics.request(&record, took);
        if let Some(audit) = &self.app.audit {
            audit.write(&record, took);
        }
    }
}
