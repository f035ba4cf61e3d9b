//! The engine as its callers see it: open a model, submit requests, hear events.
//!
//! One thread owns the scheduler and the backend; everything else talks to it over a channel. No lock is held while
//! a step runs, and an idle engine sleeps.

use crate::adapter::{self, Adapted, Adapter};
use crate::backend::cpu::Shared;
use crate::backend::{Backend, Device, GpuLayers, Info, KvType, Variant};
use crate::error::{Error, Result};
use crate::file::ModelFile;
use crate::graph::{Builder, Graph};
use crate::kv::PAGE;
use crate::placement::{MemoryPlan, Parts};
use crate::plan::Precision;
use crate::probe::Probe;
use crate::request::{Event, Request, Sink};
use crate::sampler::Wants;
use crate::scheduler::{self, Results, Scheduler};
use crate::source::Source;
use crate::spec::Spec;
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;
use gguf::Gguf;
use kernels::Isa;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Context where none is asked for, unless the model was trained for less.
pub const DEFAULT_CTX: usize = 4096;
/// Rows of logits that one step can give.
const MIN_OUTPUTS: usize = 16;

/// How to load a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Positions of a sequence; by default what the model was trained for, at most 4096.
    pub ctx: Option<usize>,
    /// Worker threads; by default one a core.
    pub threads: Option<usize>,
    /// Instruction set; by default the best.
    pub isa: Option<Isa>,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Precision of activations on the processor.
    pub precision: Precision,
    /// Precision of activations on a GPU: f32, or codes of 8 bits.
    pub gpu_precision: Precision,
    /// Which kernels of a GPU's; none takes the best that it has and that pass their tests.
    pub variant: Option<Variant>,
    /// What the model runs on.
    pub device: Device,
    /// How many layers run there.
    pub gpu_layers: GpuLayers,
    /// Most tokens of a prompt that one step computes.
    pub batch: usize,
    /// Most sequences at once.
    pub sequences: usize,
    /// Gives hidden states for embeddings instead of logits. Encoders always do.
    pub embeddings: bool,
    /// Positions of the KV cache, for all sequences together; by default as many as all of them can fill. A request
    /// waits until there is room for its longest outcome.
    pub kv_tokens: Option<usize>,
    /// Bytes of memory that the model may take, where the caller knows.
    pub memory: Option<u64>,
    /// Low-rank adapters.
    pub adapters: Vec<Adapter>,
    /// Sees what products are fed; on the processor only.
    pub probe: Option<Probe>,
    /// The weights of another engine over the same file and adapters, which is not read again then.
    pub weights: Option<Shared>,
    /// Refuse weights that are NaN or infinite. Costs a pass over them.
    pub check_tensors: bool,
    /// Where results of tests of a GPU's kernels are kept, so that each is tested once for each driver; none trusts the
    /// driver.
    pub checks: Option<PathBuf>,
    /// Record what each worker writes and fail where two meet. For tests: slow.
    pub check_workers: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            ctx: None,
            threads: None,
            isa: None,
            kv: KvType::default(),
            precision: Precision::default(),
            gpu_precision: Precision::F32,
            variant: None,
            device: Device::default(),
            gpu_layers: GpuLayers::default(),
            batch: 512,
            sequences: 1,
            embeddings: false,
            kv_tokens: None,
            memory: None,
            adapters: Vec::new(),
            probe: None,
            weights: None,
            check_tensors: false,
            checks: None,
            check_workers: false,
        }
    }
}

/// News of a load.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// Weights are being laid out.
    Weights {
        /// Bytes of the file done.
        done: u64,
        /// Bytes of the file.
        total: u64,
    },
}

/// A model that has been read and laid out, but not loaded: everything that can be known before any work.
pub struct Blueprint {
    spec: Spec,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    graph: Graph,
    parts: Parts,
    limits: scheduler::Limits,
    memory: MemoryPlan,
    options: Options,
}

impl Blueprint {
    /// Checks a model against the options and lays it out.
    ///
    /// # Errors
    /// Anything that is wrong with the file or the options, before memory is taken.
    pub fn new(gguf: &Gguf, source: &dyn Source, options: &Options) -> Result<Blueprint> {
        let mut spec = Spec::from_meta(gguf.meta())?;
        spec.hidden |= options.embeddings;
        let limits = limits(&spec, options)?;
        spec.n_ctx = limits.ctx;
        let graph = (spec.arch.build)(&spec, Builder::new(&spec, source)?)?;
        let parts = Parts::new(&graph, spec.layers.len(), &limits, options)?;
        let tokenizer = Arc::new(Tokenizer::from_meta(gguf.meta())?);
        let template = ChatTemplate::from_meta(gguf.meta())?;
        let (memory, options) = (parts.memory(&limits, options), options.clone());
        let blueprint = Blueprint { spec, tokenizer, template, graph, parts, limits, memory, options };
        blueprint.check_memory()?;
        Ok(blueprint)
    }

    /// The model's hyperparameters.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Where the memory will go.
    pub fn memory(&self) -> MemoryPlan {
        self.memory
    }

    /// Positions of a sequence.
    pub fn ctx(&self) -> usize {
        self.limits.ctx
    }

    /// The model as data.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What steps have room for.
    pub(crate) fn limits(&self) -> scheduler::Limits {
        self.limits
    }

    /// How strong its adapters are where nobody says.
    pub(crate) fn strengths(&self) -> Vec<f32> {
        self.options.adapters.iter().map(|a| a.scale).collect()
    }

    /// Loads it, to be driven step by step.
    ///
    /// # Errors
    /// A weight or the device fails.
    pub fn load(self, source: &dyn Source, progress: &mut dyn FnMut(Progress)) -> Result<Box<dyn Backend>> {
        let Blueprint { parts, limits, options, .. } = self;
        parts.load(source, &limits, &options, &mut |done, total| progress(Progress::Weights { done, total }))
    }

    fn check_memory(&self) -> Result<()> {
        let total = self.memory.host.total();
        match self.options.memory {
            Some(available) if total > available => Err(Error::Memory {
                what: format!(
                    "{} with a context of {} for {} sequence(s)",
                    self.spec.name, self.limits.ctx, self.limits.sequences
                ),
                needed: total.div_ceil(1 << 20),
                available: available >> 20,
                hint: "lower the context (--ctx) or use a smaller model",
            }),
            _ => Ok(()),
        }
    }
}

/// Opens a model's file, lays it out and goes on with both.
pub(crate) fn with_file<T>(
    path: &Path,
    options: &Options,
    go_on: &mut dyn FnMut(Blueprint, &dyn Source) -> Result<T>,
) -> Result<T> {
    let file = ModelFile::open(path)?;
    let gguf = file.parse()?;
    let made = with_source(&gguf, &file.source(&gguf), options, go_on)?;
    file.check_unchanged()?;
    Ok(made)
}

/// Lays out a model with its adapters, and goes on with both.
pub(crate) fn with_source<T>(
    gguf: &Gguf,
    source: &dyn Source,
    options: &Options,
    go_on: &mut dyn FnMut(Blueprint, &dyn Source) -> Result<T>,
) -> Result<T> {
    if options.adapters.is_empty() {
        return go_on(Blueprint::new(gguf, source, options)?, source);
    }
    let files = adapter::open(&options.adapters)?;
    let parsed = files.iter().map(ModelFile::parse).collect::<Result<Vec<_>>>()?;
    let arch = gguf.meta().str("general.architecture")?;
    let adapted = Adapted::new(source, arch, &files, &parsed, &options.adapters)?;
    let made = go_on(Blueprint::new(gguf, &adapted, options)?, &adapted)?;
    files.iter().try_for_each(ModelFile::check_unchanged)?;
    Ok(made)
}

fn limits(spec: &Spec, options: &Options) -> Result<scheduler::Limits> {
    let ctx = options.ctx.unwrap_or(spec.n_ctx_train.min(DEFAULT_CTX));
    let positive = |name, found: usize, max: usize| match found {
        n if (1..=max).contains(&n) => Ok(n),
        n => Err(Error::Option { name, found: n.to_string(), expected: format!("1 to {max}") }),
    };
    positive("--ctx", ctx, if spec.learned_positions { spec.n_ctx_train } else { 1 << 24 })?;
    positive("--batch", options.batch, 1 << 16)?;
    positive("the number of sequences", options.sequences, 1 << 12)?;
    // A prompt is never longer than the context, so neither is a batch of one sequence.
    let one = ctx.div_ceil(PAGE);
    let chunk = if spec.causal { options.batch.min(ctx) } else { ctx };
    let batch = options.batch.min(ctx.saturating_mul(options.sequences)).max(options.sequences).max(chunk);
    Ok(scheduler::Limits {
        batch,
        chunk,
        outputs: if spec.hidden { batch } else { options.sequences.max(MIN_OUTPUTS).min(batch) },
        sequences: options.sequences,
        ctx,
        // Room for one sequence of the longest kind, or it would wait for ever.
        pages: options.kv_tokens.unwrap_or(usize::MAX).div_ceil(PAGE).clamp(one, options.sequences * one),
        whole: !spec.causal,
        hidden: spec.hidden,
        copies: options.device.is_cpu(),
    })
}

/// A loaded model with its thread.
pub struct Engine {
    spec: Spec,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    memory: MemoryPlan,
    limits: scheduler::Limits,
    info: Info,
    weights: Option<Shared>,
    load: Arc<Mutex<Load>>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Submit(Box<Request>, Sink),
    Stop,
}

/// What the engine is busy with, as of its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Pages of the KV cache that nobody holds.
    pub pages_available: usize,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Steps since it was loaded.
    pub steps: u64,
    /// Tokens computed since it was loaded.
    pub tokens: u64,
}

impl Engine {
    /// Opens a model file, or all the files of a split model, and loads it.
    ///
    /// # Errors
    /// Anything wrong with the file or the options, or too little memory.
    pub fn open(path: &Path, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Engine> {
        with_file(path, options, &mut |b, source| Engine::load(b, source, progress))
    }

    /// Loads a model whose file is in memory.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn from_bytes(bytes: &[u8], options: &Options) -> Result<Engine> {
        let gguf = Gguf::parse(bytes)?;
        with_source(&gguf, &gguf, options, &mut |b, source| Engine::load(b, source, &mut |_| ()))
    }

    fn load(blueprint: Blueprint, source: &dyn Source, progress: &mut dyn FnMut(Progress)) -> Result<Engine> {
        let (spec, tokenizer, template) =
            (blueprint.spec.clone(), blueprint.tokenizer.clone(), blueprint.template.clone());
        let (limits, memory) = (blueprint.limits, blueprint.memory);
        let mut scheduler = Scheduler::new(limits, tokenizer.clone());
        scheduler.set_strengths(blueprint.strengths());
        let backend = blueprint.load(source, progress)?;
        let (info, weights) = (backend.info(), backend.weights());
        let (commands, inbox) = channel();
        let pages = limits.pages;
        let load = Arc::new(Mutex::new(Load { pages, pages_available: pages, ..Load::default() }));
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn({
                let load = load.clone();
                move || serve(scheduler, backend, &inbox, &load)
            })
            .map_err(|e| Error::Internal(format!("cannot start the engine's thread: {e}")))?;
        Ok(Engine { spec, tokenizer, template, memory, limits, info, weights, load, commands, thread: Some(thread) })
    }

    /// The model's hyperparameters.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model's chat template, if it has one.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Where the memory went.
    pub fn memory(&self) -> MemoryPlan {
        self.memory
    }

    /// Positions of a sequence.
    pub fn ctx(&self) -> usize {
        self.limits.ctx
    }

    /// What it runs on.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Its weights, for [`Options::weights`]; none where they cannot be shared.
    pub fn weights(&self) -> Option<Shared> {
        self.weights.clone()
    }

    /// What it is busy with; none if the engine has died.
    pub fn busy(&self) -> Option<Load> {
        let alive = self.thread.as_ref().is_some_and(|t| !t.is_finished());
        alive.then(|| *self.load.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Most sequences at once.
    pub fn sequences(&self) -> usize {
        self.limits.sequences
    }

    /// Submits a request. Dropping the receiver cancels it.
    pub fn submit(&self, request: Request) -> Receiver<Event> {
        let (sender, events) = channel();
        self.submit_to(request, Box::new(move |event| sender.send(event).is_ok()));
        events
    }

    /// Submits a request whose events go to `sink`, on the engine's thread.
    pub fn submit_to(&self, request: Request, sink: Sink) {
        if let Err(e) = self.commands.send(Command::Submit(Box::new(request), sink))
            && let Command::Submit(_, mut sink) = e.0
        {
            sink(Event::Failed(Error::Internal("the engine has ended".into())));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Fails only if the thread has ended already.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The engine's thread: commands between steps, steps while there is work, sleep otherwise.
fn serve(mut scheduler: Scheduler, mut backend: Box<dyn Backend>, inbox: &Receiver<Command>, load: &Mutex<Load>) {
    let start = Instant::now();
    let now = || start.elapsed().as_nanos() as u64;
    let mut batch = scheduler.new_batch();
    loop {
        loop {
            let command = if scheduler.is_idle() { inbox.recv().ok() } else { inbox.try_recv().ok() };
            match command {
                Some(Command::Submit(request, sink)) => {
                    if let Err((mut sink, error)) = scheduler.submit(*request, sink, now()) {
                        sink(Event::Failed(error));
                    }
                }
                Some(Command::Stop) => return,
                None if scheduler.is_idle() => return,
                None => break,
            }
        }
        scheduler.fill(&mut batch, now());
        report(&scheduler, batch.tokens().len(), load);
        if batch.tokens().is_empty() {
            // All that waited or ran was cancelled.
            continue;
        }
        let results = match batch.wants() {
            Wants::Best if backend.gives(Wants::Best) => backend.best(&batch).map(Results::Best),
            Wants::Best | Wants::Top if backend.gives(Wants::Top) => backend.top(&batch).map(Results::Top),
            _ => pollster::block_on(backend.run(&batch)).map(Results::Rows),
        };
        match results {
            Ok(results) => scheduler.commit(results, now()),
            Err(error) => {
                let text = match error {
                    Error::Internal(text) => text,
                    other => other.to_string(),
                };
                scheduler.fail_all(|| Error::Internal(text.clone()));
            }
        }
        if scheduler.is_idle() {
            report(&scheduler, 0, load);
        }
    }
}

/// Notes what the scheduler is busy with, and a step of so many tokens.
fn report(scheduler: &Scheduler, tokens: usize, load: &Mutex<Load>) {
    let mut load = load.lock().unwrap_or_else(PoisonError::into_inner);
    (load.waiting, load.running) = scheduler.load();
    load.pages_available = scheduler.kv().available();
    load.steps += u64::from(tokens > 0);
    load.tokens += tokens as u64;
}
