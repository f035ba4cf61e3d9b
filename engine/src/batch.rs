//! What one step computes: arrays of tokens of many sequences, and whose logits are wanted.
//!
//! Prefill, decode and continuous batching differ only in how many tokens each sequence brings. The arrays are
//! made once with room for the largest batch and refilled for every step.

use crate::kv::PAGE;
use crate::sampler::Wants;
use std::ops::Range;

/// Consecutive tokens of one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its tokens in the batch.
    pub tokens: Range<usize>,
    /// Position of the first of them in the sequence.
    pub start: usize,
    /// The sequence's page table, in [`Batch::pages`].
    pub pages: Range<usize>,
}

/// Tokens of a segment that fall on one page of the KV cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Tokens in the batch.
    pub tokens: Range<usize>,
    /// The page.
    pub page: u32,
    /// Place of the first token on the page.
    pub slot: usize,
}

/// Contents that two pages are to have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCopy {
    /// The page that has them.
    pub from: u32,
    /// The page that gets them.
    pub to: u32,
}

/// One step's work.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
    runs: Vec<Run>,
    pages: Vec<u32>,
    outputs: Vec<u32>,
    /// Where each token's page table begins in `pages`.
    tables: Vec<u32>,
    copies: Vec<PageCopy>,
    /// Strengths of the adapters, those of a token after the other's.
    strengths: Vec<f32>,
    /// Outputs of which only the largest logit is wanted, and of which the largest few are enough.
    best: usize,
    few: usize,
}

impl Batch {
    /// An empty batch with room for `tokens` tokens and `pages` entries of page tables.
    pub fn with_capacity(tokens: usize, pages: usize) -> Batch {
        Batch {
            tokens: Vec::with_capacity(tokens),
            positions: Vec::with_capacity(tokens),
            segments: Vec::with_capacity(tokens),
            runs: Vec::with_capacity(tokens),
            pages: Vec::with_capacity(pages),
            outputs: Vec::with_capacity(tokens),
            tables: Vec::with_capacity(tokens),
            copies: Vec::new(),
            strengths: Vec::new(),
            best: 0,
            few: 0,
        }
    }

    /// Empties it, keeping its room.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.segments.clear();
        self.runs.clear();
        self.pages.clear();
        self.outputs.clear();
        self.tables.clear();
        self.copies.clear();
        self.strengths.clear();
        (self.best, self.few) = (0, 0);
    }

    /// Adds the next tokens of a sequence, which has `start` tokens in the cache and owns `pages`, enough for all.
    /// `wanted` are the tokens (counted from the first of these) whose logits are wanted.
    pub fn push(&mut self, tokens: &[u32], start: usize, pages: &[u32], wanted: Range<usize>) {
        let first = self.tokens.len();
        debug_assert!((start + tokens.len()).div_ceil(PAGE) <= pages.len());
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((start..start + tokens.len()).map(|p| p as u32));
        self.outputs.extend(wanted.map(|i| (first + i) as u32));
        let table = self.pages.len()..self.pages.len() + pages.len();
        self.tables.extend(std::iter::repeat_n(table.start as u32, tokens.len()));
        self.pages.extend_from_slice(pages);
        let mut i = 0;
        while i < tokens.len() {
            let slot = (start + i) % PAGE;
            let n = (PAGE - slot).min(tokens.len() - i);
            self.runs.push(Run { tokens: first + i..first + i + n, page: pages[(start + i) / PAGE], slot });
            i += n;
        }
        self.segments.push(Segment { tokens: first..first + tokens.len(), start, pages: table });
    }

    /// Has a page copied before anything is computed, in the order of these calls.
    pub fn copy_page(&mut self, copy: PageCopy) {
        self.copies.push(copy);
    }

    /// Says how strong each adapter is for the sequence that was added last.
    pub fn adapt(&mut self, strengths: &[f32]) {
        let tokens = self.segments.last().map_or(0, |s| s.tokens.len());
        self.strengths.extend(std::iter::repeat_n(strengths, tokens).flatten());
    }

    /// Says what is wanted of the logits of `outputs` that were added last: whole rows where nothing is said.
    pub fn want(&mut self, wants: Wants, outputs: usize) {
        match wants {
            Wants::Row => {}
            Wants::Top => self.few += outputs,
            Wants::Best => {
                self.best += outputs;
                self.few += outputs;
            }
        }
    }

    /// What is wanted of every output at most.
    pub fn wants(&self) -> Wants {
        match self.outputs.len() {
            0 => Wants::Row,
            n if n == self.best => Wants::Best,
            n if n == self.few => Wants::Top,
            _ => Wants::Row,
        }
    }

    /// How strong an adapter is for a token; 0 where nothing was said.
    pub fn strength(&self, token: usize, adapter: usize) -> f32 {
        let each = self.strengths.len().checked_div(self.tokens.len()).unwrap_or(0);
        self.strengths.get(token * each + adapter).copied().unwrap_or(0.0)
    }

    /// Token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Positions in their sequences.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The segments, in order of their tokens.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segments cut at page borders.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Page tables, one after the other.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Where each token's page table begins in [`Batch::pages`].
    pub fn tables(&self) -> &[u32] {
        &self.tables
    }

    /// Pages to copy before anything is computed, one after the other.
    pub fn copies(&self) -> &[PageCopy] {
        &self.copies
    }

    /// Tokens whose logits are wanted, ascending.
    pub fn outputs(&self) -> &[u32] {
        &self.outputs
    }
}
