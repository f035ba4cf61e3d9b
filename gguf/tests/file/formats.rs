//! The list of formats against files made by others, and every decoder bit for bit.

use std::collections::BTreeMap;

use gguf::Format;
use gguf::format::OWN;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn expected(table: &str) -> BTreeMap<String, Value> {
    let all: Value = serde_json::from_slice(&fixture("expected.json")).unwrap();
    all[table].as_object().unwrap().clone().into_iter().collect()
}

#[test]
fn ids_and_names_are_those_of_the_format() {
    let ids = expected("ids");
    assert_eq!(ids.len(), Format::ALL.iter().filter(|f| f.id() < OWN).count());
    for (name, id) in ids {
        let id = id.as_u64().unwrap() as u32;
        let format = Format::from_id(id).unwrap();
        assert_eq!((format.name(), format.id()), (name.as_str(), id));
        assert_eq!(Format::from_name(&name.to_uppercase()), Some(format));
    }
    for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
        assert_eq!(Format::from_id(id), None);
    }
}

#[test]
fn sizes_are_those_of_files() {
    for (name, bytes) in expected("row_bytes_256") {
        let format = Format::from_name(&name).unwrap();
        assert_eq!(format.row_bytes(256), bytes.as_u64(), "{name}");
    }
    for &format in Format::ALL {
        let (len, bytes) = (format.block_len() as u64, format.block_bytes() as u64);
        assert_eq!(format.row_bytes(0), Some(0));
        assert_eq!(format.row_bytes(3 * len), Some(3 * bytes));
        assert_eq!(format.row_bytes(len + 1).is_some(), len == 1);
    }
    assert_eq!(Format::F64.row_bytes(1 << 61), None);
}

#[test]
fn decoders_give_the_reference_bit_for_bit() {
    let tensors = expected("tensor_sha256");
    // What is this project's own has no reference.
    let decoded: Vec<Format> = Format::ALL.iter().copied().filter(|f| f.decoder().is_some() && f.id() < OWN).collect();
    assert_eq!(decoded.len(), tensors.len());
    for format in decoded {
        let bytes = fixture(&format!("{format}.bin"));
        let mut values = vec![f32::NAN; 64 * 256];
        assert_eq!(bytes.len() as u64, 64 * format.row_bytes(256).unwrap());
        format.decoder().unwrap()(&bytes, &mut values);
        let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let digest: String = Sha256::digest(&raw).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(tensors[format.name()], digest, "{format}");
    }
}

#[test]
fn decoders_write_nothing_beyond_whole_blocks() {
    for &format in Format::ALL {
        let Some(decode) = format.decoder() else { continue };
        let (len, bytes) = (format.block_len(), format.block_bytes());
        let blocks = vec![0x11; 3 * bytes];
        let mut out = vec![f32::INFINITY; 3 * len];
        decode(&blocks[..2 * bytes + bytes - 1], &mut out);
        assert!(out[..2 * len].iter().all(|v| v.is_finite()), "{format}");
        assert!(out[2 * len..].iter().all(|v| *v == f32::INFINITY), "{format}");
        let mut short = vec![f32::INFINITY; 2 * len - 1];
        decode(&blocks, &mut short);
        let whole = if len == 1 { 1 } else { len };
        assert!(short[..whole.min(short.len())].iter().all(|v| v.is_finite()), "{format}");
        assert!(short[whole.min(short.len())..].iter().all(|v| *v == f32::INFINITY), "{format}");
    }
}

#[test]
fn swapping_twice_is_nothing_and_spares_the_bytes_without_order() {
    for &format in Format::ALL {
        let original: Vec<u8> = (0..2 * format.block_bytes()).map(|i| i as u8).collect();
        let mut swapped = original.clone();
        format.swap_bytes(&mut swapped);
        for (i, (a, b)) in original.iter().zip(&swapped).enumerate() {
            let at = i % format.block_bytes();
            let field = format.fields().iter().find(|f| (f.at..f.at + f.width * f.count).contains(&at));
            match field {
                None => assert_eq!(a, b, "{format} byte {at}"),
                Some(f) => {
                    let within = (at - f.at) % f.width;
                    assert_eq!(swapped[i - within + f.width - 1 - within], *a, "{format} byte {at}");
                }
            }
        }
        format.swap_bytes(&mut swapped);
        assert_eq!(original, swapped, "{format}");
    }
}
