//! A model on the test bed: loaded, without tokenizer and sampler, and driven step by step.
//!
//! The token at a position is a fixed function of the position, so by the engine's axiom the cache holds the same
//! bits at a position whichever test computed it. A test at a depth needs no preparation once the cache was filled,
//! and the last logits are the same for every test that ends at the same position, whatever its batches and threads.

use super::machine;
use super::measure::{Sample, Subject};
use super::model::Model;
use super::probe::Roof;
use super::values::{Setting, Test};
use super::work::{self, Step, Work};
use crate::error::{Error, Result};
use crate::store::{Digest, Store};
use engine::backend::cpu::{CpuBackend, CpuOptions};
use engine::backend::{Anchor, Backend, Info, KernelTime, Replay};
use engine::batch::Batch;
use engine::file::ModelFile;
use engine::graph::{Builder, Graph};
use engine::kv::PAGE;
use engine::plan::{Limits, Plan};
use engine::spec::Spec;
use engine::{Blueprint, Device, Options};
use std::time::Instant;

/// A loaded model.
pub struct Bed {
    setting: Setting,
    backend: Box<dyn Backend>,
    graph: Graph,
    batch: Batch,
    pages: Vec<u32>,
    tokens: Vec<u32>,
    /// What loading took.
    pub cost: Cost,
}

/// What loading took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Nanoseconds from opening the file until the model is ready.
    pub load: u64,
    /// Most bytes of memory of a process that loads this model and computes with it.
    pub peak: Option<u64>,
}

/// Bytes that a model takes with a setting, without loading it.
///
/// # Errors
/// Anything that is wrong with the file.
pub fn footprint(model: &Model, setting: &Setting, positions: usize) -> Result<u64> {
    let file = ModelFile::open(&model.path)?;
    let gguf = file.parse()?;
    if setting.gpu.is_some() {
        return Ok(blueprint(&gguf, &file, setting, positions)?.memory().total());
    }
    let (spec, plan) = plan(&gguf, &file, setting, positions)?;
    let kv = spec.kv_bytes_per_token(setting.kv.bytes()) * positions;
    Ok(CpuBackend::weight_bytes(plan.graph()) + (kv + CpuBackend::activation_bytes(&plan, positions)) as u64)
}

fn plan(gguf: &gguf::Gguf, file: &ModelFile, setting: &Setting, positions: usize) -> Result<(Spec, Plan)> {
    let source = file.source(gguf);
    let spec = Spec::from_meta(gguf.meta())?;
    let graph = (spec.arch.build)(&spec, Builder::new(&spec, &source)?)?;
    CpuBackend::check(&graph)?;
    let limits = Limits { tokens: setting.chunk().min(positions), outputs: 1, precision: setting.precision };
    Ok((spec, Plan::compile(graph, limits, &CpuBackend::act_bytes)))
}

/// The model as it would be loaded on an adapter, or on both it and the processor, for sequences of up to `positions` tokens.
fn blueprint(gguf: &gguf::Gguf, file: &ModelFile, setting: &Setting, positions: usize) -> Result<Blueprint> {
    let options = Options {
        ctx: Some(positions),
        kv: setting.kv,
        precision: setting.precision,
        gpu_precision: setting.gpu_precision,
        variant: setting.variant,
        device: setting.gpu.map_or(Device::Cpu, Device::Index),
        gpu_layers: setting.layers,
        threads: Some(setting.threads),
        isa: Some(setting.isa),
        batch: setting.chunk(),
        checks: Store::checks_of_user(),
        ..Options::default()
    };
    Ok(Blueprint::new(gguf, &file.source(gguf), &options)?)
}

/// How the processor is set up.
fn cpu(setting: &Setting, positions: usize) -> CpuOptions {
    CpuOptions {
        threads: setting.threads,
        isa: setting.isa,
        kv: setting.kv,
        pages: positions / PAGE,
        ctx: positions,
        check_tensors: false,
        check_workers: false,
        probe: None,
        weights: None,
    }
}

/// A model on a device.
struct Loaded {
    backend: Box<dyn Backend>,
    graph: Graph,
    n_vocab: usize,
}

fn load(gguf: &gguf::Gguf, file: &ModelFile, setting: &Setting, positions: usize) -> Result<Loaded> {
    let source = file.source(gguf);
    if setting.gpu.is_some() {
        let blueprint = blueprint(gguf, file, setting, positions)?;
        let (graph, n_vocab) = (blueprint.graph().clone(), blueprint.spec().n_vocab);
        return Ok(Loaded { backend: blueprint.load(&source, &mut |_| ())?, graph, n_vocab });
    }
    let (spec, plan) = plan(gguf, file, setting, positions)?;
    let graph = plan.graph().clone();
    let backend = CpuBackend::load(plan, &source, &cpu(setting, positions), &mut |_, _| ())?;
    Ok(Loaded { backend: Box::new(backend), graph, n_vocab: spec.n_vocab })
}

impl Bed {
    /// Loads a model for sequences of up to `positions` tokens and fills its cache. `before` is the memory of the
    /// program when it had done nothing yet.
    ///
    /// # Errors
    /// Anything that is wrong with the file or the setting.
    pub fn load(model: &Model, setting: Setting, positions: usize, before: Option<u64>) -> Result<Bed> {
        let forgotten = machine::forget_peak();
        let held = machine::memory().map(|(now, _)| now);
        let positions = positions.next_multiple_of(PAGE);
        let start = Instant::now();
        let file = ModelFile::open(&model.path)?;
        let gguf = file.parse()?;
        let Loaded { backend, graph, n_vocab } = load(&gguf, &file, &setting, positions)?;
        file.check_unchanged()?;
        let load = start.elapsed().as_nanos() as u64;
        let mut bed = Bed {
            setting,
            backend,
            graph,
            batch: Batch::with_capacity(setting.chunk(), positions / PAGE),
            pages: (0..(positions / PAGE) as u32).collect(),
            tokens: (0..positions).map(|i| token(i, n_vocab)).collect(),
            cost: Cost { load, peak: None },
        };
        for from in (0..positions).step_by(setting.chunk()) {
            bed.step(from, (from + setting.chunk()).min(positions), false)?;
        }
        if let (true, Some(held), Some(before), Some((_, peak))) = (forgotten, held, before, machine::memory()) {
            bed.cost.peak = Some(peak.saturating_sub(held) + before);
        }
        Ok(bed)
    }

    /// Times a test.
    ///
    /// # Errors
    /// The engine failed.
    pub fn run(&mut self, test: &Test) -> Result<Sample> {
        let mut sample = Sample::default();
        let pieces = self.pieces(test);
        let end = test.depth + test.prompt;
        let start = Instant::now();
        let mut before = 0;
        for &(from, to) in &pieces {
            let logits = self.step(from, to, to >= end)?;
            sample.ns = start.elapsed().as_nanos() as u64;
            if to > end {
                sample.steps.push(sample.ns - before);
            } else if to == end {
                sample.first = Some(sample.ns);
            }
            before = sample.ns;
            if to == test.positions() {
                sample.hash = Some(hash(logits)?);
            }
        }
        Ok(sample)
    }

    /// The steps of a test: positions from and to.
    fn pieces(&self, test: &Test) -> Vec<(usize, usize)> {
        let (end, chunk) = (test.depth + test.prompt, self.setting.chunk());
        let prompt = (test.depth..end).step_by(chunk).map(|at| (at, (at + chunk).min(end)));
        prompt.chain((end..test.positions()).map(|at| (at, at + 1))).collect()
    }

    /// What each step of a test must read and compute.
    pub fn work(&self, test: &Test) -> Vec<Work> {
        let Setting { precision, kv, .. } = self.setting;
        let wanted = |to| usize::from(to >= test.depth + test.prompt);
        let step = |(from, to)| Step { tokens: to - from, start: from, outputs: wanted(to) };
        self.pieces(test).into_iter().map(|piece| work::of_step(&self.graph, step(piece), precision, kv)).collect()
    }

    /// What it was loaded with.
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// What it runs on.
    pub fn info(&self) -> Info {
        self.backend.info()
    }

    /// What its device does at most; none for the processor, which the probe measures.
    ///
    /// # Errors
    /// The engine failed.
    pub fn roof(&mut self) -> Result<Option<Roof>> {
        let reach = self.backend.reach()?;
        Ok(reach.map(|reach| Roof { read: reach.read, int8: reach.int8, float: reach.float }))
    }

    /// Times each kernel of a step of positions `from..to`; none where the device cannot.
    ///
    /// # Errors
    /// The engine failed.
    pub fn times(&mut self, from: usize, to: usize) -> Result<Option<Vec<KernelTime>>> {
        self.fill(from, to, true);
        Ok(self.backend.times(&self.batch)?)
    }

    /// What replaying a step of positions `from..to` takes.
    ///
    /// # Errors
    /// The engine failed.
    pub fn replay(&mut self, from: usize, to: usize) -> Result<Option<Replay>> {
        self.fill(from, to, true);
        Ok(self.backend.replay(&self.batch)?)
    }

    /// Computes positions `from..to` in one step, and the logits of the last where they are wanted.
    fn step(&mut self, from: usize, to: usize, wanted: bool) -> Result<&[f32]> {
        self.fill(from, to, wanted);
        Ok(pollster::block_on(self.backend.run(&self.batch))?)
    }

    /// Puts positions `from..to` into the batch, and the logits of the last where they are wanted.
    fn fill(&mut self, from: usize, to: usize, wanted: bool) {
        let n = to - from;
        self.batch.clear();
        let outputs = if wanted { n - 1..n } else { n..n };
        self.batch.push(&self.tokens[from..to], from, &self.pages[..to.div_ceil(PAGE)], outputs);
    }
}

/// Identity of logits: of their little-endian bits.
fn hash(logits: &[f32]) -> Result<Digest> {
    if logits.iter().any(|l| !l.is_finite()) {
        return Err(Error::Usage("the model's logits are not finite: its speed means nothing".into()));
    }
    let bytes: Vec<u8> = logits.iter().flat_map(|l| l.to_le_bytes()).collect();
    Ok(Digest::of(&bytes))
}

/// The token at a position: a fixed number of no pattern (the finalizer of splitmix64).
fn token(position: usize, n_vocab: usize) -> u32 {
    let mut z = (position as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % n_vocab as u64) as u32
}

/// Several beds and the tests to run on them.
#[derive(Default)]
pub struct Beds {
    /// The beds.
    pub beds: Vec<Bed>,
    /// Bed and test of each case.
    pub cases: Vec<(usize, Test)>,
}

impl Beds {
    /// The anchor of the adapter that all beds are on; none where one of them computes on the processor, whose anchor is
    /// the probe.
    pub fn anchor(&self) -> Option<Anchor> {
        common(self.beds.iter().map(|bed| &*bed.backend))
    }
}

/// The anchor of an adapter that some backends share.
fn common<'a>(mut backends: impl Iterator<Item = &'a dyn Backend>) -> Option<Anchor> {
    let first = backends.next()?.anchor()?;
    backends.all(|backend| backend.anchor().is_some()).then_some(first)
}

impl Subject for Beds {
    fn run(&mut self, case: usize) -> Result<Sample> {
        let (bed, test) = self.cases[case];
        self.beds[bed].run(&test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::backend::{Level, Logits, Written};

    /// A device whose anchor takes so many nanoseconds; none computes on the processor.
    struct MadeUp(Option<f64>);

    impl Backend for MadeUp {
        fn run<'a>(&'a mut self, _: &'a Batch) -> Logits<'a> {
            Logits::Ready(Some(Ok(&[])))
        }

        fn give(&mut self, _: &[f32]) -> engine::Result<()> {
            Ok(())
        }

        fn operation(&mut self, _: &Batch, _: usize) -> engine::Result<Vec<Written>> {
            Ok(vec![])
        }

        fn anchor(&self) -> Option<Anchor> {
            let ns = self.0?;
            Some(Box::new(move || Ok(Level { memory: ns, arithmetic: ns })))
        }

        fn info(&self) -> Info {
            Info { device: "made up".into(), kernels: String::new(), threads: 0 }
        }
    }

    #[test]
    fn the_anchor_is_that_of_the_device_that_all_run_on() {
        let anchor = |all: &[MadeUp]| common(all.iter().map(|backend| backend as &dyn Backend));
        let level = |all: &[MadeUp]| anchor(all).map(|mut own| own().unwrap().memory);
        assert_eq!(level(&[MadeUp(Some(7.0))]), Some(7.0));
        assert_eq!(level(&[MadeUp(Some(7.0)), MadeUp(Some(7.0))]), Some(7.0));
        assert_eq!(level(&[MadeUp(None)]), None, "the processor has the probe");
        assert_eq!(level(&[MadeUp(Some(7.0)), MadeUp(None)]), None, "one of them runs on the processor");
        assert_eq!(level(&[]), None);
    }

    #[test]
    fn tokens_are_fixed_and_spread() {
        let tokens: Vec<u32> = (0..1000).map(|i| token(i, 50)).collect();
        assert!(tokens.iter().all(|&t| t < 50));
        assert!((0..50).all(|t| tokens.contains(&t)));
        assert_eq!(tokens, (0..1000).map(|i| token(i, 50)).collect::<Vec<_>>());
    }
}
