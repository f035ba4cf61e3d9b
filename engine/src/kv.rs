//! Pages of the KV cache: who holds which, and which hold a prefix that others can share.
//!
//! This module counts; the data lives in the backend. A page holds [`PAGE`] consecutive positions of one sequence
//! in all layers. A page that has become full is registered under its tokens and the page before it, so a later
//! prompt that begins with the same tokens shares it: by the axiom its contents are the same bits that would be
//! computed again. Where a prompt goes on like the first tokens of a registered page, it gets a copy of that page and
//! goes on behind those tokens. Pages that nobody holds stay registered until their room is needed, least recently used
//! first.

use crate::batch::PageCopy;
use std::collections::BTreeMap;

/// Positions on a page.
pub const PAGE: usize = kernels::kv::PAGE;

/// Identity of a page's contents: its tokens after the contents of the page before it.
type Key = (u64, Box<[u32]>);

#[derive(Debug, Default)]
struct Page {
    holders: u32,
    /// Set where the page is registered: its key, its own identity and when it was last held.
    registered: Option<(Key, u64, u64)>,
}

/// The page allocator.
#[derive(Debug)]
pub struct KvCache {
    pages: Vec<Page>,
    free: Vec<u32>,
    /// In order: pages with the most tokens in common lie side by side.
    by_key: BTreeMap<Key, u32>,
    /// Registered pages that nobody holds, by when they were last held.
    idle: BTreeMap<u64, u32>,
    clock: u64,
    next_identity: u64,
}

/// One sequence's pages.
#[derive(Debug, Default)]
pub struct Sequence {
    pages: Vec<u32>,
    len: usize,
    /// Tokens on the last, unfinished page.
    tail: Vec<u32>,
    /// Identity of the last full page.
    parent: u64,
}

impl Sequence {
    /// The page table.
    pub fn pages(&self) -> &[u32] {
        &self.pages
    }

    /// Positions in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// What the page that is being filled holds or will hold, if `tokens` reach to its end: the contents before it, and
    /// its own. Two sequences with the same answer compute the same page.
    pub fn unfinished<'t>(&self, tokens: &'t [u32]) -> Option<(u64, &'t [u32])> {
        let start = self.len / PAGE * PAGE;
        Some((self.parent, tokens.get(start..start + PAGE)?))
    }

    /// Whether nothing is cached yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl KvCache {
    /// A cache of `n_pages` pages.
    pub fn new(n_pages: usize) -> KvCache {
        KvCache {
            pages: (0..n_pages).map(|_| Page::default()).collect(),
            free: (0..n_pages as u32).rev().collect(),
            by_key: BTreeMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
            // Identities below this are the callers' scopes.
            next_identity: 1 << 32,
        }
    }

    /// A root that no other sequences have.
    pub fn new_root(&mut self) -> u64 {
        self.next_identity += 1;
        self.next_identity - 1
    }

    /// Pages that can be had: free ones and idle ones.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages in all.
    pub fn capacity(&self) -> usize {
        self.pages.len()
    }

    /// Begins a sequence, sharing the longest registered prefix of `prompt` in whole pages, but never its last
    /// token: that one is always computed, for its logits. Nor does it share positions from `computed_from` on.
    /// Only sequences of one `root` share: a number below 2^32, or one of [`KvCache::new_root`].
    pub fn open(&mut self, prompt: &[u32], computed_from: usize, root: u64) -> Sequence {
        let mut seq = Sequence { parent: root, ..Sequence::default() };
        self.share(&mut seq, prompt, computed_from);
        seq
    }

    /// Goes on sharing where a sequence stands at the end of a page and the next ones have been registered meanwhile.
    /// Returns the number of pages; the rule is that of [`KvCache::open`].
    pub fn share(&mut self, seq: &mut Sequence, prompt: &[u32], computed_from: usize) -> usize {
        let before = seq.pages.len();
        let whole = prompt.len().saturating_sub(1).min(computed_from) / PAGE;
        if seq.pages.len() * PAGE != seq.len {
            return 0;
        }
        for tokens in prompt.chunks_exact(PAGE).take(whole).skip(before) {
            let Some(&page) = self.by_key.get(&(seq.parent, Box::from(tokens))) else { break };
            self.hold(page);
            if let Some((_, identity, _)) = &self.pages[page as usize].registered {
                seq.parent = *identity;
            }
            seq.pages.push(page);
            seq.len += PAGE;
        }
        seq.pages.len() - before
    }

    /// Goes on with a part of a page where no whole one is to be had: a sequence at the end of a page, whose prompt goes
    /// on like the first tokens of a registered page, gets a page of its own that is to be a copy of that one. Its
    /// positions behind those tokens mean nothing. None, and nothing changed, where there is nothing in common or no
    /// page; the rule is that of [`KvCache::open`].
    pub fn share_part(&mut self, seq: &mut Sequence, prompt: &[u32], computed_from: usize) -> Option<PageCopy> {
        let end = prompt.len().saturating_sub(1).min(computed_from).min(seq.len + PAGE);
        if seq.pages.len() * PAGE != seq.len || seq.len >= end || self.available() == 0 {
            return None;
        }
        let wanted = &prompt[seq.len..end];
        let key: Key = (seq.parent, Box::from(wanted));
        let neighbours = [self.by_key.range(..&key).next_back(), self.by_key.range(&key..).next()];
        let alike = |(parent, tokens): &Key| match *parent == seq.parent {
            true => tokens.iter().zip(wanted).take_while(|(a, b)| a == b).count(),
            false => 0,
        };
        let all = neighbours.into_iter().flatten().map(|(key, &page)| (alike(key), page));
        let (n, from) = all.max_by_key(|(n, _)| *n).filter(|(n, _)| *n > 0)?;
        let to = self.take_page();
        self.pages[to as usize].holders = 1;
        seq.pages.push(to);
        seq.tail.extend_from_slice(&wanted[..n]);
        seq.len += n;
        Some(PageCopy { from, to })
    }

    fn hold(&mut self, page: u32) {
        let p = &mut self.pages[page as usize];
        if p.holders == 0
            && let Some((_, _, since)) = p.registered
        {
            self.idle.remove(&since);
        }
        p.holders += 1;
    }

    /// Makes room for `n` more tokens. False, and nothing changed, if there are not enough pages.
    #[must_use]
    pub fn reserve(&mut self, seq: &mut Sequence, n: usize) -> bool {
        let need = (seq.len + n).div_ceil(PAGE).saturating_sub(seq.pages.len());
        if need > self.available() {
            return false;
        }
        for _ in 0..need {
            let page = self.take_page();
            self.pages[page as usize].holders = 1;
            seq.pages.push(page);
        }
        true
    }

    /// A free page, or the one that has been idle longest, forgotten.
    fn take_page(&mut self) -> u32 {
        if let Some(page) = self.free.pop() {
            return page;
        }
        let (_, page) = self.idle.pop_first().expect("`reserve` has counted the available pages");
        if let Some((key, _, _)) = self.pages[page as usize].registered.take() {
            self.by_key.remove(&key);
        }
        page
    }

    /// Records that `tokens` are now in the cache, and registers the pages that became full.
    pub fn commit(&mut self, seq: &mut Sequence, tokens: &[u32]) {
        for &t in tokens {
            seq.tail.push(t);
            seq.len += 1;
            if seq.tail.len() == PAGE {
                let key: Key = (seq.parent, Box::from(&seq.tail[..]));
                seq.tail.clear();
                let page = seq.pages[seq.len / PAGE - 1];
                seq.parent = self.register(key, page);
            }
        }
    }

    /// Registers a full page; where another page has the same contents already, that one stays the shared one.
    fn register(&mut self, key: Key, page: u32) -> u64 {
        if let Some(&other) = self.by_key.get(&key)
            && let Some((_, identity, _)) = &self.pages[other as usize].registered
        {
            return *identity;
        }
        let identity = self.next_identity;
        self.next_identity += 1;
        self.by_key.insert(key.clone(), page);
        self.pages[page as usize].registered = Some((key, identity, 0));
        identity
    }

    /// Ends a sequence. Its registered pages stay for others, the last ones first to go.
    pub fn close(&mut self, seq: Sequence) {
        for &page in seq.pages.iter().rev() {
            let p = &mut self.pages[page as usize];
            p.holders -= 1;
            if p.holders > 0 {
                continue;
            }
            match &mut p.registered {
                Some((_, _, since)) => {
                    self.clock += 1;
                    *since = self.clock;
                    self.idle.insert(self.clock, page);
                }
                None => self.free.push(page),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(kv: &mut KvCache, seq: &mut Sequence, tokens: &[u32]) {
        assert!(kv.reserve(seq, tokens.len()));
        kv.commit(seq, tokens);
    }

    #[test]
    fn a_prefix_is_shared_in_whole_pages_and_never_its_last_token() {
        let mut kv = KvCache::new(8);
        let prompt: Vec<u32> = (0..2 * PAGE as u32).collect();
        let mut a = kv.open(&prompt, usize::MAX, 0);
        assert_eq!(a.len(), 0);
        fill(&mut kv, &mut a, &prompt);
        let b = kv.open(&prompt, usize::MAX, 0);
        assert_eq!(b.len(), PAGE, "the second page holds the last token");
        assert_eq!(b.pages(), &a.pages()[..1]);
        let longer: Vec<u32> = (0..2 * PAGE as u32 + 1).collect();
        let c = kv.open(&longer, usize::MAX, 0);
        assert_eq!(c.pages(), a.pages());
        assert!(kv.open(&longer, usize::MAX, 1).is_empty(), "another scope shares nothing");
        for s in [a, b, c] {
            kv.close(s);
        }
        assert_eq!(kv.available(), kv.capacity());
    }

    #[test]
    fn idle_pages_go_least_recently_used_and_deepest_first() {
        let mut kv = KvCache::new(3);
        let old: Vec<u32> = (0..2 * PAGE as u32).collect();
        let mut a = kv.open(&old, usize::MAX, 0);
        fill(&mut kv, &mut a, &old);
        kv.close(a);
        let mut b = kv.open(&[7; 5], usize::MAX, 0);
        fill(&mut kv, &mut b, &[7; 5]);
        assert!(kv.reserve(&mut b, PAGE), "takes the deeper page of the old prefix");
        let again: Vec<u32> = (0..3 * PAGE as u32).collect();
        let mut c = kv.open(&again, usize::MAX, 0);
        assert_eq!(c.len(), PAGE, "the first page of the old prefix is still there");
        assert!(!kv.reserve(&mut c, 2 * PAGE), "all pages are held");
        kv.close(b);
        kv.close(c);
        assert_eq!(kv.available(), 3);
    }

    #[test]
    fn a_page_that_another_has_finished_meanwhile_is_shared_from_then_on() {
        let mut kv = KvCache::new(6);
        let prompt: Vec<u32> = (0..2 * PAGE as u32 + 1).collect();
        let (mut a, mut b) = (kv.open(&prompt, usize::MAX, 0), kv.open(&prompt, usize::MAX, 0));
        assert_eq!(a.unfinished(&prompt), b.unfinished(&prompt), "both would compute the same page");
        fill(&mut kv, &mut a, &prompt);
        assert_eq!(kv.share(&mut b, &prompt, usize::MAX), 2);
        assert_eq!((b.len(), &b.pages()[..2]), (2 * PAGE, &a.pages()[..2]));
        assert_eq!(b.unfinished(&prompt), None, "one token fills no page");
        let mut c = kv.open(&prompt[..PAGE], usize::MAX, 0);
        fill(&mut kv, &mut c, &prompt[..1]);
        assert_eq!(kv.share(&mut c, &prompt, usize::MAX), 0, "in the middle of a page there is nothing to share");
        for s in [a, b, c] {
            kv.close(s);
        }
        assert_eq!(kv.available(), 6);
    }

    #[test]
    fn a_prompt_that_goes_on_like_a_page_gets_a_copy_of_it() {
        let mut kv = KvCache::new(4);
        let n = PAGE as u32;
        let first: Vec<u32> = (0..2 * n).collect();
        let mut a = kv.open(&first, usize::MAX, 0);
        fill(&mut kv, &mut a, &first);
        // The first page, and five tokens of the second.
        let prompt: Vec<u32> = (0..n + 5).chain([900, 901]).collect();
        let mut b = kv.open(&prompt, usize::MAX, 0);
        assert_eq!(b.len(), PAGE);
        let copy = kv.share_part(&mut b, &prompt, usize::MAX).expect("five tokens in common");
        assert_eq!((copy.from, copy.to, b.len()), (a.pages()[1], b.pages()[1], PAGE + 5));
        assert_eq!(kv.share_part(&mut b, &prompt, usize::MAX), None, "only at the end of a page");
        kv.commit(&mut b, &prompt[PAGE + 5..]);
        fill(&mut kv, &mut b, &(0..n - 7).collect::<Vec<u32>>());
        assert_eq!(kv.open(&[&prompt[..], &(0..n).collect::<Vec<u32>>()].concat(), usize::MAX, 0).len(), 2 * PAGE);
        kv.close(a);
        kv.close(b);
        // Never the last token, nor what is to be computed, nor of another scope.
        let parts = [(&first[..8], usize::MAX, 0), (&first[..20], 7, 0), (&first[..8], usize::MAX, 1), (&[7, 8], 9, 0)];
        for ((prompt, from, root), expected) in parts.into_iter().zip([7, 7, 0, 0]) {
            let mut seq = kv.open(prompt, from, root);
            assert_eq!(kv.share_part(&mut seq, prompt, from).is_some(), expected > 0);
            assert_eq!(seq.len(), expected);
            kv.close(seq);
        }
    }

    #[test]
    fn a_part_of_the_page_that_has_to_go_is_still_shared() {
        let mut kv = KvCache::new(1);
        let tokens: Vec<u32> = (0..PAGE as u32).collect();
        let mut a = kv.open(&tokens, usize::MAX, 0);
        fill(&mut kv, &mut a, &tokens);
        assert_eq!(kv.share_part(&mut Sequence::default(), &tokens, usize::MAX), None, "the only page is held");
        kv.close(a);
        let mut b = kv.open(&tokens, usize::MAX, 0);
        let copy = kv.share_part(&mut b, &tokens, usize::MAX).expect("all but the last");
        assert_eq!((copy.from, copy.to, b.len()), (0, 0, PAGE - 1), "its room is the page itself");
        kv.close(b);
        assert_eq!(kv.available(), 1);
    }

    #[test]
    fn equal_contents_computed_twice_are_registered_once() {
        let mut kv = KvCache::new(4);
        let prompt: Vec<u32> = (0..PAGE as u32 + 1).collect();
        let (mut a, mut b) = (kv.open(&prompt, usize::MAX, 0), kv.open(&prompt, usize::MAX, 0));
        fill(&mut kv, &mut a, &prompt);
        fill(&mut kv, &mut b, &prompt);
        let c = kv.open(&prompt, usize::MAX, 0);
        assert_eq!(c.pages()[0], a.pages()[0]);
        for s in [b, a, c] {
            kv.close(s);
        }
        assert_eq!(kv.available(), 4);
    }
}
