//! `handmill synth`: a model of random but sane weights in the shape of a known one.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`shapes`] | THE list of shapes |
//! | [`weights`] | their tensors, and the numbers in them |
//! | [`head`] | metadata, and a vocabulary of bytes |
//!
//! Sizes, names, order and the mixture of formats are those of the model's published files, so that speed and memory are
//! too; the text it writes is noise.

mod head;
mod shapes;
#[cfg(test)]
mod tests;
mod weights;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::error::Result;
use crate::quantize::mixture;
use crate::quantize::recipe::{self, Facts};
use crate::quantize::types::FileType;
use crate::quantize::wishes::Wishes;
use crate::quantize::write::{Job, Planned, encode};
use crate::ui::format::{bytes, printable};
use crate::ui::{Ui, print};
use shapes::Shape;

const EXAMPLES: &str = "\
Examples:
  handmill synth llama-3.2-1b --quant q4_k_m -o 1b.gguf
  handmill bench 1b.gguf
  handmill synth tiny --quant f16 --seed 7 -o tiny.gguf

The file loads in llama.cpp too. Its vocabulary has a token for each byte and fillers up to the model's own size; what it
generates is noise, but it takes the time and the memory of the real model. The same shape and seed give the same
numbers, whatever the format.";

/// Arguments of `synth`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// tiny, llama-3.2-1b, llama-3.2-3b, llama-3.1-8b, qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-7b, gemma-3-1b or phi-4-mini
    #[arg(value_name = "SHAPE", value_parser = Shape::parse)]
    shape: &'static Shape,
    /// File type, as for `handmill quantize`
    #[arg(short, long, value_name = "TYPE", default_value = "q4_k_m", value_parser = FileType::parse)]
    quant: &'static FileType,
    /// The file to write; it is replaced when the new one is whole
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Of the random numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
///
/// # Errors
/// The file cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (shape, kind) = (arguments.shape, arguments.quant);
    let tensors = weights::tensors(shape, arguments.seed);
    let planned = plan(shape, kind, &tensors);
    let job = Job { path: &arguments.output, threads: arguments.threads, ui: Ui::stderr(), stoppable: true };
    let whole = job.write(head::builder(shape, kind)?, &planned, |tensor, range| {
        Ok(encode(&tensors[tensor].values(range), None, planned[tensor].format))
    })?;
    let size = whole.keep()?;
    let params: u64 = tensors.iter().map(|t| t.dims.iter().product::<u64>()).sum();
    let path = arguments.output.display().to_string();
    if arguments.json {
        let text = json!({ "path": path, "shape": shape.name, "type": kind.name, "file_type": kind.id,
            "seed": arguments.seed, "parameters": params, "bytes": size });
        return print(&format!("{text:#}\n"));
    }
    let millions = params as f64 / 1e6;
    let (path, size, mixture) = (printable(&path), bytes(size), mixture(&planned));
    print(&format!("{path}: {}, {millions:.0} million weights in {}, {size} ({mixture})\n", shape.name, kind.words))
}

/// The formats of all tensors: vectors stay f32.
fn plan(shape: &Shape, kind: &FileType, tensors: &[weights::Tensor]) -> Vec<Planned> {
    let [heads, kv, _] = shape.heads;
    let facts = Facts { layers: shape.layers as usize, experts: 0, shared: (heads / kv.max(1)) as usize };
    let seen: Vec<_> = tensors.iter().map(|t| recipe::Tensor { name: &t.name, dims: &t.dims }).collect();
    let choices = recipe::choose(kind, &seen, facts, &Wishes::default());
    let one = |(t, c): (&weights::Tensor, Option<recipe::Choice>)| Planned {
        name: t.name.clone(),
        dims: t.dims.clone(),
        format: c.map_or(gguf::Format::F32, |c| c.format),
    };
    tensors.iter().zip(choices).map(one).collect()
}
