//! The writer: what it writes reads back the same, and it refuses what the parser would refuse.

use gguf::{Builder, Endian, Error, Format, Gguf, ValueBuf, ValueType};
use proptest::collection::vec;
use proptest::prelude::*;

/// A model to write: values by key, and tensors with their data in little-endian order.
#[derive(Clone, Debug)]
pub struct Model {
    pub endian: Endian,
    pub align: Option<u32>,
    pub keys: Vec<(String, ValueBuf)>,
    pub tensors: Vec<(String, Vec<u64>, Format, Vec<u8>)>,
}

impl Model {
    pub fn write(&self) -> Result<Vec<u8>, Error> {
        let mut builder = Builder::new(self.endian);
        if let Some(align) = self.align {
            builder.key("general.alignment", align)?;
        }
        self.keys.iter().try_for_each(|(key, value)| builder.key(key, value.clone()))?;
        for (name, dims, format, _) in &self.tensors {
            builder.tensor(name, dims, *format)?;
        }
        let mut writer = builder.start(Vec::new())?;
        for (_, _, format, data) in &self.tensors {
            // In two pieces, cut between blocks.
            let half = data.len() / format.block_bytes() / 2 * format.block_bytes();
            writer.data(&data[..half])?;
            writer.data(&data[half..])?;
        }
        writer.finish()
    }
}

fn scalar() -> impl Strategy<Value = ValueBuf> {
    prop_oneof![
        any::<u8>().prop_map(ValueBuf::U8),
        any::<i8>().prop_map(ValueBuf::I8),
        any::<u16>().prop_map(ValueBuf::U16),
        any::<i16>().prop_map(ValueBuf::I16),
        any::<u32>().prop_map(ValueBuf::U32),
        any::<i32>().prop_map(ValueBuf::I32),
        any::<f32>().prop_map(ValueBuf::F32),
        any::<bool>().prop_map(ValueBuf::Bool),
        vec(any::<u8>(), 0..20).prop_map(ValueBuf::Str),
        any::<u64>().prop_map(ValueBuf::U64),
        any::<i64>().prop_map(ValueBuf::I64),
        any::<f64>().prop_map(ValueBuf::F64),
    ]
}

fn value() -> impl Strategy<Value = ValueBuf> {
    // An array repeats one value, so that its elements are of one type; arrays of arrays differ in
    // length.
    let array = |v: ValueBuf, n| ValueBuf::Array(v.value_type(), vec![v; n]);
    scalar().prop_recursive(3, 40, 5, move |inner| {
        prop_oneof![
            (inner.clone(), 0usize..5).prop_map(move |(v, n)| array(v, n)),
            (scalar(), vec(0usize..4, 0..4)).prop_map(move |(v, lens)| {
                ValueBuf::Array(ValueType::Array, lens.into_iter().map(|n| array(v.clone(), n)).collect())
            }),
        ]
    })
}

fn tensor() -> impl Strategy<Value = (Vec<u64>, Format, Vec<u8>)> {
    let shape = (prop::sample::select(Format::ALL), 1u64..4, vec(1u64..4, 0..4), any::<u8>());
    shape.prop_map(|(format, blocks, rest, seed)| {
        let mut dims = vec![blocks * format.block_len() as u64];
        dims.extend(rest);
        let size = blocks * dims[1..].iter().product::<u64>() * format.block_bytes() as u64;
        (dims, format, (0..size).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect())
    })
}

/// Any model that can be written.
pub fn model() -> impl Strategy<Value = Model> {
    let endian = prop_oneof![Just(Endian::Little), Just(Endian::Big)];
    let align = prop::option::of((0u32..10).prop_map(|shift| 1 << shift));
    (endian, align, vec(value(), 0..6), vec(tensor(), 0..5)).prop_map(|(endian, align, values, tensors)| Model {
        endian,
        align,
        keys: values.into_iter().enumerate().map(|(i, v)| (format!("key.{i}"), v)).collect(),
        tensors: tensors.into_iter().enumerate().map(|(i, (d, f, b))| (format!("t{i}"), d, f, b)).collect(),
    })
}

/// Values compared by their written form, in which NaN equals itself.
fn same(a: &ValueBuf, b: &ValueBuf) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

proptest! {
    #[test]
    fn what_was_written_reads_back(model in model()) {
        let bytes = model.write().unwrap();
        let file = Gguf::parse(&bytes).unwrap();
        prop_assert_eq!(file.endian(), model.endian);
        prop_assert_eq!(file.alignment(), u64::from(model.align.unwrap_or(32)));
        let keys: Vec<_> = file.meta().iter().filter(|(key, _)| *key != "general.alignment").collect();
        prop_assert_eq!(keys.len(), model.keys.len());
        for ((key, value), (expected_key, expected)) in keys.iter().zip(&model.keys) {
            prop_assert_eq!(key, expected_key);
            prop_assert!(same(&ValueBuf::from(*value), expected), "{:?} {:?}", value, expected);
        }
        prop_assert_eq!(file.tensors().len(), model.tensors.len());
        for (t, (name, dims, format, data)) in file.tensors().iter().zip(&model.tensors) {
            prop_assert_eq!((&t.name, t.shape.dims(), t.format), (name, &dims[..], *format));
            prop_assert_eq!(&file.little_endian(t)[..], &data[..]);
        }
    }

    #[test]
    fn both_byte_orders_hold_the_same(model in model()) {
        let other = match model.endian { Endian::Little => Endian::Big, Endian::Big => Endian::Little };
        let (a, b) = (model.write().unwrap(), Model { endian: other, ..model }.write().unwrap());
        let (a, b) = (Gguf::parse(&a).unwrap(), Gguf::parse(&b).unwrap());
        for (t, u) in a.tensors().iter().zip(b.tensors()) {
            prop_assert_eq!(t, u);
            prop_assert_eq!(a.little_endian(t), b.little_endian(u));
        }
        for ((_, v), (_, w)) in a.meta().iter().zip(b.meta().iter()) {
            prop_assert!(same(&v.into(), &w.into()), "{:?} {:?}", v, w);
        }
    }
}

#[test]
fn bad_entries_are_refused() {
    let mut b = Builder::new(Endian::Little);
    b.key("a", 1u32).unwrap();
    b.tensor("t", &[32], Format::Q8_0).unwrap();
    let deep = (0..17).fold(ValueBuf::U8(1), |v, _| ValueBuf::Array(v.value_type(), vec![v]));
    let mixed = ValueBuf::Array(ValueType::U8, vec![ValueBuf::U8(1), ValueBuf::I8(1)]);
    let long = "n".repeat(65);
    let cases: Vec<(Result<(), Error>, &[&str])> = vec![
        (b.key("a", 2u32), &["key 1 \"a\"", "already used"]),
        (b.key("", 2u32), &["key 1", "0 bytes"]),
        (b.key("a\0", 2u32), &["\"a\\x00\"", "NUL"]),
        (b.key("deep", deep), &["\"deep\"", "nested deeper than 16"]),
        (b.key("mixed", mixed), &["\"mixed\"", "array of u8", "i8"]),
        (b.key("general.alignment", 64u32), &["u32 64 after 1 tensors", "power of two"]),
        (b.tensor("t", &[32], Format::Q8_0), &["tensor 1 \"t\"", "already used"]),
        (b.tensor(&long, &[32], Format::Q8_0), &["65 bytes", "1 to 64"]),
        (b.tensor("u", &[31], Format::Q8_0), &["\"u\"", "31", "multiple of 32"]),
        (b.tensor("u", &[], Format::Q8_0), &["0 dimensions"]),
        (b.tensor("u", &[1; 5], Format::F32), &["5 dimensions"]),
        (b.tensor("u", &[32, 0], Format::Q8_0), &["dimension 1 is 0"]),
        (b.tensor("u", &[1 << 62, 4], Format::F32), &["overflow"]),
        (b.tensor("u", &[1 << 61], Format::F64), &["overflow"]),
    ];
    for (result, words) in cases {
        let text = result.expect_err(words[0]).to_string();
        assert!(words.iter().all(|w| text.contains(w)), "{words:?}: {text}");
    }
    for bad in [0u32, 3, 1 << 21] {
        assert!(Builder::new(Endian::Little).key("general.alignment", bad).is_err());
    }
    assert!(Builder::new(Endian::Little).key("general.alignment", 32u64).is_err());
}

#[test]
fn data_must_be_whole_and_complete() {
    let start = || {
        let mut b = Builder::new(Endian::Little);
        b.tensor("t", &[64], Format::Q8_0).unwrap();
        b.start(Vec::new()).unwrap()
    };
    for (bytes, words) in [(33, "whole blocks of 34"), (102, "68 at most")] {
        let text = start().data(&vec![0; bytes]).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
    }
    let mut short = start();
    short.data(&[0; 34]).unwrap();
    assert!(short.finish().unwrap_err().to_string().contains("tensor 0 of format q8_0 lacks 34 bytes"));
    let mut over = start();
    over.data(&[0; 68]).unwrap();
    assert!(over.data(&[0; 34]).unwrap_err().to_string().contains("after the last of 1 tensors"));
}

#[test]
fn a_failing_sink_is_an_error() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("disk full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let error = Builder::new(Endian::Little).start(Full).err().unwrap();
    assert!(matches!(&error, Error::Io(_)) && error.to_string().contains("disk full"), "{error}");
}
