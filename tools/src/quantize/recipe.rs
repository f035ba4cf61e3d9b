//! Which format each tensor of a model gets. The rules are those of llama.cpp's `llama-quantize`, so that a type's name
//! means the same mixture in both.

use std::collections::BTreeSet;

use gguf::{Format, Meta};

use super::types::{Better, FileType};
use super::wishes::Wishes;

/// A tensor as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dimensions, the length of a row first.
    pub dims: &'a [u64],
}

/// What else of a model decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Layers; 0 where the file does not say.
    pub layers: usize,
    /// Experts of a mixture; 0 or 1 where it is none.
    pub experts: usize,
    /// Query heads that share a head of keys.
    pub shared: usize,
}

impl Facts {
    /// What the metadata says. Keys that are missing or odd count as absent: files that are no language models have none.
    pub fn of(meta: &Meta) -> Facts {
        let arch = meta.opt_str("general.architecture").ok().flatten().unwrap_or_default();
        let count = |key: &str| meta.opt_u32(&format!("{arch}.{key}")).ok().flatten().unwrap_or(0) as usize;
        let heads = count("attention.head_count");
        let shared = heads.checked_div(count("attention.head_count_kv")).unwrap_or(1);
        Facts { layers: count("block_count"), experts: count("expert_count"), shared }
    }
}

/// The format of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What it becomes.
    pub format: Format,
    /// What it would be if its rows were whole blocks of that.
    pub wanted: Format,
}

/// The kind of a tensor that some rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Output,
    Embedding,
    /// Projections to values, alone or with others.
    Value,
    Key,
    AttentionOutput,
    Down,
    Other,
}

/// Parts of names, the first that fits counts.
const KINDS: [(&str, Kind); 7] = [
    ("attn_qkv.weight", Kind::Value),
    ("attn_kv_b.weight", Kind::Value),
    ("attn_v.weight", Kind::Value),
    ("attn_k.weight", Kind::Key),
    ("attn_output.weight", Kind::AttentionOutput),
    ("ffn_down", Kind::Down),
    ("", Kind::Other),
];

/// Names, and parts of names, of matrices that stay as they are: small ones that matter much.
const KEPT_NAMES: [&str; 2] = ["position_embd.weight", "token_types.weight"];
const KEPT_PARTS: [&str; 18] = [
    "_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_tid2eid.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "indexer.k_proj.weight",
    "indexer.q_proj.weight",
    "time_mix_",
    "attn_rel_b.weight",
    ".position_embd",
    ".rel_pos",
    ".patch_embd",
    ".patch_merger",
    "a.rvq.codebook",
    "mm.a.code_embd",
];

/// Matrices of "time mixing" that are large in spite of their name.
const LARGE_TIME_MIX: [&str; 5] = [
    "time_mix_key.weight",
    "time_mix_value.weight",
    "time_mix_receptance.weight",
    "time_mix_gate.weight",
    "time_mix_output.weight",
];

/// The format of each tensor; none for those that stay as they are.
pub fn choose(kind: &FileType, tensors: &[Tensor], facts: Facts, wishes: &Wishes) -> Vec<Option<Choice>> {
    let (base, better, weighted) = (kind.format, kind.better, wishes.weighted);
    let tied = !tensors.iter().any(|t| t.name == "output.weight");
    let values: BTreeSet<usize> =
        tensors.iter().filter(|t| kind_of(t.name) == Kind::Value).map(|t| layer(t.name)).collect();
    let rules = Rules { base, better, facts, tied, values, weighted };
    let one = |t: &Tensor| {
        if !is_matrix(t) {
            return None;
        }
        let float = matches!(base, Format::F32 | Format::F16 | Format::BF16);
        let by_rule = || if wishes.pure || float { base } else { rules.wanted(t) };
        let wanted = wishes.of(t.name).unwrap_or_else(by_rule);
        Some(Choice { format: fitting(wanted, t.dims[0]), wanted })
    };
    tensors.iter().map(one).collect()
}

fn is_matrix(t: &Tensor) -> bool {
    let large = LARGE_TIME_MIX.iter().any(|part| t.name.ends_with(part));
    let kept = KEPT_NAMES.contains(&t.name) || (!large && KEPT_PARTS.iter().any(|part| t.name.contains(part)));
    t.dims.iter().skip(1).any(|&d| d > 1) && t.name.ends_with("weight") && !kept
}

fn kind_of(name: &str) -> Kind {
    match name {
        "output.weight" => Kind::Output,
        "token_embd.weight" | "per_layer_token_embd.weight" => Kind::Embedding,
        _ => KINDS.iter().find(|(part, _)| name.contains(part)).map_or(Kind::Other, |k| k.1),
    }
}

/// The number in `blk.NUMBER.`.
pub fn layer_of(name: &str) -> Option<u32> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// The same; 0 where there is none.
fn layer(name: &str) -> usize {
    layer_of(name).unwrap_or(0) as usize
}

struct Rules {
    base: Format,
    better: Better,
    facts: Facts,
    tied: bool,
    /// Whether the importance of columns is known.
    weighted: bool,
    /// Layers that have values.
    values: BTreeSet<usize>,
}

impl Rules {
    /// The format of a matrix if its rows were whole blocks.
    fn wanted(&self, t: &Tensor) -> Format {
        let kind = kind_of(t.name);
        let eight = self.facts.experts == 8;
        match kind {
            _ if kind == Kind::Output || (kind == Kind::Embedding && self.tied) => self.output(t.dims[0]),
            _ if self.better == Better::Experts => {
                if t.dims.get(2).is_some_and(|&n| n > 1) {
                    self.base
                } else {
                    Format::Q8_0
                }
            }
            Kind::Embedding if self.better == Better::Ternary => Format::Q4K,
            // Beside eight experts these are small.
            Kind::Value | Kind::Key if eight => Format::Q8_0,
            Kind::AttentionOutput => self.attention_output(eight),
            Kind::Value => self.value(self.values.range(..layer(t.name)).count(), self.values.len()),
            Kind::Down => self.down(layer(t.name), self.facts.layers),
            _ => self.base,
        }
    }

    fn output(&self, k: u64) -> Format {
        let whole = k.is_multiple_of(self.base.block_len() as u64);
        if matches!(self.better, Better::Nothing | Better::Experts) || !whole { Format::Q8_0 } else { Format::Q6K }
    }

    fn value(&self, i: usize, n: usize) -> Format {
        let format = match self.better {
            Better::Third if more_bits(i, n) => Format::Q6K,
            Better::First if i < 4 => Format::Q5K,
            Better::Two if self.facts.shared < 4 => Format::Q3K,
            Better::Two => Format::Q4K,
            Better::TwoFirst if self.facts.shared >= 4 => Format::Q4K,
            Better::Three if i >= 2 => Format::Q4K,
            Better::Three | Better::ThreeLarge => Format::Q5K,
            Better::Table if self.facts.shared >= 4 => Format::Q5K,
            _ => self.base,
        };
        // Models of this depth share each head of values among eight, so that better ones cost little.
        let shared = self.facts.layers == 80 && self.facts.shared > 1;
        if shared && format == Format::Q4K { Format::Q5K } else { format }
    }

    fn down(&self, i: usize, n: usize) -> Format {
        match self.better {
            Better::Third if more_bits(i, n) => Format::Q6K,
            Better::First if i < n / 8 => Format::Q5K,
            Better::Two => Format::Q3K,
            Better::TwoFirst if i < n / 8 => Format::Q4K,
            Better::Three if i >= n / 16 => Format::Q4K,
            Better::Three | Better::ThreeLarge => Format::Q5K,
            Better::Table if i < n / 8 && !self.weighted => Format::Q5K,
            // Weighted fits of these can go astray in the first layers.
            Better::Output if i < n / 8 && self.weighted && self.base == Format::Q4_0 => Format::Q4_1,
            Better::Output if i < n / 8 && self.weighted && self.base == Format::Q5_0 => Format::Q5_1,
            _ => self.base,
        }
    }

    fn attention_output(&self, eight_experts: bool) -> Format {
        let small = match self.base {
            Format::Q4K | Format::IQ4NL | Format::IQ4XS => true,
            Format::Q2K => self.better == Better::Two,
            Format::Q3K => self.better != Better::ThreeLarge,
            _ => false,
        };
        match self.better {
            _ if eight_experts && small => Format::Q5K,
            _ if eight_experts => self.base,
            Better::Two => Format::Q3K,
            Better::Three => Format::Q4K,
            Better::ThreeLarge => Format::Q5K,
            _ => self.base,
        }
    }
}

/// The first and last eighth, and every third layer between.
fn more_bits(i: usize, n: usize) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

/// The format, or one of at least its quality for rows that are no whole blocks of it.
fn fitting(format: Format, k: u64) -> Format {
    let whole = |f: Format| k.is_multiple_of(f.block_len() as u64);
    let second = match format {
        Format::Q4K => Format::Q5_0,
        Format::Q5K => Format::Q5_1,
        Format::Q6K => Format::Q8_0,
        Format::IQ4XS => Format::IQ4NL,
        Format::Q2K | Format::Q3K | Format::TQ1_0 | Format::TQ2_0 => Format::Q4_0,
        _ => Format::F16,
    };
    [format, second].into_iter().find(|&f| whole(f)).unwrap_or(Format::F16)
}
