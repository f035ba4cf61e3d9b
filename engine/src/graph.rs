//! A model as data: coarse operations over values and weights.
//!
//! A [`Graph`] says what is computed, not where or in which order of threads: [`crate::plan`] lays it out, a
//! backend replays it. Fusion is chosen here, by the builder's caller (a matmul takes its bias and residual, a norm
//! its residual), never discovered later. Shapes are checked against the file as each weight is named.

use crate::error::{Error, Result};
use crate::source::Source;
use crate::spec::{Pairing, Rope, Spec};
use gguf::{Format, TensorInfo};
use std::collections::HashSet;

pub use kernels::rowwise::Activation;

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
#[derive(Clone, Debug)]
pub struct WeightInfo {
    /// Its name in the file.
    pub name: String,
    /// Its format in the file.
    pub format: Format,
    /// Output features (1 for a vector).
    pub rows: usize,
    /// Input features.
    pub k: usize,
    /// How it is used.
    pub kind: WeightKind,
}

/// Rotary embedding with its frequencies worked out.
#[derive(Clone, Debug)]
pub struct RopeFreqs {
    /// Each pair turns by this times the angle of the pair before it.
    pub ratio: f32,
    /// Factor on all angles.
    pub scale: f32,
    /// Divisors of the angles, one a pair.
    pub factors: Vec<f32>,
    /// Which elements pair up.
    pub pairing: Pairing,
}

impl RopeFreqs {
    /// Pairs of a head.
    pub fn pairs(&self) -> usize {
        self.factors.len()
    }

    /// Radians that each pair turns by at a position.
    ///
    /// The angles are a geometric series of f32, each rounded, as models were trained and as the engines that published
    /// expected values compute them; their cosines and sines are those of f64, rounded once. At position 750 exact
    /// angles would move the logits of gemma-3-270m by 0.0025.
    pub fn angles(&self, position: u32) -> impl Iterator<Item = f64> {
        let mut next = position as f32;
        self.factors.iter().map(move |factor| {
            let angle = next;
            next *= self.ratio;
            f64::from(self.scale * (angle / factor))
        })
    }

    /// Writes the cosines and sines of a position.
    pub fn fill(&self, position: u32, cos: &mut [f32], sin: &mut [f32]) {
        for ((cos, sin), angle) in cos.iter_mut().zip(sin).zip(self.angles(position)) {
            let (s, c) = libm::sincos(angle);
            (*cos, *sin) = (c as f32, s as f32);
        }
    }
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
}

/// One operation. Rows are independent in all of them but attention.
#[expect(missing_docs, reason = "each variant's formula names its fields")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// `out = scale * table[token]`.
    Embed { table: WeightId, scale: f32, out: ValueId },
    /// `out = x / rms(x) * weight (+ residual)`, over each of `heads` equal slices of a row.
    RmsNorm { x: ValueId, weight: WeightId, eps: f32, heads: usize, residual: Option<ValueId>, out: ValueId },
    /// `out = x * weight^T (+ bias) (+ residual)`.
    MatMul { x: ValueId, weight: WeightId, bias: Option<WeightId>, residual: Option<ValueId>, out: ValueId },
    /// Rotates `q` and `k` by their positions (where `rope` is given), then stores `k` and `v` in the KV cache.
    RopeStoreKv { q: ValueId, k: ValueId, v: ValueId, rope: Option<usize>, attention: AttentionSpec },
    /// `out` = softmax-weighted values of the keys that each token may see.
    Attention { q: ValueId, attention: AttentionSpec, out: ValueId },
    /// `out = act(gate) * up`.
    GatedAct { gate: ValueId, up: ValueId, act: Activation, out: ValueId },
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
    /// The result: one row of `n_vocab` for each wanted output.
    pub logits: ValueId,
}

/// Builds a [`Graph`] over the tensors of a file.
pub struct Builder<'a> {
    source: &'a dyn Source,
    graph: Graph,
    used: HashSet<String>,
}

impl<'a> Builder<'a> {
    /// A builder with the rotary embeddings of `spec`. Where the file has `rope_freqs.weight`, each wavelength is
    /// divided by its factor there (Llama 3).
    pub fn new(spec: &Spec, source: &'a dyn Source) -> Result<Builder<'a>> {
        let graph = Graph { values: vec![], weights: vec![], ropes: vec![], ops: vec![], logits: ValueId(0) };
        let mut b = Builder { source, graph, used: HashSet::new() };
        for rope in &spec.ropes {
            let factors = b.read_vector("rope_freqs.weight", rope.dims / 2)?;
            b.graph.ropes.push(rope_freqs(rope, factors.as_deref()));
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

    fn weight(&mut self, name: &str, dims: &[u64], kind: WeightKind) -> Result<WeightId> {
        if let Some(i) = self.graph.weights.iter().position(|w| w.name == name) {
            return Ok(WeightId(i as u32));
        }
        let info = self.source.tensor(name).ok_or_else(|| Error::Tensor {
            name: name.into(),
            found: "missing".into(),
            expected: format!("a tensor of shape {dims:?}"),
        })?;
        check_shape(info, dims)?;
        self.used.insert(name.to_string());
        let (k, rows) = (info.shape.k() as usize, info.shape.rows() as usize);
        self.graph.weights.push(WeightInfo { name: name.into(), format: info.format, rows, k, kind });
        Ok(WeightId(self.graph.weights.len() as u32 - 1))
    }

    /// A matrix of the file with `rows` output and `k` input features.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn matrix(&mut self, name: &str, rows: usize, k: usize) -> Result<WeightId> {
        self.weight(name, &[k as u64, rows as u64], WeightKind::Matrix)
    }

    /// A vector of `len` floats of the file.
    ///
    /// # Errors
    /// The tensor is missing or has another shape.
    pub fn vector(&mut self, name: &str, len: usize) -> Result<WeightId> {
        self.weight(name, &[len as u64], WeightKind::Vector)
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
        let out = self.value(self.graph.weights[table.0 as usize].k, Rows::Tokens);
        self.graph.ops.push(Op::Embed { table, scale, out });
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
        let out = self.like(x, self.graph.weights[weight.0 as usize].rows);
        self.graph.ops.push(Op::MatMul { x, weight, bias, residual, out });
        out
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

/// The angles of a rotary embedding (Su et al., 2021): pair i turns by `position * base^(-2i / dims) * scale / factor[i]`
/// (factors as published with Llama 3.1).
fn rope_freqs(rope: &Rope, factors: Option<&[f32]>) -> RopeFreqs {
    let pairs = rope.dims / 2;
    RopeFreqs {
        ratio: libm::pow(rope.base, -2.0 / rope.dims as f64) as f32,
        scale: rope.scale as f32,
        factors: factors.map_or_else(|| vec![1.0; pairs], <[f32]>::to_vec),
        pairing: rope.pairing,
    }
}
