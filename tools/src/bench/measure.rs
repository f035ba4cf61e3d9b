//! The order of measuring: what runs when, what is repeated, what is left out. Knows neither models nor clocks: times
//! come from a [`Subject`] and an [`Anchor`].
//!
//! Cases take turns, forwards in one round and backwards in the next, so that a machine that slowly changes its speed
//! changes it for all of them. Between two runs an anchor, a small fixed piece of work, is timed. Where it took longer
//! or shorter than it usually does, it was another machine that ran: such a run is marked as drifted and repeated, and
//! never averaged with the others. A GPU's anchor also raises the clock of one that was idle, whether by loading, hashing
//! or a pause, so that every run meets it high.

use crate::error::Result;
use crate::store::Digest;

pub use engine::backend::Level;

/// What can be timed: numbered cases.
pub trait Subject {
    /// Runs a case once. Whatever must be ready for it is made ready before its time starts.
    ///
    /// # Errors
    /// The run failed; nothing else is measured.
    fn run(&mut self, case: usize) -> Result<Sample>;
}

/// A small fixed piece of work that shows the speed of the machine.
pub trait Anchor {
    /// Does the work.
    ///
    /// # Errors
    /// It cannot be done.
    fn measure(&mut self) -> Result<Level>;
}

impl Anchor for engine::backend::Anchor {
    fn measure(&mut self) -> Result<Level> {
        Ok(self()?)
    }
}

/// One timed run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Nanoseconds in all.
    pub ns: u64,
    /// Nanoseconds until the logits of the prompt's last token were there; none without a prompt.
    pub first: Option<u64>,
    /// Nanoseconds of each generated token.
    pub steps: Vec<u64>,
    /// Identity of the last logits.
    pub hash: Option<Digest>,
}

/// A run and the machine that it met.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was timed.
    pub sample: Sample,
    /// The anchor's mean before and after.
    pub level: Level,
    /// Whether the machine was another one than usual.
    pub drifted: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Good runs wanted of each case.
    pub reps: usize,
    /// Runs of each case before any is kept: none, or until they are stable.
    pub warmup: bool,
    /// How far an anchor may be from the usual, as a fraction.
    pub drift: f64,
    /// Runs that may be spent on a case, those that drifted included, as a multiple of `reps`.
    pub patience: usize,
}

/// Warm-up ends when two runs in a row differ by no more than this.
const STABLE: f64 = 0.03;
/// Or after so many of them.
const MOST_WARMUPS: usize = 6;
/// Or when they have taken so many nanoseconds in all.
const LONGEST_WARMUP: u64 = 10_000_000_000;

/// What is going on, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A case warms up.
    Warmup {
        /// Which.
        case: usize,
    },
    /// A run is about to start.
    Run {
        /// Of this case.
        case: usize,
        /// Runs that have been done, of all cases.
        done: usize,
        /// Runs that are planned by now, of all cases.
        planned: usize,
    },
}

/// Measures cases `0..cases`; gives the runs of each, in order.
///
/// # Errors
/// A run or an anchor failed.
pub fn measure(
    subject: &mut dyn Subject,
    anchor: &mut dyn Anchor,
    cases: usize,
    policy: &Policy,
    watch: &mut dyn FnMut(News),
) -> Result<Vec<Vec<Run>>> {
    if policy.warmup {
        for case in 0..cases {
            watch(News::Warmup { case });
            warm_up(subject, case)?;
        }
    }
    let mut runs: Vec<Vec<Run>> = vec![vec![]; cases];
    let mut before = anchor.measure()?;
    let most = policy.reps * policy.patience.max(1);
    for round in 0.. {
        let mut turn: Vec<usize> = (0..cases).filter(|&c| wants_more(&runs[c], policy.reps, most)).collect();
        if turn.is_empty() {
            break;
        }
        if round % 2 == 1 {
            turn.reverse();
        }
        let done: usize = runs.iter().map(Vec::len).sum();
        for (i, &case) in turn.iter().enumerate() {
            let planned = done.max(policy.reps * cases).max(done + turn.len());
            watch(News::Run { case, done: done + i, planned });
            let sample = subject.run(case)?;
            let after = anchor.measure()?;
            let level = Level {
                memory: (before.memory + after.memory) / 2.0,
                arithmetic: (before.arithmetic + after.arithmetic) / 2.0,
            };
            runs[case].push(Run { sample, level, drifted: false });
            before = after;
        }
        mark(&mut runs, policy.drift);
    }
    Ok(runs)
}

fn wants_more(runs: &[Run], reps: usize, most: usize) -> bool {
    runs.len() < most && runs.iter().filter(|r| !r.drifted).count() < reps
}

fn warm_up(subject: &mut dyn Subject, case: usize) -> Result<()> {
    let (mut last, mut spent) = (0u64, 0u64);
    for _ in 0..MOST_WARMUPS {
        let ns = subject.run(case)?.ns;
        spent += ns;
        let stable = ns.abs_diff(last) as f64 <= STABLE * ns as f64;
        if stable || spent >= LONGEST_WARMUP {
            break;
        }
        last = ns;
    }
    Ok(())
}

/// Marks the runs whose anchor is far from the usual one, which is the median over all runs so far: what most of the
/// runs met is the machine that is measured.
fn mark(runs: &mut [Vec<Run>], drift: f64) {
    let usual = |of: fn(&Level) -> f64| {
        let all: Vec<f64> = runs.iter().flatten().map(|r| of(&r.level)).collect();
        super::stats::quantile(&super::stats::sorted(&all), 0.5)
    };
    let (memory, arithmetic) = (usual(|l| l.memory), usual(|l| l.arithmetic));
    let far = |found: f64, usual: f64| (found / usual - 1.0).abs() > drift;
    for run in runs.iter_mut().flatten() {
        run.drifted = far(run.level.memory, memory) || far(run.level.arithmetic, arithmetic);
    }
}

/// The runs of a case that count: those that did not drift, or, where all did, all of them, and then `true`: such
/// a case has no result that can be trusted.
pub fn counted(runs: &[Run]) -> (Vec<&Sample>, bool) {
    let good: Vec<&Sample> = runs.iter().filter(|r| !r.drifted).map(|r| &r.sample).collect();
    match good.is_empty() {
        true => (runs.iter().map(|r| &r.sample).collect(), true),
        false => (good, false),
    }
}

#[cfg(test)]
#[path = "measure_tests.rs"]
mod tests;
