//! A GPU, whichever one wgpu reaches: weights in the layout of [`shaders::layout`], the plan as a list of dispatches.
//!
//! A step is one upload (tokens, positions, page tables, angles), one compute pass that replays the list, one submit and
//! one read-back: of the wanted logits, of the largest few where a draw needs no more, or of four bytes a row where only
//! the largest is wanted. Pipelines, bind groups and buffers are made when the model is loaded, that which uploads go
//! through included: a step makes nothing. A dispatch with its barrier costs 5 us on a large GPU whatever it computes, so a step
//! of one token is as fast as it has few of them.
//!
//! Activations are f32, or at `--precision q8` the codes of 8 bits that the processor makes too, in products with matrices
//! of integer codes.
//!
//! | module | knows |
//! | --- | --- |
//! | [`adapter`] | which adapters there are, which one is meant |
//! | `cache` | kernels compiled, on disk |
//! | `weights` | how weights come to the device |
//! | `lower` | which kernels an operation takes |
//! | `merge` | which products are one dispatch |
//! | `pipelines` | kernels compiled |
//! | `inspect` | one operation at a time |
//! | `keep` | small files for a driver |
//! | [`probe`] | one kernel at a time |
//! | `roof` | what an adapter does at most, and whether it is as fast as it was |
//! | `selftest` | whether the driver computes what the kernels say |
//! | `slab` | many pieces of memory in few buffers |
//! | `tables` | what a step brings |
//! | `timing` | where a step's time goes |

pub mod adapter;
mod cache;
mod inspect;
mod keep;
mod lower;
mod merge;
mod pipelines;
pub mod probe;
mod roof;
mod selftest;
mod slab;
mod tables;
mod timing;
mod weights;

use super::{
    Anchor, Backend, Check, Device, Info, KernelTime, KvType, Logits, Measured, Reach, Replay, Variant, Written, tested,
};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::graph::{AttentionSpec, Graph, Op};
use crate::kv::PAGE;
use crate::plan::Plan;
use crate::sampler::{Best, MOST_CANDIDATES, Wants};
use crate::source::Source;
use adapter::{Opened, RELOAD};
use lower::{Buffers, Counts, Lower, Lowered, Run};
use slab::Slabs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wgpu::{Buffer, BufferUsages, CommandEncoder};

pub use lower::act_bytes;
pub use weights::bytes as weight_bytes;

/// How to set up a GPU.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Which one.
    pub device: Device,
    /// Which kernels; none takes the best that pass their tests.
    pub variant: Option<Variant>,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Most entries of all page tables of a batch.
    pub page_entries: usize,
    /// Refuse weights that are not finite.
    pub check_tensors: bool,
    /// Where results of the kernels' tests are kept, and what the driver has compiled; none does neither.
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

    /// Bytes of what steps write on the device, the caches aside: activations, tables and what they come through,
    /// parameters of kernels, what is read back.
    pub fn step_bytes(&self, plan: &Plan) -> u64 {
        let tables = self.table_words(plan) as u64 * 4;
        let results = lower::result_bytes(plan);
        self.arena_bytes(plan) + 2 * tables + lower::parameter_bytes(plan) + results + readback_bytes(plan)
    }

    /// Bytes of what steps compute, the results of tiles of attention behind the values of the plan.
    fn arena_bytes(&self, plan: &Plan) -> u64 {
        plan.arena_bytes() as u64 + lower::scratch_bytes(plan, self)
    }

    /// Most words of the tables of a step.
    fn table_words(&self, plan: &Plan) -> usize {
        let limits = plan.limits();
        tables::words(plan.graph(), limits.tokens, limits.outputs, self.page_entries)
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
        let bound = [self.cache_bytes(plan.graph()), vec![self.step_bytes(plan)]].concat();
        if bound.iter().any(|&bytes| bytes > limits.max_storage_buffer_binding_size) {
            return Ok(false);
        }
        let mut rest = weight_bytes(plan.graph());
        let piece = slab::most(device);
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
    gpu: Arc<Opened>,
    plan: Plan,
    buffers: Buffers,
    lowered: Lowered,
    /// Where logits are read back.
    readback: Buffer,
    /// What uploads go through, and whether it is to be written, now or when the work before is done.
    staging: Buffer,
    staged: bool,
    /// The upload of the current step.
    upload: Vec<u32>,
    /// The dispatches of the current step.
    runs: Vec<Run>,
    /// The shape of the batch that they were listed for.
    listed: Option<Shape>,
    logits: Vec<f32>,
    top: Vec<(u32, f32)>,
    best: Vec<Best>,
    /// Elements of the KV cache in a word, and bytes of each layer's.
    per_word: usize,
    cache_bytes: Vec<u64>,
    /// What the kernels' tests gave.
    checks: Vec<Check>,
}

/// All that the dispatches of a step depend on: its counts, and what is read back.
type Shape = (Counts, Wants);

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
        let checks = selftest::prepare(&mut gpu, &plan, options)?;
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let cache_bytes = options.cache_bytes(graph);
        gpu.announce(weight_bytes(graph) + cache_bytes.iter().sum::<u64>() + options.step_bytes(&plan));
        let words = options.table_words(&plan);
        let tables = gpu.buffer("tables", words as u64 * 4, storage | BufferUsages::UNIFORM)?;
        let staging = gpu.mapped("tables", words as u64 * 4)?;
        let arena = bound(&gpu, "activations", options.arena_bytes(&plan), storage)?;
        let mut slabs = Slabs::new(&gpu);
        if let Some(&bytes) = cache_bytes.iter().find(|&&bytes| bytes > slabs.most()) {
            return Err(too_large(&gpu, "KV cache of a layer", bytes));
        }
        let kv = cache_bytes.iter().map(|&bytes| slabs.place(bytes)).collect();
        let caches = slabs.make(&gpu, "KV cache", storage)?;
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let readback = gpu.buffer("logits", readback_bytes(&plan), usage)?;
        let weights = weights::upload(&gpu, graph, source, options.check_tensors, progress)?;
        let results = gpu.buffer("results", lower::result_bytes(&plan), storage)?;
        let buffers = Buffers { tables, arena, caches, kv, weights, results };
        let lowered = Lower::all(&gpu, &plan, &buffers, options)?;
        let (upload, runs) = (Vec::with_capacity(words), Vec::with_capacity(lowered.dispatches.len()));
        let logits = Vec::with_capacity(limits.outputs * plan.width(graph.logits));
        let (best, per_word) = (Vec::with_capacity(limits.outputs), options.per_word());
        Ok(GpuBackend {
            gpu: Arc::new(gpu),
            plan,
            buffers,
            lowered,
            readback,
            staging,
            staged: true,
            upload,
            runs,
            listed: None,
            logits,
            top: vec![],
            best,
            per_word,
            cache_bytes,
            checks,
        })
    }

    /// The device.
    pub fn opened(&self) -> &Opened {
        &self.gpu
    }

    /// Brings what changes from step to step to the device, with the commands that are encoded behind it.
    fn upload(&mut self, batch: &Batch, counts: Counts) -> Result<CommandEncoder> {
        tables::fill(batch, counts, self.plan.graph(), &mut self.upload);
        let bytes: &[u8] = bytemuck::cast_slice(&self.upload);
        let size = bytes.len() as u64;
        let mut view = self.staging.get_mapped_range_mut(..size);
        if view.is_err() {
            // A step before this one failed before it was waited for.
            self.gpu.read_with(&self.readback, 0, &mut |_| ())?;
            view = self.staging.get_mapped_range_mut(..size);
        }
        view.map_err(|e| self.gpu.error(e.to_string(), RELOAD))?.copy_from_slice(bytes);
        self.staging.unmap();
        self.staged = false;
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.staging, 0, &self.buffers.tables, 0, size);
        Ok(encoder)
    }

    /// Submits what was encoded. When it is done, the next upload can be written.
    fn send(&mut self, encoder: CommandEncoder) {
        self.gpu.queue.submit([encoder.finish()]);
        if !std::mem::replace(&mut self.staged, true) {
            self.staging.slice(..).map_async(wgpu::MapMode::Write, |_| ());
        }
    }

    /// Lists what a batch with these counts runs, in order: that of the batch before where both have one shape.
    fn list(&mut self, counts: Counts, want: Wants) {
        let shape = (counts, want);
        if self.listed.replace(shape) == Some(shape) {
            return;
        }
        let dispatches = self.lowered.dispatches.iter().enumerate();
        let meant = dispatches.filter(|(_, dispatch)| dispatch.finds.is_none_or(|finds| finds == want));
        self.runs.clear();
        self.runs.extend(meant.filter_map(|(i, dispatch)| dispatch.run(i, counts)));
    }

    /// Encodes some runs.
    fn encode(&self, pass: &mut wgpu::ComputePass, runs: &[Run]) {
        let mut current = usize::MAX;
        for run in runs {
            if run.pipeline != current {
                pass.set_pipeline(&self.lowered.pipelines.all()[run.pipeline]);
                current = run.pipeline;
            }
            pass.set_bind_group(0, &self.lowered.groups[run.group], &[run.parameters]);
            pass.dispatch_workgroups(run.grid[0], run.grid[1], run.grid[2]);
        }
    }

    /// Encodes and submits a step.
    fn submit(&mut self, batch: &Batch, want: Wants) -> Result<()> {
        let limits = self.plan.limits();
        assert!(batch.tokens().len() <= limits.tokens && batch.outputs().len() <= limits.outputs, "batch too large");
        let counts = tables::count(batch);
        let mut encoder = self.upload(batch, counts)?;
        self.list(counts, want);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        self.encode(&mut pass, &self.runs);
        drop(pass);
        let bytes = self.result_bytes(batch, want);
        if bytes > 0 {
            let logits = self.plan.value(self.plan.graph().logits).offset as u64;
            let (from, at) = match want {
                Wants::Row => (&self.buffers.arena, logits),
                Wants::Top | Wants::Best => (&self.buffers.results, 0),
            };
            encoder.copy_buffer_to_buffer(from, at, &self.readback, 0, bytes);
        }
        self.send(encoder);
        Ok(())
    }

    /// Bytes that are read back.
    fn result_bytes(&self, batch: &Batch, want: Wants) -> u64 {
        let each = match want {
            Wants::Row => self.plan.width(self.plan.graph().logits) * 4,
            Wants::Top => MOST_CANDIDATES * 8,
            Wants::Best => 4,
        };
        (batch.outputs().len() * each) as u64
    }

    /// Waits for the step and reads its logits.
    fn read_rows(&mut self, batch: &Batch) -> Result<()> {
        let bytes = self.result_bytes(batch, Wants::Row);
        self.logits.clear();
        let logits = &mut self.logits;
        self.gpu.read_with(&self.readback, bytes, &mut |view| logits.extend_from_slice(bytemuck::cast_slice(view)))
    }

    /// Waits for the step and reads the largest few logits, as `topk.wgsl` writes them.
    fn read_top(&mut self, batch: &Batch) -> Result<()> {
        let bytes = self.result_bytes(batch, Wants::Top);
        self.top.clear();
        let top = &mut self.top;
        self.gpu.read_with(&self.readback, bytes, &mut |view| {
            let words = bytemuck::cast_slice::<u8, [u32; 2]>(view);
            let pair = |&[token, logit]: &[u32; 2]| match token {
                u32::MAX => (token, f32::NEG_INFINITY),
                _ => (token, f32::from_bits(logit)),
            };
            top.extend(words.iter().map(pair));
        })
    }

    /// Waits for the step and reads the largest logits, as `best.wgsl` writes them.
    fn read_best(&mut self, batch: &Batch) -> Result<()> {
        let bytes = self.result_bytes(batch, Wants::Best);
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

/// Tests the kernels that an adapter would get for common formats, and measures what it does at most.
///
/// # Errors
/// There is no such adapter, it computes even the simplest kernels wrongly, or it is lost.
pub fn measure(device: &Device, folder: &Path) -> Result<Measured> {
    let mut gpu = adapter::open(device)?;
    let checks = selftest::common(&mut gpu, folder)?;
    let reach = roof::measure(&gpu)?;
    Ok(Measured { variant: (gpu.description.variant, gpu.description.why), checks, reach })
}

/// A buffer that kernels see whole.
fn bound(gpu: &Opened, what: &str, bytes: u64, usage: BufferUsages) -> Result<Buffer> {
    let limit = gpu.device.limits().max_storage_buffer_binding_size;
    if bytes > limit { Err(too_large(gpu, what, bytes)) } else { gpu.buffer(what, bytes, usage) }
}

fn too_large(gpu: &Opened, what: &str, bytes: u64) -> Error {
    let most = gpu.device.limits().max_storage_buffer_binding_size >> 20;
    gpu.error(
        format!("{} MiB of {what}, where a binding has at most {most} MiB", bytes.div_ceil(1 << 20)),
        "lower the context (--ctx) or the batch (--batch), or use another device (--device cpu)",
    )
}

/// Bytes of the rows of logits of the largest batch, or of the largest few where those are more.
fn readback_bytes(plan: &Plan) -> u64 {
    let each = (plan.width(plan.graph().logits) * 4).max(MOST_CANDIDATES * 8);
    (plan.limits().outputs * each) as u64
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
        let result = self.submit(batch, Wants::Row).and_then(|()| self.read_rows(batch));
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

    fn gives(&self, wants: Wants) -> bool {
        // An adapter that is a processor reads a row back for nothing, and its barriers make the search the dearer way.
        let dear = wants == Wants::Top && self.gpu.description.kind == "cpu";
        lower::gives(&self.plan, wants) && !dear
    }

    fn top<'a>(&'a mut self, batch: &'a Batch) -> Result<&'a [(u32, f32)]> {
        if !lower::gives(&self.plan, Wants::Top) {
            return Err(Error::Internal("rows of this length are read back whole".into()));
        }
        self.submit(batch, Wants::Top)?;
        self.read_top(batch)?;
        Ok(&self.top)
    }

    fn best<'a>(&'a mut self, batch: &'a Batch) -> Result<&'a [Best]> {
        if !self.gives(Wants::Best) {
            return Err(Error::Internal("rows of this length are read back whole".into()));
        }
        self.submit(batch, Wants::Best)?;
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

    fn anchor(&self) -> Option<Anchor> {
        (self.gpu.description.kind != "cpu").then(|| roof::anchor(self.gpu.clone()))
    }

    fn info(&self) -> Info {
        let d = &self.gpu.description;
        let tests = if self.checks.is_empty() { String::new() } else { format!("; {}", tested(&self.checks)) };
        let dropped = match self.lowered.pipelines.dropped() {
            true => "; the file of compiled kernels was damaged or of another driver, and was written anew",
            false => "",
        };
        let precision = self.plan.limits().precision.name();
        let kernels = format!("WGSL, {precision}, {} as {}{tests}{dropped}", d.variant, d.why);
        Info { device: format!("{} ({}, {})", d.name, d.api, d.driver), kernels, threads: 0 }
    }
}
