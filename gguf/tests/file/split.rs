//! Models in several files.

use gguf::split::part_names;
use gguf::{Endian, Error, Gguf};

use crate::raw::{Raw, num};

/// Part `no` of `count` with tensors `names` of 8 bytes each, in a model of `total` tensors.
fn part(no: u16, count: u16, total: u32, names: &[&str]) -> Raw {
    part_in(Endian::Little, no, count, total, names)
}

fn part_in(endian: Endian, no: u16, count: u16, total: u32, names: &[&str]) -> Raw {
    let mut raw = Raw { endian, ..Raw::default() };
    if no == 0 {
        let arch = raw.string(b"llama");
        raw.key("general.architecture", 8, &arch);
    }
    raw.key("split.no", 2, &num(endian, no.into(), 2));
    raw.key("split.count", 2, &num(endian, count.into(), 2));
    raw.key("split.tensors.count", 5, &num(endian, total.into(), 4));
    for (i, name) in names.iter().enumerate() {
        raw.tensor(name, &[8], 24, 32 * i as u64);
        raw.data.resize(32 * i, 0);
        raw.data.extend([name.len() as u8; 8]);
    }
    raw
}

fn parse(parts: &[Raw]) -> Result<usize, String> {
    let bytes: Vec<Vec<u8>> = parts.iter().map(Raw::bytes).collect();
    let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    Gguf::parse_split(&slices).map(|m| m.tensors().len()).map_err(|e| e.to_string())
}

#[test]
fn parts_become_one_model() {
    let parts = [part(0, 3, 4, &[]), part(1, 3, 4, &["a", "bb", "ccc"]), part(2, 3, 4, &["dddd"])];
    let bytes: Vec<Vec<u8>> = parts.iter().map(Raw::bytes).collect();
    let slices: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    let model = Gguf::parse_split(&slices).unwrap();
    assert_eq!(model.meta().str("general.architecture").unwrap(), "llama");
    let names: Vec<_> = model.tensors().iter().map(|t| (t.name.as_str(), t.part)).collect();
    assert_eq!(names, [("a", 1), ("bb", 1), ("ccc", 1), ("dddd", 2)]);
    for t in model.tensors() {
        assert_eq!(model.data(t), [t.name.len() as u8; 8]);
        assert_eq!(model.tensor(&t.name), Some(t));
    }
    let split = Gguf::parse(slices[1]).unwrap().split().unwrap().unwrap();
    assert_eq!((split.no, split.count, split.tensors), (1, 3, 4));
}

#[test]
fn a_whole_model_is_a_split_of_one() {
    assert_eq!(parse(&[Raw::sample()]), Ok(2));
    let bytes = Raw::sample().bytes();
    assert_eq!(Gguf::parse(&bytes).unwrap().split().unwrap(), None);
}

#[test]
fn parts_that_do_not_belong_together() {
    let two = |a: &[&str], b: &[&str]| [part(0, 2, 3, a), part(1, 2, 3, b)];
    let good = two(&["a"], &["b", "c"]);
    assert_eq!(parse(&good), Ok(3));
    let [first, second] = good.clone();
    let mut no_keys = second.clone();
    no_keys.keys.clear();
    let mut typed = second.clone();
    typed.keys[1] = part(0, 2, 3, &[]).keys[1].clone();
    let mut text = Raw::default();
    text.key("split.count", 8, &text.string(b"2"));
    let third = part(2, 3, 3, &["d"]);
    let big = part_in(Endian::Big, 1, 2, 3, &["b", "c"]);
    let cases: Vec<(&str, Vec<Raw>, &[&str])> = vec![
        ("none", vec![], &["number of parts is 0, expected 1"]),
        ("one of two", vec![first.clone()], &["part 1 of 1", "split.count is 2, expected 1"]),
        ("swapped", vec![second.clone(), first.clone()], &["part 1 of 2", "split.no is 1, expected 0"]),
        ("one twice", vec![first.clone(), first.clone()], &["part 2 of 2", "split.no is 0, expected 1"]),
        ("too many", vec![first.clone(), second.clone(), third], &["part 1 of 3", "split.count is 2, expected 3"]),
        ("without keys", vec![first.clone(), no_keys], &["part 2 of 2", "split.count is 1, expected 2"]),
        ("duplicate key", vec![first.clone(), typed], &["part 2 of 2", "key 1", "already used"]),
        ("wrong type", vec![text], &["part 1 of 1", "\"split.count\"", "string"]),
        ("other byte order", vec![first.clone(), big], &["part 2 of 2", "byte order"]),
        ("a tensor missing", two(&["a"], &["b"]).into(), &["number of tensors in all parts is 2, expected 3"]),
        ("tensor twice", two(&["a"], &["b", "a"]).into(), &["part 2 of 2", "tensor", "\"a\"", "used", "part 1"]),
    ];
    for (name, parts, words) in cases {
        let text = parse(&parts).expect_err(name);
        for word in words.iter().chain(&["byte "]) {
            assert!(text.contains(word), "{name}: no {word:?} in: {text}");
        }
    }
}

#[test]
fn a_bad_part_is_named() {
    let [good, bad] = [part(0, 2, 2, &["a"]).bytes(), part(1, 2, 2, &["b"]).bytes()];
    let error = Gguf::parse_split(&[&good, &bad[..40]]).unwrap_err();
    assert!(matches!(error, Error::Part { index: 1, count: 2, .. }));
    assert!(error.to_string().starts_with("part 2 of 2: "), "{error}");
}

#[test]
fn names_of_parts() {
    let expected = ["d/m-00001-of-00003.gguf", "d/m-00002-of-00003.gguf", "d/m-00003-of-00003.gguf"];
    for name in expected {
        assert_eq!(part_names(name).unwrap(), expected);
    }
    assert_eq!(part_names("a-of-b-00001-of-00001.gguf").unwrap(), ["a-of-b-00001-of-00001.gguf"]);
    for name in [
        "m.gguf",
        "m-00000-of-00003.gguf",
        "m-00004-of-00003.gguf",
        "m-1-of-3.gguf",
        "m-00001-of-00003",
        "m-+0001-of-00003.gguf",
        "m-000001-of-000003.gguf",
        "",
    ] {
        assert_eq!(part_names(name), None, "{name}");
    }
}
