//! `handmill embed`: texts to vectors, as JSON lines.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use clap::{Args, ValueEnum};
use engine::embed::Embedding;
use engine::spec::Pooling;
use engine::tokenizer::Encode;
use engine::{Engine, Error as EngineError};
use serde::{Deserialize, Serialize};

use super::lines;
use crate::cli::EngineFlags;
use crate::error::Result;
use crate::ui::{Ui, print};

const EXAMPLES: &str = "\
Examples:
  handmill embed bge-small.gguf --input cases.jsonl
  echo '{\"text\": \"a river in spring\"}' | handmill embed bge-small.gguf --input - --pooling cls --no-normalize

Each line of the input is {\"text\": TEXT} or {\"tokens\": [IDS]}; each line of the output has tokens and embedding.";

/// Arguments of `embed`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file
    model: String,
    /// JSON lines; - is standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// How the vectors of a text's tokens become one; by default what the model's file says
    #[arg(long, value_enum)]
    pooling: Option<PoolingName>,
    /// Leave the vector as long as it is, instead of scaling it to length 1
    #[arg(long)]
    no_normalize: bool,
    /// How many texts to compute in one batch; changes no result
    #[arg(long, value_name = "N", default_value_t = 4)]
    parallel: usize,
    /// How the model is loaded.
    #[command(flatten)]
    engine: EngineFlags,
}

/// The word for a pooling.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingName {
    /// The mean of all tokens
    Mean,
    /// The first token
    Cls,
    /// The last token
    Last,
}

/// A line of the input.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Case {
    /// A text, tokenized with what the model adds; special tokens in it are text.
    Text { text: String },
    /// Tokens as they are.
    Tokens { tokens: Vec<u32> },
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Line {
    tokens: Vec<u32>,
    embedding: Vec<f32>,
}

/// A text that the engine is computing.
type Running = (Vec<u32>, Receiver<Result<Vec<f32>, EngineError>>);

/// Carries it out.
///
/// # Errors
/// The model cannot be found or loaded, a line of the input cannot be used, or the engine fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    let cases: Vec<Case> = lines(&arguments.input, "expected {\"text\": TEXT} or {\"tokens\": [IDS]}")?;
    let path = super::find(&arguments.model, ui)?;
    let mut options = arguments.engine.options();
    (options.embeddings, options.sequences) = (true, arguments.parallel);
    let engine = super::open(&path, &options, ui)?;
    let of_file = Embedding::of(engine.spec());
    let pooling = arguments.pooling.map_or(of_file.pooling, |name| match name {
        PoolingName::Mean => Pooling::Mean,
        PoolingName::Cls => Pooling::First,
        PoolingName::Last => Pooling::Last,
    });
    let how = Embedding { pooling, normalize: !arguments.no_normalize };
    let mut running = VecDeque::new();
    for case in cases {
        if running.len() >= arguments.parallel {
            finish(running.pop_front())?;
        }
        running.push_back(submit(&engine, case, how));
    }
    while !running.is_empty() {
        finish(running.pop_front())?;
    }
    Ok(())
}

fn submit(engine: &Engine, case: Case, how: Embedding) -> Running {
    let tokens = match case {
        Case::Text { text } => engine.tokenizer().encode(&text, Encode { add_special: true, parse_special: false }),
        Case::Tokens { tokens } => tokens,
    };
    let answer = engine.embed(tokens.clone(), how);
    (tokens, answer)
}

/// Waits for a text and prints its line.
fn finish(running: Option<Running>) -> Result<()> {
    let Some((tokens, answer)) = running else { return Ok(()) };
    let ended = |_| EngineError::Internal("the engine has ended".into());
    let embedding = answer.recv().map_err(ended)??;
    let line = serde_json::to_string(&Line { tokens, embedding }).expect("a line is plain data");
    print(&format!("{line}\n"))
}
