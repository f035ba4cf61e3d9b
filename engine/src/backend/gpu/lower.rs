//! From a plan to dispatches: which kernel with which parameters on which buffers, made once.
//!
//! | module | lowers |
//! | --- | --- |
//! | `attention` | rotary embedding, the cache, attention |
//! | `bind` | makes bind groups and pipelines of what was lowered |
//! | `experts` | the choice of experts, their products and sums |
//! | `matmul` | products with one matrix |
//! | `rows` | what is cut by rows: norms, activations, gathers |
//! | `tiles` | which form attention takes |

mod attention;
mod bind;
mod experts;
mod matmul;
mod rows;
mod tiles;

use super::GpuOptions;
use super::adapter::Opened;
use super::merge;
use super::pipelines::Pipelines;
use super::slab::Place;
use super::weights::{Part, Weights};
use crate::error::{Error, Result};
use crate::graph::{Graph, Op, Rows, ValueId, WeightId};
use crate::plan::{Plan, StepKind};
use crate::sampler::{MOST_CANDIDATES, Wants};
use shaders::{Kernel, MAX_EXPERTS, MAX_HEAD, NONE, ROW_WG, Reducing, Way};
use std::collections::{HashMap, HashSet};
use tiles::Tiles;
use wgpu::{BindGroup, Buffer};

pub use bind::parameter_bytes;
pub use matmul::act_bytes;
pub use tiles::{Counts, scratch_bytes};

/// The ways that a dispatch can run, by how many columns it has.
pub struct Dispatch {
    /// Pipelines for tiles of columns, ascending, and the workgroups that cover the matrix; one for other kernels.
    pub kernels: Vec<Form>,
    /// Which bind group it binds, and where its parameters are.
    pub group: usize,
    /// Place of its parameters, in bytes.
    pub parameters: u32,
    /// What it is shared out by.
    pub extent: Extent,
    /// Bytes of its weights.
    bytes: u64,
    /// The operation of the graph that it belongs to.
    pub operation: usize,
    /// What it is for: none where every step needs it.
    pub finds: Option<Wants>,
}

/// What the workgroups of a dispatch are counted by.
#[derive(Clone, Copy)]
pub enum Extent {
    /// Rows: one form, whose workgroups are rows.
    Rows(Rows),
    /// Columns of a product: the form is the first that is the best for so many.
    Columns(Rows),
    /// Blocks of tokens: the first form where each is a single token, else the second.
    Blocks,
    /// Tiles of attention, which say the form.
    Tiles(Tiles),
    /// The same of what merges their results.
    Merge(Tiles),
}

/// One way to run a dispatch.
pub struct Form {
    /// Rows (columns of a product) of one workgroup.
    pub columns: usize,
    /// Most rows of a step for which it is the best.
    pub most: usize,
    /// Index of the pipeline.
    pub pipeline: usize,
    /// Workgroups beside those of the rows.
    pub others: u32,
}

/// A dispatch of one step.
#[derive(Clone, Copy)]
pub struct Run {
    /// Which dispatch.
    pub dispatch: usize,
    /// Index of the pipeline.
    pub pipeline: usize,
    /// What it binds, as its dispatch says.
    pub group: usize,
    /// Place of its parameters.
    pub parameters: u32,
    /// Workgroups.
    pub grid: [u32; 3],
    /// Bytes of weights that are read, each as often as it is read.
    pub bytes: u64,
}

impl Dispatch {
    /// How it runs for a batch, if it has anything to do; `index` is its own.
    pub fn run(&self, index: usize, counts: Counts) -> Option<Run> {
        let of = |rows| match rows {
            Rows::Tokens => counts.tokens,
            Rows::Outputs => counts.outputs,
        };
        let (form, grid) = match self.extent {
            Extent::Rows(rows) => (&self.kernels[0], [of(rows) as u32, self.kernels[0].others, 1]),
            Extent::Columns(rows) => {
                let n = of(rows);
                let fits = self.kernels.iter().find(|v| v.most >= n);
                let v = fits.unwrap_or_else(|| &self.kernels[self.kernels.len() - 1]);
                (v, [v.others, n.div_ceil(v.columns) as u32, 1])
            }
            Extent::Blocks => {
                let v = &self.kernels[usize::from(!counts.single)];
                (v, [counts.blocks as u32, v.others, 1])
            }
            Extent::Tiles(tiles) => {
                let (form, grid) = tiles.grid(counts);
                (&self.kernels[form], grid)
            }
            Extent::Merge(tiles) => (&self.kernels[0], tiles.merge_grid(counts, self.kernels[0].others)),
        };
        let bytes = self.bytes * u64::from(grid[1]);
        let (pipeline, group, parameters) = (form.pipeline, self.group, self.parameters);
        grid.iter().all(|n| *n > 0).then_some(Run { dispatch: index, pipeline, group, parameters, grid, bytes })
    }
}

/// Everything that dispatches bind.
pub struct Buffers {
    /// What changes from step to step: the head and the tables.
    pub tables: Buffer,
    /// What steps compute.
    pub arena: Buffer,
    /// The buffers of the KV caches.
    pub caches: Vec<Buffer>,
    /// Where the cache of each layer is.
    pub kv: Vec<Place>,
    /// Weights.
    pub weights: Weights,
    /// The largest logits.
    pub results: Buffer,
}

/// A kernel's parameters and what it binds beside the buffers of all.
struct Wanted<'a> {
    kernels: Vec<(usize, Kernel, u32)>,
    op: Vec<u8>,
    part: Option<&'a Part>,
    kv: Option<usize>,
    extent: Extent,
    finds: Option<Wants>,
}

/// A plan as dispatches.
pub struct Lowered {
    /// All dispatches, in order.
    pub dispatches: Vec<Dispatch>,
    /// What they bind.
    pub groups: Vec<BindGroup>,
    /// The kernels.
    pub pipelines: Pipelines,
}

/// Dispatches that find what is wanted of rows of logits: the largest, and the largest few.
const FINDERS: usize = 4;

/// Most rows of a batch of which the largest few are found: more take more memory than they save.
const MOST_ROWS: usize = 1024;

/// Whether what is wanted of rows of logits can be found on the device. Rows are read by fours, and tokens have 24 bits.
pub fn gives(plan: &Plan, wants: Wants) -> bool {
    let width = plan.width(plan.graph().logits);
    match wants {
        Wants::Row => true,
        Wants::Top => width < 1 << 24 && plan.limits().outputs <= MOST_ROWS,
        Wants::Best => width.is_multiple_of(4),
    }
}

/// Bytes of what is found, the results of slices behind it.
pub fn result_bytes(plan: &Plan) -> u64 {
    let each =
        if gives(plan, Wants::Top) { (1 + shaders::SLICES) * MOST_CANDIDATES * 2 } else { 1 + 2 * shaders::SLICES };
    (plan.limits().outputs * each * 4) as u64
}

/// Lowers a plan.
pub struct Lower<'a> {
    plan: &'a Plan,
    buffers: &'a Buffers,
    options: &'a GpuOptions,
    way: Way,
    /// Lanes of every subgroup, where kernels for them are to be used.
    subgroup: Option<usize>,
    /// Whether kernels that add up over a workgroup do so in eights of lanes.
    eights: bool,
    /// Bytes for the results of tiles of attention, behind those of the plan.
    scratch: u64,
    wanted: Vec<Wanted<'a>>,
    /// How many were wanted when each operation was lowered.
    ends: Vec<usize>,
    /// Products that one dispatch computes, by the first of them, and the others.
    runs: HashMap<usize, Vec<usize>>,
    followers: HashSet<usize>,
}

/// Fails if the graph has an operation that is too large for its kernel.
///
/// # Errors
/// The operation.
pub fn check(graph: &Graph) -> Result<()> {
    let too_large = |what: &str, found: usize, most: usize| {
        (found > most).then(|| format!("cpu: the model has {what} of {found}, where GPU kernels have room for {most}"))
    };
    let of = |op: &Op| match op {
        Op::Attention { attention: a, .. } => too_large("attention heads", a.d_k.max(a.d_v), MAX_HEAD),
        Op::Route { scores, .. } => too_large("a choice", graph.values[scores.0 as usize].width, MAX_EXPERTS),
        _ => None,
    };
    match graph.ops.iter().find_map(of) {
        None => Ok(()),
        Some(expected) => Err(Error::Option { name: "--device", found: "a GPU".into(), expected }),
    }
}

impl<'a> Lower<'a> {
    /// All dispatches of a plan.
    ///
    /// # Errors
    /// The device has no room, or refuses a kernel.
    pub fn all(gpu: &Opened, plan: &'a Plan, buffers: &'a Buffers, options: &'a GpuOptions) -> Result<Lowered> {
        let (way, subgroup, eights) = (gpu.way, gpu.subgroup(), gpu.eights());
        let runs = merge::products(plan.graph());
        let followers = runs.iter().flat_map(|run| run[1..].iter().copied()).collect();
        let runs = runs.into_iter().map(|run| (run[0], run)).collect();
        let scratch = scratch_bytes(plan, options);
        let (wanted, ends) = (vec![], vec![]);
        let mut lower = Lower { plan, buffers, options, way, subgroup, eights, scratch, wanted, ends, runs, followers };
        for step in plan.steps() {
            match step.kind {
                StepKind::Op(op) => {
                    lower.op(op);
                    lower.ends.push(lower.wanted.len());
                }
                // Angles come with the upload.
                StepKind::RopeTable { .. } => {}
                StepKind::Quantize { x } => lower.quantize(x),
            }
        }
        if gives(plan, Wants::Best) {
            lower.best();
        }
        if gives(plan, Wants::Top) {
            lower.top();
        }
        lower.build(gpu)
    }

    /// Place of a value in the arena, in floats.
    fn at(&self, v: ValueId) -> u32 {
        (self.plan.value(v).offset / 4) as u32
    }

    fn width(&self, v: ValueId) -> u32 {
        self.plan.width(v) as u32
    }

    fn rows(&self, v: ValueId) -> Rows {
        self.plan.graph().values[v.0 as usize].rows
    }

    fn vector(&self, w: Option<WeightId>) -> u32 {
        w.map_or(NONE, |w| self.buffers.weights.places[w.0 as usize])
    }

    /// Where the cache of a layer begins, in words.
    fn cache(&self, layer: usize) -> u32 {
        (self.buffers.kv[layer].at / 4) as u32
    }

    fn parts(&self, w: WeightId) -> &'a [Part] {
        &self.buffers.weights.matrices[w.0 as usize]
    }

    /// A kernel that adds up over a workgroup, as this adapter does that.
    fn reducing(&self, kernel: Reducing) -> Kernel {
        if self.eights { Kernel::Eights(kernel) } else { kernel.baseline() }
    }

    /// A kernel whose workgroups are rows, `others` for each row.
    fn push(&mut self, kernel: Kernel, op: &impl bytemuck::Pod, others: usize, rows: Rows) -> &mut Wanted<'a> {
        self.wanted.push(Wanted {
            kernels: vec![(1, kernel, others as u32)],
            op: bytemuck::bytes_of(op).to_vec(),
            part: None,
            kv: None,
            extent: Extent::Rows(rows),
            finds: None,
        });
        let last = self.wanted.len() - 1;
        &mut self.wanted[last]
    }

    /// A kernel of which an invocation computes an element of each row of `out`.
    fn push_elements(&mut self, kernel: Kernel, op: &impl bytemuck::Pod, out: ValueId) {
        let others = (self.width(out) as usize).div_ceil(ROW_WG);
        self.push(kernel, op, others, self.rows(out));
    }

    fn op(&mut self, op: Op) {
        match op {
            Op::Embed { .. } => self.embed(op),
            Op::RmsNorm { .. } => self.rms_norm(op),
            Op::LayerNorm { .. } => self.layer_norm(op),
            Op::MatMul { .. } => self.matmul(op),
            Op::RopeStoreKv { .. } => self.rope_store(op),
            Op::Attention { q, attention, out } => self.attention(q, &attention, out),
            Op::GatedAct { gate, up, act, out } => self.gated_act(gate, up, act, out),
            Op::ClampedGlu { gate, up, out } => self.clamped_glu(gate, up, out),
            Op::Act { x, act } => self.activate(x, act),
            Op::Softcap { x, cap } => self.softcap(x, cap),
            Op::Adapt { x, adapter } => self.adapt(x, adapter),
            Op::Copy { x, columns, out } => self.copy(x, columns, out),
            Op::Route { scores, routing, out } => self.route(scores, routing, out),
            Op::ExpertMatMul { .. } => self.expert_matmul(op),
            Op::Combine { .. } => self.combine(op),
            Op::Gather { x, out } => self.gather(x, out),
        }
    }
}
