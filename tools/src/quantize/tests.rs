//! The rules against what published files hold, read from their tensor tables.

use gguf::Format;

use super::recipe::{Facts, Tensor, choose};
use super::types::{ALL, FileType};
use super::wishes::Wishes;

/// Names and dimensions of a model of Gemma's or Llama's layout with heads as wide as `heads`.
fn layout(layers: usize, width: u64, [heads, kv, ff, vocab]: [u64; 4], tied: bool) -> Vec<(String, Vec<u64>)> {
    let mut all =
        vec![("output_norm.weight".to_string(), vec![width]), ("token_embd.weight".into(), vec![width, vocab])];
    all.extend((!tied).then(|| ("output.weight".into(), vec![width, vocab])));
    for layer in 0..layers {
        let mut push = |name: &str, dims: &[u64]| all.push((format!("blk.{layer}.{name}"), dims.to_vec()));
        push("attn_norm.weight", &[width]);
        push("attn_q.weight", &[width, heads]);
        push("attn_q.bias", &[heads]);
        push("attn_k.weight", &[width, kv]);
        push("attn_v.weight", &[width, kv]);
        push("attn_output.weight", &[heads, width]);
        push("ffn_gate.weight", &[width, ff]);
        push("ffn_up.weight", &[width, ff]);
        push("ffn_down.weight", &[ff, width]);
    }
    all
}

/// The format of each tensor, by name.
fn formats(kind: &str, all: &[(String, Vec<u64>)], facts: Facts, pure: bool) -> Vec<(String, Option<Format>)> {
    let tensors: Vec<Tensor> = all.iter().map(|(name, dims)| Tensor { name, dims }).collect();
    let choices = choose(FileType::parse(kind).unwrap(), &tensors, facts, &Wishes { pure, ..Wishes::default() });
    all.iter().zip(choices).map(|((name, _), choice)| (name.clone(), choice.map(|c| c.format))).collect()
}

fn facts(layers: usize) -> Facts {
    Facts { layers, experts: 0, shared: 4 }
}

/// Layers in which the tensor of this name has the format.
fn layers_with(found: &[(String, Option<Format>)], name: &str, format: Format) -> Vec<usize> {
    let layer = |full: &str| full.strip_prefix("blk.")?.strip_suffix(name)?.strip_suffix('.')?.parse().ok();
    found.iter().filter(|f| f.1 == Some(format)).filter_map(|f| layer(&f.0)).collect()
}

fn format_of(found: &[(String, Option<Format>)], name: &str) -> Option<Format> {
    found.iter().find(|f| f.0 == name).unwrap().1
}

/// gemma-3-270m in Q4_K_M: rows of 640 are no whole blocks of 256.
#[test]
fn gemma_3_270m() {
    let all = layout(18, 640, [1024, 256, 2048, 262_144], true);
    let found = formats("q4_k_m", &all, facts(18), false);
    let better = [0, 1, 4, 7, 10, 13, 15, 16, 17];
    assert_eq!(layers_with(&found, "attn_v.weight", Format::Q8_0), better);
    assert_eq!(layers_with(&found, "ffn_down.weight", Format::Q6K), better);
    assert_eq!(layers_with(&found, "ffn_down.weight", Format::Q4K).len(), 9);
    assert_eq!(layers_with(&found, "attn_v.weight", Format::Q5_0).len(), 9);
    assert_eq!(layers_with(&found, "attn_output.weight", Format::Q4K).len(), 18);
    for name in ["attn_q.weight", "attn_k.weight", "ffn_gate.weight", "ffn_up.weight"] {
        assert_eq!(layers_with(&found, name, Format::Q5_0).len(), 18, "{name}");
    }
    assert_eq!(format_of(&found, "token_embd.weight"), Some(Format::Q8_0));
    assert_eq!(format_of(&found, "output_norm.weight"), None);
    assert_eq!(format_of(&found, "blk.3.attn_q.bias"), None);
}

/// SmolLM2-135M in Q4_1: the embedding in Q8_0, since rows of 576 are no whole blocks of Q6_K either.
#[test]
fn smollm2_135m() {
    let found = formats("q4_1", &layout(30, 576, [576, 192, 1536, 49_152], true), facts(30), false);
    assert_eq!(format_of(&found, "token_embd.weight"), Some(Format::Q8_0));
    assert_eq!(found.iter().filter(|f| f.1 == Some(Format::Q4_1)).count(), 210);
}

/// Llama-3.2-1B in Q4_K_M: 96 tensors in Q4_K, 17 in Q6_K.
#[test]
fn llama_3_2_1b() {
    let all = layout(16, 2048, [2048, 512, 8192, 128_256], true);
    let found = formats("q4_k_m", &all, facts(16), false);
    let count = |found: &[(String, Option<Format>)], format| found.iter().filter(|f| f.1 == Some(format)).count();
    assert_eq!((count(&found, Format::Q4K), count(&found, Format::Q6K)), (96, 17));
    let small = formats("q4_k_s", &all, facts(16), false);
    assert_eq!(layers_with(&small, "attn_v.weight", Format::Q5K), [0, 1, 2, 3]);
    assert_eq!(layers_with(&small, "ffn_down.weight", Format::Q5K), [0, 1]);
    assert_eq!(format_of(&small, "token_embd.weight"), Some(Format::Q6K));
    let pure = formats("q4_0", &all, facts(16), true);
    assert_eq!(count(&pure, Format::Q4_0), 113);
    assert_eq!(format_of(&formats("q4_0", &all, facts(16), false), "token_embd.weight"), Some(Format::Q6K));
}

/// An untied embedding is a matrix like others; eight experts and eighty layers have rules of their own.
#[test]
fn special_cases() {
    let found = formats("q4_k_m", &layout(32, 4096, [4096, 1024, 14_336, 32_000], false), facts(32), false);
    assert_eq!(format_of(&found, "token_embd.weight"), Some(Format::Q4K));
    assert_eq!(format_of(&found, "output.weight"), Some(Format::Q6K));
    let experts = Facts { experts: 8, ..facts(32) };
    let found = formats("q4_k_m", &layout(32, 4096, [4096, 1024, 14_336, 32_000], false), experts, false);
    assert_eq!(layers_with(&found, "attn_k.weight", Format::Q8_0).len(), 32);
    assert_eq!(layers_with(&found, "attn_output.weight", Format::Q5K).len(), 32);
    let found = formats("q4_k_s", &layout(80, 8192, [8192, 1024, 28_672, 32_000], false), facts(80), false);
    assert_eq!(layers_with(&found, "attn_v.weight", Format::Q5K).len(), 80);
    let odd =
        formats("q8_0", &[("a.weight".to_string(), vec![20, 3]), ("b.weight".into(), vec![64, 1])], facts(1), false);
    assert_eq!((odd[0].1, odd[1].1), (Some(Format::F16), None));
}

#[test]
fn names_and_numbers() {
    for (i, t) in ALL.iter().enumerate() {
        assert!(!ALL[..i].iter().any(|before| before.name == t.name), "{}", t.name);
        assert!(t.format.encoder().is_some(), "{}", t.name);
        assert_eq!(FileType::parse(&t.name.to_uppercase()).unwrap().id, t.id);
    }
    assert_eq!((FileType::words(15), FileType::words(14)), (Some("Q4_K - Medium"), Some("Q4_K - Small")));
    assert!(FileType::parse("q2_m").unwrap_err().contains("q4_k_m"), "names what is allowed");
}
