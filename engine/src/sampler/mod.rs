//! From one row of logits to one token.
//!
//! The chain, in the order people compare with: bias, penalties, top-k, typical, top-p, min-p, temperature, draw. It
//! knows logits, ids and a history of ids; it must not know models, tokens' text, devices or clocks.
//!
//! The same seed, logits and histories give the same tokens on every machine: sums run in f64 in a fixed order,
//! `exp` and `ln` are libm's, ties go to the lower id, and nothing depends on the order of a hash table.

mod edit;
mod filter;
mod params;
mod random;
#[cfg(test)]
mod tests;

pub use params::Params;

use filter::Candidate;
use random::Random;

/// Why no token could be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter is outside its range.
    #[error("sampling parameter {name} is {found}; allowed is {allowed}")]
    Parameter {
        /// The parameter's name, as in [`Params`].
        name: &'static str,
        /// The value found.
        found: String,
        /// The range.
        allowed: &'static str,
    },
    /// A logit bias names a token that the model does not have.
    #[error("sampling parameter logit_bias names token {id}, but the vocabulary has {vocabulary} tokens; remove it")]
    BiasOutOfVocabulary {
        /// The token.
        id: u32,
        /// Length of the row of logits.
        vocabulary: usize,
    },
    /// A logit is not a number.
    #[error("the logit of token {id} is NaN: the model's weights are damaged or its values overflowed; check the file")]
    NotANumber {
        /// The first such token.
        id: usize,
    },
    /// Every token of the row is at negative infinity.
    #[error("no token can be drawn: all {vocabulary} logits are -inf or banned by logit_bias; lift a ban")]
    NoCandidate {
        /// Length of the row of logits.
        vocabulary: usize,
    },
}

/// The token of a row's largest logit, the lowest of equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Best {
    /// This one.
    Token(u32),
    /// There is none: the logit of this token, the first such, is not a number.
    NotANumber(u32),
    /// There is none: all are at negative infinity.
    Nothing,
}

/// Logits of a row that [`Sampler::sample_top`] takes.
pub const MOST_CANDIDATES: usize = 64;

/// How much of a row of logits a draw needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// All of it.
    Row,
    /// The [`MOST_CANDIDATES`] largest logits.
    Top,
    /// The largest logit.
    Best,
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampled {
    /// The token.
    pub id: u32,
    /// Its natural-log probability in the model's own distribution (no bias, penalty, filter or temperature),
    /// where [`Params::n_probs`] asks for it.
    pub logprob: Option<f32>,
}

/// Draws tokens for one sequence. Its buffers grow to the vocabulary once and are used again for every token.
#[derive(Clone, Debug)]
pub struct Sampler {
    params: Params,
    random: Random,
    /// The row after bias and penalties, where there are any.
    row: Vec<f32>,
    window: Vec<u32>,
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
    /// The most probable tokens, where they are asked for.
    top: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler whose draws are fixed by `params.seed`, or by `entropy` where that is `None`.
    ///
    /// # Errors
    /// [`Error::Parameter`], as [`Params::validate`].
    pub fn new(params: Params, entropy: u64) -> Result<Sampler, Error> {
        params.validate()?;
        let random = Random::new(params.seed.unwrap_or(entropy));
        let (row, window, candidates) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Sampler { params, random, row, window, candidates, weights: Vec::new(), top: Vec::new() })
    }

    /// The parameters in force.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What the next draw needs.
    pub fn wants(&self) -> Wants {
        let whole = self.params.n_probs.is_some() || edit::needed(&self.params);
        match self.most() {
            Some(1) if !whole && self.params.temperature == 0.0 => Wants::Best,
            Some(k) if !whole && k <= MOST_CANDIDATES => Wants::Top,
            _ => Wants::Row,
        }
    }

    /// Logits that the first filter leaves; none where it leaves all.
    fn most(&self) -> Option<usize> {
        match (self.params.temperature, self.params.top_k as usize) {
            (0.0, _) => Some(1),
            (_, 0) => None,
            (_, k) => Some(k.max(self.min_keep())),
        }
    }

    fn min_keep(&self) -> usize {
        self.params.min_keep.max(1) as usize
    }

    /// What [`Sampler::sample`] draws from a row of `vocabulary` logits of which these are the [`MOST_CANDIDATES`] largest,
    /// of equals those of the lowest tokens, in any order, where [`Sampler::wants`] no more. Tokens at -inf stand for none.
    ///
    /// # Errors
    /// [`Error::NotANumber`] and [`Error::NoCandidate`].
    pub fn sample_top(&mut self, top: &[(u32, f32)], vocabulary: usize) -> Result<Sampled, Error> {
        if let Some(id) = top.iter().filter(|(_, logit)| logit.is_nan()).map(|(id, _)| *id as usize).min() {
            return Err(Error::NotANumber { id });
        }
        let most = self.most().unwrap_or(MOST_CANDIDATES);
        filter::of_pairs(top, most, &mut self.candidates);
        Ok(Sampled { id: self.choose(vocabulary)?, logprob: None })
    }

    /// What [`Sampler::sample`] draws from a row of `vocabulary` logits with this largest one, where
    /// [`Sampler::wants`] no more.
    ///
    /// # Errors
    /// [`Error::NotANumber`] and [`Error::NoCandidate`].
    pub fn sample_best(&self, best: Best, vocabulary: usize) -> Result<Sampled, Error> {
        match best {
            Best::Token(id) => Ok(Sampled { id, logprob: None }),
            Best::NotANumber(id) => Err(Error::NotANumber { id: id as usize }),
            Best::Nothing => Err(Error::NoCandidate { vocabulary }),
        }
    }

    /// Draws the next token from `logits` (one a token of the vocabulary). `history` is the sequence so far, prompt
    /// included, oldest first: the penalties read its end.
    ///
    /// # Errors
    /// [`Error::NotANumber`], [`Error::NoCandidate`] and [`Error::BiasOutOfVocabulary`]; no random number is used up.
    pub fn sample(&mut self, logits: &[f32], history: &[u32]) -> Result<Sampled, Error> {
        self.sample_of(logits, history, None)
    }

    /// As [`Sampler::sample`], but only of the tokens whose bit is set: bit `id % 32` of word `id / 32`.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_allowed(&mut self, logits: &[f32], history: &[u32], allowed: &[u32]) -> Result<Sampled, Error> {
        self.sample_of(logits, history, Some(allowed))
    }

    fn sample_of(&mut self, logits: &[f32], history: &[u32], allowed: Option<&[u32]>) -> Result<Sampled, Error> {
        refuse_nan(logits)?;
        let mut row = std::mem::take(&mut self.row);
        let drawn = if allowed.is_some() || edit::needed(&self.params) {
            edit::apply(&self.params, history, logits, &mut self.window, &mut row).and_then(|()| {
                if let Some(allowed) = allowed {
                    edit::forbid(allowed, &mut row);
                }
                self.draw(&row)
            })
        } else {
            self.draw(logits)
        };
        self.row = row;
        let id = drawn?;
        let logprob = self.params.n_probs.map(|n| self.report(logits, id, n as usize));
        Ok(Sampled { id, logprob })
    }

    /// The `n_probs` most probable tokens of the last row sampled, best first, each with the natural-log probability
    /// that the model itself gives it. Empty where [`Params::n_probs`] is `None`.
    pub fn top_logprobs(&self) -> &[(u32, f32)] {
        &self.top
    }

    /// Filters the edited row and draws.
    fn draw(&mut self, row: &[f32]) -> Result<u32, Error> {
        match self.most() {
            None => filter::all(row, &mut self.candidates),
            Some(k) => filter::top_k(row, k, &mut self.candidates),
        }
        self.choose(row.len())
    }

    /// Filters what the first filter left of a row of `vocabulary` logits and draws.
    fn choose(&mut self, vocabulary: usize) -> Result<u32, Error> {
        let Params { temperature, top_p, min_p, typical_p, .. } = self.params;
        let (min_keep, candidates) = (self.min_keep(), &mut self.candidates);
        let Some(best) = candidates.first() else { return Err(Error::NoCandidate { vocabulary }) };
        if temperature == 0.0 {
            return Ok(best.id);
        }
        if typical_p < 1.0 || top_p < 1.0 {
            filter::weigh(candidates);
        }
        if typical_p < 1.0 {
            filter::typical(candidates, typical_p, min_keep);
        }
        if top_p < 1.0 {
            filter::top_p(candidates, top_p, min_keep);
        }
        if min_p > 0.0 {
            filter::min_p(candidates, min_p, min_keep);
        }
        Ok(self.pick(f64::from(temperature)))
    }

    /// One draw from the softmax of the candidates at this temperature: the first candidate at which the running sum
    /// of weights passes a uniform share of their total.
    fn pick(&mut self, temperature: f64) -> u32 {
        let max = filter::max_logit(&self.candidates);
        self.weights.clear();
        let weight = |c: &Candidate| libm::exp(filter::below_max(c.logit, max) / temperature);
        self.weights.extend(self.candidates.iter().map(weight));
        let total = self.weights.iter().sum::<f64>();
        let goal = self.random.uniform() * total;
        let mut sum = 0.0;
        // The uniform number is below 1 and the second sum repeats the first, so it passes the goal at the last weight
        // that is not 0 at the latest.
        let index = self.weights.iter().position(|weight| {
            sum += weight;
            sum > goal
        });
        self.candidates[index.unwrap_or(0)].id
    }

    /// Fills `top` from the row as the model gave it and returns the log probability of `id`.
    fn report(&mut self, logits: &[f32], id: u32, n: usize) -> f32 {
        let max = logits.iter().fold(f32::NEG_INFINITY, |max, &logit| if logit > max { logit } else { max });
        let total: f64 = logits.iter().map(|&logit| libm::exp(filter::below_max(logit, max))).sum();
        let log_total = libm::log(total);
        let logprob = |logit: f32| (filter::below_max(logit, max) - log_total) as f32;
        filter::top_k(logits, n.min(logits.len()), &mut self.candidates);
        self.top.clear();
        self.top.extend(self.candidates.iter().map(|c| (c.id, logprob(c.logit))));
        logprob(logits[id as usize])
    }
}

/// Finds a NaN. Whole chunks are tested without a branch each, since there is almost never one.
fn refuse_nan(logits: &[f32]) -> Result<(), Error> {
    let clean = logits.chunks(1024).all(|chunk| !chunk.iter().fold(false, |any, logit| any | logit.is_nan()));
    if clean {
        return Ok(());
    }
    let id = logits.iter().position(|logit| logit.is_nan()).unwrap_or(0);
    Err(Error::NotANumber { id })
}
