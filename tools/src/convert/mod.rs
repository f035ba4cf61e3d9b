//! `handmill convert`: a Hugging Face folder of safetensors as a GGUF file.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`family`] | THE list of families: classes, tensors, keys |
//! | [`weights`] | safetensors, one file or several |
//! | [`config`] | `config.json` and its neighbours |
//! | [`tensors`] | names, formats, and what becomes of the numbers |
//! | [`vocab`] | tokenizers and chat templates |
//!
//! Nothing is guessed: a class, a tensor, a split rule, a setting that is not known is an error that names it. Before the
//! file gets its name, the engine lays it out as if to run it.

mod config;
mod family;
mod tensors;
mod vocab;
mod weights;

use std::path::{Path, PathBuf};

use clap::Args;
use engine::file::ModelFile;
use engine::{Blueprint, Options};
use gguf::{Builder, Endian, Format};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::quantize::types::FileType;
use crate::quantize::write::{Job, Planned};
use crate::quantize::{QUANTIZATION_VERSION, mixture};
use crate::ui::format::{bytes, printable};
use crate::ui::{Ui, print};
use config::{Config, opt_json};
use family::{Family, Head};
use tensors::Plan;
use weights::Weights;

const EXAMPLES: &str = "\
Examples:
  handmill convert ./SmolLM2-135M smollm2.gguf
  handmill convert ./all-MiniLM-L6-v2 minilm-q8_0.gguf --type q8_0
  handmill convert ./Qwen3-0.6B qwen3.gguf --type q4_k_m --name Qwen3-0.6B

DIR holds config.json, weights in safetensors (one file, or several with their index) and the tokenizer's files. Known
are the classes of Llama, Mistral, Qwen 2, Qwen 3, Gemma 3, Phi-3 and BERT. Norms, biases and other small tensors become
F32, as llama.cpp's converter has it; keys and names are the same.";

/// Arguments of `convert`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The file to write; it is replaced when the new one is whole
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What matrices become: any type of `handmill quantize` [default: what they are]
    #[arg(long = "type", value_name = "TYPE", value_parser = FileType::parse)]
    kind: Option<&'static FileType>,
    /// The model's name in the file [default: the folder's]
    #[arg(long)]
    name: Option<String>,
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
/// The folder is no model that is converted, or the file cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let conversion = Conversion {
        folder: &arguments.folder,
        kind: arguments.kind,
        name: arguments.name.clone().unwrap_or_else(|| folder_name(&arguments.folder)),
    };
    let (path, ui) = (arguments.output.as_path(), Ui::stderr());
    let done = conversion.write(&Job { path, threads: arguments.threads, ui, stoppable: true })?;
    print(&if arguments.json { done.json(path) } else { done.text(path) })
}

/// The name of a folder, also of one that is given as `.`.
fn folder_name(folder: &Path) -> String {
    let whole = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.into());
    whole.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned())
}

/// What is to be converted.
pub struct Conversion<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// What matrices become; none keeps the type of most of them.
    pub kind: Option<&'static FileType>,
    /// The model's name.
    pub name: String,
}

impl Conversion<'_> {
    /// Writes the file.
    ///
    /// # Errors
    /// The folder is no model that is converted, or the file cannot be written; then an older one is still there.
    pub fn write(&self, job: &Job) -> Result<Done> {
        let config = Config::read(self.folder)?;
        let family = family::find(&config)?;
        let weights = Weights::open(self.folder)?;
        let kind = match self.kind {
            Some(kind) => kind,
            None => natural(&weights),
        };
        let plan = Plan::new(&weights, &config, family, kind)?;
        let head = self.head(&config, family, kind, &plan.planned)?;
        let whole = job.write(head, &plan.planned, |tensor, range| plan.piece(&weights, tensor, range))?;
        check(whole.file(), &config)?;
        let size = whole.keep()?;
        Ok(Done { family, kind, size, read: weights.bytes(), planned: plan.planned, left_out: plan.left_out })
    }

    fn head(&self, config: &Config, family: &'static Family, kind: &FileType, planned: &[Planned]) -> Result<Builder> {
        let mut head = Head::new(Builder::new(Endian::Little), family.arch)?;
        let elements: u64 = planned.iter().map(|p| p.dims.iter().product::<u64>()).sum();
        head.file.key("general.name", self.name.clone())?;
        head.file.key("general.size_label", size_label(elements))?;
        family::keys(family, config, &mut head)?;
        head.put_some("pooling_type", pooling(self.folder)?)?;
        vocab::write(self.folder, config, family, &mut head)?;
        head.file.key("general.quantization_version", QUANTIZATION_VERSION)?;
        head.file.key("general.file_type", kind.id)?;
        Ok(head.file)
    }
}

/// The type that most bytes of a folder have.
fn natural(weights: &Weights) -> &'static FileType {
    let bytes = |format: Format| {
        let of = weights.tensors.values().filter(|t| t.format() == Some(format));
        of.map(|t| t.shape.iter().product::<u64>() * format.block_bytes() as u64).sum::<u64>()
    };
    let format = [Format::F32, Format::F16, Format::BF16].into_iter().max_by_key(|&f| bytes(f));
    let name = format.unwrap_or(Format::F32).name();
    FileType::parse(name).expect("floats are among the types")
}

/// How vectors of a text's tokens become one, where the folder is that of a model of sentences: the number of its kind.
fn pooling(folder: &Path) -> Result<Option<u32>> {
    const KINDS: [(&str, u32); 3] =
        [("pooling_mode_mean_tokens", 1), ("pooling_mode_cls_token", 2), ("pooling_mode_lasttoken", 3)];
    let path = folder.join("modules.json");
    let Some(Value::Array(modules)) = opt_json(&path)? else { return Ok(None) };
    let mut kind = None;
    for module in &modules {
        let text = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type").rsplit('.').next() {
            Some("Transformer" | "Normalize") => {}
            Some("Pooling") => {
                let path = folder.join(text("path")).join("config.json");
                let settings = config::read_json(&path)?;
                let on = |key: &str| settings.get(key).and_then(Value::as_bool) == Some(true);
                let others = settings.as_object().is_some_and(|map| {
                    let known = |key: &String| KINDS.iter().any(|(name, _)| name == key);
                    map.keys().any(|key| key.starts_with("pooling_mode_") && !known(key) && on(key))
                });
                let found: Vec<u32> = KINDS.iter().filter(|(key, _)| on(key)).map(|k| k.1).collect();
                match (found.as_slice(), others) {
                    (&[one], false) => kind = Some(one),
                    _ => {
                        return Err(Error::Folder {
                            path,
                            why: "pools by something else than mean, cls or last".into(),
                        });
                    }
                }
            }
            _ => {
                let why = format!("has a module of type {}: expected Transformer, Pooling, Normalize", text("type"));
                return Err(Error::Folder { path, why: printable(&why) });
            }
        }
    }
    Ok(kind)
}

/// Lays a file out as if to run it, so that what lacks a tensor or has one of a wrong shape is not kept.
fn check(path: &Path, config: &Config) -> Result<()> {
    let file = ModelFile::open(path)?;
    let gguf = file.parse()?;
    let found = Blueprint::new(&gguf, &file.source(&gguf), &Options { ctx: Some(16), ..Options::default() });
    found.map(|_| ()).map_err(|e| config.fault(format!("describes a model that the weights do not make: {e}")))
}

/// A number of weights in two digits or more: `135M`, `1.2B`.
fn size_label(elements: u64) -> String {
    let n = elements as f64;
    let scales = [(1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")];
    let (scale, letter) = scales.into_iter().find(|(scale, _)| n > *scale).unwrap_or((1e3, "K"));
    let scaled = n / scale;
    if scaled.round() >= 10.0 { format!("{scaled:.0}{letter}") } else { format!("{scaled:.1}{letter}") }
}

/// What was done.
pub struct Done {
    family: &'static Family,
    kind: &'static FileType,
    size: u64,
    read: u64,
    planned: Vec<Planned>,
    left_out: Vec<String>,
}

impl Done {
    fn text(&self, path: &Path) -> String {
        let path = printable(&path.display().to_string());
        let (words, read, mixture) = (self.kind.words, bytes(self.read), mixture(&self.planned));
        let mut text =
            format!("{path}: {} in {words}, {} from {read} ({mixture})\n", self.family.arch, bytes(self.size));
        if let Some(first) = self.left_out.first() {
            let (n, first) = (self.left_out.len(), printable(first));
            text +=
                &format!("{n} tensors are no part of the text model and were left out, {first} the first of them\n");
        }
        text
    }

    fn json(&self, path: &Path) -> String {
        let tensors: Vec<_> = self.planned.iter().map(|p| json!({ "name": p.name, "to": p.format.name() })).collect();
        let text = json!({ "path": path.display().to_string(), "architecture": self.family.arch, "type": self.kind.name,
            "bytes": self.size, "bytes_read": self.read, "tensors": tensors, "left_out": self.left_out });
        format!("{text:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let all = [22_713_216, 134_515_008, 1_235_814_432, 7_000_000_000, 900].map(size_label);
        assert_eq!(all, ["23M", "135M", "1.2B", "7.0B", "0.9K"]);
    }
}
