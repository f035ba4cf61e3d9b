//! `bench --kernels`: every kernel in every format and shape that a model uses, by itself.
//!
//! The list is taken from the model's graph, once for a step of one token and once for a step of a whole chunk of a
//! prompt. Weights are the model's own. A kernel is run as the engine runs it, all workers on their shares with a
//! barrier after each call, and each call meets other memory than the last, so that one token reads its weights from
//! where a real step finds them.

mod attention;
mod cases;
pub mod device;
mod matmul;
mod report;
mod rows;

pub use cases::Shape;
pub use report::{KernelRow, Phase, write};

use super::machine::Machine;
use super::model::Model;
use super::probe::{Probe, Roof};
use super::progress::Progress;
use super::stats::Summary;
use super::values::Setting;
use super::work::Work;
use crate::error::{Error, Result};
use crate::ui::Ui;
use engine::backend::pool::{Lines, Pass, Piece, Pool};
use engine::file::ModelFile;
use engine::graph::{Builder, Graph};
use engine::kernels::Kernels;
use engine::source::Source;
use engine::spec::Spec;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A kernel in one shape, with its memory.
pub trait Case: Sync {
    /// What one call must read and compute.
    fn work(&self) -> Work;
    /// A worker's share of a call, to be run again and again. The argument counts the calls.
    fn share<'a>(&'a self, piece: Piece) -> Share<'a>;
    /// Root mean square of the difference between its result and the same in f64, over that of the latter.
    fn error(&self) -> f64;
}

/// What cases are made of.
pub struct Context<'a> {
    /// The model's graph.
    pub graph: &'a Graph,
    /// Its tensors.
    pub source: &'a dyn Source,
    /// The kernels.
    pub kernels: &'static Kernels,
    /// What the model would be loaded with.
    pub setting: Setting,
    /// Bytes that calls one after the other should spread over.
    pub spread: u64,
}

/// A batch of calls that is timed together lasts about this long.
const BATCH: Duration = Duration::from_millis(4);
/// So many batches are timed.
const BATCHES: usize = 15;
/// Positions that a generated token sees, unless a depth is asked for.
pub const DEPTH: usize = 512;

/// Measures all kernels of a model; the roof is that of the machine now.
///
/// # Errors
/// Anything that is wrong with the file, or a worker panicked.
pub fn run(model: &Model, setting: Setting, depth: usize, probe: &mut Probe, ui: Ui) -> Result<Vec<KernelRow>> {
    let file = ModelFile::open(&model.path)?;
    let gguf = file.parse()?;
    let source = file.source(&gguf);
    let spec = Spec::from_meta(gguf.meta())?;
    let graph = (spec.arch.build)(&spec, Builder::new(&spec, &source)?)?;
    engine::backend::cpu::CpuBackend::check(&graph)?;
    let isa = setting.isa;
    let kernels = Kernels::for_isa(isa).ok_or_else(|| Error::Usage(format!("this processor has no {isa}")))?;
    let spread = model.size.min(2 * Machine::this().cache.unwrap_or(64 << 20));
    let context = Context { graph: &graph, source: &source, kernels, setting, spread };
    let pool = Pool::new(setting.threads).map_err(engine::Error::Internal)?;
    let depth = if depth == 0 { DEPTH } else { depth };
    let phases = [Phase { tokens: 1, start: depth }, Phase { tokens: setting.chunk(), start: 0 }];
    let listed = phases.map(|phase| cases::list(&graph, phase, setting));
    let mut rows = vec![];
    let progress = Progress::new(ui, listed.iter().map(Vec::len).sum());
    for (phase, list) in phases.into_iter().zip(listed) {
        for (shape, calls) in list {
            progress.next(&format!("{} {}", phase.name(), shape.name()));
            let case = shape.build(&context, phase)?;
            let ns = time(&pool, &*case)?;
            rows.push(KernelRow {
                phase,
                shape,
                calls,
                ns,
                work: case.work(),
                error: case.error(),
                share: 0.0,
                roof: Roof::default(),
            });
        }
    }
    let roof = probe.roof()?;
    report::shares(&mut rows);
    rows.iter_mut().for_each(|row| row.roof = roof);
    Ok(rows)
}

/// Nanoseconds of one call: the summary of several batches.
fn time(pool: &Pool, case: &dyn Case) -> Result<Summary> {
    let (mut calls, mut turn) = (1, 0);
    // For all batches: what they write to would else be new memory each time, which the system clears page by page.
    let shares = shares(pool, case);
    loop {
        let taken = batch(pool, &shares, calls, turn)?;
        turn += calls;
        if taken >= BATCH || calls >= 1 << 20 {
            break;
        }
        // A batch that took half as long as wanted is doubled; one much too short is not trusted to scale.
        calls =
            (calls * 2).max((calls as f64 * (BATCH.as_secs_f64() / taken.as_secs_f64().max(1e-9)).min(8.0)) as usize);
    }
    let mut samples = vec![];
    for _ in 0..BATCHES {
        samples.push(batch(pool, &shares, calls, turn)?.as_nanos() as f64 / calls as f64);
        turn += calls;
    }
    Ok(Summary::of(&samples).expect("there are batches"))
}

/// What a worker's share of a case does in a call.
type Share<'a> = Box<dyn FnMut(usize) + Send + 'a>;

/// The shares of all workers.
fn shares<'a>(pool: &Pool, case: &'a dyn Case) -> Vec<Mutex<Share<'a>>> {
    let count = pool.workers();
    (0..count).map(|index| Mutex::new(case.share(Piece { index, count, worker: index }))).collect()
}

/// Calls of a case, a stage each.
struct Calls<'a, 'b> {
    first: usize,
    shares: &'b [Mutex<Share<'a>>],
}

impl Pass for Calls<'_, '_> {
    fn run(&self, stage: usize, piece: Piece) {
        (self.shares[piece.index].lock().expect("nobody panics with the lock"))(self.first + stage);
    }
}

/// The time of some calls, each waiting for the one before.
fn batch(pool: &Pool, shares: &[Mutex<Share>], calls: usize, first: usize) -> Result<Duration> {
    let pieces = vec![shares.len() as u16; calls];
    // All threads are awake when the time starts.
    pool.run(shares.len(), |_| ()).map_err(engine::Error::Internal)?;
    let start = Instant::now();
    pool.pass(&pieces, &Calls { first, shares }).map_err(engine::Error::Internal)?;
    Ok(start.elapsed())
}

/// Room for what one piece of work needs: as little as a `Vec` takes elsewhere.
///
/// # Panics
/// If there is none, as with a `Vec`.
pub fn room(bytes: usize) -> Lines {
    Lines::zeroed(bytes).unwrap_or_else(|e| panic!("{e}"))
}

/// Floats between -1 and 1 of no pattern, the same for a seed.
pub fn floats(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// Gathers the difference between results and what they should be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Difference {
    squares: f64,
    exact: f64,
}

impl Difference {
    /// Takes a result.
    pub fn take(&mut self, found: f32, exact: f64) {
        self.squares += (f64::from(found) - exact).powi(2);
        self.exact += exact.powi(2);
    }

    /// Root mean square of the difference over that of the exact values.
    pub fn relative(self) -> f64 {
        if self.exact > 0.0 { (self.squares / self.exact).sqrt() } else { self.squares.sqrt() }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
