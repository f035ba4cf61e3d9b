//! A GPU, whichever one wgpu reaches: weights in the layout of [`shaders::layout`], the plan as a list of dispatches.
//!
//! A step is one upload (tokens, positions, page tables, angles), one compute pass that replays the list, one submit and
//! one read-back: of the wanted logits, or of four bytes a row where only the largest is wanted. Pipelines, bind groups and buffers are made when the model is loaded. Activations
//! are f32, whatever `--precision` says of the processor's integer products.
//!
//! | module | knows |
//! | --- | --- |
//! | [`adapter`] | which adapters there are, which one is meant |
//! | `weights` | how weights come to the device |
//! | `lower` | which kernels an operation takes |
//! | `pipelines` | kernels compiled |
//! | `inspect` | one operation at a time |
//! | [`probe`] | one kernel at a time |
//! | `roof` | what an adapter does at most |
//! | `selftest` | whether the driver computes what the kernels say |
//! | `tables` | what a step brings |
//! | `timing` | where a step's time goes |

pub mod adapter;
mod inspect;
mod lower;
mod pipelines;
pub mod probe;
mod roof;
mod selftest;
mod tables;
mod timing;
mod weights;

use super::{Backend, Check, Device, Info, KernelTime, KvType, Logits, Measured, Reach, Replay, Written};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::graph::{AttentionSpec, Graph, Op};
use crate::kv::PAGE;
use crate::plan::Plan;
use crate::sampler::Best;
use crate::source::Source;
use adapter::Opened;
use gguf::Format;
use lower::{Buffers, Dispatch, Lower, Run};
use pipelines::Pipelines;
use std::path::{Path, PathBuf};
use wgpu::{Buffer, BufferUsages};

pub use weights::bytes as weight_bytes;

/// How to set up a GPU.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Which one.
    pub device: Device,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Most entries of all page tables of a batch.
    pub page_entries: usize,
    /// Refuse weights that are not finite.
    pub check_tensors: bool,
    /// Where results of the kernels' tests are kept; none does not test them.
    pub checks: Option<PathBuf>,
}

impl GpuOptions {
    fn half(&self) -> bool {
        self.kv == KvType::F16
    }

    /// Elements of the cache in a word.
    fn per_word(&self) -> usize {
        4 / self.kv.bytes()
    }

    /// Bytes of the KV cache of each layer.
    pub fn cache_bytes(&self, graph: &Graph) -> Vec<u64> {
        attentions(graph).map(|a| self.kv_bytes(a)).collect()
    }

    /// Whether a device has room for a plan: tried, as no API tells how much there is.
    ///
    /// # Errors
    /// The device fails otherwise.
    pub fn fits(&self, device: &Opened, plan: &Plan) -> Result<bool> {
        let limits = device.device.limits();
        let bound = [self.cache_bytes(plan.graph()), vec![plan.arena_bytes() as u64]].concat();
        if bound.iter().any(|&bytes| bytes > limits.max_storage_buffer_binding_size) {
            return Ok(false);
        }
        let mut rest = weight_bytes(plan.graph());
        let piece = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        let weights = std::iter::from_fn(|| (rest > 0).then(|| (rest.min(piece), rest -= rest.min(piece)).0));
        device.has_room(bound.iter().copied().chain(weights))
    }

    /// Bytes of the KV cache of a layer, as `cache.wgsl` lays it out.
    fn kv_bytes(&self, a: &AttentionSpec) -> u64 {
        let words = a.d_k.div_ceil(self.per_word()) + a.d_v.div_ceil(self.per_word());
        (self.pages * a.n_head_kv * PAGE * words) as u64 * 4
    }
}

/// A GPU with a model.
pub struct GpuBackend {
    gpu: Opened,
    plan: Plan,
    buffers: Buffers,
    pipelines: Pipelines,
    dispatches: Vec<Dispatch>,
    /// Where logits are read back.
    readback: Buffer,
    /// The upload of the current step.
    upload: Vec<u32>,
    /// The dispatches of the current step.
    runs: Vec<Run>,
    logits: Vec<f32>,
    best: Vec<Best>,
    /// Elements of the KV cache in a word.
    per_word: usize,
    /// What the kernels' tests gave.
    checks: Vec<Check>,
}

/// What of a step is read back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// The wanted rows of logits.
    Rows,
    /// The largest logit of each.
    Best,
}

impl GpuBackend {
    /// Fails if the graph has a weight or an operation that no kernel computes.
    ///
    /// # Errors
    /// The tensor or the operation.
    pub fn check(graph: &Graph) -> Result<()> {
        weights::check(graph)?;
        lower::check(graph)?;
        match graph.ropes.len() {
            n if n > tables::MAX_ROPES => {
                Err(Error::Internal(format!("{n} rotary embeddings, at most {}", tables::MAX_ROPES)))
            }
            _ => Ok(()),
        }
    }

    /// Opens the device, uploads the weights and makes everything that steps need.
    ///
    /// # Errors
    /// There is no such device, it has no room or lacks what kernels need, or a weight cannot be read.
    pub fn load(
        plan: Plan,
        source: &dyn Source,
        options: &GpuOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<GpuBackend> {
        GpuBackend::load_on(adapter::open(&options.device)?, plan, source, options, progress)
    }

    /// As [`GpuBackend::load`], on a device that was opened.
    ///
    /// # Errors
    /// As there.
    pub fn load_on(
        mut gpu: Opened,
        plan: Plan,
        source: &dyn Source,
        options: &GpuOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<GpuBackend> {
        let (limits, graph) = (plan.limits(), plan.graph());
        check_batch(&gpu, limits.tokens)?;
        let checks = match &options.checks {
            Some(folder) => selftest::choose(&mut gpu, &formats(graph), options.half(), folder)?,
            None => vec![],
        };
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let words = tables::words(graph, limits.tokens, limits.outputs, options.page_entries);
        let caches = options.cache_bytes(graph);
        let readback = (limits.outputs * plan.width(graph.logits) * 4) as u64;
        let cache: u64 = caches.iter().sum();
        gpu.announce(weight_bytes(graph) + cache + plan.arena_bytes() as u64 + words as u64 * 4 + readback);
        let tables = gpu.buffer("tables", words as u64 * 4, storage | BufferUsages::UNIFORM)?;
        let arena = bound(&gpu, "activations", plan.arena_bytes() as u64, storage)?;
        let kv = caches.iter().map(|&bytes| bound(&gpu, "KV cache of a layer", bytes, storage));
        let kv = kv.collect::<Result<Vec<_>>>()?;
        let logits = limits.outputs * plan.width(graph.logits);
        let readback = gpu.buffer("logits", logits as u64 * 4, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?;
        let weights = weights::upload(&gpu, graph, source, options.check_tensors, progress)?;
        let results = gpu.buffer("results", lower::result_bytes(&plan), storage)?;
        let buffers = Buffers { tables, arena, kv, weights, results };
        let (dispatches, pipelines) = Lower::all(&gpu, &plan, &buffers, options)?;
        let (upload, runs) = (Vec::with_capacity(words), Vec::with_capacity(dispatches.len()));
        let (logits, best) = (Vec::with_capacity(logits), Vec::with_capacity(limits.outputs));
        let per_word = options.per_word();
        Ok(GpuBackend {
            gpu,
            plan,
            buffers,
            pipelines,
            dispatches,
            readback,
            upload,
            runs,
            logits,
            best,
            per_word,
            checks,
        })
    }

    /// The device.
    pub fn opened(&self) -> &Opened {
        &self.gpu
    }

    /// Brings what changes from step to step to the device.
    fn upload(&mut self, batch: &Batch) {
        tables::fill(batch, self.plan.graph(), &mut self.upload);
        self.gpu.queue.write_buffer(&self.buffers.tables, 0, bytemuck::cast_slice(&self.upload));
    }

    /// Lists what a batch runs, in order.
    fn list(&mut self, batch: &Batch, want: Want) {
        let skipped = if want == Want::Rows && lower::gives_best(&self.plan) { lower::BEST } else { 0 };
        let dispatches = &self.dispatches[..self.dispatches.len() - skipped];
        self.runs.clear();
        self.runs.extend(dispatches.iter().enumerate().filter_map(|(i, dispatch)| dispatch.run(i, batch)));
    }

    /// Encodes some runs.
    fn encode(&self, pass: &mut wgpu::ComputePass, runs: &[Run]) {
        let mut current = usize::MAX;
        for run in runs {
            if run.pipeline != current {
                pass.set_pipeline(&self.pipelines.all()[run.pipeline]);
                current = run.pipeline;
            }
            pass.set_bind_group(0, &self.dispatches[run.dispatch].group, &[]);
            pass.dispatch_workgroups(run.grid[0], run.grid[1], 1);
        }
    }

    /// Encodes and submits a step.
    fn submit(&mut self, batch: &Batch, want: Want) {
        let limits = self.plan.limits();
        assert!(batch.tokens().len() <= limits.tokens && batch.outputs().len() <= limits.outputs, "batch too large");
        self.upload(batch);
        self.list(batch, want);
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        self.encode(&mut pass, &self.runs);
        drop(pass);
        let bytes = self.result_bytes(batch, want);
        if bytes > 0 {
            let logits = self.plan.value(self.plan.graph().logits).offset as u64;
            let (from, at) = match want {
                Want::Rows => (&self.buffers.arena, logits),
                Want::Best => (&self.buffers.results, 0),
            };
            encoder.copy_buffer_to_buffer(from, at, &self.readback, 0, bytes);
        }
        self.gpu.queue.submit([encoder.finish()]);
    }

    /// Bytes that are read back.
    fn result_bytes(&self, batch: &Batch, want: Want) -> u64 {
        let each = match want {
            Want::Rows => self.plan.width(self.plan.graph().logits) * 4,
            Want::Best => 4,
        };
        (batch.outputs().len() * each) as u64
    }

    /// Waits for the step and reads its logits.
    fn read_rows(&mut self, batch: &Batch) -> Result<()> {
        let bytes = self.result_bytes(batch, Want::Rows);
        self.logits.clear();
        let logits = &mut self.logits;
        self.gpu.read_with(&self.readback, bytes, &mut |view| logits.extend_from_slice(bytemuck::cast_slice(view)))
    }

    /// Waits for the step and reads the largest logits, as `best.wgsl` writes them.
    fn read_best(&mut self, batch: &Batch) -> Result<()> {
        let bytes = self.result_bytes(batch, Want::Best);
        self.best.clear();
        let best = &mut self.best;
        let found = |word: &[u8]| match u32::from_ne_bytes([word[0], word[1], word[2], word[3]]) {
            u32::MAX => Best::Nothing,
            word if word >> 31 == 1 => Best::NotANumber(word << 1 >> 1),
            word => Best::Token(word),
        };
        self.gpu.read_with(&self.readback, bytes, &mut |view| best.extend(view.chunks_exact(4).map(found)))
    }
}

/// Fails if a batch has more tokens than a dispatch can have workgroups.
fn check_batch(gpu: &Opened, tokens: usize) -> Result<()> {
    let most = gpu.device.limits().max_compute_workgroups_per_dimension as usize;
    if tokens <= most {
        return Ok(());
    }
    let detail = format!("a batch of {tokens} tokens, where it has at most {most} workgroups side by side");
    Err(gpu.error(detail, "lower the batch (--batch; for encoders the context, --ctx), or use another device"))
}

/// Formats of the matrices that products are made with.
fn formats(graph: &Graph) -> Vec<Format> {
    let mut formats = vec![];
    for op in &graph.ops {
        if let Op::MatMul { weight, .. } = op {
            let format = graph.weights[weight.0 as usize].format;
            if !formats.contains(&format) {
                formats.push(format);
            }
        }
    }
    formats
}

/// Tests the kernels that an adapter would get for common formats, and measures what it does at most.
///
/// # Errors
/// There is no such adapter, it computes even the simplest kernels wrongly, or it is lost.
pub fn measure(device: &Device, folder: &Path) -> Result<Measured> {
    let mut gpu = adapter::open(device)?;
    let checks = selftest::choose(&mut gpu, &[Format::Q4K, Format::Q8_0, Format::F16], true, folder)?;
    let reach = roof::measure(&gpu)?;
    Ok(Measured { kernels: gpu.description.kernels, checks, reach })
}

/// A buffer that kernels see whole.
fn bound(gpu: &Opened, what: &str, bytes: u64, usage: BufferUsages) -> Result<Buffer> {
    let limit = gpu.device.limits().max_storage_buffer_binding_size;
    if bytes > limit {
        return Err(gpu.error(
            format!("{} MiB of {what}, where a binding has at most {} MiB", bytes.div_ceil(1 << 20), limit >> 20),
            "lower the context (--ctx) or the batch (--batch), or use another device (--device cpu)",
        ));
    }
    gpu.buffer(what, bytes, usage)
}

/// The attention of each layer.
fn attentions(graph: &Graph) -> impl Iterator<Item = &AttentionSpec> {
    graph.ops.iter().filter_map(|op| match op {
        Op::Attention { attention, .. } => Some(attention),
        _ => None,
    })
}

impl Backend for GpuBackend {
    fn run<'a>(&'a mut self, batch: &'a Batch) -> Logits<'a> {
        self.submit(batch, Want::Rows);
        let result = self.read_rows(batch);
        Logits::Ready(Some(result.map(|()| &self.logits[..])))
    }

    fn give(&mut self, rows: &[f32]) -> Result<()> {
        let place = self.plan.given(rows.len())?;
        self.gpu.queue.write_buffer(&self.buffers.arena, place.start as u64, bytemuck::cast_slice(rows));
        Ok(())
    }

    fn operation(&mut self, batch: &Batch, index: usize) -> Result<Vec<Written>> {
        self.one(batch, index)
    }

    fn gives_best(&self) -> bool {
        lower::gives_best(&self.plan)
    }

    fn best<'a>(&'a mut self, batch: &'a Batch) -> Result<&'a [Best]> {
        if !self.gives_best() {
            return Err(Error::Internal("rows of this length are read back whole".into()));
        }
        self.submit(batch, Want::Best);
        self.read_best(batch)?;
        Ok(&self.best)
    }

    fn times(&mut self, batch: &Batch) -> Result<Option<Vec<KernelTime>>> {
        self.time(batch)
    }

    fn replay(&mut self, batch: &Batch) -> Result<Option<Replay>> {
        self.replayed(batch).map(Some)
    }

    fn reach(&mut self) -> Result<Option<Reach>> {
        roof::measure(&self.gpu).map(Some)
    }

    fn info(&self) -> Info {
        let d = &self.gpu.description;
        let tested = match self.checks.iter().map(|check| check.error).reduce(f64::max) {
            Some(worst) => format!("; {} variants tested, error at most {worst:.0e}", self.checks.len()),
            None => String::new(),
        };
        let kernels = format!("WGSL, {}, f32{tested}", d.kernels);
        Info { device: format!("{} ({}, {})", d.name, d.api, d.driver), kernels, threads: 0 }
    }
}
