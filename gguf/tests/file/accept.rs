//! Odd but valid files: they must load, and what they hold must come out.

use gguf::{Endian, Error, Format, Gguf, Value, ValueType};

use crate::alloc::peak;
use crate::formats::fixture;
use crate::raw::{Raw, n32, n64, num, sample_with};

#[test]
fn both_versions_and_byte_orders() {
    for endian in [Endian::Little, Endian::Big] {
        for version in [2, 3] {
            let mut raw = Raw::sample_in(endian);
            raw.version = version;
            let bytes = raw.bytes();
            let file = Gguf::parse(&bytes).unwrap();
            assert_eq!((file.version(), file.endian()), (version, endian));
            assert_eq!(file.meta().str("general.architecture").unwrap(), "llama");
            assert_eq!(file.meta().u32("test.u32").unwrap(), 7);
            let a = file.tensor("a").unwrap();
            assert_eq!((a.format, a.shape.dims(), a.size), (Format::Q8_0, &[32, 2][..], 68));
            assert_eq!((a.shape.k(), a.shape.rows(), a.shape.elements()), (32, 2, 64));
            assert_eq!(file.data(a), &raw.data[..68]);
            assert_eq!(file.data(file.tensor("b").unwrap()), &raw.data[96..112]);
            assert!(file.tensor("c").is_none());
            assert_eq!(file.tensors().iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        }
    }
}

#[test]
fn a_file_and_its_big_endian_conversion_hold_the_same() {
    let (little, big) = (fixture("little.gguf"), fixture("big.gguf"));
    let (little, big) = (Gguf::parse(&little).unwrap(), Gguf::parse(&big).unwrap());
    assert_eq!((little.endian(), big.endian()), (Endian::Little, Endian::Big));
    for file in [&little, &big] {
        let meta = file.meta();
        assert_eq!(meta.str("general.architecture").unwrap(), "llama");
        assert_eq!(meta.u32("test.u32").unwrap(), 7);
        assert_eq!(meta.f32("test.f64").unwrap(), 0.25);
        assert!(meta.bool("test.bool").unwrap());
        let strings: Vec<&[u8]> = meta.strings("test.strings").unwrap().strings().collect();
        assert_eq!(strings, [b"a", "".as_bytes(), "ü".as_bytes()]);
        assert_eq!(meta.array("test.i32").unwrap().ints().unwrap().collect::<Vec<_>>(), [-1, 2, 3]);
        assert_eq!(meta.array("test.f32").unwrap().floats().unwrap().collect::<Vec<_>>(), [0.5, -1.5]);
    }
    assert_eq!(little.tensors().len(), 5);
    for (a, b) in little.tensors().iter().zip(big.tensors()) {
        assert_eq!((&a.name, a.shape, a.format), (&b.name, b.shape, b.format));
        assert_ne!(little.data(a), big.data(b));
        assert_eq!(little.little_endian(a), big.little_endian(b), "{}", a.name);
    }
}

#[test]
fn little_or_nothing_inside() {
    let empty = Raw::default().bytes();
    let bare = Raw::default().head();
    let no_tensors = sample_with(|r| {
        r.tensors.clear();
        r.data.clear();
    });
    for bytes in [empty, bare, no_tensors] {
        assert!(Gguf::parse(&bytes).unwrap().tensors().is_empty());
    }
    let no_keys = sample_with(|r| r.keys.clear());
    assert!(Gguf::parse(&no_keys).unwrap().meta().is_empty());
}

#[test]
fn padding_at_the_end() {
    let exact = Raw::sample().bytes();
    for (extra, byte) in [(0, 0), (1, 7), (16, 0), (31, 255), (32, 0), (4096, 0), (1 << 20, 0)] {
        let bytes = [exact.clone(), vec![byte; extra]].concat();
        assert!(Gguf::parse(&bytes).is_ok(), "{extra} bytes of {byte}");
    }
    let garbage_between = sample_with(|r| r.data[68..96].fill(0xee));
    assert!(Gguf::parse(&garbage_between).is_ok());
}

#[test]
fn alignments() {
    for align in [1u32, 2, 8, 16, 64, 4096, 1 << 20] {
        let mut raw = Raw::default();
        // Last of the keys, as its place does not matter.
        raw.key("x", 0, &[1]);
        raw.key("general.alignment", 4, &n32(align));
        let second = 20usize.next_multiple_of(align as usize);
        raw.tensor("a", &[5], 0, 0);
        raw.tensor("b", &[3], 24, second as u64);
        raw.align = align as usize;
        raw.data = vec![0; second];
        raw.data.extend([1, 2, 3]);
        let bytes = raw.bytes();
        let file = Gguf::parse(&bytes).unwrap();
        assert_eq!(file.alignment(), u64::from(align));
        assert_eq!(file.data(file.tensor("b").unwrap()), [1, 2, 3]);
    }
}

#[test]
fn tensors_in_any_order() {
    let mut raw = Raw::default();
    raw.tensor("last", &[8], 24, 64);
    raw.tensor("first", &[8], 24, 0);
    raw.tensor("middle", &[8], 24, 32);
    raw.data = (0..72).map(|i| i / 32).collect();
    let bytes = raw.bytes();
    let file = Gguf::parse(&bytes).unwrap();
    for (name, value) in [("first", 0), ("middle", 1), ("last", 2)] {
        assert_eq!(file.data(file.tensor(name).unwrap()), [value; 8]);
    }
    assert_eq!(file.tensors()[0].name, "last");
}

#[test]
fn odd_names() {
    let long = "n".repeat(64);
    let key = "k".repeat(65_535);
    let bytes = sample_with(|r| {
        r.tensor(&long, &[8], 0, 128);
        r.tensor("größe \u{1b}[31m\n", &[8], 0, 160);
        r.data.resize(192, 3);
        r.key(&key, 0, &[5]);
        r.key("UPPER case, ümlaut", 0, &[6]);
        r.key("x.bytes", 8, &[n64(3), b"\xff\x00\x1b".to_vec()].concat());
        r.key("x.empty", 8, &n64(0));
    });
    let file = Gguf::parse(&bytes).unwrap();
    assert!(file.tensor(&long).is_some() && file.tensor("größe \u{1b}[31m\n").is_some());
    let meta = file.meta();
    assert_eq!((meta.u32(&key).unwrap(), meta.u32("UPPER case, ümlaut").unwrap()), (5, 6));
    assert_eq!(meta.bytes("x.bytes").unwrap(), b"\xff\x00\x1b");
    assert_eq!(meta.str("x.empty").unwrap(), "");
    let text = meta.str("x.bytes").unwrap_err().to_string();
    assert!(text.contains(r#""x.bytes""#) && text.contains(r#"\xff\x00\x1b"#) && text.contains("UTF-8"), "{text}");
}

/// One key of every type, and arrays of each.
fn all_types(endian: Endian) -> Raw {
    let mut raw = Raw { endian, ..Raw::default() };
    let text = raw.string(b"text");
    let scalars: [(&str, u32, Vec<u8>); 12] = [
        ("u8", 0, vec![200]),
        ("i8", 1, vec![0xfe]),
        ("u16", 2, num(endian, 60_000, 2)),
        ("i16", 3, num(endian, 0xfffd, 2)),
        ("u32", 4, num(endian, 4_000_000_000, 4)),
        ("i32", 5, num(endian, 0xffff_fffc, 4)),
        ("f32", 6, num(endian, 1.5f32.to_bits().into(), 4)),
        ("bool", 7, vec![1]),
        ("string", 8, text),
        ("u64", 10, num(endian, u64::MAX, 8)),
        ("i64", 11, num(endian, (-5i64) as u64, 8)),
        ("f64", 12, num(endian, (-2.25f64).to_bits(), 8)),
    ];
    for (name, id, value) in &scalars {
        raw.key(name, *id, value);
        let array = |len: u64| [num(endian, (*id).into(), 4), num(endian, len, 8), value.repeat(len as usize)].concat();
        raw.key(format!("{name}.array"), 9, &array(3));
        raw.key(format!("{name}.empty"), 9, &array(0));
        let nested = [num(endian, 9, 4), num(endian, 2, 8), array(2), array(0)].concat();
        raw.key(format!("{name}.nested"), 9, &nested);
    }
    raw
}

#[test]
fn every_type_in_both_byte_orders() {
    for endian in [Endian::Little, Endian::Big] {
        let bytes = all_types(endian).bytes();
        let file = Gguf::parse(&bytes).unwrap();
        let meta = file.meta();
        let expected = [
            ("u8", Value::U8(200)),
            ("i8", Value::I8(-2)),
            ("u16", Value::U16(60_000)),
            ("i16", Value::I16(-3)),
            ("u32", Value::U32(4_000_000_000)),
            ("i32", Value::I32(-4)),
            ("f32", Value::F32(1.5)),
            ("bool", Value::Bool(true)),
            ("string", Value::Str(b"text")),
            ("u64", Value::U64(u64::MAX)),
            ("i64", Value::I64(-5)),
            ("f64", Value::F64(-2.25)),
        ];
        assert_eq!(meta.len(), 4 * expected.len());
        for (name, value) in expected {
            assert_eq!(meta.get(name), Some(&value));
            assert_eq!(value.value_type().name(), name);
            let array = meta.array(&format!("{name}.array")).unwrap();
            assert_eq!((array.len(), array.elem_type()), (3, value.value_type()));
            assert_eq!(array.values().collect::<Vec<_>>(), [value; 3]);
            let empty = meta.array(&format!("{name}.empty")).unwrap();
            assert!(empty.is_empty() && empty.elem_type() == value.value_type());
            let nested = meta.array(&format!("{name}.nested")).unwrap();
            assert_eq!(nested.elem_type(), ValueType::Array);
            let lens: Vec<usize> = nested.arrays().unwrap().map(|a| a.values().count()).collect();
            assert_eq!(lens, [2, 0]);
            let first = nested.arrays().unwrap().next().unwrap();
            assert_eq!(first.values().next(), Some(value));
        }
        assert_eq!(meta.iter().next().unwrap(), ("u8", &Value::U8(200)));
    }
}

#[test]
fn typed_arrays() {
    let bytes = all_types(Endian::Big).bytes();
    let file = Gguf::parse(&bytes).unwrap();
    let get = |name: &str| file.meta().array(name).unwrap();
    let ints: [(&str, i64); 7] =
        [("u8", 200), ("i8", -2), ("u16", 60_000), ("i16", -3), ("u32", 4_000_000_000), ("i32", -4), ("i64", -5)];
    for (name, value) in ints {
        assert_eq!(get(&format!("{name}.array")).ints().unwrap().collect::<Vec<_>>(), [value; 3]);
    }
    assert!(get("u64.array").ints().is_none(), "2^64 - 1 fits no i64");
    assert_eq!(get("u64.empty").ints().unwrap().count(), 0);
    assert_eq!(get("f32.array").floats().unwrap().collect::<Vec<_>>(), [1.5; 3]);
    assert_eq!(get("f64.array").floats().unwrap().collect::<Vec<_>>(), [-2.25; 3]);
    assert_eq!(get("bool.array").bools().unwrap().collect::<Vec<_>>(), [true; 3]);
    assert_eq!(get("string.array").strings().collect::<Vec<_>>(), [b"text"; 3]);
    assert_eq!(get("u8.array").strings().count(), 0);
    assert!(get("u8.array").floats().is_none() && get("u8.array").bools().is_none());
    assert!(get("f32.array").ints().is_none() && get("string.array").ints().is_none());
    assert!(get("string.array").arrays().is_none());
}

#[test]
fn a_large_vocabulary_costs_no_memory() {
    let tokens: Vec<u8> = (0..262_144u32).flat_map(|i| [n64(6), format!("{i:06}").into_bytes()].concat()).collect();
    let array = [n32(8), n64(262_144), tokens].concat();
    let bytes = sample_with(|r| r.key("tokenizer.ggml.tokens", 9, &array));
    let (file, held) = peak(|| Gguf::parse(&bytes).unwrap());
    assert!(held < 4096, "{held}");
    let tokens = file.meta().strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.strings().nth(262_143), Some(&b"262143"[..]));
}

#[test]
fn deepest_nesting() {
    let inner = [n32(0), n64(2), vec![1, 2]].concat();
    let nested = (1..16).fold(inner, |inner, _| [n32(9), n64(1), inner].concat());
    let bytes = sample_with(|r| r.key("deep", 9, &nested));
    let file = Gguf::parse(&bytes).unwrap();
    let mut array = file.meta().array("deep").unwrap();
    for _ in 1..16 {
        array = array.arrays().unwrap().next().unwrap();
    }
    assert_eq!(array.ints().unwrap().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn getters_say_what_is_wrong() {
    let bytes = all_types(Endian::Little).bytes();
    let file = Gguf::parse(&bytes).unwrap();
    let meta = file.meta();
    assert_eq!(meta.u64("u8").unwrap(), 200);
    assert_eq!(meta.u64("u64").unwrap(), u64::MAX);
    assert_eq!(meta.opt_u32("absent").unwrap(), None);
    assert_eq!(meta.f32("f64").unwrap(), -2.25);
    let missing = meta.u32("absent").unwrap_err();
    assert!(matches!(missing, Error::Missing { .. }));
    let errors: [(Error, &[&str]); 9] = [
        (missing, &["\"absent\"", "missing", "byte", "an integer"]),
        (meta.u32("i8").unwrap_err(), &["\"i8\"", "i8 -2", "0 to 4294967295"]),
        (meta.u32("u64").unwrap_err(), &["\"u64\"", "u64 18446744073709551615", "0 to 4294967295"]),
        (meta.opt_u32("f32").unwrap_err(), &["\"f32\"", "f32 1.5", "an integer"]),
        (meta.f32("u8").unwrap_err(), &["\"u8\"", "u8 200", "f32 or f64"]),
        (meta.bool("u8").unwrap_err(), &["\"u8\"", "u8 200", "bool"]),
        (meta.str("u8.array").unwrap_err(), &["\"u8.array\"", "array of 3 u8", "a string"]),
        (meta.strings("u8.array").unwrap_err(), &["array of 3 u8", "an array of strings"]),
        (meta.ints("u64.array").unwrap_err(), &["array of 3 u64", "below 2^63"]),
    ];
    for (error, words) in errors {
        let text = error.to_string();
        for word in words.iter().chain(&["byte "]) {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
    }
    assert_eq!(meta.offset("u8"), Some(24 + 8 + 2 + 4));
}
