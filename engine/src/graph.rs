//! A model as data: coarse operations over values and weights.
//!
//! A [`Graph`] says what is computed, not where or in which order of threads: [`crate::plan`] lays it out, a
//! backend replays it. Fusion is chosen here, by the builder's caller (a matmul takes its bias and residual, a norm
//! its residual), never discovered later. Shapes are checked against the file as each weight is named.

mod adapt;
mod cut;
mod op;
mod rope;

use crate::error::{Error, Result};
use crate::source::Source;
use crate::spec::Spec;
use gguf::{Format, TensorInfo};
use std::collections::HashSet;
use std::ops::Range;

pub use kernels::rowwise::Activation;
pub use rope::RopeFreqs;

/// A matrix that a step computes: one row of `width` floats for each token or each wanted output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// A tensor of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightId(pub u32);

/// Which rows a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One for each token of the batch.
    Tokens,
    /// One for each token whose logits are wanted.
    Outputs,
}

/// Shape of a value.
#[derive(Clone, Copy, Debug)]
pub struct ValueInfo {
    /// Floats in a row.
    pub width: usize,
    /// Which rows it has.
    pub rows: Rows,
}

/// How a weight is used, which decides how a backend stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// Rows that are multiplied with or looked up.
    Matrix,
    /// A vector of floats, decoded at load.
    Vector,
}

/// A tensor of the file that the graph uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightInfo {
    /// Its name in the file.
    pub name: String,
    /// Its format in the file.
    pub format: Format,
    /// First row of the tensor that it takes (first element, for a vector).
    pub first: usize,
    /// Output features (1 for a vector), of each expert where there are some.
    pub rows: usize,
    /// Input features.
    pub k: usize,
    /// Matrices of `rows` rows that stand one after the other; 1 but for experts and heads.
    pub experts: usize,
    /// How it is used.
    pub kind: WeightKind,
}

/// Attention of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Layer of the KV cache.
    pub layer: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Size of a key head.
    pub d_k: usize,
    /// Size of a value head.
    pub d_v: usize,
    /// Factor on query-key products.
    pub scale: f32,
    /// Keys at this distance or farther are masked.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Whether a token sees those before it only.
    pub causal: bool,
    /// Whether scores fall with distance, by the graph's slopes.
    pub alibi: bool,
    /// Scores of keys without values, one a query head.
    pub sinks: Option<WeightId>,
}

/// A row of a table for each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// By the token.
    Token,
    /// By the token's position.
    Position,
    /// The first one, for all.
    First,
}

/// Columns that are copied: `heads` runs of `width` floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Runs.
    pub heads: usize,
    /// Floats of a run.
    pub width: usize,
    /// First float of the first run that is read, and from there to the next.
    pub from: (usize, usize),
    /// The same of what is written.
    pub to: (usize, usize),
}

/// How a token's experts are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Routing {
    /// How many.
    pub used: usize,
    /// Whether their weights are scaled to a sum of 1.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// One operation. Rows are independent in all of them but attention.
#[expect(missing_docs, reason = "each variant's formula names its fields")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// `out = scale * table[row] (+ add)`.
    Embed { table: WeightId, lookup: Lookup, scale: f32, add: Option<ValueId>, out: ValueId },
    /// `out = x / rms(x) * weight (+ residual)`, over each of `heads` equal slices of a row.
    RmsNorm { x: ValueId, weight: WeightId, eps: f32, heads: usize, residual: Option<ValueId>, out: ValueId },
    /// `out = (x - mean(x)) / deviation(x) * weight (+ bias)`, over each of `heads` equal slices of a row.
    LayerNorm { x: ValueId, weight: WeightId, bias: Option<WeightId>, eps: f32, heads: usize, out: ValueId },
    /// `out = scale * (x * weight^T) (+ bias) (+ residual)`.
    MatMul {
        x: ValueId,
        weight: WeightId,
        scale: Option<f32>,
        bias: Option<WeightId>,
        residual: Option<ValueId>,
        out: ValueId,
    },
    /// Rotates `q` and `k` by their positions (where `rope` is given), then stores `k` and `v` in the KV cache.
    RopeStoreKv { q: ValueId, k: ValueId, v: ValueId, rope: Option<usize>, attention: AttentionSpec },
    /// `out` = softmax-weighted values of the keys that each token may see.
    Attention { q: ValueId, attention: AttentionSpec, out: ValueId },
    /// `out = act(gate) * up`.
    GatedAct { gate: ValueId, up: ValueId, act: Activation, out: ValueId },
    /// `out = g / (1 + e^(-1.702 g)) * (u + 1)`, with `g` the gate cut at 7, `u` cut at 7 and -7.
    ClampedGlu { gate: ValueId, up: ValueId, out: ValueId },
    /// `x = act(x)`.
    Act { x: ValueId, act: Activation },
    /// `x = cap * tanh(x / cap)`.
    Softcap { x: ValueId, cap: f32 },
    /// `x = s * x`, `s` how strong an adapter is for the row's sequence.
    Adapt { x: ValueId, adapter: usize },
    /// Copies some columns of `x` to some of `out`.
    Copy { x: ValueId, columns: Columns, out: ValueId },
    /// Of each row of scores the best experts and their weights: their numbers, then their weights.
    Route { scores: ValueId, routing: Routing, out: ValueId },
    /// `out[slot] = x[slot] * weight[expert]^T (+ bias[expert])` for each of a row's slots: with `routes` those of its
    /// experts, else slot `i` is expert `i`. `x` is one row for all slots, or has a part for each.
    ExpertMatMul { x: ValueId, routes: Option<ValueId>, weight: WeightId, bias: Option<WeightId>, out: ValueId },
    /// `out = sum over slots of weight * x[slot] (+ residual)`.
    Combine { x: ValueId, routes: ValueId, residual: Option<ValueId>, out: ValueId },
    /// The rows of `x` whose logits are wanted.
    Gather { x: ValueId, out: ValueId },
}

/// A model as data.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Shapes of the values.
    pub values: Vec<ValueInfo>,
    /// Tensors in use.
    pub weights: Vec<WeightInfo>,
    /// Rotary embeddings.
    pub ropes: Vec<RopeFreqs>,
    /// The operations, in an order that computes.
    pub ops: Vec<Op>,
    /// Slopes of ALiBi, one a query head.
    pub slopes: Vec<f32>,
    /// A value that is given with each batch, in a graph that goes on where another ends.
    pub input: Option<ValueId>,
    /// The result: for each wanted output a row of logits, or of an embedding model's hidden state.
    pub logits: ValueId,
}

/// Builds a [`Graph`] over the tensors of a file.
pub struct Builder<'a> {
    source: &'a dyn Source,
    graph: Graph,
    used: HashSet<String>,
    /// What was wrong with an adapter.
    fault: Option<Error>,
}

impl<'a> Builder<'a> {
    /// A builder with the rotary embeddings of `spec`. Where the file has `rope_freqs.weight`, each angle is divided by
    /// its factor there (Llama 3); where it has a set for short and one for long contexts (Phi), by that for the
    /// context asked for.
    pub fn new(spec: &Spec, source: &'a dyn Source) -> Result<Builder<'a>> {
        let slopes = spec.alibi.clone();
        let (values, weights, ropes, ops) = (vec![], vec![], vec![], vec![]);
        let graph = Graph { values, weights, ropes, ops, slopes, input: None, logits: ValueId(0) };
        let mut b = Builder { source, graph, used: HashSet::new(), fault: None };
        for rope in &spec.ropes {
            let pairs = rope.dims / 2;
            let one = b.read_vector("rope_freqs.weight", pairs)?;
            let short = b.read_vector("rope_factors_short.weight", pairs)?;
            let long = b.read_vector("rope_factors_long.weight", pairs)?;
            let stretched = rope.long_from.is_some_and(|original| spec.n_ctx > original);
            let factors = one.or(if stretched { long } else { short });
            b.graph.ropes.push(RopeFreqs::new(rope, factors.as_deref()));
        }
        Ok(b)
    }

    /// A small vector of the file as floats, where the tensor exists.
    fn read_vector(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        let Some(info) = self.source.tensor(name) else { return Ok(None) };
        check_shape(info, &[len as u64])?;
        self.used.insert(name.to_string());
        Ok(Some(crate::source::read_vector(self.source, info)?))
    }

    fn value(&mut self, width: usize, rows: Rows) -> ValueId {
        self.graph.values.push(ValueInfo { width, rows });
        ValueId(self.graph.values.len() as u32 - 1)
    }

    fn like(&mut self, x: ValueId, width: usize) -> ValueId {
        let rows = self.graph.values[x.0 as usize].rows;
        self.value(width, rows)
    }

    fn width(&self, x: ValueId) -> usize {
        self.graph.values[x.0 as usize].width
    }

    /// Rows `part` of each of `experts` matrices (elements, of a vector) of a tensor of shape `dims`.
    fn weight(&mut self, name: &str, dims: &[usize], part: Range<usize>, kind: WeightKind) -> Result<WeightId> {
        let (first, len) = (part.start, part.len());
        let (rows, k) = if kind == WeightKind::Vector { (1, len) } else { (len, dims[0]) };
        let same = |w: &WeightInfo| w.name == name && w.first == first && w.rows == rows && w.k == k;
        if let Some(i) = self.graph.weights.iter().position(same) {
            return Ok(WeightId(i as u32));
        }
        let dims: Vec<u64> = dims.iter().map(|&d| d as u64).collect();
        let info = self.source.tensor(name).ok_or_else(|| Error::Tensor {
            name: name.into(),
            found: "missing".into(),
            expected: format!("a tensor of shape {dims:?}"),
        })?;
        check_shape(info, &dims)?;
        self.used.insert(name.to_string());
        let experts = if kind == WeightKind::Matrix { dims.get(2).map_or(1, |&n| n as usize) } else { 1 };
        self.graph.weights.push(WeightInfo { name: name.into(), format: info.format, first, rows, k, experts, kind });
        Ok(WeightId(self.graph.weights.len() as u32 - 1))
    }

    /// A matrix of the file with `rows` output and `k` input features.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn matrix(&mut self, name: &str, rows: usize, k: usize) -> Result<WeightId> {
        self.weight(name, &[k, rows], 0..rows, WeightKind::Matrix)
    }

    /// Rows `part` of a matrix of `rows` rows.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn matrix_part(&mut self, name: &str, rows: usize, k: usize, part: Range<usize>) -> Result<WeightId> {
        self.weight(name, &[k, rows], part, WeightKind::Matrix)
    }

    /// `n` matrices of `rows` output and `k` input features in one tensor.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn experts(&mut self, name: &str, n: usize, rows: usize, k: usize) -> Result<WeightId> {
        self.weight(name, &[k, rows, n], 0..rows, WeightKind::Matrix)
    }

    /// A vector of `len` floats of the file.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<WeightId> {
        self.weight(name, &[len], 0..len, WeightKind::Vector)
    }

    /// Elements `part` of a vector of `len` floats, where the file has it.
    ///
    /// # Errors
    /// The tensor has another shape.
    pub fn opt_vector_part(&mut self, name: &str, len: usize, part: Range<usize>) -> Result<Option<WeightId>> {
        self.has(name).then(|| self.weight(name, &[len], part, WeightKind::Vector)).transpose()
    }

    /// All floats of a tensor of `n` rows of `width`, where the file has it.
    ///
    /// # Errors
    /// The tensor has another shape.
    pub fn opt_rows(&mut self, name: &str, n: usize, width: usize) -> Result<Option<WeightId>> {
        self.has(name).then(|| self.weight(name, &[width, n], 0..n * width, WeightKind::Vector)).transpose()
    }

    /// The one float of a tensor, where the file has it.
    ///
    /// # Errors
    /// The tensor has another shape or cannot be read.
    pub fn opt_scalar(&mut self, name: &str) -> Result<Option<f32>> {
        Ok(self.read_vector(name, 1)?.and_then(|v| v.first().copied()))
    }

    /// Says that a tensor of the file is known and not needed.
    pub fn leave(&mut self, name: &str) {
        self.used.insert(name.to_string());
    }

    /// The dimensions of a tensor.
    pub fn dims(&self, name: &str) -> Option<&[u64]> {
        self.source.tensor(name).map(|t| t.shape.dims())
    }

    /// A vector that not every file of an architecture has.
    pub fn opt_vector(&mut self, name: &str, len: usize) -> Result<Option<WeightId>> {
        self.has(name).then(|| self.vector(name, len)).transpose()
    }

    /// Whether the file has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.source.tensor(name).is_some()
    }

    /// Rows of `table` for the batch's tokens, times `scale`.
    pub fn embed(&mut self, table: WeightId, scale: f32) -> ValueId {
        self.lookup(table, Lookup::Token, scale, None)
    }

    /// Rows of `table` times `scale`; `add` is added to them.
    pub fn lookup(&mut self, table: WeightId, lookup: Lookup, scale: f32, add: Option<ValueId>) -> ValueId {
        let out = self.value(self.graph.weights[table.0 as usize].k, Rows::Tokens);
        self.graph.ops.push(Op::Embed { table, lookup, scale, add, out });
        out
    }

    /// Layer norm of each of `heads` slices of `x`.
    pub fn layer_norm(
        &mut self,
        x: ValueId,
        weight: WeightId,
        bias: Option<WeightId>,
        eps: f32,
        heads: usize,
    ) -> ValueId {
        let out = self.like(x, self.width(x));
        self.graph.ops.push(Op::LayerNorm { x, weight, bias, eps, heads, out });
        out
    }

    /// RMS norm of each of `heads` slices of `x`; `residual` is added to the result.
    pub fn rms_norm(
        &mut self,
        x: ValueId,
        weight: WeightId,
        eps: f32,
        heads: usize,
        residual: Option<ValueId>,
    ) -> ValueId {
        let out = self.like(x, self.width(x));
        self.graph.ops.push(Op::RmsNorm { x, weight, eps, heads, residual, out });
        out
    }

    /// `x` times a matrix; bias and residual are added to the result.
    pub fn matmul(
        &mut self,
        x: ValueId,
        weight: WeightId,
        bias: Option<WeightId>,
        residual: Option<ValueId>,
    ) -> ValueId {
        self.scaled_matmul(x, weight, None, bias, residual)
    }

    /// `x` times a matrix times `scale`; bias and residual are added to the result, and what adapters have for the matrix.
    pub fn scaled_matmul(
        &mut self,
        x: ValueId,
        weight: WeightId,
        scale: Option<f32>,
        bias: Option<WeightId>,
        residual: Option<ValueId>,
    ) -> ValueId {
        let out = self.like(x, self.graph.weights[weight.0 as usize].rows);
        self.graph.ops.push(Op::MatMul { x, weight, scale, bias, residual, out });
        match self.adapt(x, weight, scale.unwrap_or(1.0), out) {
            Ok(out) => out,
            Err(e) => {
                self.fault.get_or_insert(e);
                out
            }
        }
    }

    /// Rotary embedding of `q` and `k` in place, storage of `k` and `v`, and attention.
    pub fn attention(&mut self, [q, k, v]: [ValueId; 3], rope: Option<usize>, attention: AttentionSpec) -> ValueId {
        let out = self.like(q, attention.n_head * attention.d_v);
        self.graph.ops.push(Op::RopeStoreKv { q, k, v, rope, attention });
        self.graph.ops.push(Op::Attention { q, attention, out });
        out
    }

    /// `act(gate) * up`.
    pub fn gated_act(&mut self, gate: ValueId, up: ValueId, act: Activation) -> ValueId {
        let out = self.like(gate, self.width(gate));
        self.graph.ops.push(Op::GatedAct { gate, up, act, out });
        out
    }

    /// The gate of gpt-oss.
    pub fn clamped_glu(&mut self, gate: ValueId, up: ValueId) -> ValueId {
        let out = self.like(gate, self.width(gate));
        self.graph.ops.push(Op::ClampedGlu { gate, up, out });
        out
    }

    /// `x = act(x)`.
    pub fn activate(&mut self, x: ValueId, act: Activation) {
        self.graph.ops.push(Op::Act { x, act });
    }

    /// `x = cap * tanh(x / cap)`.
    pub fn softcap(&mut self, x: ValueId, cap: f32) {
        self.graph.ops.push(Op::Softcap { x, cap });
    }

    /// A value of `width` floats a row that [`Builder::copy`] fills, with as many rows as `x`.
    pub fn blank(&mut self, x: ValueId, width: usize) -> ValueId {
        self.like(x, width)
    }

    /// Copies some columns of `x` to some of `out`.
    pub fn copy(&mut self, x: ValueId, columns: Columns, out: ValueId) {
        self.graph.ops.push(Op::Copy { x, columns, out });
    }

    /// The experts of each row of `scores`, and their weights.
    pub fn route(&mut self, scores: ValueId, routing: Routing) -> ValueId {
        let out = self.like(scores, 2 * routing.used);
        self.graph.ops.push(Op::Route { scores, routing, out });
        out
    }

    /// `x` times the matrices of each row's experts (of all, in order, without `routes`), one part of the result a slot.
    pub fn expert_matmul(
        &mut self,
        x: ValueId,
        routes: Option<ValueId>,
        weight: WeightId,
        bias: Option<WeightId>,
    ) -> ValueId {
        let w = &self.graph.weights[weight.0 as usize];
        let (rows, experts) = (w.rows, w.experts);
        let slots = routes.map_or(experts, |r| self.width(r) / 2);
        let out = self.like(x, slots * rows);
        self.graph.ops.push(Op::ExpertMatMul { x, routes, weight, bias, out });
        out
    }

    /// The parts of `x` added up by the weights of their experts.
    pub fn combine(&mut self, x: ValueId, routes: ValueId, residual: Option<ValueId>) -> ValueId {
        let out = self.like(x, self.width(x) / (self.width(routes) / 2));
        self.graph.ops.push(Op::Combine { x, routes, residual, out });
        out
    }

    /// The rows of `x` whose logits are wanted.
    pub fn gather(&mut self, x: ValueId) -> ValueId {
        let out = self.value(self.width(x), Rows::Outputs);
        self.graph.ops.push(Op::Gather { x, out });
        out
    }

    /// Ends the graph with its result.
    ///
    /// # Errors
    /// A tensor of the file that the architecture has no use for: ignoring it would compute another model.
    pub fn finish(mut self, logits: ValueId) -> Result<Graph> {
        self.graph.logits = logits;
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match self.source.tensors().iter().find(|t| !self.used.contains(&t.name)) {
            None => Ok(self.graph),
            Some(t) => Err(Error::Tensor {
                name: t.name.clone(),
                found: "a tensor that this architecture has no use for".into(),
                expected: "only the architecture's own tensors".into(),
            }),
        }
    }
}

fn check_shape(info: &TensorInfo, dims: &[u64]) -> Result<()> {
    let found = info.shape.dims();
    let trimmed =
        &found[..found.len() - found[dims.len().min(found.len())..].iter().rev().take_while(|&&d| d == 1).count()];
    if trimmed == dims {
        return Ok(());
    }
    Err(Error::Tensor {
        name: info.name.clone(),
        found: format!("shape {found:?}"),
        expected: format!("shape {dims:?}"),
    })
}
