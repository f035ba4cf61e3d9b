//! The machine measured by small kernels of our own: its roof, and the anchor between runs.

use super::measure::{Anchor, Level};
use crate::error::{Error, Result};
use engine::Isa;
use engine::backend::pool::{Lines, Pool};
use engine::kernels::{Kernels, roof};
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What this machine does at most, all threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Roof {
    /// Bytes read from memory a second.
    pub read: f64,
    /// Multiplications and additions of 8-bit integers a second.
    pub int8: f64,
    /// Multiplications and additions of f32 a second.
    pub float: f64,
}

impl Roof {
    fn raise(&mut self, other: Roof) {
        let best = |a: &mut f64, b: f64| *a = a.max(b);
        best(&mut self.read, other.read);
        best(&mut self.int8, other.int8);
        best(&mut self.float, other.float);
    }
}

/// Memory that is read is at least this, and four times the largest cache: a shared cache may keep a part of it.
const LEAST_MEMORY: u64 = 512 << 20;
/// The anchor reads this part of the memory at a time, always the next.
const PARTS: usize = 4;
/// An anchor takes the best of so many tries: a moment's interruption is no drift.
const TRIES: usize = 3;
/// The roof is measured for so long, each of its three figures.
const ROOF_TIME: Duration = Duration::from_millis(600);
/// A measurement of arithmetic is made at least this long, so that starting the workers does not count.
const ARITHMETIC_TIME: Duration = Duration::from_micros(1500);

/// Workers, memory and kernels for both.
pub struct Probe {
    pool: Pool,
    kernels: &'static Kernels,
    memory: Lines,
    part: usize,
    rounds: [usize; 2],
    best: Roof,
}

/// The two peaks of arithmetic.
#[derive(Clone, Copy, PartialEq)]
enum Peak {
    Int8,
    Float,
}

impl Probe {
    /// Takes memory and starts `threads` workers. Takes at most a quarter of the memory that is free.
    ///
    /// # Errors
    /// The operating system has no thread to give, or this CPU lacks the instruction set.
    pub fn new(threads: usize, isa: Isa, cache: Option<u64>) -> Result<Probe> {
        let wanted = LEAST_MEMORY.max(4 * cache.unwrap_or(0));
        let allowed = crate::memory::available().map_or(u64::MAX, |free| free / 4);
        Probe::with_memory(threads, isa, wanted.min(allowed) as usize)
    }

    fn with_memory(threads: usize, isa: Isa, bytes: usize) -> Result<Probe> {
        let pool = Pool::new(threads).map_err(engine::Error::Internal)?;
        let kernels = Kernels::for_isa(isa).ok_or_else(|| Error::Usage(format!("this processor has no {isa}")))?;
        let mut memory = Lines::zeroed(bytes.max(1 << 20))?;
        touch(&pool, memory.bytes_mut())?;
        let mut probe = Probe { pool, kernels, memory, part: 0, rounds: [64; 2], best: Roof::default() };
        for peak in [Peak::Int8, Peak::Float] {
            while probe.shortest(peak)? < ARITHMETIC_TIME.as_secs_f64() {
                probe.rounds[peak as usize] *= 2;
            }
        }
        Ok(probe)
    }

    /// The best of several tries: an interruption would make a few rounds look like many.
    fn shortest(&mut self, peak: Peak) -> Result<f64> {
        (0..TRIES).try_fold(f64::INFINITY, |best, _| Ok(best.min(self.arithmetic(peak)?)))
    }

    /// Measures the roof again; gives the best of this and all measurements before, those of the anchor included.
    ///
    /// # Errors
    /// A worker panicked.
    pub fn roof(&mut self) -> Result<Roof> {
        type Once = fn(&mut Probe) -> Result<f64>;
        let once: [Once; 3] =
            [|p| p.read(0..p.memory.bytes().len()), |p| p.arithmetic(Peak::Int8), |p| p.arithmetic(Peak::Float)];
        for once in once {
            let start = Instant::now();
            while start.elapsed() < ROOF_TIME {
                once(self)?;
            }
        }
        Ok(self.best)
    }

    /// Reads a range of the memory; seconds.
    fn read(&mut self, range: std::ops::Range<usize>) -> Result<f64> {
        let (bytes, read) = (&self.memory.bytes()[range], self.kernels.roof.read);
        let seconds = timed(&self.pool, |share| {
            let lines = share(bytes.len() / 64);
            black_box(read(&bytes[lines.start * 64..lines.end * 64]));
        })?;
        self.best.raise(Roof { read: bytes.len() as f64 / seconds, ..Roof::default() });
        Ok(seconds)
    }

    /// Runs the rounds of a peak on every worker; seconds.
    fn arithmetic(&mut self, peak: Peak) -> Result<f64> {
        let (roof, rounds) = (&self.kernels.roof, self.rounds[peak as usize]);
        // Values that keep every sum small, hidden from the compiler.
        let codes: roof::Codes = black_box([[3; 64]; roof::STEPS]);
        let x = black_box([0x01ff_01ff; roof::STEPS]);
        let (w, y): (roof::Floats, _) = (black_box([[0.5; 16]; roof::STEPS]), black_box([1e-3; roof::STEPS]));
        let seconds = timed(&self.pool, |_| match peak {
            Peak::Int8 => {
                black_box((roof.dot)(&codes, &x, rounds));
            }
            Peak::Float => {
                black_box((roof.fma)(&w, &y, rounds));
            }
        })?;
        let rate = |ops: u64| (ops * self.pool.workers() as u64) as f64 / seconds;
        self.best.raise(match peak {
            Peak::Int8 => Roof { int8: rate(roof.dot_ops(rounds)), ..Roof::default() },
            Peak::Float => Roof { float: rate(roof.fma_ops(rounds)), ..Roof::default() },
        });
        Ok(seconds)
    }
}

impl Anchor for Probe {
    fn measure(&mut self) -> Result<Level> {
        let part = self.memory.bytes().len() / PARTS;
        let mut level = Level { memory: f64::INFINITY, arithmetic: self.shortest(Peak::Int8)? * 1e9 };
        for _ in 0..TRIES {
            let start = self.part * part;
            self.part = (self.part + 1) % PARTS;
            level.memory = level.memory.min(self.read(start..start + part)? * 1e9);
        }
        Ok(level)
    }
}

/// Seconds from the moment when all workers are ready until all are done. Each gets a function that tells its share of
/// a number of parts.
fn timed(pool: &Pool, work: impl Fn(&dyn Fn(usize) -> std::ops::Range<usize>) + Sync) -> Result<f64> {
    let (ready, start) = (AtomicUsize::new(0), Mutex::new(None));
    let end = Mutex::new(Instant::now());
    let ran = pool.run(pool.workers(), |piece| {
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < piece.count {
            std::thread::yield_now();
        }
        start.lock().expect("nobody panics with the lock").get_or_insert_with(Instant::now);
        work(&|parts| piece.share(parts));
        let mut end = end.lock().expect("nobody panics with the lock");
        *end = Instant::now().max(*end);
    });
    ran.map_err(engine::Error::Internal)?;
    let start = start.into_inner().expect("nobody panics with the lock");
    let end = end.into_inner().expect("nobody panics with the lock");
    Ok(start.map_or(0.0, |start| (end - start).as_secs_f64()).max(1e-9))
}

/// Writes to every page from the worker that will read it: memory that was never written is one page of zeros, and
/// on a machine of several nodes it lies near who wrote it first.
fn touch(pool: &Pool, bytes: &mut [u8]) -> Result<()> {
    let workers = pool.workers();
    let lines = bytes.len() / 64;
    let mut shares = vec![];
    let mut rest = bytes;
    for i in 0..workers {
        let share = lines * (i + 1) / workers - lines * i / workers;
        let (mine, others) = rest.split_at_mut(share * 64);
        shares.push(Mutex::new(mine));
        rest = others;
    }
    let ran = pool.run(workers, |piece| {
        let mut mine = shares[piece.index].lock().expect("nobody panics with the lock");
        mine.chunks_mut(8).enumerate().for_each(|(i, chunk)| chunk.fill(i as u8 | 1));
    });
    Ok(ran.map_err(engine::Error::Internal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roof_is_found_and_an_anchor_holds() {
        let mut probe = Probe::with_memory(2, Isa::best(), 4 << 20).unwrap();
        let roof = probe.best;
        assert!(roof.int8 > 0.0 && roof.float > 0.0);
        let level = probe.measure().unwrap();
        assert!(level.memory > 0.0 && level.arithmetic > 0.0);
        assert!(probe.best.read > 0.0 && probe.best.int8 >= roof.int8);
        assert!(probe.memory.bytes().iter().step_by(4096).all(|&b| b != 0));
    }
}
