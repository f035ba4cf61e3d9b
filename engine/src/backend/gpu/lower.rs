//! From a plan to dispatches: which kernel with which parameters on which buffers, made once.

use super::GpuOptions;
use super::adapter::Opened;
use super::pipelines::Pipelines;
use super::tables::HEAD;
use super::weights::{Part, Weights};
use crate::error::{Error, Result};
use crate::graph::{Activation, AttentionSpec, Graph, Lookup, Op, Rows, ValueId, WeightId};
use crate::plan::{Plan, StepKind};
use shaders::{Act, COLUMNS, Kernel, NONE, ROW_WG, Way, ops, place};
use wgpu::{BindGroup, Buffer, BufferUsages};

/// Bytes from one kernel's parameters to the next: the coarsest alignment that an adapter may ask for.
const OP_STRIDE: usize = 256;

/// The ways that a dispatch can run, by how many columns it has.
pub struct Dispatch {
    /// Pipelines for tiles of columns, ascending, and the workgroups that cover the matrix; one for other kernels.
    pub kernels: Vec<Variant>,
    /// What it binds.
    pub group: BindGroup,
    /// Which rows it has.
    pub rows: Rows,
}

/// One way to run a dispatch.
pub struct Variant {
    /// Rows (columns of a product) of one workgroup.
    pub columns: usize,
    /// Index of the pipeline.
    pub pipeline: usize,
    /// Workgroups beside those of the rows.
    pub others: u32,
}

impl Dispatch {
    /// The pipeline and the workgroups for `n` rows.
    pub fn grid(&self, n: usize) -> (usize, [u32; 2]) {
        let fits = self.kernels.iter().find(|v| v.columns >= n);
        let v = fits.unwrap_or_else(|| &self.kernels[self.kernels.len() - 1]);
        let rows = n.div_ceil(v.columns) as u32;
        // Products have their columns in the second dimension, rows of other kernels are in the first.
        let grid = if self.kernels.len() > 1 { [v.others, rows] } else { [rows, v.others] };
        (v.pipeline, grid)
    }
}

/// Everything that dispatches bind.
pub struct Buffers {
    /// What changes from step to step: the head and the tables.
    pub tables: Buffer,
    /// What steps compute.
    pub arena: Buffer,
    /// The KV cache of each layer.
    pub kv: Vec<Buffer>,
    /// Weights.
    pub weights: Weights,
}

/// A kernel's parameters and what it binds beside the buffers of all.
struct Wanted<'a> {
    kernels: Vec<(usize, Kernel, u32)>,
    op: Vec<u8>,
    part: Option<&'a Part>,
    kv: Option<usize>,
    rows: Rows,
}

/// Lowers a plan.
pub struct Lower<'a> {
    plan: &'a Plan,
    buffers: &'a Buffers,
    options: &'a GpuOptions,
    way: Way,
    wanted: Vec<Wanted<'a>>,
}

/// Fails if the graph has an operation that no kernel computes.
///
/// # Errors
/// The operation.
pub fn check(graph: &Graph) -> Result<()> {
    let missing = |op: &Op| match op {
        Op::Embed { .. } | Op::RmsNorm { .. } | Op::MatMul { .. } | Op::RopeStoreKv { .. } => None,
        Op::GatedAct { .. } | Op::Gather { .. } => None,
        Op::Attention { attention: a, .. } if !a.causal => Some("attention to later tokens".to_string()),
        Op::Attention { attention: a, .. } if a.alibi => Some("attention that falls with distance".to_string()),
        Op::Attention { attention: a, .. } if a.sinks.is_some() => Some("attention with sinks".to_string()),
        Op::Attention { .. } => None,
        op => {
            let text = format!("{op:?}");
            Some(text.split([' ', '(', '{']).next().unwrap_or_default().to_string())
        }
    };
    match graph.ops.iter().find_map(missing) {
        None => Ok(()),
        Some(name) => Err(Error::Option {
            name: "--device",
            found: "a GPU".into(),
            expected: format!("cpu: the model has an operation ({name}) that has no GPU kernel"),
        }),
    }
}

impl<'a> Lower<'a> {
    /// All dispatches of a plan and the pipelines that they use.
    ///
    /// # Errors
    /// The device has no room, or refuses a kernel.
    pub fn all(
        gpu: &Opened,
        plan: &'a Plan,
        buffers: &'a Buffers,
        options: &'a GpuOptions,
    ) -> Result<(Vec<Dispatch>, Pipelines)> {
        let mut lower = Lower { plan, buffers, options, way: gpu.way, wanted: vec![] };
        for step in plan.steps() {
            if let StepKind::Op(op) = step.kind {
                lower.op(op);
            }
        }
        lower.build(gpu)
    }

    /// Makes pipelines and bind groups.
    fn build(self, gpu: &Opened) -> Result<(Vec<Dispatch>, Pipelines)> {
        let mut params = vec![0; self.wanted.len() * OP_STRIDE];
        for (i, w) in self.wanted.iter().enumerate() {
            params[i * OP_STRIDE..][..w.op.len()].copy_from_slice(&w.op);
        }
        let uniform = gpu.buffer("parameters", params.len() as u64, BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;
        gpu.queue.write_buffer(&uniform, 0, &params);
        let mut pipelines = Pipelines::default();
        let mut dispatches = vec![];
        for (i, w) in self.wanted.iter().enumerate() {
            let mut kernels = vec![];
            for &(columns, kernel, others) in &w.kernels {
                kernels.push(Variant { columns, pipeline: pipelines.get(gpu, kernel)?, others });
            }
            let group = self.bind(gpu, &pipelines, w, &uniform, i * OP_STRIDE);
            dispatches.push(Dispatch { kernels, group, rows: w.rows });
        }
        gpu.check()?;
        Ok((dispatches, pipelines))
    }

    fn bind(&self, gpu: &Opened, pipelines: &Pipelines, w: &Wanted<'a>, uniform: &Buffer, at: usize) -> BindGroup {
        let kernel = w.kernels[0].1;
        let whole = Buffer::as_entire_buffer_binding;
        let entries: Vec<_> = kernel
            .bindings()
            .iter()
            .filter_map(|b| {
                let tables = &self.buffers.tables;
                let binding = match b.index {
                    place::STEP => {
                        wgpu::BufferBinding { size: wgpu::BufferSize::new(HEAD as u64 * 4), ..whole(tables) }
                    }
                    place::OP => wgpu::BufferBinding {
                        buffer: uniform,
                        offset: at as u64,
                        size: wgpu::BufferSize::new(w.op.len().next_multiple_of(16) as u64),
                    },
                    place::ARENA => whole(&self.buffers.arena),
                    place::QUADS | place::WORDS => whole(&w.part?.buffer),
                    place::CACHE => whole(&self.buffers.kv[w.kv?]),
                    place::TABLES => wgpu::BufferBinding { offset: HEAD as u64 * 4, ..whole(tables) },
                    _ => whole(&self.buffers.weights.vectors),
                };
                Some(wgpu::BindGroupEntry { binding: b.index, resource: wgpu::BindingResource::Buffer(binding) })
            })
            .collect();
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: pipelines.layout(kernel),
            entries: &entries,
        })
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

    fn parts(&self, w: WeightId) -> &'a [Part] {
        &self.buffers.weights.matrices[w.0 as usize]
    }

    /// A kernel whose workgroups are rows, `others` for each row.
    fn push(&mut self, kernel: Kernel, op: &impl bytemuck::Pod, others: usize, rows: Rows) -> &mut Wanted<'a> {
        self.wanted.push(Wanted {
            kernels: vec![(1, kernel, others as u32)],
            op: bytemuck::bytes_of(op).to_vec(),
            part: None,
            kv: None,
            rows,
        });
        let last = self.wanted.len() - 1;
        &mut self.wanted[last]
    }

    fn op(&mut self, op: Op) {
        match op {
            Op::Embed { .. } => self.embed(op),
            Op::MatMul { .. } => self.matmul(op),
            Op::RopeStoreKv { .. } => self.rope_store(op),
            Op::Attention { q, attention, out } => self.attention(q, &attention, out),
            Op::RmsNorm { x, weight, eps, heads, residual, out } => {
                let width = self.width(x) / heads as u32;
                let op = ops::RmsNorm {
                    x: self.at(x),
                    out: self.at(out),
                    residual: residual.map_or(NONE, |r| self.at(r)),
                    weight: self.vector(Some(weight)),
                    width,
                    slices: heads as u32,
                    eps,
                };
                self.push(Kernel::RmsNorm, &op, heads, self.rows(out));
            }
            Op::GatedAct { gate, up, act, out } => {
                let width = self.width(out);
                let op = ops::GatedAct { gate: self.at(gate), up: self.at(up), out: self.at(out), width };
                let kernel = Kernel::GatedAct(act_of(act));
                self.push(kernel, &op, (width as usize).div_ceil(ROW_WG), self.rows(out));
            }
            Op::Gather { x, out } => {
                let width = self.width(out);
                let op = ops::Gather { x: self.at(x), out: self.at(out), width };
                self.push(Kernel::Gather, &op, (width as usize).div_ceil(ROW_WG), self.rows(out));
            }
            // `check` has refused every other operation.
            _ => {}
        }
    }

    fn embed(&mut self, op: Op) {
        let Op::Embed { table, lookup, scale, add, out } = op else { return };
        let info = &self.plan.graph().weights[table.0 as usize];
        for part in self.parts(table) {
            let op = ops::Embed {
                out: self.at(out),
                k: info.k as u32,
                first: part.first as u32,
                panels: part.panels as u32,
                words: part.words as u32,
                scale,
                lookup: match lookup {
                    Lookup::Token => 0,
                    Lookup::Position => 1,
                    Lookup::First => 2,
                },
                add: add.map_or(NONE, |v| self.at(v)),
            };
            let others = info.k.div_ceil(shaders::layout::GROUP).div_ceil(ROW_WG);
            self.push(Kernel::Embed(info.format), &op, others, self.rows(out)).part = Some(part);
        }
    }

    fn matmul(&mut self, op: Op) {
        let Op::MatMul { x, weight, scale, bias, residual, out } = op else { return };
        let info = &self.plan.graph().weights[weight.0 as usize];
        for part in self.parts(weight) {
            let op = ops::MatmulWide {
                x: self.at(x),
                out: self.at(out),
                residual: residual.map_or(NONE, |r| self.at(r)),
                bias: self.vector(bias),
                k: info.k as u32,
                width: info.rows as u32,
                first: part.first as u32,
                panels: part.panels as u32,
                words: part.words as u32,
                outputs: u32::from(self.rows(out) == Rows::Outputs),
                scale: scale.unwrap_or(1.0),
            };
            let kernels = COLUMNS.map(|columns| {
                let kernel = Kernel::MatMul { format: info.format, columns, way: self.way };
                (columns, kernel, part.panels.div_ceil(self.way.panels(columns)) as u32)
            });
            self.wanted.push(Wanted {
                kernels: kernels.to_vec(),
                op: bytemuck::bytes_of(&op).to_vec(),
                part: Some(part),
                kv: None,
                rows: self.rows(out),
            });
        }
    }

    fn rope_store(&mut self, op: Op) {
        let Op::RopeStoreKv { q, k, v, rope, attention: a } = op else { return };
        let freqs = rope.map(|r| &self.plan.graph().ropes[r]);
        let pairs = freqs.map_or(0, |f| f.pairs());
        let op = ops::RopeStore {
            q: self.at(q),
            k: self.at(k),
            v: self.at(v),
            rope: rope.unwrap_or(0) as u32,
            pairs: pairs as u32,
            adjacent: u32::from(freqs.is_some_and(|f| f.pairing == crate::spec::Pairing::Adjacent)),
            heads: a.n_head as u32,
            heads_kv: a.n_head_kv as u32,
            d_k: a.d_k as u32,
            d_v: a.d_v as u32,
        };
        let per = self.options.per_word();
        let words = a.d_k.div_ceil(per) + a.d_v.div_ceil(per);
        let others = (a.n_head * pairs + a.n_head_kv * words).div_ceil(ROW_WG);
        let half = self.options.half();
        self.push(Kernel::RopeStore { half }, &op, others, Rows::Tokens).kv = Some(a.layer);
    }

    fn attention(&mut self, q: ValueId, a: &AttentionSpec, out: ValueId) {
        let op = ops::Attention {
            q: self.at(q),
            out: self.at(out),
            heads: a.n_head as u32,
            heads_kv: a.n_head_kv as u32,
            d_k: a.d_k as u32,
            d_v: a.d_v as u32,
            scale: a.scale,
            cap: a.softcap.unwrap_or(0.0),
            window: a.window.map_or(u32::MAX, |w| w.min(u32::MAX as usize) as u32),
        };
        let half = self.options.half();
        self.push(Kernel::Attention { half }, &op, a.n_head, Rows::Tokens).kv = Some(a.layer);
    }
}

fn act_of(act: Activation) -> Act {
    match act {
        Activation::Silu => Act::Silu,
        Activation::GeluTanh => Act::GeluTanh,
        Activation::GeluErf => Act::GeluErf,
        Activation::Relu => Act::Relu,
        Activation::ReluSquared => Act::ReluSquared,
        Activation::Sigmoid => Act::Sigmoid,
    }
}
