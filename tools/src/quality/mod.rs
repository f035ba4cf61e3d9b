//! `handmill quality`: what quantizing a model has cost, and what it has brought.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`weights`] | how far the matrices of two files are apart |
//! | [`layers`] | how far what two models feed their layers is apart |
//! | [`report`] | the figures as a table, as JSON, as a page |
//!
//! Candidates are measured one after the other beside the same truth, in lockstep: rows of logits are compared as they
//! come, and none are kept. Error, perplexity and divergence are those of the weights alone: activations are f32 unless
//! another precision is asked for. Speed is what a user gets, with activations of 8 bits.

mod layers;
mod report;
mod weights;

use std::path::{Path, PathBuf};

use clap::Args;
use engine::sampler::Params;
use engine::{Engine, Event, KvType, Options, Precision, Request};

use crate::cli::precision;
use crate::error::Result;
use crate::eval::{self, Figures, Setting, Side};
use crate::memory;
use crate::store::write_whole;
use crate::ui::{Ui, print};
use layers::Recorder;

const EXAMPLES: &str = "\
Examples:
  handmill quality f16.gguf q4_0.gguf q4_k_m.gguf q4_e.gguf --text text.txt
  handmill quality f16.gguf q3_k_m.gguf --text text.txt --chunks 8 --html report.html --json > report.json

Weight error is the root mean square of the difference of all matrices, relative to that of their weights. Layer error is
the same of what goes into a layer's first product, over the first chunk, with f32 activations only.";

/// Arguments of `quality`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The truth: a name of the store or the catalogue, or the path of a GGUF file; in f16 or more
    #[arg(value_name = "F16")]
    truth: String,
    /// What is judged by it
    #[arg(value_name = "CANDIDATE", required = true)]
    candidates: Vec<String>,
    /// A text in UTF-8
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of a chunk
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    ctx: usize,
    /// Most chunks [default: all of the text]
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Precision of the candidates' activations: f32, q16 or q8
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Worker threads [default: one a core; the two models share the cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Tokens that are generated to measure speed; 0 measures none
    #[arg(long, value_name = "N", default_value_t = 32)]
    generate: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write a page with all tables to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Everything that was found of a model.
pub struct Found {
    name: String,
    bytes: u64,
    bits: f64,
    figures: Figures,
    tensors: Vec<weights::Compared>,
    layers: Vec<(String, f64)>,
    /// Tokens a second of a prompt and of an answer.
    speed: Option<[f64; 2]>,
}

/// Carries it out.
///
/// # Errors
/// A model or the text cannot be read, the models do not fit each other, or an engine fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    let text = eval::read_text(&arguments.text)?;
    let recorders = [Recorder::default(), Recorder::default()];
    let setting = |precision, recorder: &Recorder| Setting {
        ctx: arguments.ctx,
        threads: arguments.threads.unwrap_or_else(half_of_the_cores),
        isa: None,
        precision,
        kv: KvType::F32,
        probe: Some(recorder.probe()),
    };
    let truth = Side::open(&arguments.truth, &setting(Precision::F32, &recorders[1]), ui)?;
    let mut all = Vec::new();
    for name in &arguments.candidates {
        let model = Side::open(name, &setting(arguments.precision, &recorders[0]), ui)?;
        eval::same_tokens(&model, &truth, &text)?;
        let chunks = eval::chunked(model.engine.tokenizer(), &text, arguments.ctx, arguments.chunks)?;
        let mut figures = Figures::default();
        recorders.iter().for_each(Recorder::start);
        eval::measure((&model, Some(&truth)), &chunks[..1], &mut figures, ui)?;
        let [ours, theirs] = [&recorders[0], &recorders[1]].map(Recorder::stop);
        eval::measure((&model, Some(&truth)), &chunks[1..], &mut figures, ui)?;
        let layers = if arguments.precision == Precision::F32 { layers::compare(&ours, &theirs) } else { Vec::new() };
        let (tensors, bytes, bits) = weights::compare(&model.path, &truth.path, ui)?;
        drop(model.engine);
        let speed = speed(arguments, &model.path, &chunks[0], ui)?;
        all.push(Found { name: name.clone(), bytes, bits, figures, tensors, layers, speed });
    }
    drop(truth.engine);
    if let Some(path) = &arguments.html {
        write_whole(path, report::page(arguments, &all).as_bytes())?;
    }
    print(&if arguments.json { report::json(arguments, &all) } else { report::text(&all) })
}

fn half_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2)
}

/// Tokens a second as a user gets them: of a prompt of one chunk, and of an answer to some of it.
fn speed(arguments: &Arguments, path: &Path, chunk: &[u32], ui: Ui) -> Result<Option<[f64; 2]>> {
    if arguments.generate == 0 {
        return Ok(None);
    }
    let options = Options {
        ctx: Some(arguments.ctx + arguments.generate),
        threads: arguments.threads,
        memory: memory::available(),
        ..Options::default()
    };
    let engine = crate::commands::open(path, &options, ui)?;
    let short = &chunk[..chunk.len().div_ceil(8)];
    // The first one finds everything cold; scopes of their own keep a prompt from being found in the cache.
    let rounds = [(chunk, 0), (chunk, 0), (short, arguments.generate)];
    let mut last = [0.0; 2];
    for (scope, (prompt, tokens)) in (1..).zip(rounds) {
        let rates = answer(&engine, prompt, tokens, scope)?;
        last = if tokens == 0 { [rates[0], 0.0] } else { [last[0], rates[1]] };
    }
    Ok(Some(last))
}

fn answer(engine: &Engine, prompt: &[u32], tokens: usize, scope: u32) -> Result<[f64; 2]> {
    let mut request = Request::new(prompt.to_vec(), Params::greedy());
    (request.max_tokens, request.ignore_eog, request.scope) = (Some(tokens), true, scope);
    for event in engine.submit(request) {
        match event {
            Event::Failed(error) => return Err(error.into()),
            Event::Done { timings, .. } => return Ok([timings.prompt_rate(), timings.generate_rate()]),
            Event::Prompt { .. } | Event::Token { .. } => {}
        }
    }
    Err(engine::Error::Internal("the engine has ended".into()).into())
}
