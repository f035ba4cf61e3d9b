//! What a GGUF header says of a model, in the words of the dialects.

use gguf::{Gguf, Value, ValueType};
use serde_json::{Map, Value as Json, json};

/// A header's facts.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `general.architecture`.
    pub family: String,
    /// Number of weights.
    pub parameters: u64,
    /// Such as `Q4_K_M`.
    pub quantization: String,
    /// Context that it was trained for.
    pub context: u64,
    /// Width of an embedding.
    pub width: u64,
    /// The template of the file.
    pub template: Option<String>,
    /// All keys; of long arrays the first elements only with `verbose`.
    pub keys: Map<String, Json>,
    /// Name, format and shape of each tensor.
    pub tensors: Vec<Json>,
    /// Whether the vocabulary has tokens to fill a gap between a prefix and a suffix.
    pub insert: bool,
}

/// Names of `general.file_type`.
const FILE_TYPES: [(u64, &str); 20] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (25, "IQ4_NL"),
    (30, "IQ4_XS"),
    (32, "BF16"),
    (38, "MXFP4"),
];

/// Arrays longer than this are left empty where not everything is asked for, as Ollama does.
const SHORT: usize = 5;

impl Facts {
    /// The facts of a header.
    pub fn new(gguf: &Gguf) -> Facts {
        let meta = gguf.meta();
        let text = |key: &str| meta.get(key).and_then(Value::as_bytes).map(|b| String::from_utf8_lossy(b).into_owned());
        let number = |key: &str| meta.get(key).and_then(Value::as_u64);
        let family = text("general.architecture").unwrap_or_default();
        let named = number("general.file_type").and_then(|id| FILE_TYPES.iter().find(|t| t.0 == id)).map(|t| t.1);
        let fill = ["tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id"];
        Facts {
            parameters: gguf.tensors().iter().map(|t| t.shape.elements()).sum(),
            quantization: named.map(String::from).unwrap_or_else(|| largest_format(gguf)),
            context: number(&format!("{family}.context_length")).unwrap_or(0),
            width: number(&format!("{family}.embedding_length")).unwrap_or(0),
            template: text("tokenizer.chat_template"),
            keys: meta.iter().map(|(k, v)| (k.to_string(), value(v))).collect(),
            tensors: gguf.tensors().iter().map(tensor).collect(),
            insert: fill.iter().any(|key| meta.get(key).is_some()),
            family,
        }
    }

    /// The object `details` of Ollama's dialect.
    pub fn details(&self, parent: &str) -> Json {
        json!({
            "parent_model": parent,
            "format": "gguf",
            "family": self.family,
            "families": [self.family],
            "parameter_size": size(self.parameters),
            "quantization_level": self.quantization,
            "context_length": self.context,
            "embedding_length": self.width,
        })
    }
}

/// The format that most weights have.
fn largest_format(gguf: &Gguf) -> String {
    let mut sums: Vec<(&str, u64)> = Vec::new();
    for t in gguf.tensors() {
        match sums.iter_mut().find(|s| s.0 == t.format.name()) {
            Some(sum) => sum.1 += t.shape.elements(),
            None => sums.push((t.format.name(), t.shape.elements())),
        }
    }
    sums.iter().max_by_key(|s| s.1).map(|s| s.0.to_string()).unwrap_or_default()
}

fn tensor(t: &gguf::TensorInfo) -> Json {
    json!({"name": t.name, "type": t.format.name(), "shape": t.shape.dims()})
}

/// A number of weights as people say it: `134.52M`, `7.2B`.
fn size(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.2}K", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2}M", n as f64 / 1e6),
        _ => format!("{:.1}B", n as f64 / 1e9),
    }
}

/// A value as JSON; a long array is empty.
fn value(value: &Value) -> Json {
    match value {
        Value::Str(text) => json!(String::from_utf8_lossy(text)),
        Value::Array(a) if a.len() > SHORT || a.elem_type() == ValueType::Array => json!([]),
        Value::Array(a) => a.values().map(|v| scalar(&v)).collect(),
        other => scalar(other),
    }
}

fn scalar(value: &Value) -> Json {
    match value {
        Value::Str(text) => json!(String::from_utf8_lossy(text)),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::Bool(x) => json!(x),
        other => other.as_i64().map(|n| json!(n)).or_else(|| other.as_u64().map(|n| json!(n))).unwrap_or_default(),
    }
}
