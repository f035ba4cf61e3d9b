//! With subjects and anchors whose times are made up.

use super::*;
use std::cell::{Cell, RefCell};

/// A machine whose speed is a function of how often it was asked: the factor on all times.
struct Machine<F: Fn(usize) -> f64> {
    factor: F,
    moment: Cell<usize>,
    /// Cases in the order they ran.
    order: RefCell<Vec<usize>>,
}

impl<F: Fn(usize) -> f64> Machine<F> {
    fn new(factor: F) -> Self {
        Machine { factor, moment: Cell::new(0), order: RefCell::default() }
    }

    fn next(&self) -> f64 {
        self.moment.set(self.moment.get() + 1);
        (self.factor)(self.moment.get() - 1)
    }
}

impl<F: Fn(usize) -> f64> Subject for &Machine<F> {
    fn run(&mut self, case: usize) -> Result<Sample> {
        self.order.borrow_mut().push(case);
        Ok(Sample { ns: ((case + 1) as f64 * 1000.0 * self.next()) as u64, ..Sample::default() })
    }
}

impl<F: Fn(usize) -> f64> Anchor for &Machine<F> {
    fn measure(&mut self) -> Result<Level> {
        let factor = self.next();
        Ok(Level { memory: 50.0 * factor, arithmetic: 20.0 })
    }
}

const POLICY: Policy = Policy { reps: 4, warmup: false, drift: 0.1, patience: 3 };

fn go<F: Fn(usize) -> f64>(machine: &Machine<F>, cases: usize, policy: &Policy) -> Vec<Vec<Run>> {
    measure(&mut &*machine, &mut &*machine, cases, policy, &mut |_| ()).unwrap()
}

#[test]
fn cases_take_turns_there_and_back() {
    let machine = Machine::new(|_| 1.0);
    let runs = go(&machine, 3, &POLICY);
    assert_eq!(machine.order.take(), [0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0]);
    for (case, runs) in runs.iter().enumerate() {
        assert_eq!(runs.len(), 4);
        assert!(runs.iter().all(|r| !r.drifted && r.sample.ns == (case as u64 + 1) * 1000));
    }
}

/// Moments alternate: anchor, run, anchor, run ... A slow spell of moments 4 to 8 covers three anchors (4, 6, 8), so
/// the runs 1 (half), 2, 3 and 4 (half) of eight.
#[test]
fn a_slow_spell_is_left_out_and_repeated() {
    let machine = Machine::new(|t| if (4..=8).contains(&t) { 2.0 } else { 1.0 });
    let runs = go(&machine, 2, &POLICY);
    let drifted: usize = runs.iter().flatten().filter(|r| r.drifted).count();
    assert_eq!(drifted, 4);
    for (case, runs) in runs.iter().enumerate() {
        let (good, all_drifted) = counted(runs);
        assert!(!all_drifted);
        assert_eq!(good.len(), 4);
        assert!(good.iter().all(|s| s.ns == (case as u64 + 1) * 1000), "{runs:?}");
    }
}

/// A machine that never rests: every case gives up at its bound, and what drifted is still kept apart.
#[test]
fn patience_ends() {
    let machine = Machine::new(|t| if t % 8 < 4 { 1.0 } else { 3.0 });
    let runs = go(&machine, 2, &POLICY);
    for runs in &runs {
        assert!(runs.len() <= 12);
        let (good, _) = counted(runs);
        assert!(good.len() <= runs.len());
    }
    // One run alone is its own usual; four that all differ leave the two in the middle, or none.
    let steep = Machine::new(|t| f64::from(1 << t.min(20)));
    let runs = go(&steep, 1, &Policy { reps: 1, patience: 1, ..POLICY });
    assert!(!runs[0][0].drifted);
    let runs = go(&Machine::new(|t| f64::from(1u32 << t.min(20))), 1, &Policy { reps: 2, patience: 1, ..POLICY });
    assert_eq!(counted(&runs[0]).0.len(), 2);
    assert!(counted(&runs[0]).1, "no run is near the median of two that are far apart");
}

#[test]
fn warmup_ends_when_it_is_stable_or_too_long() {
    let warmups = |factor: fn(usize) -> f64| {
        let machine = Machine::new(factor);
        go(&machine, 1, &Policy { reps: 1, warmup: true, ..POLICY });
        machine.order.take().len() - 1
    };
    assert_eq!(warmups(|_| 1.0), 2);
    assert_eq!(warmups(|t| if t == 0 { 2.0 } else { 1.0 }), 3);
    assert_eq!(warmups(|t| 1.0 + t as f64), MOST_WARMUPS);
    assert_eq!(warmups(|_| 2e7), 1, "ten seconds have gone by");
}

#[test]
fn whoever_watches_hears_of_every_run() {
    let machine = Machine::new(|_| 1.0);
    let mut news = vec![];
    let policy = Policy { reps: 2, warmup: true, ..POLICY };
    measure(&mut &machine, &mut &machine, 1, &policy, &mut |n| news.push(n)).unwrap();
    let run = |done| News::Run { case: 0, done, planned: 2 };
    assert_eq!(news, [News::Warmup { case: 0 }, run(0), run(1)]);
}
