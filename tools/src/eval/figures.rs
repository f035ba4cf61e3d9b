//! What rows of logits say: how well they predict, and how far two of them are apart. All in f64.

use crate::bench::quantile;

/// Everything gathered so far.
#[derive(Debug, Default)]
pub struct Figures {
    /// Negative log probabilities of the text's tokens: the model's and the other's.
    nll: Vec<f64>,
    other: Vec<f64>,
    /// Divergence at each position.
    divergence: Vec<f64>,
    same_top: usize,
    /// Squares of the differences of probability.
    squares: f64,
}

/// How well a model predicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// exp of the mean.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
    /// Mean negative log probability of a token, in nats.
    pub nll: f64,
    /// How many tokens.
    pub tokens: usize,
}

/// How far a model is from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Divergence {
    /// Of the other model.
    pub perplexity: Perplexity,
    /// Mean of the Kullback-Leibler divergence, in nats.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
    /// Half of the positions diverge less.
    pub median: f64,
    /// 99 of 100 diverge less.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// Share of positions whose most probable token is the same.
    pub same_top: f64,
    /// Its standard error.
    pub same_top_error: f64,
    /// Root mean square of the difference of the text's token's probability.
    pub rms: f64,
}

impl Figures {
    /// Takes the logits before a token of the text, and the other model's.
    pub fn take(&mut self, row: &[f32], truth: Option<&[f32]>, next: usize) {
        let ours = log_probabilities(row);
        self.nll.push(-ours[next]);
        let Some(truth) = truth else { return };
        let theirs = log_probabilities(truth);
        self.other.push(-theirs[next]);
        // What is impossible for the other adds nothing.
        let possible = theirs.iter().zip(&ours).filter(|(p, _)| p.is_finite());
        self.divergence.push(possible.map(|(p, q)| p.exp() * (p - q)).sum());
        self.same_top += usize::from(top(row) == top(truth));
        self.squares += (ours[next].exp() - theirs[next].exp()).powi(2);
    }

    /// The model's perplexity.
    pub fn perplexity(&self) -> Perplexity {
        perplexity(&self.nll)
    }

    /// The distance of the two, where there were two.
    pub fn divergence(&self) -> Option<Divergence> {
        let n = self.divergence.len() as f64;
        let mut sorted = self.divergence.clone();
        sorted.sort_by(f64::total_cmp);
        let &max = sorted.last()?;
        let (mean, error) = mean(&self.divergence);
        let same_top = self.same_top as f64 / n;
        Some(Divergence {
            perplexity: perplexity(&self.other),
            mean,
            error,
            median: quantile(&sorted, 0.5),
            p99: quantile(&sorted, 0.99),
            max,
            same_top,
            same_top_error: (same_top * (1.0 - same_top) / (n - 1.0).max(1.0)).sqrt(),
            rms: (self.squares / n).sqrt(),
        })
    }
}

fn perplexity(nll: &[f64]) -> Perplexity {
    let (mean, error) = mean(nll);
    Perplexity { value: mean.exp(), error: error * mean.exp(), nll: mean, tokens: nll.len() }
}

/// Mean and its standard error; 0 for a single value.
fn mean(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, (variance / (n - 1.0).max(1.0)).sqrt())
}

/// x - max - log(sum exp(x - max)).
fn log_probabilities(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut shifted: Vec<f64> = row.iter().map(|&x| f64::from(x) - f64::from(max)).collect();
    let log_sum = shifted.iter().map(|x| x.exp()).sum::<f64>().ln();
    shifted.iter_mut().for_each(|x| *x -= log_sum);
    shifted
}

/// The largest; of equal ones the first.
fn top(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits whose probabilities are these.
    fn logits(p: &[f32]) -> Vec<f32> {
        p.iter().map(|p| p.ln() + 7.0).collect()
    }

    #[test]
    fn by_hand() {
        let (model, truth) = (logits(&[0.5, 0.25, 0.25]), logits(&[0.25, 0.25, 0.5]));
        let mut f = Figures::default();
        f.take(&model, Some(&truth), 0);
        f.take(&model, Some(&model), 1);
        let d = f.divergence().unwrap();
        // 0.25 ln(0.25 / 0.5) + 0.5 ln(0.5 / 0.25), and 0. Logits are f32 of size 7: some 1e-6.
        let first = 0.25 * 0.5f64.ln() + 0.5 * 2f64.ln();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
        close(d.mean, first / 2.0);
        close(d.median, first / 2.0);
        close(d.max, first);
        close(d.p99, 0.99 * first);
        close(d.same_top, 0.5);
        close(d.rms, (0.25f64.powi(2) / 2.0).sqrt());
        close(d.error, first / 2.0);
        let p = f.perplexity();
        close(p.nll, (2f64.ln() + 4f64.ln()) / 2.0);
        close(p.value, 8f64.sqrt());
        close(p.error, p.value * 2f64.ln() / 2.0);
    }

    #[test]
    fn equal_rows_diverge_by_exactly_nothing() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 7919) % 1000) as f32 * 0.037 - 20.0).collect();
        let mut f = Figures::default();
        f.take(&row, Some(&row.clone()), 3);
        let d = f.divergence().unwrap();
        assert_eq!((d.mean, d.max, d.rms, d.same_top), (0.0, 0.0, 0.0, 1.0));
    }

    #[test]
    fn without_another() {
        let mut f = Figures::default();
        f.take(&[0.0; 4], None, 2);
        assert_eq!(f.divergence(), None);
        assert!((f.perplexity().value - 4.0).abs() < 1e-12);
        assert_eq!(f.perplexity().error, 0.0);
    }
}
