//! Continuous batching: which tokens of which sequences the next step computes.
//!
//! One step serves every running answer with a token each and fills the rest of the batch with prompts, oldest
//! first; while answers run, prompts come in pieces small enough that no answer waits long ([`crate::pace`]). A prompt
//! whose next page another one is computing waits for it and shares it. A request is admitted when a slot is free and
//! pages for its longest outcome are there, so that an admitted answer never has to wait or start again. The scheduler knows tokens and pages; it knows no clock (the
//! caller says what time it is), no thread and no device.

use crate::answer::{Answer, Step};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::kv::{KvCache, PAGE, Sequence};
use crate::pace::Pace;
use crate::request::{Event, Finish, Request, Sink, Timings};
use crate::sampler::{Best, MOST_CANDIDATES};
use crate::tokenizer::Tokenizer;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Sizes that do not change while the engine runs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most tokens of a batch; at least one a sequence.
    pub batch: usize,
    /// Most tokens of one prompt in a batch.
    pub chunk: usize,
    /// Most wanted outputs of a batch; at least one a sequence.
    pub outputs: usize,
    /// Most sequences at once.
    pub sequences: usize,
    /// Positions of a sequence.
    pub ctx: usize,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Whether a prompt must be computed in one step, as where tokens see those after them.
    pub whole: bool,
    /// Whether the model gives hidden states, of which no token can be drawn.
    pub hidden: bool,
    /// Whether the backend copies pages, so that a part of one can be shared.
    pub copies: bool,
}

/// Most roots that are remembered.
const MOST_ROOTS: usize = 4096;

struct Waiting {
    request: Request,
    sink: Sink,
    /// What must be the same for two requests to share a prefix.
    root: u64,
    since: u64,
}

struct Running {
    seq: Sequence,
    request: Request,
    sink: Sink,
    answer: Answer,
    /// Prompt, then generated tokens.
    tokens: Vec<u32>,
    /// Pages kept free for this sequence to grow into.
    promised: usize,
    /// What it has in the current batch: tokens, outputs among the batch's, and the position of the first output.
    scheduled: Range<usize>,
    outputs: Range<usize>,
    first_output: usize,
    started: u64,
    first_token: Option<u64>,
    timings: Timings,
}

/// What is left of a batch that is being filled.
struct Room {
    tokens: usize,
    outputs: usize,
    chunk: usize,
    whole: bool,
}

/// What a backend has computed of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Results<'a> {
    /// A row of logits for each output.
    Rows(&'a [f32]),
    /// The [`MOST_CANDIDATES`] largest logits of each output with their tokens, where [`Batch::wants`] no more.
    Top(&'a [(u32, f32)]),
    /// The largest logit of each output, where [`Batch::wants`] no more.
    Best(&'a [Best]),
}

impl<'a> Results<'a> {
    /// Those of some of `all` outputs.
    fn of(self, outputs: Range<usize>, all: usize) -> Results<'a> {
        match self {
            Results::Rows(rows) => {
                let n = rows.len().checked_div(all).unwrap_or(0);
                Results::Rows(&rows[outputs.start * n..outputs.end * n])
            }
            Results::Top(top) => Results::Top(&top[outputs.start * MOST_CANDIDATES..outputs.end * MOST_CANDIDATES]),
            Results::Best(best) => Results::Best(&best[outputs]),
        }
    }
}

/// The queue, the running sequences and the batch that is filled for them.
pub struct Scheduler {
    limits: Limits,
    tokenizer: Arc<Tokenizer>,
    kv: KvCache,
    waiting: VecDeque<Waiting>,
    running: Vec<Running>,
    pace: Pace,
    /// Strengths of adapters where a request says nothing.
    strengths: Vec<f32>,
    /// Roots of cached prefixes of requests with other strengths, by scope and bits.
    roots: FxHashMap<(u32, Vec<u32>), u64>,
    /// The batch that was filled last: wanted outputs, answers, tokens of prompts, when.
    outputs: usize,
    answers: usize,
    prompt_tokens: usize,
    filled: u64,
}

impl Scheduler {
    /// A scheduler with nothing to do.
    pub fn new(limits: Limits, tokenizer: Arc<Tokenizer>) -> Scheduler {
        Scheduler {
            limits,
            tokenizer,
            kv: KvCache::new(limits.pages),
            waiting: VecDeque::new(),
            running: Vec::with_capacity(limits.sequences),
            pace: Pace::default(),
            strengths: Vec::new(),
            roots: FxHashMap::default(),
            outputs: 0,
            answers: 0,
            prompt_tokens: 0,
            filled: 0,
        }
    }

    /// Says how strong the model's adapters are where a request says nothing.
    pub fn set_strengths(&mut self, strengths: Vec<f32>) {
        self.strengths = strengths;
    }

    /// A number for scope and strengths: requests that agree in both have the same.
    fn root(&mut self, scope: u32, strengths: &[f32]) -> u64 {
        if strengths == self.strengths {
            return u64::from(scope);
        }
        // Forgetting some makes prefixes be computed again, no more.
        if self.roots.len() >= MOST_ROOTS {
            self.roots.clear();
        }
        let key = (scope, strengths.iter().map(|s| s.to_bits()).collect());
        *self.roots.entry(key).or_insert_with(|| self.kv.new_root())
    }

    /// Checks a request and queues it.
    ///
    /// # Errors
    /// What is wrong with it; nothing was queued.
    pub fn submit(&mut self, mut request: Request, sink: Sink, now: u64) -> Result<(), (Sink, Error)> {
        match self.check(&request) {
            Ok(()) => {
                let strengths = request.adapters.get_or_insert_with(|| self.strengths.clone()).clone();
                let root = self.root(request.scope, &strengths);
                self.waiting.push_back(Waiting { request, sink, root, since: now });
                Ok(())
            }
            Err(e) => Err((sink, e)),
        }
    }

    fn check(&self, request: &Request) -> Result<()> {
        let n_vocab = self.tokenizer.n_vocab();
        if request.prompt.is_empty() {
            return Err(Error::PromptEmpty);
        }
        if request.prompt.len() > self.limits.ctx {
            return Err(Error::PromptTooLong { tokens: request.prompt.len(), ctx: self.limits.ctx });
        }
        if let Some(&id) = request.prompt.iter().find(|&&id| id as usize >= n_vocab) {
            return Err(Error::TokenRange { id, n_vocab });
        }
        if self.limits.hidden && request.max_tokens != Some(0) {
            return Err(Error::HiddenOnly);
        }
        if let Some(found) = request.adapters.as_ref().map(Vec::len).filter(|n| *n != self.strengths.len()) {
            let (found, expected) = (format!("{found} strengths"), format!("{}, one an adapter", self.strengths.len()));
            return Err(Error::Option { name: "adapters", found, expected });
        }
        request.sampling.validate()?;
        Ok(())
    }

    /// Whether there is anything to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Requests waiting and running.
    pub fn load(&self) -> (usize, usize) {
        (self.waiting.len(), self.running.len())
    }

    /// The page allocator, to look at.
    pub fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// An empty batch with room for any that [`Scheduler::fill`] makes.
    pub fn new_batch(&self) -> Batch {
        Batch::with_capacity(self.limits.batch, self.limits.sequences * self.limits.ctx.div_ceil(PAGE))
    }

    /// Admits what fits and fills `batch` for the next step; empty if there is nothing to do.
    pub fn fill(&mut self, batch: &mut Batch, now: u64) {
        self.drop_cancelled();
        self.admit(now);
        batch.clear();
        let Limits { batch: tokens, outputs, chunk, whole, copies, .. } = self.limits;
        let mut room = Room { tokens, outputs, chunk, whole };
        // Answers first: they bring one token and wait for it; prompts share what is left.
        for r in self.running.iter_mut().filter(|r| r.is_generating()) {
            r.schedule(&mut self.kv, batch, &mut room);
        }
        let answers = batch.tokens().len();
        if answers > 0 {
            let prompts = self.running.len() - answers;
            room.tokens = room.tokens.min(self.pace.prompt_tokens(prompts, answers));
        }
        for i in 0..self.running.len() {
            let (before, rest) = self.running.split_at_mut(i);
            let r = &mut rest[0];
            if !r.is_generating() {
                if !whole {
                    r.share(&mut self.kv);
                }
                if !whole && before.iter().any(|b| b.computes_for(r)) {
                    r.skip();
                } else {
                    if !whole && copies && room.tokens > 0 {
                        r.share_part(&mut self.kv, batch);
                    }
                    r.schedule(&mut self.kv, batch, &mut room);
                }
            }
        }
        self.outputs = batch.outputs().len();
        self.answers = answers;
        self.prompt_tokens = batch.tokens().len() - answers;
        self.filled = now;
    }

    /// Lets go of requests that were ended from outside, waiting or running.
    fn drop_cancelled(&mut self) {
        self.waiting.retain(|w| !w.request.cancel.is_cancelled());
        let mut i = 0;
        while i < self.running.len() {
            if self.running[i].request.cancel.is_cancelled() {
                let ended = self.running.remove(i);
                self.kv.close(ended.seq);
            } else {
                i += 1;
            }
        }
    }

    fn admit(&mut self, now: u64) {
        while self.running.len() < self.limits.sequences {
            let Some(first) = self.waiting.front() else { return };
            let longest = first
                .request
                .max_tokens
                .map_or(self.limits.ctx, |n| self.limits.ctx.min(first.request.prompt.len().saturating_add(n)));
            let cached = if self.limits.whole { 0 } else { first.request.observed().start };
            let seq = self.kv.open(&first.request.prompt, cached, first.root);
            let promised = longest.div_ceil(PAGE) - seq.pages().len();
            let spoken_for: usize = self.running.iter().map(|r| r.promised).sum();
            if promised + spoken_for > self.kv.available() {
                self.kv.close(seq);
                return;
            }
            let Some(mut w) = self.waiting.pop_front() else { return };
            match Answer::new(&mut w.request, &self.tokenizer) {
                Ok(answer) => self.running.push(Running::new(w, seq, answer, promised, now)),
                Err(e) => {
                    self.kv.close(seq);
                    let mut sink = w.sink;
                    sink(Event::Failed(e));
                }
            }
        }
    }

    /// Takes the results of the batch, draws tokens, sends events and lets go of what
    /// has ended. One request's failure, even a panic, ends that request only.
    pub fn commit(&mut self, results: Results, now: u64) {
        self.pace.learn(self.answers, self.prompt_tokens, now.saturating_sub(self.filled));
        let mut i = 0;
        while i < self.running.len() {
            let r = &mut self.running[i];
            if !r.scheduled.is_empty() {
                self.kv.commit(&mut r.seq, &r.tokens[r.scheduled.clone()]);
            }
            let own = results.of(r.outputs.clone(), self.outputs);
            let ctx = self.limits.ctx;
            let alive = unless_panic(|| r.advance(own, ctx, now));
            let alive = alive.unwrap_or_else(|| {
                // Whoever listens may be what panicked.
                unless_panic(|| r.fail(Error::Internal("a request's step panicked".into()))).unwrap_or(false)
            });
            if alive {
                i += 1;
            } else {
                let ended = self.running.remove(i);
                self.kv.close(ended.seq);
            }
        }
    }

    /// Ends everything with an error, as when the backend has failed.
    pub fn fail_all(&mut self, mut error: impl FnMut() -> Error) {
        for mut r in self.running.drain(..) {
            r.fail(error());
            self.kv.close(r.seq);
        }
        for mut w in self.waiting.drain(..) {
            (w.sink)(Event::Failed(error()));
        }
    }
}

/// What `work` gives; none where it panics.
fn unless_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

impl Running {
    fn new(w: Waiting, seq: Sequence, answer: Answer, promised: usize, now: u64) -> Running {
        let Waiting { request, sink, since, .. } = w;
        let timings = Timings {
            prompt_tokens: request.prompt.len(),
            cached_tokens: seq.len(),
            queue_ns: now.saturating_sub(since),
            ..Timings::default()
        };
        let tokens = request.prompt.clone();
        Running {
            seq,
            request,
            sink,
            answer,
            tokens,
            promised,
            scheduled: 0..0,
            outputs: 0..0,
            first_output: 0,
            started: now,
            first_token: None,
            timings,
        }
    }

    /// Whether only the last drawn token is missing from the cache.
    fn is_generating(&self) -> bool {
        self.first_token.is_some()
    }

    /// Shares pages of the prompt that other sequences have finished since this one began.
    fn share(&mut self, kv: &mut KvCache) {
        let pages = kv.share(&mut self.seq, &self.request.prompt, self.request.observed().start);
        self.promised -= pages.min(self.promised);
        self.timings.cached_tokens += pages * PAGE;
    }

    /// Shares the part of a page that the prompt has in common with one that is there.
    fn share_part(&mut self, kv: &mut KvCache, batch: &mut Batch) {
        let before = self.seq.len();
        if let Some(copy) = kv.share_part(&mut self.seq, &self.request.prompt, self.request.observed().start) {
            batch.copy_page(copy);
            self.promised -= 1.min(self.promised);
            self.timings.cached_tokens += self.seq.len() - before;
        }
    }

    /// Whether `other` would compute the very page that this one, a prompt too, is computing.
    fn computes_for(&self, other: &Running) -> bool {
        let at_border = other.seq.len().is_multiple_of(PAGE);
        at_border
            && other.request.observed().start >= other.seq.len() + PAGE
            && self.seq.len() / PAGE == other.seq.len() / PAGE
            && other.seq.len() + PAGE < other.request.prompt.len()
            && self.seq.unfinished(&self.tokens).is_some_and(|mine| Some(mine) == other.seq.unfinished(&other.tokens))
    }

    /// Stays out of the step.
    fn skip(&mut self) {
        self.scheduled = self.seq.len()..self.seq.len();
        self.outputs = 0..0;
    }

    /// Puts this sequence's next tokens into the batch, as far as there is room.
    fn schedule(&mut self, kv: &mut KvCache, batch: &mut Batch, room: &mut Room) {
        self.skip();
        let done = self.seq.len();
        // The last token's logits are always wanted, and those from the first observed position on.
        let from = self.request.observed().start.min(self.tokens.len() - 1).max(done);
        let n = (self.tokens.len() - done).min(room.tokens).min(room.chunk).min(from - done + room.outputs);
        let held = self.seq.pages().len();
        if n == 0 || room.whole && n < self.tokens.len() - done || !kv.reserve(&mut self.seq, n) {
            return;
        }
        self.promised -= (self.seq.pages().len() - held).min(self.promised);
        let wanted = (from - done).min(n)..n;
        let before = batch.outputs().len();
        self.outputs = before..before + wanted.len();
        self.first_output = done + wanted.start;
        self.scheduled = done..done + n;
        room.tokens -= n;
        room.outputs -= wanted.len();
        batch.push(&self.tokens[done..done + n], done, self.seq.pages(), wanted);
        if self.request.observer.is_none() {
            batch.want(self.answer.wants(), self.outputs.len());
        }
        batch.adapt(self.request.adapters.as_deref().unwrap_or_default());
    }

    /// Deals with this sequence's share of a finished step. False when the request has ended.
    fn advance(&mut self, own: Results, ctx: usize, now: u64) -> bool {
        if self.scheduled.is_empty() {
            return true;
        }
        let rows = if let Results::Rows(rows) = own { rows } else { &[] };
        let n_vocab = rows.len().checked_div(self.outputs.len()).unwrap_or(0);
        let observed = self.request.observed();
        if let Some(observe) = &mut self.request.observer
            && n_vocab > 0
        {
            for (position, row) in (self.first_output..).zip(rows.chunks_exact(n_vocab)) {
                if observed.contains(&position) {
                    observe(position, row);
                }
            }
        }
        if self.seq.len() < self.tokens.len() {
            let progress = Event::Prompt { done: self.seq.len(), total: self.request.prompt.len() };
            return (self.sink)(progress);
        }
        let first = *self.first_token.get_or_insert(now);
        self.timings.prompt_ns = first.saturating_sub(self.started);
        self.timings.generate_ns = now.saturating_sub(first);
        if self.request.max_tokens == Some(0) {
            return self.finish(Finish::MaxTokens, String::new());
        }
        let next = match own {
            Results::Best(&[.., best]) => self.answer.next_best(best),
            Results::Top(top) => self.answer.next_top(&top[top.len().saturating_sub(MOST_CANDIDATES)..]),
            _ => self.answer.next(&rows[rows.len() - n_vocab..], &self.tokens),
        };
        match next {
            Err(e) => self.fail(e),
            Ok(Step { id, logprob, top, text, end }) => {
                self.tokens.push(id);
                self.timings.generated_tokens += 1;
                if let Some(reason) = end {
                    return self.finish(reason, text);
                }
                if !(self.sink)(Event::Token { id, text, logprob, top }) {
                    return false;
                }
                if self.request.max_tokens == Some(self.timings.generated_tokens) {
                    return self.finish(Finish::MaxTokens, String::new());
                }
                if self.tokens.len() >= ctx {
                    return self.finish(Finish::ContextFull, String::new());
                }
                true
            }
        }
    }

    fn finish(&mut self, reason: Finish, text: String) -> bool {
        let text = text + &self.answer.finish(reason);
        (self.sink)(Event::Done { reason, text, timings: self.timings });
        false
    }

    fn fail(&mut self, error: Error) -> bool {
        (self.sink)(Event::Failed(error));
        false
    }
}
