//! Valid files, damaged: no panic whatever comes, and what is accepted is within bounds.
//!
//! `HANDMILL_FUZZ_CASES` sets the number of cases, 10,000 without it.

use std::cell::Cell;

use gguf::{Array, Gguf, ValueType};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::write::model;

/// One act of damage. Places are fractions of the file, drawn towards its start, where the tables
/// are.
#[derive(Clone, Debug)]
enum Damage {
    Flip(f64, u8),
    Number(f64, u64, usize),
    Add(f64, i8),
    Cut(f64),
    Remove(f64, usize),
    Insert(f64, Vec<u8>),
    /// Copies `len` bytes from one place over another: splices tables.
    Copy(f64, f64, usize),
    /// Takes over the other file from a place on.
    Splice(f64, f64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = || (0.0..1.0f64).prop_map(|x| x * x * x);
    let numbers = prop_oneof![
        prop::sample::select(&[0u64, 1, 8, 9, 31, 32, 64, 0xffff, 1 << 31, 1 << 32, i64::MAX as u64, u64::MAX][..]),
        (0u32..64).prop_map(|shift| 1 << shift),
        (0u64..64).prop_map(|x| u64::MAX - x),
        0u64..300,
    ];
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(p, x)| Damage::Flip(p, x)),
        (place(), numbers, prop::sample::select(&[4usize, 8][..])).prop_map(|(p, n, w)| Damage::Number(p, n, w)),
        (place(), any::<i8>()).prop_map(|(p, x)| Damage::Add(p, x)),
        (0.0..1.0f64).prop_map(Damage::Cut),
        (place(), 1usize..40).prop_map(|(p, n)| Damage::Remove(p, n)),
        (place(), vec(any::<u8>(), 1..40)).prop_map(|(p, b)| Damage::Insert(p, b)),
        (place(), place(), 1usize..60).prop_map(|(a, b, n)| Damage::Copy(a, b, n)),
        (place(), place()).prop_map(|(a, b)| Damage::Splice(a, b)),
    ]
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>, other: &[u8]) {
        let len = file.len();
        let place = move |p: f64| ((p * len as f64) as usize).min(len.saturating_sub(1));
        if len == 0 {
            return;
        }
        match self {
            Damage::Flip(p, x) => file[place(*p)] ^= x,
            Damage::Add(p, x) => file[place(*p)] = file[place(*p)].wrapping_add_signed(*x),
            Damage::Number(p, n, width) => {
                let at = place(*p);
                let end = (at + width).min(len);
                file[at..end].copy_from_slice(&n.to_le_bytes()[..end - at]);
            }
            Damage::Cut(p) => file.truncate(place(*p)),
            Damage::Remove(p, n) => drop(file.drain(place(*p)..(place(*p) + n).min(len))),
            Damage::Insert(p, bytes) => drop(file.splice(place(*p)..place(*p), bytes.iter().copied())),
            Damage::Copy(from, to, n) => {
                let (from, to) = (place(*from), place(*to));
                let n = (*n).min(len - from).min(len - to);
                file.copy_within(from..from + n, to);
            }
            Damage::Splice(p, q) => {
                let from = (q * other.len() as f64) as usize;
                file.splice(place(*p).., other[from..].iter().copied());
            }
        }
    }
}

fn touch_array(array: &Array<'_>) -> usize {
    let mut count = array.values().count();
    assert_eq!(count, array.len());
    if array.elem_type() == ValueType::Str {
        assert_eq!(array.strings().count(), array.len());
    }
    count += array.ints().map_or(0, Iterator::count);
    count += array.floats().map_or(0, Iterator::count);
    count += array.bools().map_or(0, Iterator::count);
    count + array.arrays().map_or(0, |inner| inner.map(|a| touch_array(&a)).sum())
}

/// Reads everything that a parsed file offers.
fn touch(file: &Gguf<'_>, len: usize) {
    for (key, value) in file.meta().iter() {
        assert_eq!(file.meta().get(key).map(|v| v.to_string()), Some(value.to_string()));
        value.as_array().map(touch_array);
    }
    let mut ends: Vec<(u64, u64)> = Vec::new();
    for t in file.tensors() {
        assert_eq!(file.tensor(&t.name).map(|u| u.entry), Some(t.entry));
        let data = file.data(t);
        assert_eq!(data.len() as u64, t.size);
        assert!(t.size > 0 && t.offset + t.size <= len as u64);
        assert_eq!(t.offset % file.alignment(), 0);
        assert_eq!(t.format.row_bytes(t.shape.k()).unwrap() * t.shape.rows(), t.size);
        let blocks = file.little_endian(t);
        assert_eq!(blocks.len(), data.len());
        if let Some(decode) = t.format.decoder() {
            let mut values = vec![0.0; t.shape.elements() as usize];
            decode(&blocks, &mut values);
        }
        ends.push((t.offset, t.offset + t.size));
    }
    ends.sort_unstable();
    assert!(ends.windows(2).all(|w| w[0].1 <= w[1].0), "overlap");
}

#[test]
fn damaged_files() {
    let cases = std::env::var("HANDMILL_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let (accepted, refused) = (Cell::new(0u32), Cell::new(0u32));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let strategy = (model(), model(), vec(damage(), 1..5));
    TestRunner::new(config)
        .run(&strategy, |(model, other, damages)| {
            let (mut bytes, other) = (model.write().unwrap(), other.write().unwrap());
            damages.iter().for_each(|d| d.apply(&mut bytes, &other));
            let results = [Gguf::parse(&bytes), Gguf::parse_split(&[&other, &bytes])];
            for result in results {
                match result {
                    Ok(file) => {
                        accepted.set(accepted.get() + 1);
                        touch(&file, bytes.len().max(other.len()));
                    }
                    Err(error) => {
                        refused.set(refused.get() + 1);
                        let text = error.to_string();
                        assert!(!text.is_empty() && !text.chars().any(char::is_control), "{text:?}");
                    }
                }
            }
            Ok(())
        })
        .unwrap();
    // Damage that is always fatal, or never, would test little.
    let (accepted, refused) = (accepted.get(), refused.get());
    let share = f64::from(accepted) / f64::from(accepted + refused);
    assert!(cases < 1000 || (0.02..0.9).contains(&share), "{accepted} accepted, {refused} refused");
}

proptest! {
    #[test]
    fn noise_behind_a_good_header(
        version in 2u32..4, tensors in 0u64..5, keys in 0u64..5, noise in vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes.extend(noise);
        if let Ok(file) = Gguf::parse(&bytes) {
            touch(&file, bytes.len());
        }
    }
}
