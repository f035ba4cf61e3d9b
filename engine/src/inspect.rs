//! A model one operation at a time, for comparing what two devices make of it.
//!
//! Equal files, whatever they are loaded on, give the same operations, so two inspectors can walk side by side: what the
//! one has written is held against what the other has, and the first operation that differs is where to look.

use crate::backend::{Backend, Info, Written};
use crate::batch::Batch;
use crate::engine::{Blueprint, Options, Progress, with_file, with_source};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::scheduler::Limits;
use crate::spec::Spec;
use crate::tokenizer::Tokenizer;
use gguf::Gguf;
use std::path::Path;
use std::sync::Arc;

/// An operation of a model, as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What it does: `matmul`, `rms_norm`.
    pub kind: &'static str,
    /// Its layer; none before the first and behind the last.
    pub layer: Option<usize>,
    /// The tensor that it takes; empty where it takes none.
    pub tensor: String,
}

/// A loaded model with one sequence, computed as far as its owner has gone.
pub struct Inspector {
    backend: Box<dyn Backend>,
    spec: Spec,
    tokenizer: Arc<Tokenizer>,
    limits: Limits,
    operations: Vec<Operation>,
    /// How strong its adapters are.
    strengths: Vec<f32>,
    batch: Batch,
    /// Tokens in the cache.
    len: usize,
}

impl Inspector {
    /// Loads a model's file.
    ///
    /// # Errors
    /// As those of [`crate::Engine::open`].
    pub fn open(path: &Path, options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Inspector> {
        with_file(path, options, &mut |b, source| Inspector::load(b, source, progress))
    }

    /// Loads a model whose file is in memory.
    ///
    /// # Errors
    /// As [`Inspector::open`].
    pub fn from_bytes(bytes: &[u8], options: &Options) -> Result<Inspector> {
        let gguf = Gguf::parse(bytes)?;
        with_source(&gguf, &gguf, options, &mut |b, source| Inspector::load(b, source, &mut |_| ()))
    }

    fn load(
        blueprint: Blueprint,
        source: &dyn crate::source::Source,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Inspector> {
        let (operations, strengths) = (operations(blueprint.graph()), blueprint.strengths());
        let (spec, tokenizer, limits) = (blueprint.spec().clone(), blueprint.tokenizer().clone(), blueprint.limits());
        let backend = blueprint.load(source, progress)?;
        let batch = Batch::with_capacity(limits.batch, limits.pages);
        Ok(Inspector { backend, spec, tokenizer, limits, operations, strengths, batch, len: 0 })
    }

    /// What it runs on.
    pub fn info(&self) -> Info {
        self.backend.info()
    }

    /// The model's hyperparameters.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The operations in order. The last one writes the logits, or the hidden states of a model of embeddings.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Most tokens of one batch.
    pub fn most_tokens(&self) -> usize {
        self.limits.chunk
    }

    /// Goes on to a batch of the sequence's next tokens. Of the last of them, as many as a step gives, logits are
    /// wanted.
    ///
    /// # Errors
    /// There are no tokens or too many, or one is not in the vocabulary.
    pub fn begin(&mut self, tokens: &[u32]) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::PromptEmpty);
        }
        if tokens.len() > self.limits.chunk || self.len + tokens.len() > self.limits.ctx {
            return Err(Error::PromptTooLong { tokens: self.len + tokens.len(), ctx: self.limits.ctx });
        }
        let n_vocab = self.spec.n_vocab;
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= n_vocab) {
            return Err(Error::TokenRange { id, n_vocab });
        }
        let pages: Vec<u32> = (0..(self.len + tokens.len()).div_ceil(crate::kv::PAGE) as u32).collect();
        self.batch.clear();
        let first = tokens.len() - tokens.len().min(self.limits.outputs);
        self.batch.push(tokens, self.len, &pages, first..tokens.len());
        self.batch.adapt(&self.strengths);
        self.len += tokens.len();
        Ok(())
    }

    /// Computes an operation for the batch, after all before it, and gives what it has written.
    ///
    /// # Errors
    /// The device fails, or there is no such operation.
    pub fn compute(&mut self, operation: usize) -> Result<Vec<Written>> {
        if operation >= self.operations.len() {
            return Err(Error::Internal(format!("operation {operation} of {}", self.operations.len())));
        }
        self.backend.operation(&self.batch, operation)
    }
}

fn operations(graph: &Graph) -> Vec<Operation> {
    let one = |(op, layer): (&crate::graph::Op, Option<usize>)| Operation {
        kind: op.kind(),
        layer,
        tensor: graph.weight_name(op).unwrap_or_default().to_string(),
    };
    graph.ops.iter().zip(graph.layers()).map(one).collect()
}
