//! What a caller may ask of the sampler, with the defaults of the two dialects people compare with.
//!
//! Knows nothing of logits or models: only names, defaults and allowed ranges.

use super::Error;

/// Parameters of the sampler chain. A value that switches a filter off is named at its field.
///
/// The default is the chain of llama.cpp's command line (temperature 0.8, top-k 40, top-p 0.95, min-p 0.05);
/// [`Params::ollama`] and [`Params::greedy`] are the other two in common use.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Divides the logits before the draw; 0 takes the largest logit (the lowest id wins a tie) and skips the filters.
    pub temperature: f32,
    /// Keep the `top_k` largest logits; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most probable tokens whose probability reaches `top_p`; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least `min_p` times as probable as the most probable one; 0 keeps all.
    pub min_p: f32,
    /// Keep the most typical tokens whose probability exceeds `typical_p`; 1 keeps all.
    pub typical_p: f32,
    /// Divides positive logits, multiplies negative ones, of tokens in the penalty window; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Subtracted once from the logit of every token in the penalty window.
    pub presence_penalty: f32,
    /// Subtracted from a logit once for each time its token occurs in the penalty window.
    pub frequency_penalty: f32,
    /// Length of the penalty window in tokens; 0 switches penalties off, -1 takes the whole history.
    pub repeat_last_n: i32,
    /// Added to the logits of single tokens before anything else; negative infinity bans a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// No filter leaves fewer tokens than this (nor fewer than one).
    pub min_keep: u32,
    /// Seed of the draws; `None` leaves the choice to whoever makes the [`super::Sampler`].
    pub seed: Option<u64>,
    /// `Some(n)`: report the natural-log probability of the drawn token and of the `n` most probable ones.
    pub n_probs: Option<u32>,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: 64,
            logit_bias: Vec::new(),
            min_keep: 0,
            seed: None,
            n_probs: None,
        }
    }
}

impl Params {
    /// The defaults of Ollama's `options`: as [`Params::default`], but top-p 0.9 and no min-p.
    pub fn ollama() -> Self {
        Params { top_p: 0.9, min_p: 0.0, ..Params::default() }
    }

    /// Always the most probable token.
    pub fn greedy() -> Self {
        Params { temperature: 0.0, ..Params::default() }
    }

    /// Checks every parameter against its range.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name, the value found and the range, for the first one outside.
    pub fn validate(&self) -> Result<(), Error> {
        const FINITE: (f32, f32) = (-f32::MAX, f32::MAX);
        const SHARE: (f32, f32) = (0.0, 1.0);
        let ranges = [
            ("temperature", self.temperature, (0.0, f32::MAX), "a finite number of at least 0"),
            ("top_p", self.top_p, SHARE, "0 to 1"),
            ("min_p", self.min_p, SHARE, "0 to 1"),
            ("typical_p", self.typical_p, SHARE, "0 to 1"),
            ("repeat_penalty", self.repeat_penalty, (f32::MIN_POSITIVE, f32::MAX), "a finite number above 0"),
            ("presence_penalty", self.presence_penalty, FINITE, "a finite number"),
            ("frequency_penalty", self.frequency_penalty, FINITE, "a finite number"),
        ];
        for (name, found, (low, high), allowed) in ranges {
            // A NaN is outside every range.
            if !(low..=high).contains(&found) {
                return Err(Error::Parameter { name, found: found.to_string(), allowed });
            }
        }
        if self.repeat_last_n < -1 {
            let found = self.repeat_last_n.to_string();
            return Err(Error::Parameter { name: "repeat_last_n", found, allowed: "-1 (the whole history) or more" });
        }
        for &(id, bias) in &self.logit_bias {
            if bias.is_nan() || bias == f32::INFINITY {
                let found = format!("{bias} for token {id}");
                return Err(Error::Parameter { name: "logit_bias", found, allowed: "a finite number or -inf" });
            }
        }
        Ok(())
    }
}
