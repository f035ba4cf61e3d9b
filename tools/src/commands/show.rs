//! `handmill show`: what is inside a model, and the memory it will take.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use clap::Args;
use engine::file::ModelFile;
use engine::{Blueprint, Device, GpuLayers, KvType, Memory, MemoryPlan, Options};
use gguf::{Array, Endian, Gguf, Value, ValueType};
use serde_json::{Map, json};

use crate::cli::kv_type;
use crate::error::Result;
use crate::memory;
use crate::ui::format::{bytes, count, printable, table};
use crate::ui::{Ui, print};

/// Elements of an array that are printed.
const SHOWN_ELEMENTS: usize = 6;
/// Characters of a text that are printed; JSON has the whole text.
const SHOWN_CHARACTERS: usize = 60;
/// Longest array that JSON has whole.
const WHOLE_ELEMENTS: usize = 64;

/// Arguments of `show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  handmill show smollm2\n  handmill show ./model.gguf --ctx 8192 --kv f32\n  handmill show smollm2 --device gpu --gpu-layers 20\n  handmill show smollm2 --json"
)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file
    model: String,
    /// Context length of the memory plan [default: what the model was trained for, at most 4096]
    #[arg(long, value_name = "TOKENS")]
    ctx: Option<usize>,
    /// Element type of the KV cache in the memory plan: f16 or f32
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = kv_type)]
    kv: KvType,
    /// Sequences at once in the memory plan
    #[arg(long, value_name = "N", default_value_t = 1)]
    sequences: usize,
    /// Device of the memory plan: cpu, gpu, or a number or name of `handmill devices`
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = Device::from_str)]
    device: Device,
    /// How many layers are on the GPU in the memory plan [default: all]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = GpuLayers::from_str)]
    gpu_layers: Option<GpuLayers>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out. A file that is a GGUF but no model of a known architecture is shown without a memory plan.
///
/// # Errors
/// The model cannot be found, or its file is no GGUF.
pub fn run(arguments: &Arguments) -> Result<()> {
    let path = super::find(&arguments.model, Ui::stderr())?;
    let file = ModelFile::open(&path)?;
    let gguf = file.parse()?;
    let options = Options {
        ctx: arguments.ctx,
        kv: arguments.kv,
        sequences: arguments.sequences,
        device: arguments.device.clone(),
        gpu_layers: arguments.gpu_layers.unwrap_or_default(),
        ..Options::default()
    };
    let plan = Blueprint::new(&gguf, &file.source(&gguf), &options).map(|b| (b.ctx(), b.memory()));
    if arguments.json {
        return print(&format!("{:#}\n", describe(&path, &file, &gguf, &plan)));
    }
    let mut text = format!("{}\n", path.display());
    text += &format!("GGUF version {}, {}, {}\n", gguf.version(), endian(&gguf), bytes(file.size()));
    text += "\nMetadata\n";
    let rows: Vec<Vec<String>> =
        gguf.meta().iter().map(|(k, v)| vec![format!("  {}", printable(k)), short(v)]).collect();
    text += &table(&rows, &[]);
    text += "\nTensors\n";
    text += &table(&tensor_rows(&gguf), &[3]);
    text += "\nFormats\n";
    text += &table(&format_rows(&gguf), &[1, 2, 3]);
    text += "\nMemory\n";
    text += &match plan {
        Ok((ctx, memory)) => memory_text(ctx, arguments, memory),
        Err(e) => format!("  this model cannot be run: {e}\n"),
    };
    print(&text)
}

fn endian(gguf: &Gguf) -> &'static str {
    match gguf.endian() {
        Endian::Little => "little-endian",
        Endian::Big => "big-endian",
    }
}

/// Numbers and bytes of the tensors of each format: tensors, elements, bytes.
fn formats(gguf: &Gguf) -> BTreeMap<&'static str, (u64, u64, u64)> {
    let mut formats = BTreeMap::new();
    for t in gguf.tensors() {
        let (n, elements, size) = formats.entry(t.format.name()).or_insert((0, 0, 0));
        *n += 1;
        *elements += t.shape.elements();
        *size += t.size;
    }
    formats
}

fn tensor_rows(gguf: &Gguf) -> Vec<Vec<String>> {
    let shape = |dims: &[u64]| dims.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ");
    let row = |t: &gguf::TensorInfo| {
        vec![format!("  {}", printable(&t.name)), t.format.name().into(), shape(t.shape.dims()), count(t.size)]
    };
    gguf.tensors().iter().map(row).collect()
}

fn format_rows(gguf: &Gguf) -> Vec<Vec<String>> {
    let row = |name: &str, (n, elements, size): (u64, u64, u64)| {
        let bits = if elements == 0 { 0.0 } else { size as f64 * 8.0 / elements as f64 };
        vec![
            format!("  {name}"),
            format!("{n} tensors"),
            format!("{} parameters", count(elements)),
            bytes(size),
            format!("{bits:.2} bits each"),
        ]
    };
    let formats = formats(gguf);
    let total = formats.values().fold((0, 0, 0), |(a, b, c), (x, y, z)| (a + x, b + y, c + z));
    let mut rows: Vec<Vec<String>> = formats.into_iter().map(|(name, sums)| row(name, sums)).collect();
    rows.push(row("total", total));
    rows
}

fn memory_text(ctx: usize, arguments: &Arguments, plan: MemoryPlan) -> String {
    let kv = match arguments.kv {
        KvType::F16 => "f16",
        KvType::F32 => "f32",
    };
    let cache = format!("{ctx} tokens, {} sequence(s), {kv}", arguments.sequences);
    let available = memory::available().map(|n| format!("{} are available", bytes(n))).unwrap_or_default();
    let row = |what: &str, size: u64, note: &str| vec![format!("  {what}"), count(size), bytes(size), note.to_string()];
    let part = |name: &str, m: Memory, available: &str| {
        let rows = [
            row("weights", m.weights, "as laid out for the kernels"),
            row("KV cache", m.kv, &cache),
            row("activations", m.activations, &format!("a batch of {}", Options::default().batch)),
            row("total", m.total(), available),
        ];
        format!("{name}{}", table(&rows, &[1, 2]))
    };
    match (plan.host.total(), plan.device.total()) {
        (_, 0) => part("", plan.host, &available),
        (0, _) => part("on the GPU\n", plan.device, ""),
        _ => part("on the processor\n", plan.host, &available) + &part("on the GPU\n", plan.device, ""),
    }
}

/// A value on one line.
fn short(value: &Value) -> String {
    match value {
        Value::Str(text) => {
            let text = String::from_utf8_lossy(text);
            let mut start: String = text.chars().take(SHOWN_CHARACTERS).collect();
            if start.len() < text.len() {
                start = format!("{start}... ({} characters)", text.chars().count());
            }
            printable(&start)
        }
        Value::Array(array) => {
            let first: Vec<String> = array.values().take(SHOWN_ELEMENTS).map(|v| inner(&v)).collect();
            let more = if array.len() > SHOWN_ELEMENTS { ", ..." } else { "" };
            format!("[{}{more}] ({})", first.join(", "), extent(array))
        }
        Value::F32(x) => x.to_string(),
        Value::F64(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
        other => {
            other.as_i64().map(|n| n.to_string()).or_else(|| other.as_u64().map(|n| n.to_string())).unwrap_or_default()
        }
    }
}

/// An element on one line. An array in an array is not gone into: files may nest them thousands deep.
fn inner(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("[...] ({})", extent(array)),
        other => short(other),
    }
}

fn extent(array: &Array) -> String {
    format!("{} of {}", count(array.len() as u64), array.elem_type().name())
}

fn describe(
    path: &Path,
    file: &ModelFile,
    gguf: &Gguf,
    plan: &Result<(usize, MemoryPlan), engine::Error>,
) -> serde_json::Value {
    let metadata: Map<String, serde_json::Value> = gguf.meta().iter().map(|(k, v)| (k.to_string(), value(v))).collect();
    let tensors: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|t| json!({ "name": t.name, "format": t.format.name(), "shape": t.shape.dims(), "bytes": t.size }))
        .collect();
    let formats: Map<String, serde_json::Value> = formats(gguf)
        .into_iter()
        .map(|(name, (n, elements, size))| {
            (name.to_string(), json!({ "tensors": n, "parameters": elements, "bytes": size }))
        })
        .collect();
    let parameters: u64 = gguf.tensors().iter().map(|t| t.shape.elements()).sum();
    let memory = match plan {
        Ok((ctx, m)) => json!({
            "ctx": ctx, "weights": m.weights(), "kv": m.kv(), "activations": m.activations(), "total": m.total(),
            "device": {
                "weights": m.device.weights, "kv": m.device.kv, "activations": m.device.activations,
                "total": m.device.total(),
            },
        }),
        Err(e) => json!({ "error": e.to_string() }),
    };
    json!({
        "path": path,
        "gguf_version": gguf.version(),
        "endian": endian(gguf),
        "bytes": file.size(),
        "parameters": parameters,
        "metadata": metadata,
        "tensors": tensors,
        "formats": formats,
        "memory": memory,
    })
}

/// A value as JSON. A long array, or one of arrays, is an object that says how many elements there are and gives the first.
fn value(value: &Value) -> serde_json::Value {
    match value {
        Value::Array(array) => {
            let flat = array.elem_type() != ValueType::Array;
            if flat && array.len() <= WHOLE_ELEMENTS {
                return array.values().map(|v| scalar(&v)).collect();
            }
            let first: Vec<_> = array.values().take(SHOWN_ELEMENTS).map(|v| scalar(&v)).collect();
            json!({ "type": array.elem_type().name(), "length": array.len(), "first": first })
        }
        other => scalar(other),
    }
}

fn scalar(value: &Value) -> serde_json::Value {
    match value {
        Value::Str(text) => json!(String::from_utf8_lossy(text)),
        Value::Array(array) => json!({ "type": array.elem_type().name(), "length": array.len() }),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Bool(x) => json!(x),
        other => other.as_i64().map(|n| json!(n)).or_else(|| other.as_u64().map(|n| json!(n))).unwrap_or_default(),
    }
}
