//! A GGUF file taken apart into the folder that its converter would have been given: what converting is tested with.

use std::collections::HashMap;
use std::path::Path;

use gguf::{Gguf, Meta, Value as GgufValue};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Map, Value, json};

/// A tensor of a folder: name, dimensions with the length of a row last, numbers.
pub type Tensor = (String, Vec<usize>, Vec<f32>);

/// A family: the name in GGUF, its class, and the names of tensors, here and there.
struct Family {
    arch: &'static str,
    class: &'static str,
    names: &'static [(&'static str, &'static str)],
    /// Whether norms are stored as their distance from 1.
    shifted: bool,
    /// Whether the rows of queries and keys are woven.
    woven: bool,
}

const DECODER: &[(&str, &str)] = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// What is otherwise in a family comes first and so counts.
const FAMILIES: [Family; 6] = [
    Family { arch: "llama", class: "LlamaForCausalLM", names: &[], shifted: false, woven: true },
    Family { arch: "qwen2", class: "Qwen2ForCausalLM", names: &[], shifted: false, woven: false },
    Family { arch: "qwen3", class: "Qwen3ForCausalLM", names: &[], shifted: false, woven: false },
    Family {
        arch: "phi3",
        class: "Phi3ForCausalLM",
        names: &[("ffn_up", "mlp.gate_up_proj")],
        shifted: false,
        woven: false,
    },
    Family {
        arch: "gemma3",
        class: "Gemma3ForCausalLM",
        names: &[
            ("post_attention_norm", "post_attention_layernorm"),
            ("ffn_norm", "pre_feedforward_layernorm"),
            ("post_ffw_norm", "post_feedforward_layernorm"),
        ],
        shifted: true,
        woven: false,
    },
    Family {
        arch: "bert",
        class: "BertModel",
        names: &[
            ("token_embd", "embeddings.word_embeddings"),
            ("position_embd", "embeddings.position_embeddings"),
            ("token_types", "embeddings.token_type_embeddings"),
            ("token_embd_norm", "embeddings.LayerNorm"),
            ("attn_q", "attention.self.query"),
            ("attn_k", "attention.self.key"),
            ("attn_v", "attention.self.value"),
            ("attn_output", "attention.output.dense"),
            ("attn_output_norm", "attention.output.LayerNorm"),
            ("ffn_up", "intermediate.dense"),
            ("ffn_down", "output.dense"),
            ("layer_output_norm", "output.LayerNorm"),
        ],
        shifted: false,
        woven: false,
    },
];

/// Whether a model of this architecture can be taken apart.
pub fn knows(arch: &str) -> bool {
    FAMILIES.iter().any(|f| f.arch == arch)
}

/// Writes the folder of a model. With `shards`, weights are spread over two files with an index.
///
/// # Panics
/// If the model is of no family that [`knows`] answers for, or the folder cannot be written.
pub fn take_apart(gguf: &Gguf, folder: &Path, shards: bool) {
    let meta = gguf.meta();
    let arch = meta.str("general.architecture").expect("an architecture");
    let family = FAMILIES.iter().find(|f| f.arch == arch).expect("a family of the list");
    let tensors = of_family(gguf, family);
    if shards {
        let half = tensors.len() / 2;
        let mut map = Map::new();
        for (file, part) in [("a-1.safetensors", &tensors[..half]), ("b-2.safetensors", &tensors[half..])] {
            save(&folder.join(file), part, Dtype::F32);
            map.extend(part.iter().map(|t| (t.0.clone(), json!(file))));
        }
        put(folder, "model.safetensors.index.json", &json!({ "weight_map": map }));
    } else {
        save(&folder.join("model.safetensors"), &tensors, Dtype::F32);
    }
    put(folder, "config.json", &config(gguf, family));
    vocabulary(meta, folder);
    if let Some(kind) = meta.opt_u32(&format!("{arch}.pooling_type")).expect("a kind of pooling") {
        let module =
            |name: &str, path: &str| json!({ "type": format!("sentence_transformers.models.{name}"), "path": path });
        put(folder, "modules.json", &json!([module("Transformer", ""), module("Pooling", "1_Pooling")]));
        std::fs::create_dir_all(folder.join("1_Pooling")).expect("a folder");
        let on = |n| n == kind;
        put(
            &folder.join("1_Pooling"),
            "config.json",
            &json!({ "pooling_mode_mean_tokens": on(1), "pooling_mode_cls_token": on(2), "pooling_mode_lasttoken": on(3) }),
        );
    }
}

fn put(folder: &Path, name: &str, json: &Value) {
    std::fs::write(folder.join(name), json.to_string()).expect("a folder that can be written");
}

/// Writes tensors as safetensors.
///
/// # Panics
/// If the file cannot be written, or the type is none of F32, F16, BF16.
pub fn save(path: &Path, tensors: &[Tensor], dtype: Dtype) {
    let bytes = |values: &[f32]| -> Vec<u8> {
        match dtype {
            Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::BF16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            other => panic!("no tensors of {other:?} are written"),
        }
    };
    let data: Vec<Vec<u8>> = tensors.iter().map(|t| bytes(&t.2)).collect();
    let mut views = HashMap::new();
    for ((name, shape, _), data) in tensors.iter().zip(&data) {
        let view = TensorView::new(dtype, shape.clone(), data).expect("as many bytes as numbers");
        views.insert(name.clone(), view);
    }
    serialize_to_file(views, None, path).expect("a file that can be written");
}

/// The tensors that the folder of a model holds.
///
/// # Panics
/// If the model is of no family that [`knows`] answers for.
pub fn tensors(gguf: &Gguf) -> Vec<Tensor> {
    let arch = gguf.meta().str("general.architecture").expect("an architecture");
    of_family(gguf, FAMILIES.iter().find(|f| f.arch == arch).expect("a family of the list"))
}

fn of_family(gguf: &Gguf, family: &Family) -> Vec<Tensor> {
    let count = |key: &str| gguf.meta().u32(&format!("{}.attention.{key}", family.arch)).unwrap_or(1) as usize;
    let mut found = Vec::new();
    for t in gguf.tensors() {
        let Some(name) = name(&t.name, family) else { continue };
        let mut values = vec![0.0; t.shape.elements() as usize];
        t.format.decoder().expect("a format that is decoded")(&gguf.little_endian(t), &mut values);
        if family.shifted && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|v| *v -= 1.0);
        }
        let shape: Vec<usize> = t.shape.dims().iter().rev().map(|&d| d as usize).collect();
        for (part, heads) in [("q_proj", "head_count"), ("k_proj", "head_count_kv")] {
            if family.woven && name.contains(part) {
                values = unwoven(&values, shape[0], shape[0] / count(heads));
            }
        }
        found.push((name, shape, values));
    }
    found
}

/// The name in a folder; none for what follows from the configuration.
fn name(name: &str, family: &Family) -> Option<String> {
    let (stem, suffix) = name.rsplit_once('.')?;
    let layer = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let part = layer.map_or(stem, |(_, part)| part);
    let known = family.names.iter().chain(DECODER).find(|(from, _)| *from == part)?;
    Some(match layer {
        None => format!("{}.{suffix}", known.1),
        Some((n, _)) if family.arch == "bert" => format!("encoder.layer.{n}.{}.{suffix}", known.1),
        Some((n, _)) => format!("model.layers.{n}.{}.{suffix}", known.1),
    })
}

/// Rows as they are in a folder: the first of each pair of a head, then the second.
fn unwoven(values: &[f32], rows: usize, head: usize) -> Vec<f32> {
    let k = values.len() / rows;
    let from = |row: usize| row / head * head + row % head % (head / 2) * 2 + row % head / (head / 2);
    (0..rows).flat_map(|row| values[from(row) * k..(from(row) + 1) * k].to_vec()).collect()
}

/// Keys of a configuration: here, and below the architecture's name there.
const KEYS: [(&str, &str); 13] = [
    ("num_hidden_layers", "block_count"),
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("max_position_embeddings", "context_length"),
    ("sliding_window", "attention.sliding_window"),
    ("vocab_size", "vocab_size"),
    ("original_max_position_embeddings", "rope.scaling.original_context_length"),
];

fn config(gguf: &Gguf, family: &Family) -> Value {
    let meta = gguf.meta();
    let mut map = Map::new();
    map.insert("architectures".into(), json!([family.class]));
    for (to, from) in KEYS {
        let value = meta.get(&format!("{}.{from}", family.arch));
        if let Some(value) = value.and_then(|v| v.as_u64().map(|n| json!(n)).or_else(|| v.as_f32().map(|f| json!(f)))) {
            map.insert(to.into(), value);
        }
    }
    let act = [("gemma3", "gelu_pytorch_tanh"), ("bert", "gelu")].into_iter().find(|a| a.0 == family.arch);
    if family.arch == "gemma3" {
        map.insert("query_pre_attn_scalar".into(), map["head_dim"].clone());
    }
    map.insert("hidden_act".into(), json!(act.map_or("silu", |a| a.1)));
    map.insert("tie_word_embeddings".into(), json!(gguf.tensor("output.weight").is_none()));
    if let Some(kinds) = meta.get("tokenizer.ggml.token_type_count").and_then(GgufValue::as_u64) {
        map.insert("type_vocab_size".into(), json!(kinds));
    }
    let factors = |name: &str| {
        gguf.tensor(name).map(|t| {
            let mut values = vec![0.0; t.shape.elements() as usize];
            t.format.decoder().expect("floats")(&gguf.little_endian(t), &mut values);
            values
        })
    };
    if let Some((long, short)) = factors("rope_factors_long.weight").zip(factors("rope_factors_short.weight")) {
        map.insert("rope_scaling".into(), json!({ "type": "longrope", "long_factor": long, "short_factor": short }));
        let (turned, heads) = (meta.u32("phi3.rope.dimension_count"), meta.u32("phi3.attention.head_count"));
        let size = meta.u32("phi3.embedding_length").expect("a width") / heads.expect("heads");
        map.insert("partial_rotary_factor".into(), json!(f64::from(turned.expect("a count")) / f64::from(size)));
    }
    Value::Object(map)
}

/// The text of every token.
fn texts(meta: &Meta) -> Vec<String> {
    let tokens = meta.strings("tokenizer.ggml.tokens").expect("tokens");
    tokens.strings().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// Writes the tokenizer's files.
fn vocabulary(meta: &Meta, folder: &Path) {
    let texts = texts(meta);
    let types: Vec<i64> = meta.ints("tokenizer.ggml.token_type").expect("types").ints().expect("integers").collect();
    let mut settings = Map::new();
    for (role, key) in [
        ("bos", "bos"),
        ("eos", "eos"),
        ("unk", "unknown"),
        ("pad", "padding"),
        ("sep", "seperator"),
        ("cls", "cls"),
        ("mask", "mask"),
        ("eot", "eot"),
    ] {
        if let Some(id) = meta.opt_u32(&format!("tokenizer.ggml.{key}_token_id")).expect("an id") {
            settings.insert(format!("{role}_token"), json!({ "content": texts[id as usize] }));
        }
        if let Some(added) = meta.opt_bool(&format!("tokenizer.ggml.add_{role}_token")).expect("a flag") {
            settings.insert(format!("add_{role}_token"), json!(added));
        }
    }
    settings.insert("chat_template".into(), json!("{{ messages[0].content }}"));
    put(folder, "tokenizer_config.json", &Value::Object(settings));
    let added: Vec<Value> = texts
        .iter()
        .zip(&types)
        .enumerate()
        .filter(|(_, (_, kind))| [2, 3, 4].contains(*kind))
        .map(|(id, (text, kind))| json!({ "id": id, "content": text, "special": *kind != 4 }))
        .collect();
    match meta.str("tokenizer.ggml.model").expect("a kind") {
        "llama" => std::fs::write(folder.join("tokenizer.model"), pieces(meta, &texts, &types)).expect("a file"),
        "bert" => {
            let text = |(text, kind): (&String, &i64)| match text.strip_prefix('▁') {
                Some(rest) => rest.to_string(),
                None if *kind == 1 => format!("##{text}"),
                None => text.clone(),
            };
            let vocab: Map<String, Value> =
                texts.iter().zip(&types).map(text).enumerate().map(|(id, text)| (text, json!(id))).collect();
            let normalizer = json!({ "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": true });
            let model =
                json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "vocab": vocab });
            put(folder, "tokenizer.json", &json!({ "added_tokens": added, "normalizer": normalizer, "model": model }));
        }
        _ => put(folder, "tokenizer.json", &byte_level(meta, &texts, &types, &added)),
    }
}

/// The rules of `tokenizer.ggml.pre` as they are published.
fn rules(name: &str) -> (Value, bool) {
    const CLITICS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    const REST: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let split = |regex: String| json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false });
    let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": regex });
    let sequence = |first: Value, regex| json!({ "type": "Sequence", "pretokenizers": [first, bytes(regex)] });
    let words = |digits: &str| split(format!(r"{CLITICS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}{REST}"));
    match name {
        "llama-bpe" => (sequence(words(r"\p{N}{1,3}"), false), true),
        "qwen2" => (sequence(words(r"\p{N}"), false), false),
        "gpt-4o" => {
            let (upper, lower) = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]");
            let word = |a: &str, b: &str| format!(r"[^\r\n\p{{L}}\p{{N}}]?{upper}{a}{lower}{b}{CLITICS}?|");
            let rest = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
            (sequence(split(format!("{}{}{rest}", word("*", "+"), word("+", "*"))), false), false)
        }
        "smollm" => (sequence(json!({ "type": "Digits", "individual_digits": true }), true), false),
        other => panic!("no rules are written for {other}"),
    }
}

fn byte_level(meta: &Meta, texts: &[String], types: &[i64], added: &[Value]) -> Value {
    let merges = meta.strings("tokenizer.ggml.merges").expect("merges");
    let merges: Vec<Value> = merges
        .strings()
        .enumerate()
        .map(|(i, merge)| {
            let text = String::from_utf8_lossy(merge).into_owned();
            // Both spellings are in use.
            if i % 2 == 0 { json!(text) } else { json!(text.split(' ').collect::<Vec<_>>()) }
        })
        .collect();
    let base = texts.iter().zip(types).enumerate().filter(|(_, (_, kind))| **kind == 1);
    let vocab: Map<String, Value> = base.map(|(id, (text, _))| (text.clone(), json!(id))).collect();
    let (rules, whole) = rules(meta.str("tokenizer.ggml.pre").expect("rules"));
    let model =
        json!({ "type": "BPE", "ignore_merges": whole, "byte_fallback": false, "vocab": vocab, "merges": merges });
    json!({ "added_tokens": added, "pre_tokenizer": rules, "decoder": { "type": "ByteLevel" }, "model": model })
}

/// A SentencePiece model: every piece, and that they are merged.
fn pieces(meta: &Meta, texts: &[String], types: &[i64]) -> Vec<u8> {
    let scores: Vec<f32> =
        meta.floats("tokenizer.ggml.scores").expect("scores").values().filter_map(|v| v.as_f32()).collect();
    let mut file = Vec::new();
    for ((text, kind), score) in texts.iter().zip(types).zip(scores) {
        let mut piece = vec![0x0a];
        length(text.len(), &mut piece);
        piece.extend(text.as_bytes());
        piece.push(0x15);
        piece.extend(score.to_le_bytes());
        piece.extend([0x18, *kind as u8]);
        file.push(0x0a);
        length(piece.len(), &mut file);
        file.extend(piece);
    }
    file.extend([0x12, 2, 0x18, 2]);
    file
}

fn length(mut n: usize, out: &mut Vec<u8>) {
    while n >= 128 {
        out.push((n & 127) as u8 | 128);
        n >>= 7;
    }
    out.push(n as u8);
}
