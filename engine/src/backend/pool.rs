//! The workers, and the memory that they share: the only unsafe code of the engine.
//!
//! A forward pass is one [`Pool::run`]: every worker walks the same steps and meets the others at barriers. There
//! is no fork and join per operation (a small model has a few microseconds a step). A worker that waits spins
//! briefly, then sleeps, so that more threads than cores, or a neighbour that takes a core, cost little, and an
//! idle engine burns nothing.
//!
//! [`Arena`] hands out overlapping memory to several workers at once. Two rules make that sound, and both are kept
//! by the callers in this folder: between two barriers nobody reads what another worker writes ([`crate::plan`]
//! finds every such hazard), and what a worker claims for writing is its own share alone ([`Worker::share`] and
//! [`Worker::deals`] never give one piece to two workers). A checked arena records the claims and tests them.

use kernels::Columns;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, PoisonError};

/// Looks at the generation this often before a waiting worker yields its core.
const SPINS: u32 = 4_000;
/// Yields before a waiting worker sleeps.
const YIELDS: u32 = 64;

/// Where workers meet. Reusable; it breaks for good when a worker panics.
#[derive(Debug)]
struct Barrier {
    workers: usize,
    arrived: AtomicUsize,
    generation: AtomicU32,
    sleepers: AtomicUsize,
    broken: AtomicBool,
    lock: Mutex<()>,
    bell: Condvar,
}

impl Barrier {
    fn new(workers: usize) -> Barrier {
        Barrier {
            workers,
            arrived: AtomicUsize::new(0),
            generation: AtomicU32::new(0),
            sleepers: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            lock: Mutex::new(()),
            bell: Condvar::new(),
        }
    }

    /// False if a worker has panicked: leave at once.
    fn wait(&self) -> bool {
        if self.workers == 1 {
            return true;
        }
        let generation = self.generation.load(SeqCst);
        if self.arrived.fetch_add(1, SeqCst) + 1 == self.workers {
            self.arrived.store(0, SeqCst);
            self.open();
        } else {
            self.wait_for_change(generation);
        }
        !self.broken.load(SeqCst)
    }

    fn open(&self) {
        self.generation.fetch_add(1, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            // A sleeper looks at the generation while it holds the lock: taking it here means that it either saw
            // the new generation or is already waiting for the bell.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.bell.notify_all();
        }
    }

    fn wait_for_change(&self, generation: u32) {
        let changed = || self.generation.load(SeqCst) != generation;
        for _ in 0..SPINS {
            if changed() {
                return;
            }
            std::hint::spin_loop();
        }
        for _ in 0..YIELDS {
            if changed() {
                return;
            }
            std::thread::yield_now();
        }
        self.sleepers.fetch_add(1, SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !changed() {
            guard = self.bell.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        self.sleepers.fetch_sub(1, SeqCst);
    }

    fn break_for_good(&self) {
        self.broken.store(true, SeqCst);
        self.open();
    }
}

/// One worker of a pass.
#[derive(Clone, Copy)]
pub struct Worker<'a> {
    /// Its number, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    barrier: &'a Barrier,
}

impl Worker<'_> {
    /// Waits for the others. False if one of them panicked: leave at once.
    #[must_use]
    pub fn wait(&self) -> bool {
        self.barrier.wait()
    }

    /// This worker's run of `n` pieces: all workers' runs are disjoint, ascending and cover `0..n`.
    pub fn share(&self, n: usize) -> Range<usize> {
        n * self.index / self.count..n * (self.index + 1) / self.count
    }

    /// This worker's pieces of `n`, dealt out in turn, for pieces whose cost rises.
    pub fn deals(&self, n: usize) -> impl Iterator<Item = usize> + use<> {
        (self.index..n).step_by(self.count)
    }
}

/// The worker threads.
#[derive(Debug)]
pub struct Pool {
    #[cfg(not(target_family = "wasm"))]
    threads: rayon::ThreadPool,
    barrier: Barrier,
}

impl Pool {
    /// Starts `workers` threads (at least one).
    ///
    /// # Errors
    /// The operating system has no thread to give.
    #[cfg(not(target_family = "wasm"))]
    pub fn new(workers: usize) -> Result<Pool, String> {
        let workers = workers.max(1);
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(workers)
            .thread_name(|i| format!("worker-{i}"))
            .build()
            .map_err(|e| format!("cannot start {workers} threads: {e}"))?;
        Ok(Pool { threads, barrier: Barrier::new(workers) })
    }

    /// Where there are no threads, the caller is the one worker.
    #[cfg(target_family = "wasm")]
    pub fn new(_workers: usize) -> Result<Pool, String> {
        Ok(Pool { barrier: Barrier::new(1) })
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.barrier.workers
    }

    /// Runs `work` on every worker at once and waits for all.
    ///
    /// # Errors
    /// The message of a worker that panicked. The pool is of no use afterwards.
    pub fn run(&self, work: impl Fn(Worker) + Sync) -> Result<(), String> {
        if self.barrier.broken.load(SeqCst) {
            return Err("a worker panicked earlier".into());
        }
        let failure = Mutex::new(None);
        let one = |index: usize| {
            let worker = Worker { index, count: self.workers(), barrier: &self.barrier };
            if let Err(cause) = catch_unwind(AssertUnwindSafe(|| work(worker))) {
                let text = cause
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| cause.downcast_ref::<&str>().map(|s| s.to_string()));
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.unwrap_or_else(|| "panic".into()));
                self.barrier.break_for_good();
            }
        };
        #[cfg(not(target_family = "wasm"))]
        self.threads.broadcast(|ctx| one(ctx.index()));
        #[cfg(target_family = "wasm")]
        one(0);
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Bytes on a cache line of their own.
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zeroed memory that starts on a cache line.
#[derive(Clone)]
pub struct Lines(Vec<Line>);

impl Lines {
    /// Room for `bytes` bytes.
    pub fn zeroed(bytes: usize) -> Lines {
        Lines(bytemuck::allocation::zeroed_vec(bytes.div_ceil(64)))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// Memory that the workers of a pass share. See the module's documentation for the two rules.
pub struct Arena {
    start: *mut u8,
    bytes: usize,
    /// The owner of the memory behind `start`; not touched while the arena lives.
    _lines: Lines,
    claims: Option<Mutex<Vec<Claim>>>,
}

struct Claim {
    worker: usize,
    bytes: Range<usize>,
}

// SAFETY: all access goes through `read` and `claim`, whose callers keep the two rules of the module.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Zeroed memory. `checked` records every claim between barriers and panics where two workers meet.
    pub fn new(bytes: usize, checked: bool) -> Arena {
        let mut lines = Lines::zeroed(bytes);
        let all = lines.bytes_mut();
        let (start, bytes) = (all.as_mut_ptr(), all.len());
        Arena { start, bytes, _lines: lines, claims: checked.then(Mutex::default) }
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Shared read of a range that no worker writes before the next barrier.
    pub(super) fn read<T: bytemuck::AnyBitPattern>(&self, bytes: Range<usize>) -> &[T] {
        assert!(bytes.start <= bytes.end && bytes.end <= self.bytes, "arena read out of bounds");
        // SAFETY: the assert keeps the range within the allocation that `_lines` owns, which is initialised; rule
        // one of the module keeps writers away until the next barrier.
        let slice = unsafe { std::slice::from_raw_parts(self.start.add(bytes.start), bytes.len()) };
        bytemuck::cast_slice(slice)
    }

    /// Exclusive access to a range that is this worker's share until the next barrier.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn claim<T: bytemuck::Pod>(&self, worker: Worker, bytes: Range<usize>) -> &mut [T] {
        assert!(bytes.start <= bytes.end && bytes.end <= self.bytes, "arena claim out of bounds");
        self.check(worker, &bytes);
        // SAFETY: the assert keeps the range within the allocation that `_lines` owns; rules one and two of the
        // module keep every other worker out of it until the next barrier.
        let slice = unsafe { std::slice::from_raw_parts_mut(self.start.add(bytes.start), bytes.len()) };
        bytemuck::cast_slice_mut(slice)
    }

    /// Exclusive access to some rows of every column of a matrix `[n, stride]` that starts at byte `at`: those rows are
    /// this worker's share until the next barrier.
    pub(super) fn columns(
        &self,
        worker: Worker,
        at: usize,
        [n, stride]: [usize; 2],
        rows: Range<usize>,
    ) -> Columns<'_> {
        assert!(rows.start <= rows.end && rows.end <= stride, "rows {rows:?} of {stride}");
        assert!(at.is_multiple_of(4) && at + n * stride * 4 <= self.bytes, "arena claim out of bounds");
        if self.checked() {
            for first in (0..n).map(|column| at + column * stride * 4) {
                self.check(worker, &(first + rows.start * 4..first + rows.end * 4));
            }
        }
        // SAFETY: the asserts keep the matrix within the allocation that `_lines` owns, which is initialised and
        // aligned to 64; rules one and two of the module keep every other worker out of these rows.
        unsafe { Columns::from_raw(self.start.add(at).cast(), stride, rows, n) }
    }

    fn check(&self, worker: Worker, bytes: &Range<usize>) {
        let Some(claims) = &self.claims else { return };
        let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
        let meets =
            claims.iter().find(|c| c.worker != worker.index && c.bytes.start < bytes.end && bytes.start < c.bytes.end);
        assert!(
            meets.is_none(),
            "workers {} and {} claim the same bytes {bytes:?}",
            worker.index,
            meets.map_or(0, |c| c.worker)
        );
        claims.push(Claim { worker: worker.index, bytes: bytes.clone() });
    }

    /// Forgets the claims; called by one worker between two barriers where a step ends.
    pub(super) fn forget_claims(&self) {
        if let Some(claims) = &self.claims {
            claims.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Whether claims are recorded.
    pub(super) fn checked(&self) -> bool {
        self.claims.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_meet_at_every_barrier_even_when_there_are_more_than_cores() {
        let workers = 5;
        let pool = Pool::new(workers).unwrap();
        let steps: Vec<AtomicUsize> = (0..200).map(|_| AtomicUsize::new(0)).collect();
        pool.run(|w| {
            for s in &steps {
                s.fetch_add(1, SeqCst);
                assert!(w.wait());
                assert_eq!(s.load(SeqCst), workers);
            }
        })
        .unwrap();
    }

    #[test]
    fn a_panic_ends_the_pass_for_all_and_is_reported() {
        let pool = Pool::new(3).unwrap();
        let result = pool.run(|w| {
            if w.index == 1 {
                panic!("bad step");
            }
            while w.wait() {}
        });
        assert_eq!(result.unwrap_err(), "bad step");
        assert!(pool.run(|_| ()).is_err());
    }

    #[test]
    fn shares_cover_everything_once() {
        let barrier = Barrier::new(1);
        for count in 1..6 {
            for n in 0..40 {
                let workers = (0..count).map(|index| Worker { index, count, barrier: &barrier });
                let shared: Vec<_> = workers.clone().flat_map(|w| w.share(n)).collect();
                let mut dealt: Vec<_> = workers.flat_map(|w| w.deals(n)).collect();
                dealt.sort_unstable();
                assert_eq!(shared, (0..n).collect::<Vec<_>>());
                assert_eq!(dealt, shared);
            }
        }
    }

    #[test]
    fn a_checked_arena_finds_two_workers_on_the_same_bytes() {
        let barrier = Barrier::new(2);
        let arena = Arena::new(256, true);
        let w = |index| Worker { index, count: 2, barrier: &barrier };
        arena.claim::<u8>(w(0), 0..64);
        arena.claim::<u8>(w(1), 64..128);
        assert!(catch_unwind(AssertUnwindSafe(|| arena.claim::<u8>(w(1), 63..65).len())).is_err());
    }
}
