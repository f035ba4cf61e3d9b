//! `handmill imatrix`: which columns of a model's matrices matter, from what a text brings to them.
//!
//! For every matrix the squares of each of its inputs are summed over all tokens: an error in a column counts as much as
//! its inputs are large. The file is the one that llama.cpp's tools write and read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use engine::sampler::Params;
use engine::{Engine, Event, Options, Precision, Probe, Request};
use gguf::{Builder, Endian, Format};

use crate::error::{Error, Result};
use crate::eval;
use crate::memory;
use crate::quantize::importance::{CHUNK_COUNT, CHUNK_SIZE, COUNTS, DATASETS, SUMS};
use crate::quantize::write::{Job, Planned, encode};
use crate::ui::format::printable;
use crate::ui::{Ui, print};

const EXAMPLES: &str = "\
Examples:
  handmill imatrix model-f16.gguf text.txt -o model.imatrix.gguf
  handmill quantize model-f16.gguf model-q3_k_m.gguf q3_k_m --imatrix model.imatrix.gguf

The text should be like what the model will read: some hundred kilobytes of it. Activations are computed in f32.";

/// Arguments of `imatrix`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file; best in f16 or more
    model: String,
    /// A text in UTF-8
    text: PathBuf,
    /// The file to write; it is replaced when the new one is whole
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Tokens of a chunk
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    ctx: usize,
    /// Most chunks [default: all of the text]
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// What was seen of a matrix: sums of squares by column, and rows; of each expert where there are some.
#[derive(Default)]
struct Seen {
    sums: Vec<f64>,
    counts: Vec<u64>,
}

type All = Arc<Mutex<BTreeMap<String, Seen>>>;

/// Carries it out.
///
/// # Errors
/// The model or the text cannot be read, the text is too short, or the file cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    let text = eval::read_text(&arguments.text)?;
    let path = crate::commands::find(&arguments.model, ui)?;
    let all = All::default();
    let options = Options {
        ctx: Some(arguments.ctx),
        threads: arguments.threads,
        precision: Precision::F32,
        memory: memory::available(),
        probe: Some(gather(&all)),
        ..Options::default()
    };
    let engine = crate::commands::open(&path, &options, ui)?;
    let chunks = eval::chunked(engine.tokenizer(), &text, arguments.ctx, arguments.chunks)?;
    let steps = ui.steps("measuring", chunks.len());
    for (done, chunk) in chunks.iter().enumerate() {
        feed(&engine, chunk)?;
        steps.at(done + 1, "");
    }
    drop((steps, engine));
    let all = std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner));
    let size = write(arguments, &all, chunks.len(), ui)?;
    let path = printable(&arguments.output.display().to_string());
    print(&format!(
        "{path}: {} matrices over {} chunks of {} tokens, {}\n",
        all.len(),
        chunks.len(),
        arguments.ctx,
        crate::ui::format::bytes(size)
    ))
}

/// A probe that adds up what it sees.
fn gather(all: &All) -> Probe {
    let all = all.clone();
    Probe::new(move |name, (expert, experts), row| {
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(name) {
            all.insert(name.to_string(), Seen::default());
        }
        let Some(seen) = all.get_mut(name) else { return };
        seen.counts.resize(experts, 0);
        seen.sums.resize(experts * row.len(), 0.0);
        seen.counts[expert] += 1;
        let sums = &mut seen.sums[expert * row.len()..(expert + 1) * row.len()];
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) * f64::from(*x));
    })
}

/// Computes a chunk.
fn feed(engine: &Engine, chunk: &[u32]) -> Result<()> {
    let mut request = Request::new(chunk.to_vec(), Params::greedy());
    request.max_tokens = Some(0);
    // Nothing may come from the cache: every token counts.
    request.observe_from = 0;
    request.observer = Some(Box::new(|_, _| ()));
    for event in engine.submit(request) {
        if let Event::Failed(error) = event {
            return Err(error.into());
        }
    }
    Ok(())
}

fn write(arguments: &Arguments, all: &BTreeMap<String, Seen>, chunks: usize, ui: Ui) -> Result<u64> {
    let mut head = Builder::new(Endian::Little);
    head.key("general.type", "imatrix")?;
    let text = arguments.text.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    head.key(DATASETS, vec![text])?;
    head.key(CHUNK_COUNT, chunks as u32)?;
    head.key(CHUNK_SIZE, arguments.ctx as u32)?;
    let mut planned = Vec::new();
    let mut values: Vec<Vec<f32>> = Vec::new();
    for (name, seen) in all {
        let (n, k) = (seen.counts.len() as u64, (seen.sums.len() / seen.counts.len()) as u64);
        for (end, dims) in [(SUMS, [k, n]), (COUNTS, [1, n])] {
            planned.push(Planned { name: format!("{name}{end}"), dims: dims.to_vec(), format: Format::F32 });
        }
        values.push(seen.sums.iter().map(|v| *v as f32).collect());
        values.push(seen.counts.iter().map(|v| *v as f32).collect());
    }
    if planned.is_empty() {
        return Err(Error::Usage("the model has no matrix".into()));
    }
    let job = Job { path: &arguments.output, threads: arguments.threads, ui, stoppable: true };
    let piece = |tensor: usize, range: std::ops::Range<u64>| {
        Ok(encode(&values[tensor][range.start as usize..range.end as usize], None, Format::F32))
    };
    job.write(head, &planned, piece)?.keep()
}
