//! The workers, and the memory that they share. With that and one call in `gpu::cache` the unsafe code of the engine ends.
//!
//! A forward pass is one [`Pool::pass`]: a list of **stages**, each cut into **pieces**. Whoever is free takes the next
//! piece of the open stage; who ends the last piece opens the next stage. So a stage waits for its pieces, never for a
//! thread: more threads than cores, or a neighbour that takes a core, cost what they take and no more. (Barriers that
//! every thread had to reach, which this replaced, fell to a quarter of the speed of one thread beside one busy
//! process.) There is no fork and join per operation: a small model has a few microseconds a step. Who finds no piece
//! spins briefly, then sleeps: an idle engine burns nothing.
//!
//! [`Arena`] hands out overlapping memory to several workers at once. Two rules make that sound, and both are kept
//! by the callers in this folder: within a stage nobody reads what another piece writes ([`crate::plan`]
//! finds every such hazard), and what a piece claims for writing is its own share alone ([`Piece::share`] and
//! [`Piece::deals`] never give one part to two pieces). A checked arena records the claims and tests them.

use crate::{Error, Result};
use kernels::Columns;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Looks for a piece this often before a worker gives its core to whoever else wants it, between looks.
const SPINS: u32 = 200;
/// Looks for a piece so long before a worker sleeps: longer than a sampler takes between two passes.
const PATIENCE: Duration = Duration::from_micros(100);

/// One piece of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Its number in the stage, from 0.
    pub index: usize,
    /// How many pieces the stage has.
    pub count: usize,
    /// Who computes it: no two at the same time have the same number. Results never depend on it.
    pub worker: usize,
}

impl Piece {
    /// This piece's run of `n` parts: all pieces' runs are disjoint, ascending and cover `0..n`.
    pub fn share(&self, n: usize) -> Range<usize> {
        n * self.index / self.count..n * (self.index + 1) / self.count
    }

    /// This piece's parts of `n`, dealt out in turn, for parts whose cost rises.
    pub fn deals(&self, n: usize) -> impl Iterator<Item = usize> + use<> {
        (self.index..n).step_by(self.count)
    }
}

/// What the workers do in a pass.
pub trait Pass: Sync {
    /// Computes one piece of a stage. All pieces of the stages before are done.
    fn run(&self, stage: usize, piece: Piece);
    /// A stage is done and the next not yet open.
    fn stage_done(&self) {}
}

/// A pass of one stage.
struct Once<F>(F);

impl<F: Fn(Piece) + Sync> Pass for Once<F> {
    fn run(&self, _: usize, piece: Piece) {
        self.0(piece);
    }
}

/// The pass that is under way, its lifetimes forgotten.
#[derive(Clone, Copy)]
struct Job {
    /// Number of its first stage.
    first: u32,
    pieces: *const [u16],
    work: *const dyn Pass,
}

/// Which pieces are to be had: the number of the stage (it counts on from pass to pass), its pieces, the next of them.
#[derive(Clone, Copy)]
struct Ticket(u64);

impl Ticket {
    fn new(stage: u32, pieces: u16) -> Ticket {
        Ticket(u64::from(stage) << 32 | u64::from(pieces) << 16)
    }

    fn stage(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn pieces(self) -> usize {
        (self.0 >> 16 & 0xffff) as usize
    }

    fn next(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// Where someone sleeps until a condition holds.
#[derive(Default)]
struct Bell {
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    rung: Condvar,
}

impl Bell {
    /// Returns when `ready`: spins, then yields, then sleeps.
    fn wait_until(&self, ready: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if ready() {
                return;
            }
            std::hint::spin_loop();
        }
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if ready() {
                return;
            }
            std::thread::yield_now();
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.sleepers.fetch_add(1, SeqCst);
            if ready() {
                return;
            }
            guard = self.rung.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes who sleeps; to be called after the condition was made true.
    fn ring(&self) {
        if self.sleepers.load(SeqCst) > 0 {
            // A sleeper counts itself, then looks, while it holds the lock: taking it here means that it either saw
            // the new state or already waits.
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.sleepers.store(0, SeqCst);
            self.rung.notify_all();
        }
    }
}

/// What the workers share.
struct Shared {
    ticket: AtomicU64,
    /// Pieces of the open stage that are done.
    done: AtomicUsize,
    job: UnsafeCell<Option<Job>>,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
    closing: AtomicBool,
    /// Workers wait for a piece here.
    work: Bell,
    /// The caller waits for a piece or the end of its pass here.
    end: Bell,
}

// SAFETY: `job` is written only by the caller of a pass while no stage is open, and read only by whoever holds a piece
// of an open stage (see `Shared::take` and `Pool::pass`); everything else is atomic or locked.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn ticket(&self) -> Ticket {
        Ticket(self.ticket.load(SeqCst))
    }

    fn has_piece(&self) -> bool {
        let ticket = self.ticket();
        ticket.next() < ticket.pieces()
    }

    /// The next piece of the open stage, if there is one left.
    fn take(&self) -> Option<Ticket> {
        // Looked at first, so that whoever waits does not write: the count of the next piece cannot overflow.
        let taken = || Some(Ticket(self.ticket.fetch_add(1, SeqCst))).filter(|t| t.next() < t.pieces());
        self.has_piece().then(taken).flatten()
    }

    /// Computes a piece; after the last one opens the next stage.
    fn compute(&self, ticket: Ticket, worker: usize) {
        // SAFETY: a piece that is not done keeps its pass from ending, and the job from being written.
        let job = unsafe { *self.job.get() }.expect("an open stage has a job");
        let stage = ticket.stage().wrapping_sub(job.first) as usize;
        self.call(&job, stage, Piece { index: ticket.next(), count: ticket.pieces(), worker });
        if self.done.fetch_add(1, SeqCst) + 1 == ticket.pieces() {
            self.done.store(0, SeqCst);
            // SAFETY: as in `call`; this piece was the last of its stage, the next is not open.
            unsafe { &*job.work }.stage_done();
            self.open_from(&job, stage + 1, worker);
        }
    }

    fn call(&self, job: &Job, stage: usize, piece: Piece) {
        if self.failed.load(SeqCst) {
            return;
        }
        // SAFETY: `Pool::pass` borrows the work and returns only after the pass has ended.
        let work = unsafe { &*job.work };
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| work.run(stage, piece))) {
            let text = cause.downcast_ref::<String>().cloned();
            let text = text.or_else(|| cause.downcast_ref::<&str>().map(|s| s.to_string()));
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.unwrap_or_else(|| "panic".into()));
            self.failed.store(true, SeqCst);
        }
    }

    /// Opens the first stage from `stage` on that has pieces. One that has a single piece is computed here and now.
    fn open_from(&self, job: &Job, stage: usize, worker: usize) {
        // SAFETY: as in `call`; no stage is open, so the pass has not ended.
        let (pieces, work) = unsafe { (&*job.pieces, &*job.work) };
        for (stage, &n) in pieces.iter().enumerate().skip(stage) {
            match n {
                0 => {}
                1 => {
                    self.call(job, stage, Piece { index: 0, count: 1, worker });
                    work.stage_done();
                }
                _ => return self.open(job, stage, n),
            }
        }
        self.open(job, pieces.len(), 0);
    }

    fn open(&self, job: &Job, stage: usize, pieces: u16) {
        self.ticket.store(Ticket::new(job.first.wrapping_add(stage as u32), pieces).0, SeqCst);
        if pieces > 0 {
            self.work.ring();
        }
        self.end.ring();
    }

    /// What a worker does all its life.
    fn serve(&self, worker: usize) {
        while !self.closing.load(SeqCst) {
            match self.take() {
                Some(ticket) => self.compute(ticket, worker),
                None => self.work.wait_until(|| self.has_piece() || self.closing.load(SeqCst)),
            }
        }
    }
}

/// The worker threads. The caller of a pass is one of the workers.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// One pass at a time.
    turn: Mutex<()>,
}

impl Pool {
    /// Starts the threads of `workers` workers (at least one); where there are no threads, the caller is the only one.
    ///
    /// # Errors
    /// The operating system has no thread to give.
    pub fn new(workers: usize) -> Result<Pool, String> {
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(Ticket::new(0, 0).0),
            done: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            closing: AtomicBool::new(false),
            work: Bell::default(),
            end: Bell::default(),
        });
        let mut pool = Pool { shared, threads: vec![], turn: Mutex::default() };
        let workers = if cfg!(target_family = "wasm") { 1 } else { workers };
        for i in 1..workers {
            let shared = pool.shared.clone();
            let named = std::thread::Builder::new().name(format!("worker-{i}"));
            let thread = named.spawn(move || shared.serve(i));
            pool.threads.push(thread.map_err(|e| format!("cannot start {workers} threads: {e}"))?);
        }
        Ok(pool)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Computes stage after stage, `pieces` of each (none: the stage is passed over), and returns when all are done.
    ///
    /// # Errors
    /// The message of a piece that panicked; what came after it was left out.
    pub fn pass(&self, pieces: &[u16], work: &dyn Pass) -> Result<(), String> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        let first = shared.ticket().stage().wrapping_add(1);
        // SAFETY: only the lifetime changes; nobody uses the job after the loop below, which ends with its pass.
        let work = unsafe { std::mem::transmute::<&dyn Pass, &'static dyn Pass>(work) };
        let job = Job { first, pieces, work };
        // SAFETY: no stage is open and this thread has the turn, so nobody reads or writes the job.
        unsafe { *shared.job.get() = Some(job) };
        shared.failed.store(false, SeqCst);
        shared.open_from(&job, 0, 0);
        let end = first.wrapping_add(pieces.len() as u32);
        while shared.ticket().stage() != end {
            match shared.take() {
                Some(ticket) => shared.compute(ticket, 0),
                None => shared.end.wait_until(|| shared.ticket().stage() == end || shared.has_piece()),
            }
        }
        shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// Computes `pieces` pieces and returns when all are done.
    ///
    /// # Errors
    /// The message of a piece that panicked.
    pub fn run(&self, pieces: usize, work: impl Fn(Piece) + Sync) -> Result<(), String> {
        self.pass(&[u16::try_from(pieces).unwrap_or(u16::MAX / 2)], &Once(work))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        self.shared.work.ring();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of its pieces.
            let _ = thread.join();
        }
    }
}

/// Zeroed memory that starts on a cache line, in huge pages where the system has them: a pass reads all weights once,
/// and with pages of 4 KiB every one of them is a fault at the start and a miss of the TLB in each pass.
pub struct Lines(Memory);

#[cfg(not(target_family = "wasm"))]
type Memory = memmap2::MmapMut;
#[cfg(target_family = "wasm")]
type Memory = Vec<u8>;

impl Lines {
    /// Room for `bytes` bytes, in whole lines. No page is touched before its first use.
    ///
    /// # Errors
    /// The machine has no room for so much, or this process may not have it.
    pub fn zeroed(bytes: usize) -> Result<Lines> {
        let too_much = |reason: String| Error::Allocation { mebibytes: (bytes as u64).div_ceil(1 << 20), reason };
        let lines = bytes.max(1).checked_next_multiple_of(64).ok_or_else(|| too_much("more than addresses".into()))?;
        #[cfg(not(target_family = "wasm"))]
        let memory = {
            let memory = memmap2::MmapMut::map_anon(lines).map_err(|e| too_much(e.to_string()))?;
            // A hint: where it is not taken, the memory serves as well, only slower.
            #[cfg(target_os = "linux")]
            let _ = memory.advise(memmap2::Advice::HugePage);
            memory
        };
        #[cfg(target_family = "wasm")]
        let memory = {
            let mut memory = Vec::new();
            memory.try_reserve_exact(lines).map_err(|e| too_much(e.to_string()))?;
            memory.resize(lines, 0);
            memory
        };
        Ok(Lines(memory))
    }

    /// The same bytes in room of their own.
    ///
    /// # Errors
    /// As for [`Lines::zeroed`].
    pub fn copy(&self) -> Result<Lines> {
        let mut copy = Lines::zeroed(self.0.len())?;
        copy.0.copy_from_slice(&self.0);
        Ok(copy)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
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
    piece: usize,
    bytes: Range<usize>,
}

// SAFETY: all access goes through `read` and `claim`, whose callers keep the two rules of the module.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Zeroed memory. `checked` records every claim of a stage and panics where two pieces meet.
    ///
    /// # Errors
    /// As for [`Lines::zeroed`].
    pub fn new(bytes: usize, checked: bool) -> Result<Arena> {
        let mut lines = Lines::zeroed(bytes)?;
        let all = lines.bytes_mut();
        let (start, bytes) = (all.as_mut_ptr(), all.len());
        Ok(Arena { start, bytes, _lines: lines, claims: checked.then(Mutex::default) })
    }

    /// Bytes in all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Shared read of a range that no other piece of the stage writes.
    pub(super) fn read<T: bytemuck::AnyBitPattern>(&self, bytes: Range<usize>) -> &[T] {
        assert!(bytes.start <= bytes.end && bytes.end <= self.bytes, "arena read out of bounds");
        // SAFETY: the assert keeps the range within the allocation that `_lines` owns, which is initialised; rule
        // one of the module keeps writers away until the stage is done.
        let slice = unsafe { std::slice::from_raw_parts(self.start.add(bytes.start), bytes.len()) };
        bytemuck::cast_slice(slice)
    }

    /// Exclusive access to a range that is this piece's share of the stage.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn claim<T: bytemuck::Pod>(&self, piece: Piece, bytes: Range<usize>) -> &mut [T] {
        assert!(bytes.start <= bytes.end && bytes.end <= self.bytes, "arena claim out of bounds");
        self.check(piece, &bytes);
        // SAFETY: the assert keeps the range within the allocation that `_lines` owns; rules one and two of the
        // module keep every other piece out of it until the stage is done.
        let slice = unsafe { std::slice::from_raw_parts_mut(self.start.add(bytes.start), bytes.len()) };
        bytemuck::cast_slice_mut(slice)
    }

    /// Exclusive access to some rows of every column of a matrix `[n, stride]` that starts at byte `at`: those rows are
    /// this piece's share of the stage.
    pub(super) fn columns(&self, piece: Piece, at: usize, [n, stride]: [usize; 2], rows: Range<usize>) -> Columns<'_> {
        assert!(rows.start <= rows.end && rows.end <= stride, "rows {rows:?} of {stride}");
        assert!(at.is_multiple_of(4) && at + n * stride * 4 <= self.bytes, "arena claim out of bounds");
        if self.checked() {
            for first in (0..n).map(|column| at + column * stride * 4) {
                self.check(piece, &(first + rows.start * 4..first + rows.end * 4));
            }
        }
        // SAFETY: the asserts keep the matrix within the allocation that `_lines` owns, which is initialised and
        // aligned to 64; rules one and two of the module keep every other piece out of these rows.
        unsafe { Columns::from_raw(self.start.add(at).cast(), stride, rows, n) }
    }

    fn check(&self, piece: Piece, bytes: &Range<usize>) {
        let Some(claims) = &self.claims else { return };
        let mut claims = claims.lock().unwrap_or_else(PoisonError::into_inner);
        let meets =
            claims.iter().find(|c| c.piece != piece.index && c.bytes.start < bytes.end && bytes.start < c.bytes.end);
        assert!(
            meets.is_none(),
            "pieces {} and {} claim the same bytes {bytes:?}",
            piece.index,
            meets.map_or(0, |c| c.piece)
        );
        claims.push(Claim { piece: piece.index, bytes: bytes.clone() });
    }

    /// Forgets the claims; called between two stages.
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

    /// Counts the pieces of each stage, and finds stages that begin too early.
    struct Counting {
        wanted: Vec<u16>,
        found: Vec<AtomicUsize>,
    }

    impl Pass for Counting {
        fn run(&self, stage: usize, piece: Piece) {
            assert_eq!(piece.count, usize::from(self.wanted[stage]));
            for before in 0..stage {
                assert_eq!(self.found[before].load(SeqCst), usize::from(self.wanted[before]), "stage {before}");
            }
            self.found[stage].fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn stages_follow_each_other_even_with_more_workers_than_cores() {
        let pool = Pool::new(5).unwrap();
        for pass in 0..300 {
            let wanted: Vec<u16> = (0..pass % 40).map(|stage| (stage * 7 + pass) % 9).collect();
            let counting = Counting { found: wanted.iter().map(|_| AtomicUsize::new(0)).collect(), wanted };
            pool.pass(&counting.wanted, &counting).unwrap();
            let found: Vec<u16> = counting.found.iter().map(|n| n.load(SeqCst) as u16).collect();
            assert_eq!(found, counting.wanted);
        }
    }

    #[test]
    fn sleepers_are_woken() {
        let pool = Pool::new(3).unwrap();
        for _ in 0..5 {
            std::thread::sleep(20 * PATIENCE);
            // Each piece waits until all have begun, so all three workers must take part.
            let begun = AtomicUsize::new(0);
            pool.run(3, |_| {
                begun.fetch_add(1, SeqCst);
                while begun.load(SeqCst) < 3 {
                    std::thread::yield_now();
                }
            })
            .unwrap();
        }
    }

    #[test]
    fn a_panic_ends_the_pass_and_is_reported() {
        struct Bad(AtomicUsize);
        impl Pass for Bad {
            fn run(&self, stage: usize, piece: Piece) {
                if stage == 1 && piece.index == 1 {
                    panic!("bad step");
                }
                self.0.fetch_add(usize::from(stage == 2), SeqCst);
            }
        }
        let pool = Pool::new(3).unwrap();
        let bad = Bad(AtomicUsize::new(0));
        assert_eq!(pool.pass(&[2, 3, 2], &bad).unwrap_err(), "bad step");
        assert_eq!(bad.0.load(SeqCst), 0, "nothing runs after the failure");
        pool.run(4, |_| ()).expect("the pool goes on");
    }

    #[test]
    fn shares_cover_everything_once() {
        for count in 1..6 {
            for n in 0..40 {
                let pieces = (0..count).map(|index| Piece { index, count, worker: 0 });
                let shared: Vec<_> = pieces.clone().flat_map(|p| p.share(n)).collect();
                let mut dealt: Vec<_> = pieces.flat_map(|p| p.deals(n)).collect();
                dealt.sort_unstable();
                assert_eq!(shared, (0..n).collect::<Vec<_>>());
                assert_eq!(dealt, shared);
            }
        }
    }

    #[test]
    fn more_memory_than_there_is_is_an_error_with_the_number() {
        for bytes in [1 << 60, usize::MAX] {
            let error = Lines::zeroed(bytes).err().expect("no machine has that much").to_string();
            assert!(error.contains(&format!("{} MiB", bytes.div_ceil(1 << 20))), "{error}");
        }
    }

    #[test]
    fn a_checked_arena_finds_two_pieces_on_the_same_bytes() {
        let arena = Arena::new(256, true).unwrap();
        let piece = |index| Piece { index, count: 2, worker: 0 };
        arena.claim::<u8>(piece(0), 0..64);
        arena.claim::<u8>(piece(1), 64..128);
        assert!(catch_unwind(AssertUnwindSafe(|| arena.claim::<u8>(piece(1), 63..65).len())).is_err());
    }
}
