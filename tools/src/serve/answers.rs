//! Requests in the engine as a stream of events, and what is known about them when they end.
//!
//! Dropping [`Answers`], as happens when a client leaves, ends its requests before the engine's next step.

use std::time::{Duration, Instant};

use engine::{Cancel, Event, Finish, Request, Timings};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::app::App;
use super::call::Ticket;
use super::fault::{Fault, Result};
use super::loaded::Lease;
use super::reader::{Part, Reader};
use std::sync::Arc;

/// A token with its probability.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// Its natural-log probability.
    pub logprob: f32,
    /// The most probable tokens.
    pub top: Vec<(u32, f32)>,
}

/// What happens in one of the answers.
pub enum News {
    /// More of it.
    More {
        /// The text, taken apart.
        part: Part,
        /// The token, where probabilities are wanted.
        token: Option<Token>,
    },
    /// It is complete.
    End(End),
}

/// How an answer ended.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Why.
    pub finish: Finish,
    /// Whether it called tools.
    pub called: bool,
    /// Counts and durations.
    pub timings: Timings,
}

/// An event of one of the answers, and when it happened.
type Heard = (usize, Instant, Event);

/// Hears what an engine says of one of the answers. Where `whole`, nobody is woken before its end: an answer that is
/// given as a whole costs its engine nothing on the way.
fn sink(index: usize, whole: bool, sender: UnboundedSender<Heard>) -> Box<dyn FnMut(Event) -> bool + Send> {
    let mut held = Vec::new();
    Box::new(move |event| {
        let last = matches!(event, Event::Done { .. } | Event::Failed(_));
        held.push((index, Instant::now(), event));
        whole && !last || held.drain(..).all(|heard| sender.send(heard).is_ok())
    })
}

/// Several answers to one prompt.
pub struct Answers {
    app: Arc<App>,
    ticket: Ticket,
    /// The model; free again when this is dropped.
    pub lease: Lease,
    events: UnboundedReceiver<Heard>,
    cancel: Cancel,
    /// Tokens of each answer.
    pub ids: Vec<Vec<u32>>,
    readers: Vec<Reader>,
    called: Vec<bool>,
    live: usize,
    logprobs: bool,
    start: Instant,
    last: Option<Instant>,
    /// News that came together with others.
    queued: std::collections::VecDeque<(usize, News)>,
}

/// How answers are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Look for calls of tools.
    pub tools: bool,
    /// Look for thinking.
    pub think: bool,
    /// The prompt ends in the middle of a thought.
    pub thinking: bool,
    /// Give the tokens with their probabilities.
    pub logprobs: bool,
    /// Nobody reads an answer before it is complete.
    pub whole: bool,
}

impl Answers {
    /// Submits requests that have the same prompt.
    pub fn start(app: &Arc<App>, ticket: &Ticket, lease: Lease, requests: Vec<Request>, reading: Reading) -> Answers {
        let (sender, events) = unbounded_channel();
        let cancel = Cancel::default();
        let live = requests.len();
        if let Some(first) = requests.first() {
            ticket.prompt(&first.prompt);
        }
        for (index, mut request) in requests.into_iter().enumerate() {
            request.cancel = cancel.clone();
            lease.engine.submit_to(request, sink(index, reading.whole, sender.clone()));
        }
        let reader = Reader::new(reading.tools, reading.think, reading.thinking);
        Answers {
            app: app.clone(),
            ticket: ticket.clone(),
            lease,
            events,
            cancel,
            ids: vec![Vec::new(); live],
            readers: vec![reader; live],
            called: vec![false; live],
            live,
            logprobs: reading.logprobs,
            start: Instant::now(),
            last: None,
            queued: std::collections::VecDeque::new(),
        }
    }

    /// Number of answers.
    pub fn len(&self) -> usize {
        self.readers.len()
    }

    /// The next news, with the number of its answer; none when all answers are complete.
    ///
    /// # Errors
    /// The engine failed, the request took too long, or the server is going down.
    pub async fn next(&mut self) -> Result<Option<(usize, News)>> {
        loop {
            if let Some(news) = self.queued.pop_front() {
                return Ok(Some(news));
            }
            if self.live == 0 {
                return Ok(None);
            }
            let limit = self.app.config.limits.answer;
            let event = tokio::select! {
                event = self.events.recv() => event,
                () = self.app.ended() => return Err(Fault::busy("the server is shutting down; the answer was cut")),
                () = tokio::time::sleep_until((self.start + limit).into()) => {
                    let seconds = limit.as_secs();
                    return Err(Fault::new(axum::http::StatusCode::GATEWAY_TIMEOUT, format!("the answer took more than {seconds} s and was cut")));
                }
            };
            match event {
                None => return Err(Fault::internal("the engine dropped a request")),
                Some((_, _, Event::Failed(error))) => return Err(error.into()),
                Some((_, _, Event::Prompt { .. })) => {}
                Some((index, at, Event::Token { id, text, logprob, top })) => {
                    self.clock(at);
                    self.token(index, &text, (id, logprob, top));
                }
                Some((index, at, Event::Done { reason, text, timings })) => {
                    self.clock(at);
                    self.done(index, &text, reason, timings);
                }
            }
        }
    }

    fn token(&mut self, index: usize, text: &str, (id, logprob, top): (u32, Option<f32>, Vec<(u32, f32)>)) {
        self.ids[index].push(id);
        let part = self.readers[index].push(text);
        self.called[index] |= !part.calls.is_empty();
        let token = logprob.filter(|_| self.logprobs).map(|logprob| Token { id, logprob, top });
        if !part.is_empty() || token.is_some() {
            self.queued.push_back((index, News::More { part, token }));
        }
    }

    fn done(&mut self, index: usize, text: &str, finish: Finish, timings: Timings) {
        let mut part = self.readers[index].push(text);
        let rest = self.readers[index].finish();
        part.content += &rest.content;
        part.thinking += &rest.thinking;
        part.calls.extend(rest.calls);
        self.called[index] |= !part.calls.is_empty();
        if !part.is_empty() {
            self.queued.push_back((index, News::More { part, token: None }));
        }
        self.live -= 1;
        self.ticket.answered(&timings);
        self.app.metrics.answered(&timings, self.start.elapsed());
        self.queued.push_back((index, News::End(End { finish, called: self.called[index], timings })));
    }

    /// Times of the first token and between tokens.
    fn clock(&mut self, at: Instant) {
        match self.last.replace(at) {
            None => self.app.metrics.first_token(at.saturating_duration_since(self.start)),
            Some(before) => self.app.metrics.gap(at.saturating_duration_since(before)),
        }
    }

    /// Waits until something is known to go well or not: an error before that is one of the status line.
    ///
    /// # Errors
    /// As [`Answers::next`].
    pub async fn settle(&mut self) -> Result<()> {
        if let Some(news) = self.next().await? {
            self.queued.push_front(news);
        }
        Ok(())
    }

    /// How long this has been going on.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.cancel.cancel();
        if self.live > 0 {
            self.ticket.cut();
        }
    }
}

/// One complete answer.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its text, taken apart.
    pub part: Part,
    /// Its tokens, where probabilities are wanted.
    pub tokens: Vec<Token>,
    /// How it ended.
    pub end: End,
}

/// All answers, complete.
///
/// # Errors
/// As [`Answers::next`].
pub async fn collect(answers: &mut Answers) -> Result<Vec<Whole>> {
    let end = End { finish: Finish::MaxTokens, called: false, timings: Timings::default() };
    let mut all = vec![Whole { part: Part::default(), tokens: Vec::new(), end }; answers.len()];
    while let Some((index, news)) = answers.next().await? {
        let whole = &mut all[index];
        match news {
            News::More { part, token } => {
                whole.part.content += &part.content;
                whole.part.thinking += &part.thinking;
                whole.part.calls.extend(part.calls);
                whole.tokens.extend(token);
            }
            News::End(end) => whole.end = end,
        }
    }
    Ok(all)
}
