//! Malformed headers and metadata: each class of fault that has broken a reader of this format.
//! A refusal names the entry and a byte offset, says what was found and allowed, comes at once and
//! without memory.

use std::time::{Duration, Instant};

use gguf::Gguf;

use crate::alloc::peak;
use crate::raw::{Raw, n32, n64, sample_with};

/// A malformed file and words its refusal must contain.
pub struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    says: Vec<String>,
}

pub fn case(name: &'static str, says: &[&str], bytes: Vec<u8>) -> Case {
    Case { name, bytes, says: says.iter().map(|s| s.to_string()).collect() }
}

/// Parses every case and reports all that fail, not the first.
pub fn refuse_all(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for Case { name, bytes, says } in cases {
        let start = Instant::now();
        let (result, held) = peak(|| Gguf::parse(&bytes).err());
        let Some(error) = result else {
            wrong.push(format!("{name}: accepted"));
            continue;
        };
        let text = error.to_string();
        for word in says.iter().map(String::as_str).chain(["at byte ", "expected"]) {
            if !text.contains(word) {
                wrong.push(format!("{name}: no {word:?} in: {text}"));
            }
        }
        if text.chars().any(char::is_control) || text.len() > 2000 {
            wrong.push(format!("{name}: not fit for a log line: {text:?}"));
        }
        let limit = (64 << 20).max(bytes.len());
        if held > limit {
            wrong.push(format!("{name}: held {held} bytes, expected at most {limit}"));
        }
        if start.elapsed() > Duration::from_secs(2) {
            wrong.push(format!("{name}: took {:?}", start.elapsed()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The numbers that lengths and counts are attacked with.
pub const HUGE: [u64; 9] =
    [1 << 20, u32::MAX as u64, 1 << 32, 1 << 56, i64::MAX as u64, 1 << 63, u64::MAX - 7, u64::MAX - 1, u64::MAX];

fn string(text: &[u8]) -> Vec<u8> {
    Raw::default().string(text)
}

fn array(elem: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [n32(elem), n64(len), elements.to_vec()].concat()
}

#[test]
fn header() {
    let mut cases = vec![
        case("empty", &["header", "byte 0", "\"\"", "GGUF"], vec![]),
        case("magic", &["header", "byte 0", "PK", "\"GGUF\""], sample_with(|r| r.magic = *b"PK\x03\x04")),
        case("magic reversed", &["FUGG"], sample_with(|r| r.magic = *b"FUGG")),
        case("version 0", &["header", "byte 4", "version 0", "2 or 3"], sample_with(|r| r.version = 0)),
        case("version 1", &["header", "byte 4", "version 1", "convert"], sample_with(|r| r.version = 1)),
        case("version 4", &["header", "byte 4", "version 4", "2 or 3"], sample_with(|r| r.version = 4)),
        case("version 0x30000", &["version 768"], sample_with(|r| r.version = 0x30000)),
        case("cut in the magic", &["header", "GG"], b"GG".to_vec()),
        case("cut after the magic", &["header", "byte 4", "4 bytes", "0 left"], b"GGUF".to_vec()),
        case("cut in the counts", &["header", "byte 8", "8 bytes", "7 left"], Raw::sample().bytes()[..15].to_vec()),
    ];
    for huge in HUGE {
        let says = &["header", "byte 8", &huge.to_string(), "tensors", "at most 8"];
        cases.push(case("tensor count", says, sample_with(|r| r.tensor_count = Some(huge))));
        let says = &["header", "byte 16", &huge.to_string(), "keys", "at most"];
        cases.push(case("key count", says, sample_with(|r| r.key_count = Some(huge))));
    }
    // Counts wrong by one shift what is read as what.
    cases.push(case("a key too many", &["tensor 0"], sample_with(|r| r.key_count = Some(3))));
    cases.push(case("a key too few", &["tensor 0"], sample_with(|r| r.key_count = Some(1))));
    cases.push(case("a tensor too many", &["tensor 2"], sample_with(|r| r.tensor_count = Some(3))));
    refuse_all(cases);
}

#[test]
fn a_tensor_too_few_is_seen_by_the_bytes_left_over() {
    let mut raw = Raw::sample();
    raw.tensor("c", &[8], 0, 128);
    raw.data.resize(160, 9);
    assert!(Gguf::parse(&raw.bytes()).is_ok());
    for count in 0..3 {
        raw.tensor_count = Some(count);
        refuse_all(vec![case("uncounted", &["tensor data", "belong to no tensor", "missing"], raw.bytes())]);
    }
}

#[test]
fn keys() {
    let mut cases = Vec::new();
    for huge in HUGE {
        let key = [n64(huge), b"abc".to_vec()].concat();
        cases.push(case("key length", &["key 2", &huge.to_string(), "left"], sample_with(|r| r.keys.push(key))));
        let value = [n64(huge), b"abc".to_vec()].concat();
        let bytes = sample_with(|r| r.key("x.text", 8, &value));
        cases.push(case("string length", &["key 2 \"x.text\"", &huge.to_string(), "left"], bytes));
        for elem in [0, 4, 7, 8, 9, 12] {
            let bytes = sample_with(|r| r.key("x.list", 9, &array(elem, huge, &[0; 16])));
            let says = &["key 2 \"x.list\"", &huge.to_string(), "array elements", "at most"];
            cases.push(case("array length", says, bytes));
        }
        let inner = [n64(huge), b"abc".to_vec()].concat();
        let bytes = sample_with(|r| r.key("x.list", 9, &array(8, 2, &[string(b"a"), inner].concat())));
        cases.push(case("length of a string in an array", &["\"x.list\"", &huge.to_string()], bytes));
    }
    for id in [13, 14, 255, 0x8000_0000, u32::MAX] {
        let says = &["key 2 \"x.y\"", &id.to_string(), "0 (u8) to 12 (f64)"];
        cases.push(case("type", says, sample_with(|r| r.key("x.y", id, &[0; 8]))));
        cases.push(case("element type", says, sample_with(|r| r.key("x.y", 9, &array(id, 0, &[])))));
        cases.push(case("element type", says, sample_with(|r| r.key("x.y", 9, &array(id, 1 << 60, &[])))));
    }
    let twice = sample_with(|r| r.key("test.u32", 4, &n32(8)));
    cases.push(case("duplicate key", &["key 2 \"test.u32\"", "already used at byte 69"], twice));
    let twice = sample_with(|r| r.key("general.architecture", 4, &n32(8)));
    cases.push(case("duplicate key of another type", &["key 2 \"general.architecture\"", "byte 24"], twice));
    let nul = sample_with(|r| r.key("general.architecture\0", 8, &string(b"gpt2")));
    cases.push(case("NUL in a key", &["key 2 \"general.architecture\\x00\"", "NUL", "position 20"], nul));
    cases.push(case("empty key", &["key 2", "0 bytes", "1 to 65535"], sample_with(|r| r.key("", 0, &[0]))));
    let long = sample_with(|r| r.key("k".repeat(65_536), 0, &[0]));
    cases.push(case("long key", &["key 2 \"kkkk", "65536 bytes", "1 to 65535"], long));
    let bad = sample_with(|r| r.key(b"caf\xe9", 0, &[0]));
    cases.push(case("key that is not UTF-8", &["key 2 \"caf\\xe9\"", "UTF-8", "byte 3"], bad));
    for b in [2, 255] {
        let says = &["\"x.flag\"", &b.to_string(), "0 or 1"];
        cases.push(case("bool", says, sample_with(|r| r.key("x.flag", 7, &[b]))));
        let bytes = sample_with(|r| r.key("x.flag", 9, &array(7, 3, &[1, 0, b])));
        cases.push(case("bool in an array", says, bytes));
    }
    refuse_all(cases);
}

#[test]
fn alignment() {
    let mut cases = Vec::new();
    for v in [0, 3, 24, 31, 33, 1 << 21, 1 << 30, 1 << 31, u32::MAX] {
        let says = &["\"general.alignment\"", &format!("u32 {v}"), "power of two"];
        cases.push(case("alignment", says, sample_with(|r| r.key("general.alignment", 4, &n32(v)))));
    }
    let types: [(u32, Vec<u8>, &str); 6] = [
        (8, string(b"32"), "string \"32\""),
        (10, n64(32), "u64 32"),
        (5, n32(32), "i32 32"),
        (6, 32f32.to_le_bytes().to_vec(), "f32 32"),
        (2, vec![32, 0], "u16 32"),
        (9, array(4, 1, &n32(32)), "array of 1 u32"),
    ];
    for (id, value, found) in types {
        let bytes = sample_with(|r| r.key("general.alignment", id, &value));
        cases.push(case("type of the alignment", &["\"general.alignment\"", found, "u32"], bytes));
    }
    refuse_all(cases);
}

#[test]
fn nested_arrays() {
    let nested = |depth: usize| [array(9, 1, &[]).repeat(depth - 1), array(0, 0, &[])].concat();
    let mut cases = Vec::new();
    for depth in [17, 100, 10_000, 100_000] {
        let bytes = sample_with(|r| r.key("x.deep", 9, &nested(depth)));
        cases.push(case("deep", &["key 2 \"x.deep\"", "nested deeper than 16"], bytes));
    }
    // A tree of 2^20 empty arrays that ends one short.
    let leaves: Vec<u8> = array(0, 0, &[]).repeat((1 << 20) - 1);
    let bytes = sample_with(|r| {
        (r.align, r.tensors, r.data) = (1, vec![], vec![]);
        r.key("x.wide", 9, &array(9, 1 << 20, &leaves));
    });
    cases.push(case("wide", &["key 2 \"x.wide\""], bytes));
    refuse_all(cases);
}

#[test]
fn every_cut_is_refused_and_named() {
    let bytes = Raw::sample().bytes();
    let cut = |len: usize| case("cut", &[], bytes[..len].to_vec());
    refuse_all((0..bytes.len()).map(cut).collect());
}

#[test]
fn the_largest_tables_stay_within_memory() {
    // The smallest keys of 3 bytes and the largest tensors, as many as are accepted or one more.
    let keys = |raw: &mut Raw, n: u32| {
        let digit = |i: u32, at: u32| b'0' + (i >> (6 * at) & 63) as u8;
        let key = |i: u32| [&n64(3)[..], &[digit(i, 0), digit(i, 1), digit(i, 2)], &n32(0), &[7]].concat();
        raw.keys.push((0..n).flat_map(key).collect());
        raw.key_count = Some(n.into());
    };
    let tensors = |raw: &mut Raw, n: u32| {
        (0..n).for_each(|i| raw.tensor(format!("{i:064}"), &[1, 1, 1, 1], 24, 32 * u64::from(i)));
    };
    let with = |n_keys: u32, n_tensors: u32| {
        let mut raw = Raw::default();
        keys(&mut raw, n_keys);
        tensors(&mut raw, n_tensors);
        raw.bytes()
    };
    let (most_keys, most_tensors) = (1 << 18, 1 << 17);
    refuse_all(vec![
        case("keys", &["header", "262145 keys", "at most 262144"], with(most_keys + 1, 0)),
        case("tensors", &["header", "131073 tensors", "at most 131072"], with(0, most_tensors + 1)),
        case("both", &["tensor 0 ", "cut short"], with(most_keys, most_tensors)),
    ]);
    let (file, held) = peak(|| Gguf::parse(&with(most_keys, 0)).map(|f| f.meta().len()).map_err(|e| e.to_string()));
    assert_eq!(file, Ok(1 << 18));
    assert!(held < 64 << 20, "{held}");
}
