//! The CPU: weights in panels, a pool of workers that walk the plan, KV pages in memory.

mod attend;
mod experts;
mod inspect;
mod load;
mod rows;
mod walk;

use super::pool::{Arena, Pass, Piece, Pool};
use super::{Backend, Info, KvType, Logits, Written};
use crate::batch::{Batch, PageCopy};
use crate::error::{Error, Result};
use crate::graph::{Graph, Op, WeightKind};
use crate::plan::{Plan, Precision, StepKind};
use crate::probe::Probe;
use crate::source::Source;
use gguf::Format;
use kernels::acts::Layout;
use kernels::matmul::Acts;
use kernels::{Isa, Kernels};
pub use load::Shared;
use std::ops::Range;
use std::sync::Arc;

/// How to set up the CPU.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Worker threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: Isa,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Pages of the KV cache.
    pub pages: usize,
    /// Positions of a sequence.
    pub ctx: usize,
    /// Refuse weights that are not finite.
    pub check_tensors: bool,
    /// Record what each worker writes and fail where two meet.
    pub check_workers: bool,
    /// Sees what products are fed.
    pub probe: Option<Probe>,
    /// Weights of the same file that are in memory already.
    pub weights: Option<Shared>,
}

/// A weight in the layout of the kernels.
#[derive(Clone)]
enum Weight {
    /// Panels of 16 rows, those of each expert after the other, and where they lie.
    Panels { format: Format, rows: usize, k: usize, experts: usize, place: Range<usize> },
    /// Floats.
    Vector(Vec<f32>),
}

/// Where the KV blocks of one layer lie.
#[derive(Clone, Copy)]
struct KvLayer {
    offset: usize,
    end: usize,
    block: usize,
    heads: usize,
}

impl KvLayer {
    /// Bytes of one page in this layer.
    fn page(&self) -> usize {
        self.block * self.heads
    }
}

/// The CPU backend.
pub struct CpuBackend {
    plan: Plan,
    kernels: &'static Kernels,
    pool: Pool,
    weights: Arc<load::Weights>,
    stages: Vec<Stage>,
    /// Pieces of each stage for the batch at hand.
    pieces: Vec<u16>,
    arena: Arena,
    kv: Arena,
    kv_type: KvType,
    kv_layers: Vec<KvLayer>,
    /// One share a worker.
    scratch: Arena,
    /// Partial results of attention that more than one worker computes.
    partials: Arena,
    probe: Option<Probe>,
}

impl CpuBackend {
    /// Fails if the graph has a weight that no kernel can multiply.
    ///
    /// # Errors
    /// The tensor and its format.
    pub fn check(graph: &Graph) -> Result<()> {
        let known = || kernels::panel::formats().map(|f| f.name()).collect::<Vec<_>>().join(", ");
        match graph.weights.iter().find(|w| w.kind == WeightKind::Matrix && panel_bytes(w.format, w.k).is_none()) {
            None => Ok(()),
            Some(w) => Err(Error::Tensor {
                name: w.name.clone(),
                found: format!("format {}, for which there is no kernel", w.format.name()),
                expected: format!("one of {}", known()),
            }),
        }
    }

    /// Bytes of `rows` rows of `k` quantized activations.
    pub fn act_bytes(precision: Precision, k: usize, rows: usize) -> usize {
        layout(precision, k, rows).bytes()
    }

    /// Bytes of all weights in panels.
    pub fn weight_bytes(graph: &Graph) -> u64 {
        let bytes = |w: &crate::graph::WeightInfo| match w.kind {
            WeightKind::Matrix => {
                w.experts * w.rows.div_ceil(kernels::simd::LANES) * panel_bytes(w.format, w.k).unwrap_or(0)
            }
            WeightKind::Vector => w.k * 4,
        };
        graph.weights.iter().map(|w| bytes(w) as u64).sum()
    }

    /// Bytes of the KV cache.
    pub fn kv_bytes(graph: &Graph, kv: KvType, pages: usize) -> u64 {
        kv_layers(graph, kv, pages).last().map_or(0, |l| l.end as u64)
    }

    /// Bytes that a step writes, for contexts of `ctx` positions.
    pub fn activation_bytes(plan: &Plan, ctx: usize) -> usize {
        plan.arena_bytes() + attend::partial_bytes(plan, ctx)
    }

    /// Takes the weights and makes room for everything else.
    ///
    /// # Errors
    /// A weight that cannot be read or is not finite, an instruction set that this CPU lacks.
    pub fn load(
        plan: Plan,
        source: &dyn Source,
        options: &CpuOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<CpuBackend> {
        let kernels = Kernels::for_isa(options.isa).ok_or_else(|| Error::Option {
            name: "--isa",
            found: options.isa.name().to_string(),
            expected: format!("one of {}", Isa::available().map(|i| i.name()).collect::<Vec<_>>().join(", ")),
        })?;
        let pool = Pool::new(options.threads).map_err(Error::Internal)?;
        let weights = match options.weights.as_ref().and_then(|shared| shared.of(plan.graph())) {
            Some(weights) => weights,
            None => load::weights(&plan, source, &pool, options.check_tensors, progress)?,
        };
        let kv_layers = kv_layers(plan.graph(), options.kv, options.pages);
        let kv_bytes = kv_layers.last().map_or(0, |l| l.end);
        let checked = options.check_workers;
        let stages = stages(&plan);
        Ok(CpuBackend {
            kernels,
            weights: Arc::new(weights),
            pieces: Vec::with_capacity(stages.len()),
            stages,
            arena: Arena::new(plan.arena_bytes(), checked)?,
            kv: Arena::new(kv_bytes, checked)?,
            kv_type: options.kv,
            kv_layers,
            // What a worker needs for a moment; its pieces follow each other.
            scratch: Arena::new(
                attend::scratch_bytes(&plan).max(experts::scratch_bytes(&plan)) * pool.workers(),
                false,
            )?,
            partials: Arena::new(attend::partial_bytes(&plan, options.ctx), checked)?,
            probe: options.probe.clone(),
            pool,
            plan,
        })
    }
}

/// What is computed between two moments when all workers must be done.
#[derive(Clone, Debug)]
enum Stage {
    /// A run of the plan's steps.
    Steps(Range<usize>),
    /// The second half of an attention whose tiles were shared.
    Merge(usize),
}

/// The plan's steps, cut where its barriers are.
fn stages(plan: &Plan) -> Vec<Stage> {
    let mut stages = vec![];
    let mut start = 0;
    for (i, step) in plan.steps().iter().enumerate() {
        let ends = plan.steps().get(i + 1).is_none_or(|next| next.barrier);
        let attends = matches!(step.kind, StepKind::Op(Op::Attention { .. }));
        if ends || attends {
            stages.push(Stage::Steps(start..i + 1));
            start = i + 1;
        }
        if attends {
            stages.push(Stage::Merge(i));
        }
    }
    stages
}

/// One pass: a batch through some stages of the plan.
struct Step<'a> {
    backend: &'a CpuBackend,
    batch: &'a Batch,
    stages: &'a [Stage],
}

impl Pass for Step<'_> {
    fn run(&self, stage: usize, piece: Piece) {
        let walk = walk::Walk { backend: self.backend, batch: self.batch, piece };
        let steps = self.backend.plan.steps();
        match &self.stages[stage] {
            Stage::Steps(range) => steps[range.clone()].iter().for_each(|step| walk.step(step)),
            Stage::Merge(step) => walk.merge(&steps[*step]),
        }
    }

    fn stage_done(&self) {
        let CpuBackend { arena, kv, partials, .. } = self.backend;
        [arena, kv, partials].into_iter().for_each(Arena::forget_claims);
    }
}

impl CpuBackend {
    /// Gives a page the contents of another one, in all layers. Between two passes: nobody else reads or writes.
    fn copy_page(&self, copy: &PageCopy) {
        if copy.from == copy.to {
            return;
        }
        for layer in &self.kv_layers {
            let at = |page: u32| layer.offset + page as usize * layer.page();
            let piece = Piece { index: 0, count: 1, worker: 0 };
            let to = self.kv.claim::<u8>(piece, at(copy.to)..at(copy.to) + layer.page());
            to.copy_from_slice(self.kv.read(at(copy.from)..at(copy.from) + layer.page()));
        }
        self.kv.forget_claims();
    }

    /// Pieces of a stage: enough that a worker that is late does not hold up the others for long, each large enough
    /// to be worth taking.
    fn cut(&self, stage: &Stage, batch: &Batch) -> u16 {
        let piece = Piece { index: 0, count: 1, worker: 0 };
        let (walk, steps) = (walk::Walk { backend: self, batch, piece }, self.plan.steps());
        let pieces = match stage {
            Stage::Steps(range) => steps[range.clone()].iter().map(|step| walk.pieces(step)).max().unwrap_or(0),
            Stage::Merge(step) => walk.merge_pieces(&steps[*step]),
        };
        pieces as u16
    }
}

/// Quantized activations of a precision, for a matmul.
pub fn acts(precision: Precision, units: &[u8]) -> Acts<'_> {
    if precision == Precision::Q16 { Acts::Q16(units) } else { Acts::Q8(units) }
}

/// How `rows` rows of `k` quantized activations lie.
pub fn layout(precision: Precision, k: usize, rows: usize) -> Layout {
    match precision {
        Precision::Q16 => Layout::new(k, rows).in_two_planes(),
        Precision::Q8 | Precision::F32 => Layout::new(k, rows),
    }
}

fn panel_bytes(format: Format, k: usize) -> Option<usize> {
    kernels::panel::bytes(format, k)
}

fn kv_layers(graph: &Graph, kv: KvType, pages: usize) -> Vec<KvLayer> {
    let mut layers: Vec<KvLayer> = vec![];
    for op in &graph.ops {
        if let Op::Attention { attention: a, .. } = op {
            let offset = layers.last().map_or(0, |l| l.end);
            let block = kernels::kv::block_bytes(kv, a.d_k, a.d_v);
            layers.push(KvLayer { offset, end: offset + block * a.n_head_kv * pages, block, heads: a.n_head_kv });
        }
    }
    layers
}

impl Backend for CpuBackend {
    fn run<'a>(&'a mut self, batch: &'a Batch) -> Logits<'a> {
        let limits = self.plan.limits();
        assert!(batch.tokens().len() <= limits.tokens && batch.outputs().len() <= limits.outputs, "batch too large");
        batch.copies().iter().for_each(|copy| self.copy_page(copy));
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.clear();
        pieces.extend(self.stages.iter().map(|stage| self.cut(stage, batch)));
        let result =
            self.pool.pass(&pieces, &Step { backend: self, batch, stages: &self.stages }).map_err(Error::Internal);
        self.pieces = pieces;
        let this = &*self;
        Logits::Ready(Some(result.map(|()| this.value(batch, this.plan.graph().logits))))
    }

    fn give(&mut self, rows: &[f32]) -> Result<()> {
        let place = self.plan.given(rows.len())?;
        // No pass is under way, so no piece has a share.
        let all = Piece { index: 0, count: 1, worker: 0 };
        self.arena.claim(all, place).copy_from_slice(rows);
        self.arena.forget_claims();
        Ok(())
    }

    fn operation(&mut self, batch: &Batch, index: usize) -> Result<Vec<Written>> {
        self.one(batch, index)
    }

    fn weights(&self) -> Option<Shared> {
        Some(Shared::new(self.plan.graph(), &self.weights))
    }

    fn info(&self) -> Info {
        let name = self.kernels.isa.name().to_string();
        Info { device: "cpu".into(), kernels: name, threads: self.pool.workers() }
    }
}

/// The largest attention of a plan, for scratch memory.
fn attentions(plan: &Plan) -> impl Iterator<Item = &crate::graph::AttentionSpec> {
    plan.steps().iter().filter_map(|s| match &s.kind {
        StepKind::Op(Op::Attention { attention, .. }) => Some(attention),
        _ => None,
    })
}
