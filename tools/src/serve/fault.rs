//! What a client did wrong, or the server could not do; and how each dialect says so.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value as Json, json};

use super::reply;
use crate::error::Error;

/// Whose shapes a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `{"error": "..."}`.
    Ollama,
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// `{"error": {"message", "type", "code"}}` with the status as the code.
    Llama,
}

/// An answer that is an error.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The HTTP status.
    pub status: StatusCode,
    /// What was found, what is allowed, what to do.
    pub message: String,
    /// A machine's word for it, in OpenAI's dialect.
    pub code: Option<&'static str>,
    /// The field at fault.
    pub param: Option<String>,
    /// Seconds after which it may be tried again.
    pub retry: Option<u32>,
}

/// What handlers give.
pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    /// An error with this status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Fault {
        Fault { status, message: message.into(), code: None, param: None, retry: None }
    }

    /// 400.
    pub fn bad(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400 that names the field at fault.
    pub fn field(name: &str, message: impl Into<String>) -> Fault {
        Fault { param: Some(name.to_string()), ..Fault::bad(message) }
    }

    /// 404 for a model.
    pub fn no_model(name: &str) -> Fault {
        let shown = crate::ui::format::printable(name);
        let message = format!("model '{shown}' not found, try pulling it first");
        Fault { code: Some("model_not_found"), ..Fault::new(StatusCode::NOT_FOUND, message) }
    }

    /// 500 without details: those go to the log alone.
    pub fn internal(detail: &str) -> Fault {
        super::log::error(detail);
        Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error; the server's log says more")
    }

    /// 503 that asks the client to come again.
    pub fn busy(message: impl Into<String>) -> Fault {
        Fault { retry: Some(1), code: Some("server_busy"), ..Fault::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// The body in a dialect.
    pub fn json(&self, dialect: Dialect) -> Json {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 if dialect == Dialect::Llama => "unavailable_error",
            _ => "api_error",
        };
        match dialect {
            Dialect::Ollama => json!({"error": self.message}),
            Dialect::OpenAi => {
                json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
            }
            Dialect::Llama => {
                json!({"error": {"code": self.status.as_u16(), "message": self.message, "type": kind}})
            }
        }
    }

    /// The whole answer in a dialect.
    pub fn respond(&self, dialect: Dialect) -> Response {
        let mut response = reply::json_with(self.status, &self.json(dialect));
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::PAYLOAD_TOO_LARGE || self.status == StatusCode::REQUEST_TIMEOUT {
            // What is left of the body is not read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<engine::Error> for Fault {
    fn from(error: engine::Error) -> Fault {
        use engine::Error as E;
        match &error {
            E::PromptTooLong { .. } => {
                let message = error.to_string().replace("(--ctx)", "(num_ctx, or --ctx of the server)");
                Fault { code: Some("context_length_exceeded"), ..Fault::bad(message) }
            }
            E::PromptEmpty
            | E::HiddenOnly
            | E::TokenRange { .. }
            | E::Template(_)
            | E::Option { .. }
            | E::Constraint(_) => Fault::bad(error.to_string()),
            E::Sampler(engine::sampler::Error::Parameter { name, .. }) => Fault::field(name, error.to_string()),
            E::Sampler(_) => Fault::bad(error.to_string()),
            E::Memory { .. } | E::Allocation { .. } => Fault::busy(error.to_string()),
            // Paths of the server are nobody's business.
            E::Io { .. } | E::Changed { .. } => {
                super::log::error(&error.to_string());
                Fault::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the model's file cannot be read; the server's log says why",
                )
            }
            E::Internal(_) => Fault::internal(&error.to_string()),
            // What is wrong with a model's file: names of keys and tensors, no paths.
            _ => Fault::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the model cannot be used: {error}")),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error {
            Error::Engine(error) => error.into(),
            Error::Name { .. } | Error::Digest(_) | Error::Usage(_) | Error::NotGguf { .. } => {
                Fault::bad(error.to_string())
            }
            Error::Checksum { .. } | Error::Size { .. } => Fault::bad(error.to_string()),
            Error::NotFound { name, .. } | Error::NotInStore(name) => Fault::no_model(&name),
            Error::Network { .. } | Error::Status { .. } => Fault::new(StatusCode::BAD_GATEWAY, error.to_string()),
            Error::Space { .. } => Fault::new(StatusCode::INSUFFICIENT_STORAGE, "the store's disk is full"),
            Error::Gguf(error) => Fault::bad(error.to_string()),
            Error::Blob { name, digest, .. } => {
                let message = format!("model {name}: blob {digest} is missing or damaged; pull the model again");
                Fault::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
            other => Fault::internal(&other.to_string()),
        }
    }
}
