//! Files that must be refused, each with the words that the refusal must hold, and odd files that must not be.
//!
//! One base model, one lie a file. The classes are those that broke other engines: counts and lengths that exceed the
//! file, sizes that wrap, names that repeat, tensors that overlap, keys that no model can have, vocabularies that do
//! not fit, templates that never end.

use crate::draft::{Draft, Tensor, Value};
use crate::tiny::{Model, Vocab};

/// When a file must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// By whoever parses it.
    Parsed,
    /// By whoever builds a model of it.
    Loaded,
    /// Only once a token is asked for: damaged weights, a chat template that does not end.
    Run,
}

/// A file that must be refused.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// Class and kind: `h` header, `k` keys, `t` tensors, `m` model, `v` vocabulary, `w` weights, `c` chat template.
    pub name: &'static str,
    /// When.
    pub refused: Refused,
    /// The file.
    pub bytes: Vec<u8>,
    /// Words that the error must hold.
    pub words: &'static [&'static str],
}

const WRAPS: u64 = 1 << 63;

/// The model that every lie is about: small, since there are many.
fn base() -> Model {
    Model { n_embd: 32, n_ff: 40, ..Model::llama(1) }
}

/// Every file that must be refused.
pub fn malformed() -> Vec<Malformed> {
    let groups = [headers(), keys(), arrays(), alignments(), tensors(), offsets(), hyperparameters(), shapes()];
    let later = [vocabularies(), merges(), weights(), templates()];
    groups.into_iter().chain(later).flatten().collect()
}

fn model(
    name: &'static str,
    refused: Refused,
    base: &Model,
    words: &'static [&'static str],
    lie: impl FnOnce(&mut Draft),
) -> Malformed {
    let mut draft = base.draft();
    lie(&mut draft);
    Malformed { name, refused, bytes: draft.bytes(), words }
}

fn parsed(name: &'static str, words: &'static [&'static str], lie: impl FnOnce(&mut Draft)) -> Malformed {
    model(name, Refused::Parsed, &base(), words, lie)
}

fn loaded(name: &'static str, words: &'static [&'static str], lie: impl FnOnce(&mut Draft)) -> Malformed {
    model(name, Refused::Loaded, &base(), words, lie)
}

/// A file with a key of any type and bytes.
fn with_raw(name: &'static str, words: &'static [&'static str], type_id: u32, bytes: Vec<u8>) -> Malformed {
    parsed(name, words, |draft| draft.keys.insert(0, (b"test.lie".to_vec(), Value::Raw { type_id, bytes })))
}

fn headers() -> Vec<Malformed> {
    let whole = base().bytes();
    let cut =
        |name, end: usize, words| Malformed { name, refused: Refused::Parsed, bytes: whole[..end].to_vec(), words };
    vec![
        cut("h_empty", 0, &["GGUF"]),
        cut("h_cut_magic", 3, &["GGUF"]),
        cut("h_cut_version", 6, &["byte 4", "needs 4 bytes"]),
        cut("h_cut_counts", 20, &["byte 16", "needs 8 bytes"]),
        cut("k_cut_in_name", 40, &["at byte"]),
        cut("d_cut_in_data", whole.len() / 2, &["tensor", "cut short"]),
        cut("d_cut_last_byte", whole.len() - 1, &["tensor", "cut short"]),
        parsed("h_magic", &["\"GGML\"", "GGUF"], |draft| draft.magic = *b"GGML"),
        parsed("h_version_1", &["version 1", "2 or 3"], |draft| draft.version = 1),
        parsed("h_version_u32max", &["version 4294967295"], |draft| draft.version = u32::MAX),
        parsed("h_ntensors_2_63", &["byte 8", "9223372036854775808 tensors"], |draft| draft.n_tensors = Some(WRAPS)),
        parsed("h_ntensors_2_40", &["byte 8", "1099511627776 tensors"], |draft| draft.n_tensors = Some(1 << 40)),
        parsed("h_nkv_2_63", &["byte 16", "9223372036854775808 keys"], |draft| draft.n_keys = Some(WRAPS)),
        parsed("h_nkv_u64max", &["byte 16", "18446744073709551615 keys"], |draft| draft.n_keys = Some(u64::MAX)),
        parsed("h_ntensors_less1", &["belong to no tensor"], |draft| {
            draft.n_tensors = Some(draft.tensors.len() as u64 - 1)
        }),
        parsed("h_ntensors_more1", &["at byte"], |draft| draft.n_tensors = Some(draft.tensors.len() as u64 + 1)),
        parsed("h_nkv_more1", &["at byte"], |draft| draft.n_keys = Some(draft.keys.len() as u64 + 1)),
    ]
}

/// A file whose first key states this length for its name.
fn key_length(name: &'static str, length: u64, words: &'static [&'static str]) -> Malformed {
    let mut bytes = base().bytes();
    bytes[24..32].copy_from_slice(&length.to_le_bytes());
    Malformed { name, refused: Refused::Parsed, bytes, words }
}

fn keys() -> Vec<Malformed> {
    let rename = |name, key: &'static [u8], words| parsed(name, words, move |draft| draft.keys[0].0 = key.to_vec());
    vec![
        key_length("k_keylen_2_63", WRAPS, &["key 0", "at byte 32", "9223372036854775808"]),
        key_length("k_keylen_wraps", u64::MAX - 3, &["key 0", "at byte 32"]),
        key_length("k_keylen_2_33", 1 << 33, &["key 0", "at byte 32", "8589934592"]),
        rename("k_key_empty", b"", &["key 0", "name of 0 bytes"]),
        rename("k_key_long", &[b'k'; 65_536], &["key 0", "name of 65536 bytes"]),
        rename("k_key_nul", b"general.architecture\0x", &["key 0", "NUL", "position 20"]),
        rename("k_key_not_utf8", b"general.\xff", &["key 0", "UTF-8"]),
        parsed("k_dup_same", &["general.name", "already used"], |draft| {
            let entry = draft.keys[1].clone();
            draft.keys.push(entry);
        }),
        parsed("k_dup_other_type", &["general.architecture", "already used"], |draft| {
            draft.keys.push((b"general.architecture".to_vec(), Value::U32(1)));
        }),
        with_raw("k_type_13", &["test.lie", "type id 13"], 13, vec![0; 8]),
        with_raw("k_type_u32max", &["test.lie", "type id 4294967295"], u32::MAX, vec![0; 8]),
        with_raw("k_bool_2", &["test.lie", "boolean of value 2"], 7, vec![2]),
        with_raw("k_strlen_2_63", &["test.lie", "at byte", "9223372036854775808"], 8, WRAPS.to_le_bytes().to_vec()),
        with_raw("k_strlen_wraps", &["test.lie", "at byte"], 8, (u64::MAX - 7).to_le_bytes().to_vec()),
        with_raw("k_strlen_2_40", &["test.lie", "1099511627776"], 8, (1u64 << 40).to_le_bytes().to_vec()),
    ]
}

/// An array header: element type and length.
fn array(elem: u32, len: u64) -> Vec<u8> {
    [&elem.to_le_bytes()[..], &len.to_le_bytes()].concat()
}

fn arrays() -> Vec<Malformed> {
    let nested = |depth: usize| [array(9, 1).repeat(depth), array(4, 0)].concat();
    // A thousand empty arrays in each of a thousand: cheap to state, dear to build.
    let row = [array(9, 1000), array(4, 0).repeat(1000)].concat();
    let bomb = [array(9, 1 << 32), row.repeat(10)].concat();
    vec![
        with_raw("k_arr_len_2_63", &["test.lie", "9223372036854775808"], 9, array(4, WRAPS)),
        with_raw("k_arr_len_2_61", &["test.lie", "at byte"], 9, array(10, 1 << 61)),
        with_raw("k_arr_len_past_end", &["test.lie", "1000000000"], 9, array(0, 1_000_000_000)),
        with_raw("k_arr_strings_past_end", &["test.lie", "at byte"], 9, array(8, 1 << 40)),
        with_raw("k_arr_elemtype_13", &["test.lie", "type id 13"], 9, array(13, 1)),
        with_raw("k_arr_elemtype_13_empty", &["test.lie", "type id 13"], 9, array(13, 0)),
        with_raw("k_arr_nested_deep", &["test.lie", "nested deeper"], 9, nested(10_000)),
        with_raw("k_arr_nested_bomb", &["test.lie", "at byte"], 9, bomb),
        with_raw("k_arr_bool_7", &["test.lie", "boolean of value 7"], 9, [array(7, 2), vec![1, 7]].concat()),
    ]
}

fn alignments() -> Vec<Malformed> {
    let align = |name, value, words| {
        parsed(name, words, move |draft| draft.keys.insert(0, (b"general.alignment".to_vec(), value)))
    };
    vec![
        align("k_align_0", Value::U32(0), &["general.alignment", "u32 0", "power of two"]),
        align("k_align_3", Value::U32(3), &["general.alignment", "u32 3", "power of two"]),
        align("k_align_2_30", Value::U32(1 << 30), &["general.alignment", "1073741824"]),
        align("k_align_string", Value::str("32"), &["general.alignment", "string"]),
        align("k_align_f32", Value::F32(32.0), &["general.alignment", "f32 32"]),
    ]
}

/// The name of the tensor that the lies of this file are about.
const TENSOR: &str = "blk.0.attn_q.weight";

fn tensors() -> Vec<Malformed> {
    let rename =
        |name, to: &'static [u8], words| parsed(name, words, move |draft| draft.tensor(TENSOR).name = to.to_vec());
    let dims =
        |name, to: &'static [u64], words| parsed(name, words, move |draft| draft.tensor(TENSOR).dims = to.to_vec());
    let format = |name, id, words| parsed(name, words, move |draft| draft.tensor(TENSOR).format = id);
    vec![
        rename("t_name_empty", b"", &["tensor 4", "name of 0 bytes"]),
        rename("t_name_long", &[b't'; 65], &["tensor 4", "name of 65 bytes"]),
        rename("t_name_nul", b"blk\0", &["tensor 4", "NUL"]),
        rename("t_name_not_utf8", b"blk.\xc3", &["tensor 4", "UTF-8"]),
        rename("t_dup_name", b"output_norm.weight", &["output_norm.weight", "already used"]),
        dims("t_ndims_0", &[], &[TENSOR, "0 dimensions"]),
        dims("t_ndims_5", &[2, 2, 2, 3, 3], &[TENSOR, "5 dimensions"]),
        dims("t_dim_zero", &[64, 0], &[TENSOR, "dimension 1 is 0"]),
        dims("t_dim_zero_first", &[0, 64], &[TENSOR, "dimension 0 is 0"]),
        dims("t_ne_wraps", &[1 << 32, 1 << 32], &[TENSOR, "overflow"]),
        dims("t_ne_wraps_to_small", &[1 << 63, 2, 36], &[TENSOR, "overflow"]),
        dims("t_nbytes_overflow", &[1 << 62], &[TENSOR, "overflow"]),
        dims("t_nbytes_past_eof", &[64, 1 << 40], &[TENSOR, "cut short"]),
        format("t_type_4", 4, &[TENSOR, "format id 4"]),
        format("t_type_31", 31, &[TENSOR, "format id 31"]),
        format("t_type_u32max", u32::MAX, &[TENSOR, "format id 4294967295"]),
        format("t_type_row", gguf::Format::Q4K.id(), &[TENSOR, "rows of 32", "256"]),
    ]
}

fn offsets() -> Vec<Malformed> {
    let offset = |name, to: u64, words| parsed(name, words, move |draft| draft.tensor(TENSOR).offset = Some(to));
    vec![
        offset("t_offset_misaligned", 33, &[TENSOR, "33", "multiple of the alignment 32"]),
        offset("t_offset_past_eof", 1 << 40, &[TENSOR, "1099511627776"]),
        offset("t_offset_wraps", u64::MAX - 31, &[TENSOR, "18446744073709551584"]),
        offset("t_offset_same", 0, &["where tensor"]),
        offset("t_overlap_part", 32, &["where tensor"]),
        parsed("t_sum_overflow", &["tensor", "expected"], |draft| {
            for tensor in &mut draft.tensors {
                tensor.dims = vec![1 << 60];
                tensor.offset = Some(0);
            }
        }),
        parsed("t_hole", &["belong to no tensor"], |draft| {
            // The table says one element, the data behind it goes on for 63 more.
            let data = vec![1; 256];
            draft.tensors.insert(3, Tensor { name: b"short".to_vec(), dims: vec![1], format: 0, data, offset: None });
        }),
    ]
}

fn hyperparameters() -> Vec<Malformed> {
    let set = |name, key: &'static str, value, words| loaded(name, words, move |draft| draft.set(key, value));
    let unset = |name, key: &'static str, words| loaded(name, words, move |draft| draft.unset(key));
    vec![
        unset("m_arch_missing", "general.architecture", &["general.architecture", "missing"]),
        set("m_arch_unknown", "general.architecture", Value::str("no-such"), &["no-such", "llama"]),
        set("m_arch_nul", "general.architecture", Value::str("llama\0"), &["general.architecture", "llama"]),
        set("m_arch_type", "general.architecture", Value::U32(3), &["general.architecture", "u32 3", "string"]),
        unset("m_blocks_missing", "llama.block_count", &["llama.block_count", "missing"]),
        set("m_blocks_0", "llama.block_count", Value::U32(0), &["llama.block_count", "0"]),
        set("m_blocks_u32max", "llama.block_count", Value::U32(u32::MAX), &["llama.block_count", "4294967295"]),
        set("m_blocks_more", "llama.block_count", Value::U32(3), &["blk.2.attn_norm.weight", "missing"]),
        set("m_blocks_string", "llama.block_count", Value::str("2"), &["llama.block_count", "string"]),
        set("m_embd_0", "llama.embedding_length", Value::U32(0), &["llama.embedding_length", "0"]),
        set("m_embd_other", "llama.embedding_length", Value::U32(16), &["token_embd.weight", "16"]),
        set("m_heads_0", "llama.attention.head_count", Value::U32(0), &["llama.attention.head_count", "0"]),
        set("m_heads_kv_0", "llama.attention.head_count_kv", Value::U32(0), &["llama.attention.head_count_kv", "0"]),
        set(
            "m_heads_kv_4",
            "llama.attention.head_count_kv",
            Value::U32(4),
            &["llama.attention.head_count_kv", "4", "6"],
        ),
        set(
            "m_heads_u32max",
            "llama.attention.head_count",
            Value::U32(u32::MAX),
            &["llama.attention.head_count", "4294967295"],
        ),
        set(
            "m_heads_arr_short",
            "llama.attention.head_count",
            Value::I32s(vec![6]),
            &["llama.attention.head_count", "array of 1"],
        ),
        set(
            "m_heads_arr_negative",
            "llama.attention.head_count",
            Value::I32s(vec![6, -6]),
            &["llama.attention.head_count", "-6"],
        ),
        set("m_ff_0", "llama.feed_forward_length", Value::U32(0), &["llama.feed_forward_length", "0"]),
        set("m_ff_other", "llama.feed_forward_length", Value::U32(41), &["blk.0.ffn_gate.weight", "41"]),
        set("m_head_dim_u32max", "llama.attention.key_length", Value::U32(u32::MAX), &["llama.attention.key_length"]),
        set("m_head_dim_0", "llama.attention.value_length", Value::U32(0), &["llama.attention.value_length", "0"]),
        set("m_rope_odd", "llama.rope.dimension_count", Value::U32(5), &["llama.rope.dimension_count", "5"]),
        set("m_rope_large", "llama.rope.dimension_count", Value::U32(14), &["llama.rope.dimension_count", "14", "12"]),
        set("m_rope_base_nan", "llama.rope.freq_base", Value::F32(f32::NAN), &["llama.rope.freq_base", "NaN"]),
        set("m_rope_base_0", "llama.rope.freq_base", Value::F32(0.0), &["llama.rope.freq_base", "0"]),
        set("m_rope_scaling", "llama.rope.scaling.type", Value::str("spiral"), &["llama.rope.scaling.type", "spiral"]),
        unset("m_eps_missing", "llama.attention.layer_norm_rms_epsilon", &["llama.attention.layer_norm_rms_epsilon"]),
        set("m_eps_nan", "llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN), &["rms_epsilon", "NaN"]),
        set("m_eps_negative", "llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0), &["rms_epsilon", "-1"]),
        set("m_ctx_0", "llama.context_length", Value::U32(0), &["llama.context_length", "0"]),
        set("m_experts", "llama.expert_count", Value::U32(8), &["llama.expert_used_count", "missing"]),
        set("m_experts_many", "llama.expert_count", Value::U32(513), &["llama.expert_count", "513", "512"]),
        set("m_vocab_size", "llama.vocab_size", Value::U32(298), &["llama.vocab_size", "298", "299"]),
    ]
}

fn shapes() -> Vec<Malformed> {
    let reshape = |name, tensor: &'static str, dims: &'static [u64], words| {
        loaded(name, words, move |draft| draft.tensor(tensor).dims = dims.to_vec())
    };
    let drop = |name, tensor: &'static str, words| {
        loaded(name, words, move |draft| draft.tensors.retain(|row| row.name != tensor.as_bytes()))
    };
    vec![
        drop("t_missing_embedding", "token_embd.weight", &["token_embd.weight", "missing"]),
        drop("t_missing_matrix", TENSOR, &[TENSOR, "missing"]),
        drop("t_missing_norm", "output_norm.weight", &["output_norm.weight", "missing"]),
        reshape("t_transposed", TENSOR, &[72, 32], &[TENSOR, "72", "32"]),
        reshape("t_flat", TENSOR, &[2304], &[TENSOR, "2304"]),
        reshape("t_norm_2d", "blk.1.ffn_norm.weight", &[16, 2], &["blk.1.ffn_norm.weight", "16"]),
        loaded("t_format_without_kernel", &[TENSOR, "i32"], |draft| {
            draft.tensor(TENSOR).format = gguf::Format::I32.id()
        }),
        loaded("v_embedding_rows_less", &["token_embd.weight", "298", "299"], |draft| {
            let tensor = draft.tensor("token_embd.weight");
            tensor.dims[1] -= 1;
            tensor.data.truncate(32 * 298 * 4);
        }),
    ]
}

const SPM: Vocab = Vocab::Spm;

fn vocabularies() -> Vec<Malformed> {
    let set = |name, vocab, key: &'static str, value, words| {
        model(name, Refused::Loaded, &Model { vocab, ..base() }, words, move |draft| draft.set(key, value))
    };
    let bpe = Vocab::Bpe;
    let tokens = |count: usize| Value::Strings((0..count).map(|id| id.to_string().into_bytes()).collect());
    vec![
        loaded("v_tokens_missing", &["tokenizer.ggml.tokens", "missing"], |draft| draft.unset("tokenizer.ggml.tokens")),
        loaded("v_model_missing", &["tokenizer.ggml.model", "missing"], |draft| draft.unset("tokenizer.ggml.model")),
        set("v_tokens_empty", bpe, "tokenizer.ggml.tokens", tokens(0), &["tokenizer.ggml.tokens", "0 tokens"]),
        set("v_tokens_more", bpe, "tokenizer.ggml.tokens", tokens(300), &["300"]),
        set(
            "v_tokens_ints",
            bpe,
            "tokenizer.ggml.tokens",
            Value::I32s(vec![1; 299]),
            &["tokenizer.ggml.tokens", "i32"],
        ),
        set("v_model_unknown", bpe, "tokenizer.ggml.model", Value::str("abacus"), &["tokenizer.ggml.model", "abacus"]),
        set(
            "v_pre_unknown",
            bpe,
            "tokenizer.ggml.pre",
            Value::str("no-such-rules"),
            &["tokenizer.ggml.pre", "no-such-rules"],
        ),
        set("v_bos_out_of_range", bpe, "tokenizer.ggml.bos_token_id", Value::U32(299), &["bos_token_id", "299"]),
        set("v_eos_u32max", SPM, "tokenizer.ggml.eos_token_id", Value::U32(u32::MAX), &["eos_token_id", "4294967295"]),
        set(
            "v_types_short",
            SPM,
            "tokenizer.ggml.token_type",
            Value::I32s(vec![1; 298]),
            &["token_type", "298", "299"],
        ),
        set("v_type_99", bpe, "tokenizer.ggml.token_type", Value::I32s(vec![99; 299]), &["token_type", "99"]),
        set(
            "v_scores_short",
            SPM,
            "tokenizer.ggml.scores",
            Value::F32s(vec![0.0; 5]),
            &["tokenizer.ggml.scores", "5", "299"],
        ),
        set(
            "v_scores_nan",
            SPM,
            "tokenizer.ggml.scores",
            Value::F32s(vec![f32::NAN; 299]),
            &["tokenizer.ggml.scores", "NaN"],
        ),
        loaded("v_token_1mib", &["tokenizer.ggml.tokens", "1048576 bytes"], |draft| {
            let list = draft.keys.iter_mut().find(|entry| entry.0 == b"tokenizer.ggml.tokens").expect("tokens");
            if let Value::Strings(texts) = &mut list.1 {
                texts[298] = vec![b'x'; 1 << 20];
            }
        }),
    ]
}

fn merges() -> Vec<Malformed> {
    let merges = |name, text: &'static str, words| {
        loaded(name, words, move |draft| {
            draft.set("tokenizer.ggml.merges", Value::Strings(vec![text.as_bytes().to_vec()]))
        })
    };
    vec![
        loaded("v_bpe_no_merges", &["tokenizer.ggml.merges"], |draft| draft.unset("tokenizer.ggml.merges")),
        merges("v_merges_unknown", "q z", &["tokenizer.ggml.merges", "q z"]),
        merges("v_merges_one_word", "he", &["tokenizer.ggml.merges", "he"]),
    ]
}

fn weights() -> Vec<Malformed> {
    let poison = |name, tensor: &'static str, value: f32, words| Malformed {
        refused: Refused::Run,
        ..loaded(name, words, move |draft| draft.tensor(tensor).data[..4].copy_from_slice(&value.to_le_bytes()))
    };
    vec![
        poison("w_norm_nan", "output_norm.weight", f32::NAN, &["NaN"]),
        poison("w_matrix_nan", "blk.0.ffn_down.weight", f32::NAN, &["NaN"]),
        poison("w_matrix_inf", "blk.0.attn_v.weight", f32::INFINITY, &["NaN"]),
    ]
}

fn templates() -> Vec<Malformed> {
    let template = |name, text: &str, words| {
        model(name, Refused::Run, &Model { template: Some(text.to_string()), ..base() }, words, |_| ())
    };
    vec![
        template("c_syntax", "{% for message in messages %}", &["template"]),
        template("c_range_1e9", "{% for i in range(1000000000) %}x{% endfor %}", &["template"]),
        template(
            "c_loops",
            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}",
            &["template"],
        ),
        template("c_recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", &["template"]),
        template("c_repeat", "{{ '-' * 5000000000 }}", &["template"]),
        template(
            "c_doubling",
            "{% set ns = namespace(x='x') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
            &["template"],
        ),
        template("c_include", "{% include '/etc/passwd' %}", &["template"]),
        template("c_unknown_filter", "{{ messages | no_such_filter }}", &["template"]),
    ]
}

/// Odd files that are sound all the same and must load.
pub fn odd_but_sound() -> Vec<(&'static str, Vec<u8>)> {
    let with = |name, change: &dyn Fn(&mut Draft)| {
        let mut draft = base().draft();
        change(&mut draft);
        (name, draft.bytes())
    };
    let raw = |type_id, bytes: &[u8]| Value::Raw { type_id, bytes: bytes.to_vec() };
    vec![
        with("version_2", &|draft| draft.version = 2),
        with("alignment_1", &|draft| {
            draft.set("general.alignment", Value::U32(1));
            draft.alignment = 1;
        }),
        with("alignment_4096", &|draft| {
            draft.set("general.alignment", Value::U32(4096));
            draft.alignment = 4096;
        }),
        with("context_u32max", &|draft| draft.set("llama.context_length", Value::U32(u32::MAX))),
        with("pad_u32max", &|draft| draft.set("tokenizer.ggml.padding_token_id", Value::U32(u32::MAX))),
        with("counts_of_64_bits", &|draft| draft.set("llama.block_count", raw(10, &2u64.to_le_bytes()))),
        with("arrays_of_arrays", &|draft| {
            draft.set("x", raw(9, &[array(9, 2), array(4, 0), array(0, 1), vec![7]].concat()))
        }),
        with("name_with_escapes", &|draft| draft.set("general.name", Value::str("\u{1b}[31m\r\nINFO no\u{202e}"))),
        with("name_not_utf8", &|draft| draft.set("x.name", Value::Str(vec![0xff, 0xfe]))),
        with("key_of_one_byte", &|draft| draft.set("k", Value::Bool(true))),
    ]
}
