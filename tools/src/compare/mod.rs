//! `handmill compare`: what two devices, instruction sets, precisions or models make of a text, operation by operation.
//!
//! `side` is how people name a side, `walk` takes both through the text, `difference` is how far apart two lists of
//! numbers are, `report` says what was found.

mod difference;
mod report;
mod side;
mod walk;

use std::path::{Path, PathBuf};

use clap::Args;
use engine::file::ModelFile;
use engine::inspect::Inspector;
use engine::spec::Spec;
use engine::tokenizer::{Encode, Tokenizer};
use engine::{KvType, Options, Precision};

use crate::cli::{kv_type, precision};
use crate::commands::{find, loading};
use crate::error::{Error, Result};
use crate::memory;
use crate::ui::{Ui, print};
use report::Report;
use side::Side;
use walk::{Way, walk};

const EXAMPLES: &str = "\
Examples:
  handmill compare smollm2 --a cpu --b gpu
  handmill compare smollm2 --a cpu,isa=scalar --b cpu,isa=avx2 --precision q8
  handmill compare smollm2 --a cpu --b cpu,precision=q8 --all
  handmill compare smollm2 --a gpu,variant=baseline --b gpu,variant=subgroup
  handmill compare smollm2 --a cpu --b gpu --precision q8
  handmill compare ./f16.gguf --a cpu --b cpu,model=./q4_k.gguf --json

A side is DEVICE[,KEY=VALUE]...: a device as --device takes it elsewhere (cpu, gpu, a number or a name of `handmill
devices`; gpu:0 and gpu:NAME will do as well), then for the processor isa=, threads=, for a GPU layers=, variant=, for
any device precision=, kv= and model=

Both sides compute the text and then some tokens of their own, one operation after the other, each on its own values. NMSE
is the mean square of the differences over that of side a; ULP counts the floats between two numbers. By default nothing
but the same bits will do where device, variant and precision are the same; else an NMSE of 1e-6, of 1e-5 where the cache is
f16, of 1e-3 where one side has the variant f16, of 2e-2 where one has 8-bit activations, of 0.1 for two models.

The exit code is 0 where every operation is within the tolerance, 1 where one is past it, 2 on an error.";

/// What is computed where nothing else is said.
const TEXT: &str = "The quick brown fox jumps over the lazy dog. In 1969, two astronauts walked on the Moon; the third \
                    stayed in orbit, and nobody had ever been as far from everyone else.";

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file
    model: String,
    /// One side: DEVICE[,KEY=VALUE]...
    #[arg(long, value_name = "SIDE")]
    a: Side,
    /// The other side
    #[arg(long, value_name = "SIDE")]
    b: Side,
    /// Precision of activations, where a side does not say: q8, q16 (on the processor) or f32
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Element type of the KV cache, where a side does not say: f16 or f32
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_type)]
    kv: KvType,
    /// A text file to compute; - is standard input [default: two sentences]
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    input: Option<PathBuf>,
    /// A text to compute
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Most tokens of the text
    #[arg(long, value_name = "N", default_value_t = 128)]
    tokens: usize,
    /// Tokens of the text that are computed in one step
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = positive)]
    batch: usize,
    /// Tokens that are computed one by one after the text, always the most probable one of side a
    #[arg(long, value_name = "N", default_value_t = 4)]
    decode: usize,
    /// How many of the largest logits to compare
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// The largest NMSE of an operation that is allowed [default: see below]
    #[arg(long, value_name = "NMSE")]
    tolerance: Option<f64>,
    /// List every operation
    #[arg(long)]
    all: bool,
    /// Print JSON, which always has every operation
    #[arg(long)]
    json: bool,
}

/// A number of tokens of a step.
fn positive(word: &str) -> Result<usize, String> {
    match word.parse() {
        Ok(n @ 1..=4096) => Ok(n),
        _ => Err("expected 1 to 4096".into()),
    }
}

/// Carries it out.
///
/// # Errors
/// The two sides differ, or a model, a device or the text cannot be had.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    if arguments.tolerance.is_some_and(|t| t.is_nan() || t < 0.0) {
        return Err(Error::Usage("--tolerance is no number from 0 on".into()));
    }
    let [a, b] = [&arguments.a, &arguments.b];
    let path = |side: &Side| find(side.model.as_ref().unwrap_or(&arguments.model), ui);
    let paths = [path(a)?, path(b)?];
    let tokens = tokens(arguments, &paths[0])?;
    let common = Options {
        precision: arguments.precision,
        kv: arguments.kv,
        batch: arguments.batch,
        // As many rows of logits as tokens, over the cache of one sequence.
        sequences: arguments.batch,
        ctx: Some(tokens.len() + arguments.decode),
        kv_tokens: Some(1),
        ..Options::default()
    };
    let options = [a, b].map(|side| side.options(&common));
    let (tolerance, why) = match arguments.tolerance {
        Some(tolerance) => (tolerance, "as asked"),
        None => side::tolerance([&options[0], &options[1]], paths[0] == paths[1]),
    };
    let open = |i: usize| {
        let options = Options { memory: memory::available(), ..options[i].clone() };
        Inspector::open(&paths[i], &options, &mut loading(ui))
    };
    let sides = [open(0)?, open(1)?];
    let ran_on = |i: usize| {
        let info = sides[i].info();
        format!("{}, {}, {}", info.device, info.kernels, options[i].precision.name())
    };
    let named = [(a.text.clone(), ran_on(0)), (b.text.clone(), ran_on(1))];
    let operations = sides[0].operations().to_vec();
    let way = Way { tokens: &tokens, batch: arguments.batch, decode: arguments.decode, top: arguments.top, tolerance };
    let findings = walk(sides, &way, ui)?;
    let tolerance = (tolerance, why);
    let (n, top) = (tokens.len(), arguments.top);
    let report = Report { sides: named, operations: &operations, findings: &findings, tolerance, tokens: n, top };
    print(&if arguments.json { format!("{:#}\n", report.json()) } else { report.table(arguments.all) })?;
    if findings.first.is_some() { Err(Error::Differs) } else { Ok(()) }
}

/// The tokens of the text, as many as wanted and as the model has positions for.
fn tokens(arguments: &Arguments, path: &Path) -> Result<Vec<u32>> {
    let text = text(arguments)?;
    let file = ModelFile::open(path)?;
    let gguf = file.parse()?;
    let spec = Spec::from_meta(gguf.meta())?;
    let tokenizer = Tokenizer::from_meta(gguf.meta()).map_err(engine::Error::from)?;
    let mut tokens = tokenizer.encode(&text, Encode { add_special: true, parse_special: false });
    tokens.truncate(arguments.tokens.min(spec.n_ctx_train.saturating_sub(arguments.decode)));
    if tokens.is_empty() {
        return Err(Error::Usage("there is nothing to compute: the text has no tokens, or --tokens is 0".into()));
    }
    Ok(tokens)
}

/// The text to compute.
fn text(arguments: &Arguments) -> Result<String> {
    match (&arguments.input, &arguments.prompt) {
        (None, None) => Ok(TEXT.to_string()),
        (None, Some(text)) => Ok(text.clone()),
        (Some(path), _) if path.as_os_str() == "-" => {
            std::io::read_to_string(std::io::stdin()).map_err(Error::io("cannot read", path))
        }
        (Some(path), _) => std::fs::read_to_string(path).map_err(Error::io("cannot read", path)),
    }
}
