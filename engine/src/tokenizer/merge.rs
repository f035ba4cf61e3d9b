//! The merge loop that byte-level BPE and SentencePiece share: a linked list of symbols and a queue of pairs.
//!
//! The pair of the lowest rank merges first, of two equal ones the left one, until no pair is left. Work is
//! O(n log n) for n symbols, whatever the text; nothing recurses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No symbol, no token, no rank.
pub(super) const NONE: u32 = u32::MAX;

/// A piece of the text that is being merged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Where it starts in the text, in bytes.
    pub(super) start: u32,
    /// Its bytes.
    pub(super) len: u32,
    /// Its token, or [`NONE`].
    pub(super) id: u32,
    prev: u32,
    next: u32,
    /// Rank of the pair with the next symbol, or [`NONE`]. An entry of the queue with another rank is outdated.
    rank: u32,
    /// The token which that pair becomes.
    merged: u32,
}

/// What two neighbours become, and how soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    /// Lower goes first. Below [`NONE`].
    pub(super) rank: u32,
    /// The token of the merged text.
    pub(super) id: u32,
}

/// The rules: which pairs merge.
pub(super) trait Pairs {
    /// The pair of two neighbouring symbols, if they merge. The same two always give the same.
    fn pair(&self, left: &Symbol, right: &Symbol) -> Option<Pair>;
}

/// The symbols of one text and the pairs still to look at. Reused from text to text.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    /// (rank, position) in one number, smallest first.
    queue: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Forgets the symbols of the last text.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
    }

    /// Appends a symbol: the next `len` bytes of the text, with its token or [`NONE`].
    pub(super) fn push(&mut self, len: u32, id: u32) {
        let i = self.symbols.len() as u32;
        let start = self.symbols.last_mut().map_or(0, |last| {
            last.next = i;
            last.start + last.len
        });
        let prev = i.checked_sub(1).unwrap_or(NONE);
        self.symbols.push(Symbol { start, len, id, prev, next: NONE, rank: NONE, merged: NONE });
    }

    /// Merges until nothing merges any more, and returns the symbols that are left, in order.
    pub(super) fn run(&mut self, pairs: &impl Pairs) -> impl Iterator<Item = &Symbol> {
        let mut queue = std::mem::take(&mut self.queue).into_vec();
        queue.clear();
        queue.extend((0..self.symbols.len()).filter_map(|at| self.propose(at, pairs)));
        self.queue = queue.into();
        while let Some(Reverse(entry)) = self.queue.pop() {
            let (rank, at) = ((entry >> 32) as u32, entry as u32 as usize);
            if self.symbols[at].rank == rank {
                self.merge(at, pairs);
            }
        }
        let symbols = &self.symbols;
        std::iter::successors(symbols.first(), |symbol| symbols.get(symbol.next as usize))
    }

    /// Notes the pair of a symbol and its successor; returns its entry for the queue.
    fn propose(&mut self, at: usize, pairs: &impl Pairs) -> Option<Reverse<u64>> {
        let left = self.symbols[at];
        let pair = self.symbols.get(left.next as usize).and_then(|right| pairs.pair(&left, right));
        let Pair { rank, id } = pair.unwrap_or(Pair { rank: NONE, id: NONE });
        self.symbols[at].rank = rank;
        self.symbols[at].merged = id;
        pair.map(|_| Reverse(u64::from(rank) << 32 | at as u64))
    }

    /// Merges a symbol with its successor and looks at the pairs that this makes.
    fn merge(&mut self, at: usize, pairs: &impl Pairs) {
        let next = self.symbols[at].next as usize;
        let right = self.symbols[next];
        self.symbols[next].rank = NONE;
        let left = &mut self.symbols[at];
        left.len += right.len;
        left.id = left.merged;
        left.next = right.next;
        let prev = left.prev as usize;
        if let Some(after) = self.symbols.get_mut(right.next as usize) {
            after.prev = at as u32;
        }
        let entry = self.propose(at, pairs);
        self.queue.extend(entry);
        if prev < self.symbols.len() {
            let entry = self.propose(prev, pairs);
            self.queue.extend(entry);
        }
    }
}
