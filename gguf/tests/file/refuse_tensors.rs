//! Malformed tensor tables and data; see [`crate::refuse`].

use gguf::Gguf;

use crate::raw::{Raw, n64, sample_with};
use crate::refuse::{Case, HUGE, case, refuse_all};

/// A file with one tensor `t` of these dimensions, format and offset, and 64 KiB of data.
fn one(dims: &[u64], format: u32, offset: u64) -> Vec<u8> {
    let mut raw = Raw::default();
    raw.tensor("t", dims, format, offset);
    raw.data = vec![1; 1 << 16];
    raw.bytes()
}

#[test]
fn names() {
    let mut cases: Vec<Case> = Vec::new();
    for huge in HUGE {
        let entry = [n64(huge), b"abc".repeat(20)].concat();
        let bytes = sample_with(|r| r.tensors.push(entry));
        cases.push(case("name length", &["tensor 2", &huge.to_string(), "left"], bytes));
    }
    let twice = sample_with(|r| r.tensor("a", &[4], 0, 128));
    cases.push(case("duplicate name", &["tensor 2 \"a\"", "already used at byte 93"], twice));
    let empty = sample_with(|r| r.tensor("", &[4], 0, 128));
    cases.push(case("empty name", &["tensor 2", "0 bytes", "1 to 64"], empty));
    let long = sample_with(|r| r.tensor("n".repeat(65), &[4], 0, 128));
    cases.push(case("long name", &["tensor 2 \"nnnn", "65 bytes", "1 to 64"], long));
    let nul = sample_with(|r| r.tensor("a\0b", &[4], 0, 128));
    cases.push(case("NUL", &["tensor 2 \"a\\x00b\"", "NUL", "position 1"], nul));
    let bad = sample_with(|r| r.tensor(b"\x1b[31m\xff", &[4], 0, 128));
    cases.push(case("not UTF-8", &["tensor 2 \"\\x1b[31m\\xff\"", "UTF-8"], bad));
    refuse_all(cases);
}

#[test]
fn shapes() {
    let mut cases = Vec::new();
    for n in [5, 6, 255, 1 << 31, u32::MAX] {
        let mut bytes = one(&[1, 1, 1, 1], 0, 0);
        let at = 24 + 9;
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(n));
        cases.push(case("number of dimensions", &["tensor 0 \"t\"", "byte 33", &n.to_string(), "1 to 4"], bytes));
    }
    let none = sample_with(|r| r.tensor("t", &[], 0, 0));
    cases.push(case("no dimension", &["tensor 2 \"t\"", "0 dimensions", "1 to 4"], none));
    for dims in [&[0][..], &[32, 0], &[0, 32], &[32, 1, 0], &[32, 1, 1, 0], &[u64::MAX, 0]] {
        cases.push(case("zero dimension", &["tensor 0 \"t\"", "is 0", "at least 1"], one(dims, 0, 0)));
    }
    let overflowing: [&[u64]; 8] = [
        &[1 << 32, 1 << 32],
        &[1 << 62, 2],
        &[u64::MAX],
        &[1 << 63],
        &[u64::MAX, u64::MAX, u64::MAX, u64::MAX],
        &[1 << 32, 1 << 31, 2, 1],
        &[1 << 16, 1 << 16, 1 << 16, 1 << 16],
        &[3, u64::MAX / 3 + 1],
    ];
    for dims in overflowing {
        cases.push(case("elements wrap", &["tensor 0 \"t\"", "overflow", "2^63"], one(dims, 0, 0)));
    }
    // Elements fit, bytes do not.
    cases.push(case("bytes wrap", &["tensor 0 \"t\"", "overflow"], one(&[1 << 62], 28, 0)));
    cases.push(case("bytes wrap to 0", &["tensor 0 \"t\"", "overflow"], one(&[4, 1 << 60], 0, 0)));
    cases.push(case("padded bytes wrap", &["tensor 0 \"t\"", "overflow"], one(&[(1 << 62) - 1], 0, 32)));
    cases.push(case("bytes just fit", &["tensor 0 \"t\"", "cut short"], one(&[(1 << 61) - 1], 0, 32)));
    for (k, format, name) in [(31, 2, "q4_0"), (33, 8, "q8_0"), (255, 12, "q4_k"), (128, 14, "q6_k"), (32, 40, "nvfp4")]
    {
        let says = &["tensor 0 \"t\"", &k.to_string(), name, "multiple of"];
        cases.push(case("row of no whole blocks", says, one(&[k, 8], format, 0)));
    }
    refuse_all(cases);
}

#[test]
fn formats() {
    let removed = [4, 5, 31, 32, 33, 36, 37, 38];
    let unknown = [43, 99, 255, 1 << 16, 1 << 31, u32::MAX - 1, u32::MAX];
    let bad = |&id: &u32| {
        let says = &["tensor 0 \"t\"", &format!("format id {id},"), "12 (q4_k)"];
        case("format", says, one(&[256], id, 0))
    };
    refuse_all(removed.iter().chain(&unknown).map(bad).collect());
}

#[test]
fn sum_of_sizes() {
    // Each size fits 63 bits, their sum wraps to 0.
    let mut raw = Raw::default();
    for (i, name) in ["a", "b", "c", "d"].iter().enumerate() {
        raw.tensor(name, &[1 << 60], 0, (i as u64) << 62);
    }
    raw.data = vec![1; 4096];
    refuse_all(vec![case("sum wraps", &["tensor 0 \"a\"", "4611686018427387904", "4096"], raw.bytes())]);
}

#[test]
fn places() {
    let outside = ["tensor 0 \"t\"", "cut short", "65536"];
    let mut cases = Vec::new();
    for offset in [1 << 16, 1 << 20, 1 << 40, 1 << 63, u64::MAX - 31, u64::MAX - 63] {
        cases.push(case("offset outside", &outside, one(&[4], 0, offset)));
    }
    cases.push(case("size outside", &outside, one(&[(1 << 14) + 1], 0, 0)));
    cases.push(case("end outside", &outside, one(&[16], 0, (1 << 16) - 32)));
    for offset in [1, 8, 16, 31, 33, (1 << 16) - 1, u64::MAX] {
        let says = ["tensor 0 \"t\"", "multiple of the alignment 32", &offset.to_string()];
        cases.push(case("misaligned", &says, one(&[4], 0, offset)));
    }
    let two = |second: u64| {
        let mut raw = Raw::default();
        raw.tensor("first", &[64], 0, 0);
        raw.tensor("second", &[64], 0, second);
        raw.data = vec![1; 512];
        raw.bytes()
    };
    assert!(Gguf::parse(&two(256)).is_ok());
    for (name, second) in [("same offset", 0), ("part overlap", 32), ("last row overlaps", 224)] {
        cases.push(case(name, &["tensor 1 \"second\"", "tensor \"first\" ends"], two(second)));
    }
    let mut all = Raw::default();
    (0..100).for_each(|i| all.tensor(format!("t{i}"), &[4], 0, 0));
    all.data = vec![1; 16];
    cases.push(case("all overlap", &["tensor 1 \"t1\"", "tensor \"t0\""], all.bytes()));
    refuse_all(cases);
}

#[test]
fn bytes_that_nobody_counts() {
    let mut cases = Vec::new();
    let mut gap = Raw::default();
    gap.tensor("a", &[4], 0, 0);
    gap.tensor("b", &[4], 0, 64);
    gap.data = vec![0; 80];
    cases.push(case("gap", &["tensor data", "48 bytes", "fewer than the alignment 32"], gap.bytes()));
    let first = one(&[1 << 14], 0, 0);
    assert!(Gguf::parse(&first).is_ok());
    for extra in [32, 33, 1000] {
        let bytes = [first.clone(), vec![7; extra]].concat();
        cases.push(case("appended", &["tensor data", &format!("{extra} bytes"), "appended"], bytes));
    }
    let zeros = [first, vec![0; (1 << 20) + 1]].concat();
    cases.push(case("too many zeros", &["tensor data", "1048577 bytes"], zeros));
    refuse_all(cases);
}
