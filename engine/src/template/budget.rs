//! What one rendering may cost, counted where it arises.
//!
//! Steps bound the time: a node of the tree is one step, and work on text or lists is one step for some bytes or
//! items. Bytes bound the memory: they count everything that is ever built, not what is alive, so that no bookkeeping
//! of lifetimes is needed and the most that can be alive is what is counted.

use std::cell::Cell;

use super::error::{Eval, Stop};

/// A bound: for any conversation, for each byte of the conversation, and at most.
type Bound = (u64, u64, u64);

/// A step takes 20 to 100 ns. Templates that look at all messages for each message need some 5 n^2 for n messages.
const STEPS: Bound = (3_000_000, 128, 30_000_000);
const BYTES: Bound = (24 << 20, 128, 1 << 30);
const OUTPUT: Bound = (1 << 20, 4, 1 << 28);

/// Deepest nesting of evaluations: expressions in expressions, blocks in blocks, macros in macros.
const DEPTH: u64 = 250;

/// Bytes of text, or items of a list, whose handling counts as a step.
const BYTES_A_STEP: u64 = 32;

/// Counts what a rendering costs.
#[derive(Debug)]
pub(super) struct Budget {
    steps: Counter,
    bytes: Counter,
    output: Counter,
    depth: Cell<u64>,
}

#[derive(Debug)]
struct Counter {
    what: &'static str,
    max: u64,
    left: Cell<u64>,
}

impl Counter {
    fn new(what: &'static str, (fixed, each, most): Bound, input: u64) -> Counter {
        let max = fixed.saturating_add(each.saturating_mul(input)).min(most);
        Counter { what, max, left: Cell::new(max) }
    }

    fn take(&self, n: u64) -> Eval<()> {
        match self.left.get().checked_sub(n) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                // Nothing may go on after this, whoever swallows the error.
                self.left.set(0);
                Err(Stop::Limit(self.what, self.max))
            }
        }
    }
}

impl Budget {
    /// The budget for a conversation of so many bytes.
    pub(super) fn new(input: u64) -> Budget {
        Budget {
            steps: Counter::new("steps", STEPS, input),
            bytes: Counter::new("bytes of values", BYTES, input),
            output: Counter::new("bytes of output", OUTPUT, input),
            depth: Cell::new(0),
        }
    }

    /// Counts one step.
    pub(super) fn step(&self) -> Eval<()> {
        self.steps.take(1)
    }

    /// Counts reading `n` bytes or items.
    pub(super) fn read(&self, n: usize) -> Eval<()> {
        self.steps.take(1 + n as u64 / BYTES_A_STEP)
    }

    /// Counts building `n` bytes, before they are built.
    pub(super) fn build(&self, n: usize) -> Eval<()> {
        self.read(n)?;
        self.bytes.take(n as u64)
    }

    /// Counts building a list of `n` items.
    pub(super) fn build_items(&self, n: usize) -> Eval<()> {
        self.build(n.saturating_mul(size_of::<super::value::Value>()))
    }

    /// Fails where `n` bytes are more than may still be built. They are counted when they are.
    pub(super) fn fits(&self, n: usize) -> Eval<()> {
        if n as u64 <= self.bytes.left.get() { Ok(()) } else { self.bytes.take(n as u64) }
    }

    /// As [`Budget::fits`] for a list of `n` items.
    pub(super) fn fits_items(&self, n: usize) -> Eval<()> {
        self.fits(n.saturating_mul(size_of::<super::value::Value>()))
    }

    /// Counts `n` bytes of the result.
    pub(super) fn output(&self, n: usize) -> Eval<()> {
        self.output.take(n as u64)
    }

    /// Goes one level deeper until the guard is dropped.
    pub(super) fn descend(&self) -> Eval<Level<'_>> {
        if self.depth.get() == DEPTH {
            return Err(Stop::Limit("nested evaluations", DEPTH));
        }
        self.depth.set(self.depth.get() + 1);
        Ok(Level(&self.depth))
    }
}

/// A level of nesting.
#[derive(Debug)]
pub(super) struct Level<'b>(&'b Cell<u64>);

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
