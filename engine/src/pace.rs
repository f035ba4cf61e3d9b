//! How much of a prompt a step may compute while answers wait for their next token.
//!
//! A step that computes answers alone takes some time; every token of a prompt in it makes it longer. Both are learned
//! from the steps themselves, and prompts get as many tokens as keep a step within [`STRETCH`] times the time that
//! the answers alone would take: whoever reads an answer sees no gap when somebody else comes with a long prompt. Where
//! more prompts wait than answers run, as when many requests arrive at once, they get up to [`CROWD`] times as long. What
//! is computed does not depend on how it is cut, so that clocks may decide this.

/// A step with prompts takes at most this many times what the answers alone would take.
const STRETCH: f64 = 2.5;
/// How much longer a step may become where more wait than run.
const CROWD: f64 = 2.0;
/// Tokens of prompts that a step takes in any case: prompts must end some day.
const LEAST: usize = 8;
/// Before anything is known.
const FIRST: usize = 32;
/// Weight of the newest step in the running means.
const NEWEST: f64 = 0.2;

/// Running means of what steps take, in nanoseconds.
#[derive(Debug, Default)]
pub struct Pace {
    /// A step of answers alone.
    answers: Option<f64>,
    /// Each token of a prompt on top of it.
    token: Option<f64>,
}

impl Pace {
    /// Takes note of a step that computed so many answers and so many tokens of prompts.
    pub fn learn(&mut self, answers: usize, prompt_tokens: usize, ns: u64) {
        let ns = ns as f64;
        match (answers, prompt_tokens) {
            (_, 0) => mean(&mut self.answers, ns),
            (0, n) if self.token.is_none() => self.token = Some(ns / n as f64),
            // Many tokens at once are cheaper than the few that come beside answers.
            (0, _) => {}
            (_, n) => mean(&mut self.token, (ns - self.answers.unwrap_or(0.0)).max(0.0) / n as f64),
        }
    }

    /// Tokens that the next step may compute of so many prompts beside so many answers.
    pub fn prompt_tokens(&self, prompts: usize, answers: usize) -> usize {
        match (self.answers, self.token) {
            (Some(alone), Some(token)) if token > 0.0 => {
                let stretch = STRETCH * (prompts as f64 / answers.max(1) as f64).clamp(1.0, CROWD);
                ((stretch - 1.0) * alone / token).max(LEAST as f64) as usize
            }
            _ => FIRST,
        }
    }
}

fn mean(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |old| old + NEWEST * (value - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_get_what_the_answers_can_spare() {
        let mut pace = Pace::default();
        assert_eq!(pace.prompt_tokens(1, 4), FIRST);
        for _ in 0..50 {
            pace.learn(4, 0, 20_000_000);
            pace.learn(4, 10, 30_000_000);
        }
        // 20 ms for the answers, 1 ms a token: 30 tokens make 50 ms.
        for prompts in [1, 4] {
            assert!((29..=31).contains(&pace.prompt_tokens(prompts, 4)), "{}", pace.prompt_tokens(prompts, 4));
        }
        // Twice as long where many wait: 80 tokens make 100 ms.
        for prompts in [8, 80] {
            assert!((78..=82).contains(&pace.prompt_tokens(prompts, 4)), "{}", pace.prompt_tokens(prompts, 4));
        }
        for _ in 0..50 {
            pace.learn(4, 10, 1_000_000_000);
        }
        assert_eq!(pace.prompt_tokens(1, 4), LEAST, "prompts go on whatever they cost");
    }
}
