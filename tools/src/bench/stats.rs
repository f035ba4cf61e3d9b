//! Statistics of a few timings. Knows numbers alone.
//!
//! Timings are not normally distributed: they have a floor and a tail. So what is reported beside the customary mean
//! and standard deviation is the median with an interval that assumes nothing about the distribution (Hoefler and
//! Belli, "Scientific Benchmarking of Parallel Computing Systems", SC 2015).

/// An interval that holds the true value with a probability of `coverage`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Probability that the value lies within, 0 to 1.
    pub coverage: f64,
}

/// What some values have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many there are.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (divided by n - 1); 0 for one value.
    pub sd: f64,
    /// Median.
    pub median: f64,
    /// Where the true median lies.
    pub interval: Interval,
}

/// The probability that intervals aim at.
pub const LEVEL: f64 = 0.95;

impl Summary {
    /// The summary of at least one value.
    pub fn of(values: &[f64]) -> Option<Summary> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let sd = if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 };
        let sorted = sorted(values);
        let interval = median_interval(&sorted);
        Some(Summary { n: values.len(), mean, sd, median: quantile(&sorted, 0.5), interval })
    }
}

/// The values in ascending order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The quantile `q` of ascending values, linear between neighbours (type 7 of Hyndman and Fan, 1996).
///
/// # Panics
/// If there are no values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// The narrowest pair of values, equally far from both ends, that holds the median with [`LEVEL`] (David and Nagaraja,
/// "Order Statistics", 2003, section 7.1). Fewer than six values cannot reach it: then all of them, and the coverage
/// says what that is worth.
fn median_interval(sorted: &[f64]) -> Interval {
    let n = sorted.len();
    // The k smallest values all lie below the median with the probability of at most k - 1 heads in n throws.
    let (mut k, mut tail) = (0, 0.5f64.powi(n as i32));
    let mut term = tail;
    loop {
        term *= (n - k) as f64 / (k + 1) as f64;
        if 2 * (k + 2) > n || 1.0 - 2.0 * (tail + term) < LEVEL {
            break;
        }
        tail += term;
        k += 1;
    }
    Interval { low: sorted[k], high: sorted[n - 1 - k], coverage: (1.0 - 2.0 * tail).max(0.0) }
}

/// Whether two samples differ, by the rank test of Mann and Whitney (1947).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Median of all ratios of a value of the second sample to one of the first (Hodges and Lehmann, 1963, on a
    /// logarithmic scale).
    pub ratio: f64,
    /// Where the true ratio lies, from the same ranks as the test.
    pub interval: Interval,
    /// Two-sided probability of ranks at least as one-sided as these if there is no difference.
    pub p: f64,
}

/// Samples up to this many values in all are compared by the exact distribution; their counts fit 128 bits.
const EXACT: usize = 60;

impl Comparison {
    /// Compares two samples of positive values, of at least one value each.
    pub fn of(a: &[f64], b: &[f64]) -> Option<Comparison> {
        if a.is_empty() || b.is_empty() {
            return None;
        }
        let ratios: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| b / a)).collect();
        let ratios = sorted(&ratios);
        let pairs = ratios.len();
        // Pairs in which the second is larger; a tie counts half.
        let u: f64 = a.iter().flat_map(|a| b.iter().map(move |b| wins(*b, *a))).sum();
        let extreme = u.min(pairs as f64 - u);
        let tied = has_ties(a, b);
        let exact = (!tied && a.len() + b.len() <= EXACT).then(|| rank_distribution(a.len(), b.len()));
        let below = |u: f64| match &exact {
            Some(distribution) => distribution[..=u as usize].iter().sum(),
            None => normal_tail(u, a, b),
        };
        let p = (2.0 * below(extreme)).min(1.0);
        // The largest k for which fewer than k pairs on one side are improbable.
        let (mut k, mut outside) = (0, 0.0);
        while 2 * (k + 1) < pairs && 2.0 * below(k as f64) <= 1.0 - LEVEL {
            outside = 2.0 * below(k as f64);
            k += 1;
        }
        let k = k.saturating_sub(1);
        let coverage = if outside > 0.0 { 1.0 - outside } else { 1.0 - 2.0 * below(0.0) };
        let interval = Interval { low: ratios[k], high: ratios[pairs - 1 - k], coverage: coverage.max(0.0) };
        Some(Comparison { ratio: quantile(&ratios, 0.5), interval, p })
    }

    /// The smallest probability that samples of these sizes can give.
    pub fn smallest_p(a: usize, b: usize) -> f64 {
        let ways = (1..=b).fold(1.0, |ways, i| ways * (a + i) as f64 / i as f64);
        (2.0 / ways).min(1.0)
    }
}

fn wins(b: f64, a: f64) -> f64 {
    match b.total_cmp(&a) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    }
}

fn has_ties(a: &[f64], b: &[f64]) -> bool {
    tie_lengths(a, b).iter().any(|&t| t > 1.0)
}

/// Lengths of the runs of equal values in both samples together.
fn tie_lengths(a: &[f64], b: &[f64]) -> Vec<f64> {
    let all = sorted(&[a, b].concat());
    all.chunk_by(|x, y| x == y).map(|run| run.len() as f64).collect()
}

/// Probability of each number of won pairs if two samples of `m` and `n` values do not differ. The counts are the
/// coefficients of the Gaussian binomial, the product of (1 - q^(n + i)) / (1 - q^i) over i = 1..=m.
fn rank_distribution(m: usize, n: usize) -> Vec<f64> {
    let mut counts = vec![0i128; m * n + 1];
    counts[0] = 1;
    for i in 1..=m {
        for u in (n + i..counts.len()).rev() {
            counts[u] -= counts[u - n - i];
        }
        for u in i..counts.len() {
            counts[u] += counts[u - i];
        }
    }
    let total: i128 = counts.iter().sum();
    counts.iter().map(|&c| c as f64 / total as f64).collect()
}

/// Probability of at most `u` won pairs, by the normal approximation with its corrections for ties and for continuity
/// (Lehmann, "Nonparametrics", 1975, section 1.4).
fn normal_tail(u: f64, a: &[f64], b: &[f64]) -> f64 {
    let (m, n) = (a.len() as f64, b.len() as f64);
    let all = m + n;
    let ties: f64 = tie_lengths(a, b).iter().map(|t| t.powi(3) - t).sum();
    let variance = m * n / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 0.5;
    }
    let z = (m * n / 2.0 - u - 0.5).max(0.0) / variance.sqrt();
    0.5 * complementary_error(z / std::f64::consts::SQRT_2)
}

/// erfc(x) for x >= 0, within 1.5e-7 (Abramowitz and Stegun, formula 7.1.26).
fn complementary_error(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    poly.iter().fold(0.0, |sum, c| (sum + c) * t) * (-x * x).exp()
}

/// Probabilities of several tests, each raised so that the chance of even one false alarm among them stays what it is
/// for one (Holm, 1979).
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut floor = 0.0f64;
    for (rank, &i) in order.iter().enumerate() {
        floor = floor.max((p[i] * (p.len() - rank) as f64).min(1.0));
        adjusted[i] = floor;
    }
    adjusted
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
