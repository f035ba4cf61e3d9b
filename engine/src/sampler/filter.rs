//! The filters of the chain: each takes candidates and leaves fewer.
//!
//! Probabilities are those of the candidates that are left, at temperature 1, in f64. Selection is by partition: only
//! the part of the vocabulary that a filter keeps is ever sorted. Rows hold no NaN here; +inf is the limit of a logit
//! that grows, so tokens at +inf share all probability.

use std::cmp::Ordering;

/// A token that may still be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
    /// Its probability up to a factor common to all candidates; 0 until [`weigh`] ran.
    pub(super) weight: f64,
}

impl Candidate {
    fn new(id: u32, logit: f32) -> Candidate {
        Candidate { id, logit, weight: 0.0 }
    }

    /// Larger logit first, then lower id: a total order, since no logit is NaN.
    fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
        b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
    }
}

/// `logit - max`, which is 0 at the maximum even where both are infinite.
pub(super) fn below_max(logit: f32, max: f32) -> f64 {
    if logit == max { 0.0 } else { f64::from(logit) - f64::from(max) }
}

/// The largest logit; negative infinity for none.
pub(super) fn max_logit(candidates: &[Candidate]) -> f32 {
    candidates.iter().fold(f32::NEG_INFINITY, |max, c| if c.logit > max { c.logit } else { max })
}

/// Every token of the row that is not banned (at -inf), in order of id.
pub(super) fn all(row: &[f32], out: &mut Vec<Candidate>) {
    out.clear();
    let tokens = row.iter().zip(0u32..).filter(|(logit, _)| **logit > f32::NEG_INFINITY);
    out.extend(tokens.map(|(&logit, id)| Candidate::new(id, logit)));
}

/// Gives each candidate its weight, `exp(logit - max)`: once, since no later filter changes a ratio of weights.
pub(super) fn weigh(candidates: &mut [Candidate]) {
    let max = max_logit(candidates);
    for candidate in candidates {
        candidate.weight = libm::exp(below_max(candidate.logit, max));
    }
}

/// The `k` largest logits of the row that are not banned, best first.
///
/// One pass with a rising floor: a logit is stored only if it beats the k-th best of those stored before (an equal one
/// with a higher id loses the tie), and the store is cut back to k when it holds 2k, so the work is linear in the row.
pub(super) fn top_k(row: &[f32], k: usize, out: &mut Vec<Candidate>) {
    /// Logits compared with the floor at once, without a branch each; the compiler makes vectors of it.
    const STRIDE: usize = 64;
    out.clear();
    if k == 0 {
        return;
    }
    let full = k.saturating_mul(2).max(2 * STRIDE).min(row.len().max(k));
    let mut floor = f32::NEG_INFINITY;
    for (index, logits) in row.chunks(STRIDE).enumerate() {
        let beats = logits.iter().fold(false, |any, &logit| any | (logit > floor));
        if !beats {
            continue;
        }
        for (&logit, id) in logits.iter().zip((index * STRIDE) as u32..) {
            if logit > floor {
                out.push(Candidate::new(id, logit));
                if out.len() > full {
                    keep_best(out, k);
                    floor = out[k - 1].logit;
                }
            }
        }
    }
    keep_best(out, k);
    out.sort_unstable_by(Candidate::best_first);
}

/// The `k` best of some tokens and logits that are not banned, best first.
pub(super) fn of_pairs(pairs: &[(u32, f32)], k: usize, out: &mut Vec<Candidate>) {
    out.clear();
    let tokens = pairs.iter().filter(|(_, logit)| *logit > f32::NEG_INFINITY);
    out.extend(tokens.map(|&(id, logit)| Candidate::new(id, logit)));
    keep_best(out, k);
    out.sort_unstable_by(Candidate::best_first);
}

/// Leaves the `k` best; the k-th of them is last.
fn keep_best(candidates: &mut Vec<Candidate>, k: usize) {
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, Candidate::best_first);
        candidates.truncate(k);
    }
}

/// Nucleus sampling (Holtzman et al. 2020): the shortest run of most probable tokens whose probability reaches `p`.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32, min_keep: usize) {
    let total = candidates.iter().map(|c| c.weight).sum::<f64>();
    let goal = f64::from(p) * total;
    // n tokens below t weigh less than n t: at t = (1 - p) total / n all of them lie behind the goal, and need no sort.
    // Half of that leaves room for rounding.
    let least = 0.5 * (1.0 - f64::from(p)) * total / candidates.len() as f64;
    keep_if(candidates, min_keep, |c| c.weight >= least);
    let mut sum = 0.0;
    keep_prefix(candidates, min_keep, Candidate::best_first, |c| {
        sum += c.weight;
        sum >= goal
    });
}

/// Tokens at least `p` times as probable as the best: `logit >= max + ln p`.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, p: f32, min_keep: usize) {
    let max = max_logit(candidates);
    let least = libm::log(f64::from(p));
    if !keep_if(candidates, min_keep, |c| below_max(c.logit, max) >= least) {
        keep_best(candidates, min_keep);
    }
}

/// Keeps the candidates that pass if at least `min_keep` do; otherwise changes nothing and returns false.
fn keep_if(candidates: &mut Vec<Candidate>, min_keep: usize, passes: impl Fn(&Candidate) -> bool) -> bool {
    let enough = candidates.iter().filter(|c| passes(c)).count() >= min_keep;
    if enough {
        candidates.retain(passes);
    }
    enough
}

/// Locally typical sampling (Meister et al. 2023): tokens in order of how far their surprise `-ln p` lies from the
/// entropy, the shortest run whose probability exceeds `p`.
pub(super) fn typical(candidates: &mut Vec<Candidate>, p: f32, min_keep: usize) {
    let max = max_logit(candidates);
    let total = candidates.iter().map(|c| c.weight).sum::<f64>();
    let log_total = libm::log(total);
    // Entropy is -sum p ln p with ln p = below_max - log_total; a weight of 0 adds nothing.
    let possible = candidates.iter().filter(|c| c.weight > 0.0);
    let moment: f64 = possible.map(|c| c.weight * below_max(c.logit, max)).sum();
    let entropy = log_total - moment / total;
    let distance = |c: &Candidate| (log_total - below_max(c.logit, max) - entropy).abs();
    let order = |a: &Candidate, b: &Candidate| {
        distance(a).partial_cmp(&distance(b)).unwrap_or(Ordering::Equal).then_with(|| Candidate::best_first(a, b))
    };
    let mut sum = 0.0;
    keep_prefix(candidates, min_keep, order, |c| {
        sum += c.weight;
        sum > f64::from(p) * total
    });
}

/// Keeps the shortest run, in `order`, at whose end `reached` holds, but at least `min_keep`.
/// Sorts in growing pieces, since most runs are short and most vocabularies are not.
fn keep_prefix(
    candidates: &mut Vec<Candidate>,
    min_keep: usize,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
    mut reached: impl FnMut(&Candidate) -> bool,
) {
    let mut sorted = 0;
    let mut piece = 64;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let take = piece.min(rest.len());
        if take < rest.len() {
            rest.select_nth_unstable_by(take, &order);
        }
        rest[..take].sort_unstable_by(&order);
        let end = rest[..take].iter().enumerate().position(|(i, c)| reached(c) && sorted + i + 1 >= min_keep);
        if let Some(end) = end {
            candidates.truncate(sorted + end + 1);
            return;
        }
        sorted += take;
        piece *= 4;
    }
}
