//! Which kernels a graph calls in a step, in which shapes and how often.

use super::super::values::Setting;
use super::attention::Attention;
use super::matmul::{Embed, MatMul, Quantize};
use super::report::Phase;
use super::rows::{Gated, RmsNorm, Rope, StoreKv};
use super::{Case, Context};
use crate::error::Result;
use engine::KvType;
use engine::graph::{Activation, AttentionSpec, Graph, Op, Rows, ValueId, WeightId};
use engine::plan::integer_product;
use gguf::Format;

/// A kernel in one shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A matrix times columns.
    MatMul { format: Format, rows: usize, k: usize, columns: usize, weights: Vec<WeightId> },
    /// Activations to 8 bits.
    Quantize { k: usize, columns: usize },
    /// Rows of the embedding.
    Embed { table: WeightId, format: Format, k: usize, tokens: usize },
    /// Norm of slices.
    RmsNorm { width: usize, slices: usize },
    /// Rotary embedding of queries and keys.
    Rope { d_k: usize, heads: usize, rope: usize, tokens: usize },
    /// Keys and values into the cache.
    StoreKv { heads: usize, d_k: usize, d_v: usize, tokens: usize },
    /// Attention of one layer.
    Attention { spec: AttentionSpec, tokens: usize, start: usize },
    /// Activation of a gate times its partner.
    Gated { act: Activation, width: usize, tokens: usize },
}

impl Shape {
    /// The kernel's name.
    pub fn kernel(&self) -> &'static str {
        match self {
            Shape::MatMul { .. } => "matmul",
            Shape::Quantize { .. } => "quantize",
            Shape::Embed { .. } => "embed",
            Shape::RmsNorm { .. } => "rms_norm",
            Shape::Rope { .. } => "rope",
            Shape::StoreKv { .. } => "kv_store",
            Shape::Attention { .. } => "attention",
            Shape::Gated { .. } => "gated",
        }
    }

    /// The format of its weights or of the cache.
    pub fn format(&self, kv: KvType) -> String {
        match self {
            Shape::MatMul { format, .. } | Shape::Embed { format, .. } => format.name().to_string(),
            Shape::Attention { .. } | Shape::StoreKv { .. } => format!("{kv:?}").to_lowercase(),
            _ => "f32".to_string(),
        }
    }

    /// Its sizes.
    pub fn sizes(&self) -> String {
        match self {
            Shape::MatMul { rows, k, columns, .. } => format!("{rows}x{k} x {columns}"),
            Shape::Quantize { k, columns } => format!("{k} x {columns}"),
            Shape::Embed { k, tokens, .. } => format!("{k} x {tokens}"),
            Shape::RmsNorm { width, slices } => format!("{width} x {slices}"),
            Shape::Rope { d_k, heads, tokens, .. } => format!("{d_k} x {heads} x {tokens}"),
            Shape::StoreKv { heads, d_k, d_v, tokens } => format!("{heads} x ({d_k} + {d_v}) x {tokens}"),
            Shape::Attention { spec, tokens, start } => {
                let window = spec.window.map_or(String::new(), |w| format!(", window {w}"));
                format!("{}/{} x {} x {tokens} @ {start}{window}", spec.n_head, spec.n_head_kv, spec.d_k)
            }
            Shape::Gated { width, tokens, .. } => format!("{width} x {tokens}"),
        }
    }

    /// Kernel and sizes.
    pub fn name(&self) -> String {
        format!("{} {}", self.kernel(), self.sizes())
    }

    /// Takes memory and fills it.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn build<'a>(&self, context: &Context<'a>, phase: Phase) -> Result<Box<dyn Case + 'a>> {
        Ok(match self {
            Shape::MatMul { columns, weights, .. } => Box::new(MatMul::new(context, weights, *columns)?),
            Shape::Quantize { k, columns } => Box::new(Quantize::new(context, *k, *columns)),
            Shape::Embed { table, tokens, .. } => Box::new(Embed::new(context, *table, *tokens)?),
            Shape::RmsNorm { width, slices } => Box::new(RmsNorm::new(context, *width, *slices)),
            Shape::Rope { d_k, heads, rope, tokens } => {
                Box::new(Rope::new(context, [*d_k, *heads, *rope, *tokens], phase))
            }
            Shape::StoreKv { heads, d_k, d_v, tokens } => {
                Box::new(StoreKv::new(context, [*heads, *d_k, *d_v, *tokens]))
            }
            Shape::Attention { spec, tokens, start } => Box::new(Attention::new(context, *spec, *tokens, *start)?),
            Shape::Gated { act, width, tokens } => Box::new(Gated::new(context, *act, *width, *tokens)),
        })
    }

    /// Whether a call of `other` is one more call of this; if so, its weights are added.
    fn joins(&mut self, other: &Shape) -> bool {
        match (self, other) {
            (Shape::MatMul { format, rows, k, columns, weights }, Shape::MatMul { weights: more, .. }) => {
                let (format, rows, k, columns) = (*format, *rows, *k, *columns);
                let same = *other == Shape::MatMul { format, rows, k, columns, weights: more.clone() };
                if same {
                    weights.extend(more);
                }
                same
            }
            // Layers of one shape; where each keeps its keys does not matter here.
            (Shape::Attention { spec, .. }, Shape::Attention { spec: other, .. }) => {
                AttentionSpec { layer: 0, sinks: None, ..*spec } == AttentionSpec { layer: 0, sinks: None, ..*other }
            }
            (mine, other) => mine == other,
        }
    }
}

/// The shapes of a step in order of first use, with the number of calls of each.
pub fn list(graph: &Graph, phase: Phase, setting: Setting) -> Vec<(Shape, usize)> {
    let mut found: Vec<(Shape, usize)> = vec![];
    let mut quantized: Vec<ValueId> = vec![];
    let mut add = |shape: Shape| match found.iter_mut().find_map(|(s, calls)| s.joins(&shape).then_some(calls)) {
        Some(calls) => *calls += 1,
        None => found.push((shape, 1)),
    };
    for op in &graph.ops {
        let rows = |v: ValueId| match graph.values[v.0 as usize].rows {
            Rows::Tokens => phase.tokens,
            Rows::Outputs => 1,
        };
        let width = |v: ValueId| graph.values[v.0 as usize].width;
        match *op {
            Op::Embed { table, .. } => {
                let w = &graph.weights[table.0 as usize];
                add(Shape::Embed { table, format: w.format, k: w.k, tokens: phase.tokens });
            }
            Op::MatMul { x, weight, .. } => {
                let w = &graph.weights[weight.0 as usize];
                let columns = rows(x);
                if integer_product(w.format, setting.precision) && !quantized.contains(&x) {
                    quantized.push(x);
                    add(Shape::Quantize { k: w.k, columns });
                }
                add(Shape::MatMul { format: w.format, rows: w.rows, k: w.k, columns, weights: vec![weight] });
            }
            Op::RmsNorm { x, heads, .. } => add(Shape::RmsNorm { width: width(x) / heads, slices: heads * rows(x) }),
            Op::RopeStoreKv { rope, attention: a, .. } => {
                let tokens = phase.tokens;
                if let Some(rope) = rope {
                    add(Shape::Rope { d_k: a.d_k, heads: a.n_head + a.n_head_kv, rope, tokens });
                }
                add(Shape::StoreKv { heads: a.n_head_kv, d_k: a.d_k, d_v: a.d_v, tokens });
            }
            Op::Attention { attention: spec, .. } => {
                add(Shape::Attention { spec, tokens: phase.tokens, start: phase.start });
            }
            Op::GatedAct { gate, act, .. } => add(Shape::Gated { act, width: width(gate), tokens: rows(gate) }),
            // Copies, and row-wise operations that a hundredth of the time goes into; experts are no part of the list.
            _ => {}
        }
    }
    found
}
