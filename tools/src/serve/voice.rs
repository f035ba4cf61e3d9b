//! Streams: answers as a dialect writes them, line by line, while they come.

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream;

use super::answers::{Answers, End, News, Token};
use super::call::Ticket;
use super::fault::{Dialect, Fault, Result};
use super::reader::Part;
use super::reply;

/// How a route writes a stream. Each text may be empty.
pub trait Voice: Send + 'static {
    /// Whose errors it writes, and with them the type of the whole.
    const DIALECT: Dialect;

    /// What comes before anything else.
    fn start(&mut self, _: &Answers) -> String {
        String::new()
    }

    /// A piece of one of the answers.
    fn more(&mut self, answers: &Answers, index: usize, part: Part, token: Option<Token>) -> String;

    /// One of the answers is complete.
    fn end(&mut self, answers: &Answers, index: usize, end: &End) -> String;

    /// All answers are complete.
    fn finish(&mut self, _: &Answers) -> String {
        String::new()
    }
}

/// The line of an error in the middle of a dialect's stream.
fn error_line(dialect: Dialect, fault: &Fault) -> String {
    match dialect {
        Dialect::Ollama => format!("{}\n", fault.json(dialect)),
        Dialect::OpenAi | Dialect::Llama => format!("data: {}\n\n", fault.json(dialect)),
    }
}

fn content_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Ollama => "application/x-ndjson",
        Dialect::OpenAi | Dialect::Llama => "text/event-stream",
    }
}

enum State {
    Start,
    Middle,
    End,
}

/// The response of a stream. What goes wrong before its first byte is an error with a status of its own.
///
/// # Errors
/// As [`Answers::next`].
pub async fn stream<V: Voice>(mut answers: Answers, voice: V, ticket: &Ticket) -> Result<Response> {
    answers.settle().await?;
    let ticket = ticket.clone();
    let first = (answers, voice, State::Start, ticket);
    let body = stream::unfold(first, |(mut answers, mut voice, state, ticket)| async move {
        let mut state = state;
        loop {
            let text = match state {
                State::End => return None,
                State::Start => {
                    state = State::Middle;
                    voice.start(&answers)
                }
                State::Middle => match answers.next().await {
                    Ok(Some((index, News::More { part, token }))) => voice.more(&answers, index, part, token),
                    Ok(Some((index, News::End(end)))) => voice.end(&answers, index, &end),
                    Ok(None) => {
                        state = State::End;
                        voice.finish(&answers)
                    }
                    Err(fault) => {
                        state = State::End;
                        ticket.failed(&fault);
                        error_line(V::DIALECT, &fault)
                    }
                },
            };
            if !text.is_empty() {
                return Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (answers, voice, state, ticket)));
            }
        }
    });
    Ok(reply::with_type(StatusCode::OK, content_type(V::DIALECT), Body::from_stream(body)))
}
