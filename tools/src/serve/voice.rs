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

/// How a dialect writes a stream. Each text may be empty.
pub trait Voice: Send + 'static {
    /// What comes before anything else.
    fn start(&mut self, answers: &Answers) -> String;
    /// A piece of one of the answers.
    fn more(&mut self, answers: &Answers, index: usize, part: Part, token: Option<Token>) -> String;
    /// One of the answers is complete.
    fn end(&mut self, answers: &Answers, index: usize, end: &End) -> String;
    /// All answers are complete.
    fn finish(&mut self, answers: &Answers) -> String;
    /// Something went wrong in the middle.
    fn fault(&mut self, fault: &Fault) -> String;
    /// Type of the whole.
    fn content_type(&self) -> &'static str;
}

/// The line of an error in a dialect's stream.
pub fn error_line(dialect: Dialect, fault: &Fault) -> String {
    match dialect {
        Dialect::Ollama => format!("{}\n", fault.json(dialect)),
        Dialect::OpenAi | Dialect::Llama => format!("data: {}\n\n", fault.json(dialect)),
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
pub async fn stream(mut answers: Answers, voice: impl Voice, ticket: &Ticket) -> Result<Response> {
    answers.settle().await?;
    let kind = voice.content_type();
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
                        voice.fault(&fault)
                    }
                },
            };
            if !text.is_empty() {
                return Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (answers, voice, state, ticket)));
            }
        }
    });
    Ok(reply::with_type(StatusCode::OK, kind, Body::from_stream(body)))
}
