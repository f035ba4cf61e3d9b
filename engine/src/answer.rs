//! From logits to text: one request's sampler, detokenizer and stop strings.

use crate::error::{Error, Result};
use crate::request::{Constraint, Finish, Request};
use crate::sampler::{Best, Sampled, Sampler, Wants};
use crate::tokenizer::{Detokenizer, StopStrings, Tokenizer};
use std::sync::Arc;

/// What one more token brought.
pub struct Step {
    /// The token.
    pub id: u32,
    /// Its natural-log probability, where asked for.
    pub logprob: Option<f32>,
    /// The most probable tokens, where asked for.
    pub top: Vec<(u32, f32)>,
    /// Text that is certain by now.
    pub text: String,
    /// Why the answer ends here, if it does.
    pub end: Option<Finish>,
}

/// The state of an answer between steps.
pub struct Answer {
    tokenizer: Arc<Tokenizer>,
    sampler: Sampler,
    detokenizer: Detokenizer,
    stops: StopStrings,
    constraint: Option<Box<dyn Constraint>>,
    ignore_eog: bool,
}

impl Answer {
    /// The state before the first token.
    ///
    /// # Errors
    /// A sampling parameter out of range.
    pub fn new(request: &mut Request, tokenizer: &Arc<Tokenizer>) -> Result<Answer> {
        Ok(Answer {
            tokenizer: tokenizer.clone(),
            sampler: Sampler::new(request.sampling.clone(), request.entropy)?,
            detokenizer: Detokenizer::new(tokenizer.clone(), request.show_control),
            stops: StopStrings::new(&request.stop),
            constraint: request.constraint.take(),
            ignore_eog: request.ignore_eog,
        })
    }

    /// What says which token comes next.
    pub fn wants(&self) -> Wants {
        if self.constraint.is_none() { self.sampler.wants() } else { Wants::Row }
    }

    /// As [`Answer::next`], of the largest logits alone, where [`Answer::wants`] no more.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub fn next_top(&mut self, top: &[(u32, f32)]) -> Result<Step> {
        let drawn = self.sampler.sample_top(top, self.tokenizer.n_vocab())?;
        self.step(drawn)
    }

    /// As [`Answer::next`], of the largest logit alone, where [`Answer::wants`] no more.
    ///
    /// # Errors
    /// As [`Answer::next`].
    pub fn next_best(&mut self, best: Best) -> Result<Step> {
        let drawn = self.sampler.sample_best(best, self.tokenizer.n_vocab())?;
        self.step(drawn)
    }

    /// Draws the token after `history` from its logits.
    ///
    /// # Errors
    /// Logits that are not numbers, or none that may be drawn.
    pub fn next(&mut self, logits: &[f32], history: &[u32]) -> Result<Step> {
        let drawn = match &mut self.constraint {
            None => self.sampler.sample(logits, history)?,
            Some(constraint) => {
                let allowed = constraint.allowed().map_err(Error::Constraint)?;
                self.sampler.sample_allowed(logits, history, allowed)?
            }
        };
        self.step(drawn)
    }

    /// What a drawn token brings.
    fn step(&mut self, drawn: Sampled) -> Result<Step> {
        let top = self.sampler.top_logprobs().to_vec();
        let mut step = Step { id: drawn.id, logprob: drawn.logprob, top, text: String::new(), end: None };
        if self.tokenizer.is_eog(drawn.id) && !self.ignore_eog {
            step.end = Some(Finish::EndOfText);
            return Ok(step);
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(drawn.id).map_err(Error::Constraint)?;
        }
        let text = self.detokenizer.push(drawn.id);
        let (text, stopped) = self.stops.push(&text);
        step.text = text;
        step.end = stopped.then_some(Finish::StopString);
        Ok(step)
    }

    /// The text still held back when the answer ends.
    pub fn finish(&mut self, reason: Finish) -> String {
        if reason == Finish::StopString {
            return String::new();
        }
        let rest = self.detokenizer.finish();
        let (text, stopped) = self.stops.push(&rest);
        if stopped { text } else { text + &self.stops.finish() }
    }
}
