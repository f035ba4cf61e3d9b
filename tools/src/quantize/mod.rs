//! `handmill quantize`: a model in other formats.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`types`] | THE list of file types |
//! | [`recipe`] | which format each tensor gets |
//! | [`wishes`] | what a person asks for beside a type |
//! | [`importance`] | which columns matter more than others |
//! | [`write`] | pieces made on all cores, a file that is whole or not there |

pub mod importance;
pub mod recipe;
#[cfg(test)]
mod tests;
pub mod types;
pub mod wishes;
pub mod write;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use engine::file::{FileSource, ModelFile};
use engine::source::Source;
use gguf::{Builder, Endian, Format, Gguf, TensorInfo, ValueBuf};
use serde_json::json;

use crate::error::{Error, Result};
use crate::ui::format::{bytes, printable};
use crate::ui::{Ui, print};
use importance::Importance;
use recipe::{Choice, Facts, Tensor};
use types::FileType;
use wishes::{ByName, Wishes};
use write::{Job, Planned, encode};

const EXAMPLES: &str = "\
Examples:
  handmill quantize model-f16.gguf model-q4_k_m.gguf q4_k_m
  handmill quantize smollm2 smollm2-q8_0.gguf q8_0
  handmill quantize a.gguf b.gguf q4_0 --pure      every matrix in Q4_0, the output matrix too
  handmill quantize a.gguf b.gguf q3_k_m --imatrix a.imatrix.gguf --tensor-type attn_v=q8_0 --tensor-type ffn_down=q5_k
  echo '{\"precision\": \"int4\", \"block_size\": 32, \"symmetric\": false}' > settings.json
  handmill quantize a.gguf b.gguf --config settings.json

Types are those of llama.cpp's llama-quantize and mean the same mixtures: beside q4_0, q4_k and the like the output
matrix (or the embedding that serves as one) has Q6_K; q4_k_m and q5_k_m also give more bits to values and ffn_down in
half of the layers, q4_k_s in the first ones, and those of 2 and 3 bits have mixtures of their own. mxfp4_moe gives MXFP4
to matrices of experts and Q8_0 to others. q4_e is this project's own. Norms, biases and other small tensors stay as they are, and so do all
metadata. Where a row is no whole number of blocks, a tensor gets the next better format with smaller blocks, and the
command says so.";

/// Arguments of `quantize`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file; in any format that is decoded
    #[arg(value_name = "IN")]
    input: String,
    /// The file to write; it is replaced when the new one is whole
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What to quantize to: f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q2_k_s, q3_k_s, q3_k_m, q3_k_l, q4_k_s,
    /// q4_k_m, q5_k_s, q5_k_m, q6_k, iq4_nl, iq4_xs, mxfp4, mxfp4_moe, tq1_0, tq2_0, q4_e
    #[arg(value_name = "TYPE", value_parser = FileType::parse, required_unless_present = "config")]
    kind: Option<&'static FileType>,
    /// A file of settings in place of a type: {"precision": "int4", "block_size": 32, "symmetric": true}
    #[arg(long, value_name = "FILE", conflicts_with = "kind")]
    config: Option<PathBuf>,
    /// Give every matrix the type's own format
    #[arg(long)]
    pure: bool,
    /// Another format for the matrices whose names an expression finds; may be given several times, the first that fits counts
    #[arg(long = "tensor-type", value_name = "REGEX=TYPE", value_parser = ByName::parse)]
    by_name: Vec<ByName>,
    /// Weigh errors by the importance of columns: a file of `handmill imatrix` or llama-imatrix, in GGUF
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Keys that say how a file was quantized or cut; the new file has its own, or none.
const REPLACED: [&str; 9] = [
    "general.file_type",
    "general.quantization_version",
    "split.no",
    "split.count",
    "split.tensors.count",
    "quantize.imatrix.file",
    "quantize.imatrix.dataset",
    "quantize.imatrix.entries_count",
    "quantize.imatrix.chunks_count",
];

/// The version of the formats that `general.quantization_version` names.
pub const QUANTIZATION_VERSION: u32 = 2;

/// Carries it out.
///
/// # Errors
/// The model cannot be found or read, has a tensor that cannot be decoded, or the file cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    let kind = match (&arguments.config, arguments.kind) {
        (Some(path), _) => wishes::of_settings(path)?,
        (None, Some(kind)) => kind,
        (None, None) => return Err(Error::Usage("a type or --config is needed".into())),
    };
    let importance = arguments.imatrix.as_deref().map(Importance::read).transpose()?;
    let by_name = arguments.by_name.clone();
    let wishes = Wishes { pure: arguments.pure, weighted: importance.is_some(), by_name };
    let file = ModelFile::open(&crate::commands::find(&arguments.input, ui)?)?;
    let gguf = file.parse()?;
    let infos = gguf.tensors();
    let tensors: Vec<Tensor> = infos.iter().map(|t| Tensor { name: &t.name, dims: t.shape.dims() }).collect();
    let choices = recipe::choose(kind, &tensors, Facts::of(gguf.meta()), &wishes);
    check(infos, &choices)?;
    if let Some(importance) = &importance {
        infos.iter().try_for_each(|t| importance.check(t))?;
    }
    let plan = |(t, c): (&TensorInfo, &Option<Choice>)| Planned {
        name: t.name.clone(),
        dims: t.shape.dims().to_vec(),
        format: c.map_or(t.format, |c| c.format),
    };
    let planned: Vec<Planned> = infos.iter().zip(&choices).map(plan).collect();
    for line in notes(infos, &choices) {
        ui.say(&line);
    }
    let mut head = head(&gguf, kind)?;
    importance.as_ref().map_or(Ok(()), |i| i.keys(&mut head))?;
    let clipped = AtomicU64::new(0);
    let work = Work { source: file.source(&gguf), infos, planned: &planned, importance, clipped };
    let job = Job { path: &arguments.output, threads: arguments.threads, ui, stoppable: true };
    let whole = job.write(head, &planned, |tensor, range| work.piece(tensor, range))?;
    file.check_unchanged()?;
    let size = whole.keep()?;
    let clipped = work.clipped.into_inner();
    if clipped > 0 {
        ui.say(&format!("{clipped} numbers are beyond the range of f16 and became its largest"));
    }
    let done = Done { path: &arguments.output, kind, size, read: file.size(), clipped };
    print(&if arguments.json { done.json(infos, &choices, &planned) } else { done.text(&planned) })
}

/// Refuses what cannot be decoded before anything is written.
fn check(infos: &[TensorInfo], choices: &[Option<Choice>]) -> Result<()> {
    for (t, choice) in infos.iter().zip(choices) {
        if let Some(choice) = choice.filter(|c| c.format != t.format && t.format.decoder().is_none()) {
            let known: Vec<&str> = Format::ALL.iter().filter(|f| f.decoder().is_some()).map(|f| f.name()).collect();
            return Err(Error::Usage(format!(
                "tensor {} is in {}, which cannot be decoded and so not become {}: expected one of {}",
                printable(&t.name),
                t.format,
                choice.format,
                known.join(", ")
            )));
        }
    }
    Ok(())
}

/// What a person should know of the choices: rows that are no whole blocks, and formats that have lost bits before.
fn notes(infos: &[TensorInfo], choices: &[Option<Choice>]) -> Vec<String> {
    let mut fallbacks: BTreeMap<(Format, Format), Vec<&TensorInfo>> = BTreeMap::new();
    let mut again: BTreeMap<Format, usize> = BTreeMap::new();
    for (t, c) in infos.iter().zip(choices).filter_map(|(t, c)| c.map(|c| (t, c))) {
        if c.format != c.wanted {
            fallbacks.entry((c.wanted, c.format)).or_default().push(t);
        }
        if c.format != t.format && t.format.block_len() > 1 {
            *again.entry(t.format).or_default() += 1;
        }
    }
    let fallback = |((wanted, format), tensors): (&(Format, Format), &Vec<&TensorInfo>)| {
        let first = tensors[0];
        format!(
            "{format} instead of {wanted} for {}: rows of {} are no whole blocks of {}",
            many(tensors.len(), &first.name),
            first.shape.k(),
            wanted.block_len()
        )
    };
    let mut lines: Vec<String> = fallbacks.iter().map(fallback).collect();
    lines.extend(again.iter().map(|(format, n)| {
        let tensors = if *n == 1 { "1 tensor is" } else { &format!("{n} tensors are") };
        format!("{tensors} in {format} already: what that lost stays lost")
    }));
    lines
}

/// `blk.0.attn_k.weight`, or `blk.0.attn_k.weight and 17 more`.
fn many(n: usize, first: &str) -> String {
    let first = printable(first);
    if n == 1 { first } else { format!("{first} and {} more", n - 1) }
}

/// The metadata of the new file.
fn head(gguf: &Gguf, kind: &FileType) -> Result<Builder> {
    let mut head = Builder::new(Endian::Little);
    for (key, value) in gguf.meta().iter().filter(|(key, _)| !REPLACED.contains(key)) {
        head.key(key, ValueBuf::from(value))?;
    }
    head.key("general.quantization_version", QUANTIZATION_VERSION)?;
    head.key("general.file_type", kind.id)?;
    Ok(head)
}

/// Reads, decodes and encodes.
struct Work<'a> {
    source: FileSource<'a>,
    infos: &'a [TensorInfo],
    planned: &'a [Planned],
    importance: Option<Importance>,
    /// Numbers that f16 cannot hold.
    clipped: AtomicU64,
}

impl Work<'_> {
    fn piece(&self, tensor: usize, range: Range<u64>) -> Result<Vec<u8>> {
        let (info, format) = (&self.infos[tensor], self.planned[tensor].format);
        let (len, width) = (info.format.block_len() as u64, info.format.block_bytes() as u64);
        let mut blocks = vec![0; ((range.end - range.start) / len * width) as usize];
        self.source.read(info, range.start / len * width, &mut blocks)?;
        if format == info.format {
            return Ok(blocks);
        }
        let mut values = vec![0.0; (range.end - range.start) as usize];
        info.format.decoder().expect("checked before")(&blocks, &mut values);
        write::check(&info.name, &values, range.start)?;
        if format == Format::F16 {
            let beyond = values.iter().filter(|v| v.abs() >= 65_520.0).count();
            self.clipped.fetch_add(beyond as u64, Ordering::Relaxed);
        }
        let importance = self.importance.as_ref().and_then(|i| i.of(info, range));
        Ok(encode(&values, importance.as_deref(), format))
    }
}

/// What was done.
struct Done<'a> {
    path: &'a Path,
    kind: &'a FileType,
    size: u64,
    read: u64,
    clipped: u64,
}

impl Done<'_> {
    fn text(&self, planned: &[Planned]) -> String {
        let path = printable(&self.path.display().to_string());
        format!("{path}: {}, {} from {} ({})\n", self.kind.words, bytes(self.size), bytes(self.read), mixture(planned))
    }

    fn json(&self, infos: &[TensorInfo], choices: &[Option<Choice>], planned: &[Planned]) -> String {
        let tensor = |((t, c), p): ((&TensorInfo, &Option<Choice>), &Planned)| {
            let wanted = c.filter(|c| c.wanted != c.format).map(|c| c.wanted.name());
            json!({ "name": t.name, "from": t.format.name(), "to": p.format.name(), "instead_of": wanted })
        };
        let tensors: Vec<_> = infos.iter().zip(choices).zip(planned).map(tensor).collect();
        let path = self.path.display().to_string();
        let text = json!({ "path": path, "type": self.kind.name, "file_type": self.kind.id, "bytes": self.size,
            "bytes_read": self.read, "beyond_f16": self.clipped, "tensors": tensors });
        format!("{text:#}\n")
    }
}

/// How many tensors there are of each format: `98 q4_k, 49 q6_k, 34 f32`.
pub fn mixture(planned: &[Planned]) -> String {
    let mut counts: BTreeMap<Format, usize> = BTreeMap::new();
    for p in planned {
        *counts.entry(p.format).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    counts.iter().map(|(format, n)| format!("{n} {format}")).collect::<Vec<_>>().join(", ")
}
