//! `handmill eval`: how well a model predicts a text, and how near it is to another.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`figures`] | perplexity, divergence and agreement, from rows of logits |
//!
//! The text is cut into chunks of the context's length, each a sequence of its own that begins with BOS where the model
//! wants one, and what the second half of each predicts is scored: llama.cpp's convention, so that figures compare. Two
//! models are fed in lockstep and compared row by row: no logits are kept.

mod figures;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use clap::Args;
use engine::sampler::Params;
use engine::tokenizer::{Encode, Tokenizer};
use engine::{Engine, Event, Isa, KvType, Options, Precision, Probe, Request};
use serde_json::{Value, json};

use crate::bench::kv_name;
use crate::cli::{kv_type, precision};
use crate::error::{Error, Result};
use crate::memory;
use crate::ui::format::printable;
use crate::ui::{Ui, print};
use figures::Perplexity;
pub use figures::{Divergence, Figures};

const EXAMPLES: &str = "\
Examples:
  handmill eval smollm2 --text text.txt
  handmill eval smollm2 --text text.txt --chunks 8 --against smollm2 --against-precision f32
  handmill eval q4.gguf --text text.txt --against f16.gguf --json

The divergence is that of the model from the other, which stands for the truth: Kullback-Leibler divergence of the
predicted probabilities, how often the most probable token is the same, and the root mean square of the differences
of the probability of the text's own token.";

/// Arguments of `eval`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file
    model: String,
    /// A text in UTF-8
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Compare with this model: another, or the same at another precision
    #[arg(long, value_name = "MODEL")]
    against: Option<String>,
    /// Tokens of a chunk
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    ctx: usize,
    /// Most chunks [default: all of the text]
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Precision of activations: q8, q16 or f32
    #[arg(long, value_name = "PRECISION", default_value = "q8", value_parser = precision)]
    precision: Precision,
    /// Precision of the model to compare with
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = precision, requires = "against")]
    against_precision: Precision,
    /// Element type of the KV cache: f16 or f32
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_type)]
    kv: KvType,
    /// The same for the model to compare with
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_type, requires = "against")]
    against_kv: KvType,
    /// Worker threads [default: one a core; two models share the cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Instruction set [default: the best]; changes no figure
    #[arg(long, value_name = "ISA", value_parser = Isa::from_str)]
    isa: Option<Isa>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Rows of logits that wait to be compared: a model that is ahead of the other waits.
const AHEAD: usize = 16;
/// Shortest chunk: half of it must predict something.
const SHORTEST: usize = 4;

/// Carries it out.
///
/// # Errors
/// A model or the text cannot be read, the text is too short, the models have different vocabularies, or an engine fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    check(arguments.ctx, arguments.chunks)?;
    let ui = Ui::stderr();
    let text = read_text(&arguments.text)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = if arguments.against.is_some() { cores.div_ceil(2) } else { cores };
    let setting = |(precision, kv)| Setting {
        ctx: arguments.ctx,
        threads: arguments.threads.unwrap_or(share),
        isa: arguments.isa,
        precision,
        kv,
        probe: None,
    };
    let model = Side::open(&arguments.model, &setting((arguments.precision, arguments.kv)), ui)?;
    let truth = setting((arguments.against_precision, arguments.against_kv));
    let other = arguments.against.as_ref().map(|name| Side::open(name, &truth, ui)).transpose()?;
    if let Some(other) = &other {
        same_tokens(&model, other, &text)?;
    }
    let chunks = chunked(model.engine.tokenizer(), &text, arguments.ctx, arguments.chunks)?;
    let mut figures = Figures::default();
    measure((&model, other.as_ref()), &chunks, &mut figures, ui)?;
    print(&if arguments.json {
        report_json(arguments, &model, other.as_ref(), &figures, chunks.len())
    } else {
        report(&figures)
    })
}

/// A text of a file.
///
/// # Errors
/// It cannot be read, or is no UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let text = std::fs::read(path).map_err(Error::io("cannot read", path))?;
    String::from_utf8(text).map_err(|e| {
        let (path, at) = (printable(&path.display().to_string()), e.utf8_error().valid_up_to());
        Error::Usage(format!("{path} is no UTF-8 from byte {at} on"))
    })
}

/// A model at a precision.
pub struct Side {
    /// Its file.
    pub path: PathBuf,
    /// Its engine.
    pub engine: Engine,
    settings: (Precision, KvType),
}

/// How a model is loaded to be judged.
pub struct Setting {
    /// Tokens of a chunk.
    pub ctx: usize,
    /// Worker threads.
    pub threads: usize,
    /// Instruction set.
    pub isa: Option<Isa>,
    /// Precision of activations.
    pub precision: Precision,
    /// Element type of the KV cache.
    pub kv: KvType,
    /// Sees what products are fed.
    pub probe: Option<Probe>,
}

impl Side {
    /// Loads a model.
    ///
    /// # Errors
    /// It cannot be found or loaded.
    pub fn open(name: &str, setting: &Setting, ui: Ui) -> Result<Side> {
        let path = crate::commands::find(name, ui)?;
        let options = Options {
            ctx: Some(setting.ctx),
            threads: Some(setting.threads),
            isa: setting.isa,
            precision: setting.precision,
            kv: setting.kv,
            probe: setting.probe.clone(),
            memory: memory::available(),
            ..Options::default()
        };
        let engine = crate::commands::open(&path, &options, ui)?;
        Ok(Side { path, engine, settings: (setting.precision, setting.kv) })
    }

    /// Feeds a chunk; the rows of logits that are scored come out of the channel, which ends where the chunk does.
    fn feed(&self, chunk: &[u32], first: usize) -> (Receiver<Vec<f32>>, Receiver<Event>) {
        let (rows, out): (SyncSender<Vec<f32>>, _) = sync_channel(AHEAD);
        let mut request = Request::new(chunk.to_vec(), Params::greedy());
        request.max_tokens = Some(0);
        request.observe_from = first;
        // Nothing follows the last position, so that it predicts nothing that could be scored.
        let last = chunk.len() - 1;
        request.observer = Some(Box::new(move |position, logits| {
            if position < last {
                // Nobody listens any more where the other side has failed.
                let _ = rows.send(logits.to_vec());
            }
        }));
        (out, self.engine.submit(request))
    }
}

/// Fails unless two models make the same tokens of a text.
///
/// # Errors
/// They do not.
pub fn same_tokens(model: &Side, other: &Side, text: &str) -> Result<()> {
    let encode = |side: &Side| side.engine.tokenizer().encode(text, Encode { add_special: true, parse_special: false });
    let (tokens, theirs) = (encode(model), encode(other));
    let (a, b) = (model.engine.tokenizer().n_vocab(), other.engine.tokenizer().n_vocab());
    if a == b && tokens == theirs {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "the models cannot be compared: vocabularies of {a} and {b} tokens make {} and {} tokens of the text, which must \
         be the same ones",
        tokens.len(),
        theirs.len()
    )))
}

/// Fails unless chunks of so many tokens, and so many of them, can be scored.
fn check(ctx: usize, most: Option<usize>) -> Result<()> {
    if ctx < SHORTEST || most == Some(0) {
        return Err(Error::Usage(format!("--ctx must be at least {SHORTEST}, --chunks at least 1")));
    }
    Ok(())
}

/// The chunks of a text, each of `ctx` tokens with BOS in front where the model wants one; no more than `most`.
///
/// # Errors
/// The text has fewer.
pub fn chunked(tokenizer: &Tokenizer, text: &str, ctx: usize, most: Option<usize>) -> Result<Vec<Vec<u32>>> {
    check(ctx, most)?;
    let tokens = tokenizer.encode(text, Encode { add_special: true, parse_special: false });
    let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
    let mut chunks: Vec<Vec<u32>> =
        tokens.chunks_exact(ctx).take(most.unwrap_or(usize::MAX)).map(<[u32]>::to_vec).collect();
    if chunks.is_empty() {
        return Err(Error::Usage(format!(
            "the text has {} tokens, fewer than one chunk of {}: give a longer text or a shorter --ctx",
            tokens.len(),
            ctx
        )));
    }
    if let Some(wanted) = most.filter(|&n| n > chunks.len()) {
        return Err(Error::Usage(format!("the text has {} chunks of {ctx}, not {wanted}", chunks.len())));
    }
    for chunk in &mut chunks {
        chunk[0] = bos.unwrap_or(chunk[0]);
    }
    Ok(chunks)
}

/// Computes chunks, of a model and of another in lockstep, and adds what the rows say to the figures.
///
/// # Errors
/// An engine fails.
pub fn measure(
    (model, other): (&Side, Option<&Side>),
    chunks: &[Vec<u32>],
    figures: &mut Figures,
    ui: Ui,
) -> Result<()> {
    let steps = ui.steps("evaluating", chunks.len());
    for (done, chunk) in chunks.iter().enumerate() {
        let first = chunk.len() / 2;
        let ours = model.feed(chunk, first);
        let theirs = other.map(|side| side.feed(chunk, first));
        for &next in &chunk[first + 1..] {
            let row = receive(&ours)?;
            let truth = theirs.as_ref().map(receive).transpose()?;
            figures.take(&row, truth.as_deref(), next as usize);
        }
        steps.at(done + 1, &format!("perplexity {:.4}", figures.perplexity().value));
    }
    Ok(())
}

/// The next row of a chunk, or why there is none.
fn receive((rows, events): &(Receiver<Vec<f32>>, Receiver<Event>)) -> Result<Vec<f32>> {
    rows.recv().map_err(|_| {
        let failed = events.try_iter().find_map(|event| match event {
            Event::Failed(error) => Some(error),
            _ => None,
        });
        failed.unwrap_or_else(|| engine::Error::Internal("the engine has ended".into())).into()
    })
}

fn report(figures: &Figures) -> String {
    let line = |name: &str, p: &Perplexity| {
        format!("{name:<26}{:.4} +- {:.4} (mean of {} tokens: {:.5} nats)\n", p.value, p.error, p.tokens, p.nll)
    };
    let mut text = line("perplexity", &figures.perplexity());
    if let Some(d) = figures.divergence() {
        text += &line("the other's perplexity", &d.perplexity);
        text += &format!("{:<26}{:.6} +- {:.6}\n", "KL divergence, mean", d.mean, d.error);
        for (name, value) in [("median", d.median), ("99 %", d.p99), ("largest", d.max)] {
            text += &format!("{:<26}{value:.6}\n", format!("KL divergence, {name}"));
        }
        text += &format!(
            "{:<26}{:.3} % +- {:.3} %\n",
            "same most probable token",
            100.0 * d.same_top,
            100.0 * d.same_top_error
        );
        text += &format!("{:<26}{:.4} %\n", "RMS of the difference", 100.0 * d.rms);
    }
    text
}

fn report_json(arguments: &Arguments, model: &Side, other: Option<&Side>, figures: &Figures, chunks: usize) -> String {
    let perplexity =
        |p: &Perplexity| json!({ "value": p.value, "error": p.error, "mean_nll": p.nll, "tokens": p.tokens });
    let side = |side: &Side, p: &Perplexity| {
        json!({ "path": side.path.display().to_string(), "precision": side.settings.0.name(),
            "kv": kv_name(side.settings.1), "perplexity": perplexity(p) })
    };
    let divergence = |d: &Divergence| {
        json!({ "mean": d.mean, "error": d.error, "median": d.median, "p99": d.p99, "max": d.max,
            "same_top": d.same_top, "same_top_error": d.same_top_error, "rms_probability": d.rms })
    };
    let mut all = json!({ "text": path_text(&arguments.text), "ctx": arguments.ctx, "chunks": chunks,
        "model": side(model, &figures.perplexity()) });
    if let (Some(other), Some(d)) = (other, figures.divergence()) {
        all["against"] = side(other, &d.perplexity);
        all["kl_divergence"] = divergence(&d);
    }
    format!("{all:#}\n")
}

fn path_text(path: &Path) -> Value {
    path.display().to_string().into()
}
