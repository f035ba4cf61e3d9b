//! A graph laid out: steps in order, every value at a fixed place of one arena, every hazard between workers found.
//!
//! A [`Plan`] is compiled once for the largest batch and replayed for every batch; a backend looks nothing up and
//! allocates nothing while it replays. The plan calls no kernel and knows no device: it is told how
//! many bytes quantized activations take.
//!
//! **Hazards.** Workers walk the steps in lockstep and cut each step's work as its [`Cut`] says. A step whose
//! arena ranges meet those of an earlier step must wait for it, unless both are cut by tokens and the range is the
//! same: then each worker meets only its own rows. [`Step::barrier`] holds the answer; it is what makes the
//! unsynchronised access of the workers sound, and `Plan::compile` is the only place that makes a `Plan`.

use crate::error::{Error, Result};
use crate::graph::{Graph, Op, Rows, ValueId, WeightId};
use gguf::Format;
use std::ops::Range;

/// Every buffer starts at a multiple of this many bytes.
pub const ALIGN: usize = 64;

/// How activations meet quantized weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 8-bit codes in groups of 32 with f32 scales.
    #[default]
    Q8,
    /// 15-bit codes in two planes of bytes, groups of 32 with f32 scales: about 128 times closer to f32.
    Q16,
    /// f32 activations: the reference.
    F32,
}

impl Precision {
    /// Every precision.
    pub const ALL: [Precision; 3] = [Precision::Q8, Precision::Q16, Precision::F32];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Q8 => "q8",
            Precision::Q16 => "q16",
            Precision::F32 => "f32",
        }
    }
}

/// What a plan is compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most tokens of a batch.
    pub tokens: usize,
    /// Most wanted outputs of a batch.
    pub outputs: usize,
    /// Precision of activations.
    pub precision: Precision,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StepKind {
    /// Cosines and sines of the batch's positions for one rotary embedding.
    RopeTable {
        /// Index of the rotary embedding.
        rope: usize,
    },
    /// Quantizes a value's rows for the matmuls that follow.
    Quantize {
        /// The value.
        x: ValueId,
    },
    /// An operation of the graph.
    Op(Op),
}

/// How workers share a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Each worker takes a run of rows.
    Tokens,
    /// Anything else: each element is still written by one worker.
    Other,
}

/// A step of the plan.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What to do.
    pub kind: StepKind,
    /// Whether every worker must have ended the steps before.
    pub barrier: bool,
}

/// A place in the arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffer {
    /// First byte, a multiple of [`ALIGN`].
    pub offset: usize,
    /// Bytes for the largest batch.
    pub bytes: usize,
}

impl Buffer {
    fn range(self) -> Range<usize> {
        self.offset..self.offset + self.bytes
    }
}

/// How the rows of a buffer lie: two steps that are cut by tokens meet their own rows alone only where this is the same
/// too. Values and their quantized rows can have the same place and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Value { width: usize, rows: Rows },
    Acts { width: usize, rows: Rows },
    RopeTable,
}

/// What a step touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Arena(Buffer, Form),
    Kv(usize),
}

impl Resource {
    fn meets(self, other: Resource) -> bool {
        match (self, other) {
            (Resource::Arena(a, _), Resource::Arena(b, _)) => {
                a.range().start < b.range().end && b.range().start < a.range().end
            }
            (Resource::Kv(a), Resource::Kv(b)) => a == b,
            _ => false,
        }
    }
}

/// A compiled model.
#[derive(Clone, Debug)]
pub struct Plan {
    graph: Graph,
    limits: Limits,
    steps: Vec<Step>,
    values: Vec<Buffer>,
    acts: Vec<Option<Buffer>>,
    rope_tables: Vec<Buffer>,
    arena_bytes: usize,
}

impl Plan {
    /// Lays out `graph` for batches up to `limits`. `act_bytes(precision, k, rows)` is the room that the backend's
    /// quantized activations take.
    pub fn compile(graph: Graph, limits: Limits, act_bytes: &dyn Fn(Precision, usize, usize) -> usize) -> Plan {
        let kinds = list_steps(&graph, limits.precision);
        let act_bytes = |k, rows| act_bytes(limits.precision, k, rows);
        let mut layout = Layout::new(&graph, limits, &kinds, &act_bytes);
        layout.place_all();
        let Layout { values, acts, rope_tables, top, .. } = layout;
        let mut plan = Plan { graph, limits, steps: vec![], values, acts, rope_tables, arena_bytes: top };
        plan.steps = plan.find_barriers(&kinds);
        plan
    }

    /// The graph it was compiled from.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The largest batch.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Where a value lives: row-major f32.
    pub fn value(&self, v: ValueId) -> Buffer {
        self.values[v.0 as usize]
    }

    /// Where so many floats of the input go.
    ///
    /// # Errors
    /// The graph has no input, or they are too many.
    pub fn given(&self, floats: usize) -> Result<Range<usize>> {
        let room = self.graph.input.map(|v| self.value(v));
        match room.filter(|room| floats * 4 <= room.bytes) {
            Some(room) => Ok(room.offset..room.offset + floats * 4),
            None => Err(Error::Internal(format!("{floats} floats of input for a plan with room for {room:?}"))),
        }
    }

    /// Where a value's quantized rows live, if any matmul wants them.
    pub fn acts(&self, v: ValueId) -> Option<Buffer> {
        self.acts[v.0 as usize]
    }

    /// Where the cosines and sines of a rotary embedding live: for each token `dims / 2` cosines, then as many sines.
    pub fn rope_table(&self, rope: usize) -> Buffer {
        self.rope_tables[rope]
    }

    /// Floats in a row of `v`.
    pub fn width(&self, v: ValueId) -> usize {
        self.graph.values[v.0 as usize].width
    }

    /// How workers share a step.
    pub fn cut(kind: &StepKind) -> Cut {
        match kind {
            StepKind::RopeTable { .. } | StepKind::Quantize { .. } => Cut::Tokens,
            StepKind::Op(
                Op::Embed { .. }
                | Op::RmsNorm { .. }
                | Op::LayerNorm { .. }
                | Op::GatedAct { .. }
                | Op::ClampedGlu { .. }
                | Op::Act { .. }
                | Op::Softcap { .. }
                | Op::Adapt { .. }
                | Op::Copy { .. }
                | Op::Route { .. }
                | Op::Combine { .. },
            ) => Cut::Tokens,
            StepKind::Op(_) => Cut::Other,
        }
    }

    /// What a step reads and what it writes.
    fn accesses(&self, kind: &StepKind) -> (Vec<Resource>, Vec<Resource>) {
        let (mut reads, mut writes) = (vec![], vec![]);
        let info = |v: ValueId| self.graph.values[v.0 as usize];
        let value = |v| Resource::Arena(self.value(v), Form::Value { width: info(v).width, rows: info(v).rows });
        let acts = |v, buffer| Resource::Arena(buffer, Form::Acts { width: info(v).width, rows: info(v).rows });
        let table = |rope: usize| Resource::Arena(self.rope_tables[rope], Form::RopeTable);
        match *kind {
            StepKind::RopeTable { rope } => writes.push(table(rope)),
            StepKind::Quantize { x } => {
                reads.push(value(x));
                writes.extend(self.acts(x).map(|buffer| acts(x, buffer)));
            }
            StepKind::Op(op) => {
                if let Op::RopeStoreKv { rope, attention, .. } = op {
                    reads.extend(rope.map(table));
                    writes.push(Resource::Kv(attention.layer));
                }
                if let Op::Attention { attention, .. } = op {
                    reads.push(Resource::Kv(attention.layer));
                }
                for (v, access) in operands(&op) {
                    match access {
                        Access::Read => reads.push(value(v)),
                        Access::Write => writes.push(value(v)),
                        Access::Both => {
                            reads.push(value(v));
                            writes.push(value(v));
                        }
                        Access::Product(w) => reads.push(match self.acts(v) {
                            Some(a)
                                if integer_product(self.graph.weights[w.0 as usize].format, self.limits.precision) =>
                            {
                                acts(v, a)
                            }
                            _ => value(v),
                        }),
                    }
                }
            }
        }
        (reads, writes)
    }

    fn find_barriers(&self, kinds: &[StepKind]) -> Vec<Step> {
        // Since the last barrier: what was touched, whether it was written, and how its step was cut.
        let mut open: Vec<(Resource, bool, Cut)> = vec![];
        let mut steps = vec![];
        for kind in kinds {
            let (reads, writes) = self.accesses(kind);
            let cut = Plan::cut(kind);
            let all = || reads.iter().map(|r| (*r, false)).chain(writes.iter().map(|w| (*w, true)));
            let barrier = all().any(|(r, write)| {
                open.iter().any(|&(o, o_write, o_cut)| {
                    let own_rows = o == r && cut == Cut::Tokens && o_cut == Cut::Tokens;
                    (write || o_write) && r.meets(o) && !own_rows
                })
            });
            if barrier {
                open.clear();
            }
            open.extend(all().map(|(r, write)| (r, write, cut)));
            steps.push(Step { kind: *kind, barrier });
        }
        steps
    }
}

/// Whether weights of this format meet quantized activations. Formats without integer codes are multiplied as they
/// are.
pub fn integer_product(format: Format, precision: Precision) -> bool {
    precision != Precision::F32 && kernels::panel::is_coded(format)
}

/// How an operation touches a value.
#[derive(Clone, Copy)]
pub(crate) enum Access {
    Read,
    Write,
    Both,
    /// Read as the left side of a product with this weight.
    Product(WeightId),
}

/// The values that an operation touches.
pub(crate) fn operands(op: &Op) -> Vec<(ValueId, Access)> {
    use Access::{Both, Product, Read, Write};
    match *op {
        Op::Embed { add, out, .. } => add.map(|a| (a, Read)).into_iter().chain([(out, Write)]).collect(),
        Op::RmsNorm { x, residual, out, .. } => {
            residual.map(|r| (r, Read)).into_iter().chain([(x, Read), (out, Write)]).collect()
        }
        Op::LayerNorm { x, out, .. } | Op::Copy { x, out, .. } => vec![(x, Read), (out, Write)],
        Op::Act { x, .. } | Op::Softcap { x, .. } | Op::Adapt { x, .. } => vec![(x, Both)],
        Op::Route { scores, out, .. } => vec![(scores, Read), (out, Write)],
        Op::ExpertMatMul { x, routes, out, .. } => {
            routes.map(|r| (r, Read)).into_iter().chain([(x, Read), (out, Write)]).collect()
        }
        Op::Combine { x, routes, residual, out } => {
            residual.map(|r| (r, Read)).into_iter().chain([(x, Read), (routes, Read), (out, Write)]).collect()
        }
        Op::MatMul { x, weight, residual, out, .. } => {
            residual.map(|r| (r, Read)).into_iter().chain([(x, Product(weight)), (out, Write)]).collect()
        }
        Op::RopeStoreKv { q, k, v, .. } => vec![(q, Both), (k, Both), (v, Read)],
        Op::Attention { q, out, .. } => vec![(q, Read), (out, Write)],
        Op::GatedAct { gate, up, out, .. } | Op::ClampedGlu { gate, up, out } => {
            vec![(gate, Read), (up, Read), (out, Write)]
        }
        Op::Gather { x, out } => vec![(x, Read), (out, Write)],
    }
}

/// The graph's operations with the steps that a backend needs between them.
fn list_steps(graph: &Graph, precision: Precision) -> Vec<StepKind> {
    let mut steps: Vec<StepKind> = (0..graph.ropes.len()).map(|rope| StepKind::RopeTable { rope }).collect();
    let mut quantized = vec![false; graph.values.len()];
    for op in &graph.ops {
        if let Op::MatMul { x, weight, .. } = *op
            && integer_product(graph.weights[weight.0 as usize].format, precision)
            && !std::mem::replace(&mut quantized[x.0 as usize], true)
        {
            steps.push(StepKind::Quantize { x });
        }
        steps.push(StepKind::Op(*op));
    }
    steps
}

/// Places buffers by first fit over their lifetimes.
struct Layout<'a> {
    graph: &'a Graph,
    kinds: &'a [StepKind],
    /// What is placed, in the order of first use: (id, bytes, first step, last step).
    wanted: Vec<(Placed, usize, usize, usize)>,
    values: Vec<Buffer>,
    acts: Vec<Option<Buffer>>,
    rope_tables: Vec<Buffer>,
    top: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Placed {
    Value(ValueId),
    Acts(ValueId),
}

impl<'a> Layout<'a> {
    fn new(graph: &'a Graph, limits: Limits, kinds: &'a [StepKind], act_bytes: &dyn Fn(usize, usize) -> usize) -> Self {
        let rows = |v: ValueId| match graph.values[v.0 as usize].rows {
            Rows::Tokens => limits.tokens,
            Rows::Outputs => limits.outputs,
        };
        let mut layout = Layout {
            graph,
            kinds,
            wanted: vec![],
            values: vec![Buffer::default(); graph.values.len()],
            acts: vec![None; graph.values.len()],
            rope_tables: vec![],
            top: 0,
        };
        for rope in &graph.ropes {
            let bytes = (rope.pairs() * 2 * limits.tokens * 4).next_multiple_of(ALIGN);
            layout.rope_tables.push(Buffer { offset: layout.top, bytes });
            layout.top += bytes;
        }
        // What is given is there before the first step.
        if let Some(v) = graph.input {
            layout.touch(Placed::Value(v), graph.values[v.0 as usize].width * rows(v) * 4, 0);
        }
        for (step, kind) in kinds.iter().enumerate() {
            match kind {
                StepKind::RopeTable { .. } => {}
                StepKind::Quantize { x } => {
                    let width = graph.values[x.0 as usize].width;
                    layout.touch(Placed::Value(*x), 0, step);
                    layout.touch(Placed::Acts(*x), act_bytes(width, rows(*x)), step);
                }
                StepKind::Op(op) => {
                    for (v, access) in operands(op) {
                        let bytes = graph.values[v.0 as usize].width * rows(v) * 4;
                        layout.touch(Placed::Value(v), bytes, step);
                        if matches!(access, Access::Product(_)) {
                            layout.touch(Placed::Acts(v), 0, step);
                        }
                    }
                }
            }
        }
        // The result outlives the last step.
        layout.touch(Placed::Value(graph.logits), 0, kinds.len());
        layout
    }

    /// Extends the lifetime of a buffer to `step`; the first touch of a quantized buffer is its `Quantize` step.
    fn touch(&mut self, id: Placed, bytes: usize, step: usize) {
        match self.wanted.iter_mut().find(|w| w.0 == id) {
            Some(w) => w.3 = step,
            None if bytes > 0 => self.wanted.push((id, bytes.next_multiple_of(ALIGN), step, step)),
            None => {}
        }
    }

    /// A value that takes the place of a residual which dies in the same step: the sum is made in place.
    fn in_place(&self, id: Placed, first: usize) -> Option<Buffer> {
        let Placed::Value(v) = id else { return None };
        let StepKind::Op(
            Op::MatMul { residual: Some(r), out, .. }
            | Op::RmsNorm { residual: Some(r), out, .. }
            | Op::Combine { residual: Some(r), out, .. },
        ) = self.kinds.get(first)?
        else {
            return None;
        };
        let dies = self.wanted.iter().any(|w| w.0 == Placed::Value(*r) && w.3 == first);
        let same = self.graph.values[r.0 as usize].rows == self.graph.values[v.0 as usize].rows;
        (*out == v && dies && same).then(|| self.values[r.0 as usize])
    }

    fn place_all(&mut self) {
        let base = self.top;
        let mut live: Vec<(Buffer, usize)> = vec![];
        for (id, bytes, first, last) in self.wanted.clone() {
            live.retain(|&(_, end)| end >= first);
            let buffer = self.in_place(id, first).unwrap_or_else(|| first_fit(base, bytes, &live));
            live.push((buffer, last));
            self.top = self.top.max(buffer.offset + buffer.bytes);
            match id {
                Placed::Value(v) => self.values[v.0 as usize] = buffer,
                Placed::Acts(v) => self.acts[v.0 as usize] = Some(buffer),
            }
        }
    }
}

fn first_fit(base: usize, bytes: usize, live: &[(Buffer, usize)]) -> Buffer {
    let mut taken: Vec<_> = live.iter().map(|(b, _)| *b).collect();
    taken.sort_by_key(|b| b.offset);
    let mut offset = base;
    for b in taken {
        if b.offset >= offset + bytes {
            break;
        }
        offset = offset.max(b.offset + b.bytes);
    }
    Buffer { offset, bytes }
}
