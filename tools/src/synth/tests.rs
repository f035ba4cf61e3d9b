//! Tests of the made models: their plans, and what the weights are like.

use super::shapes::{ALL, Shape};
use super::weights::tensors;
use super::{FileType, plan};

fn shape(name: &str) -> &'static Shape {
    Shape::parse(name).unwrap()
}

/// The numbers of weights that the models are published with.
#[test]
fn sizes_are_those_of_the_models() {
    let expected = [
        ("llama-3.2-1b", 1_235_814_432),
        ("llama-3.2-3b", 3_212_749_888),
        ("llama-3.1-8b", 8_030_261_312),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-7b", 7_615_616_512),
        ("gemma-3-1b", 999_885_952),
        ("phi-4-mini", 3_836_021_856),
    ];
    for (name, expected) in expected {
        let total: u64 = tensors(shape(name), 0).iter().map(|t| t.dims.iter().product::<u64>()).sum();
        assert_eq!(total, expected, "{name}");
    }
}

#[test]
fn numbers_are_normal_and_depend_on_seed_and_name_alone() {
    let of = |seed: u64, name: &str| {
        let all = tensors(shape("tiny"), seed);
        all.into_iter().find(|t| t.name == name).unwrap()
    };
    let down = of(0, "blk.1.ffn_down.weight");
    let all = down.values(0..768 * 256);
    assert_eq!(all[1000..2000], down.values(1000..2000), "a piece is the same numbers");
    assert_ne!(all[..100], of(1, "blk.1.ffn_down.weight").values(0..100));
    assert_ne!(all[..100], of(0, "blk.2.ffn_down.weight").values(0..100));
    // 196,608 numbers: mean and deviation are known to a quarter of a percent of the deviation.
    let n = all.len() as f64;
    let mean = all.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let deviation = (all.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let wanted = 1.0 / (768f64 * 8.0).sqrt();
    assert!(mean.abs() < 0.01 * wanted && (deviation / wanted - 1.0).abs() < 0.01, "{mean} {deviation} {wanted}");
    let neighbours: f64 = all.windows(2).map(|w| f64::from(w[0]) * f64::from(w[1])).sum::<f64>() / n;
    assert!(neighbours.abs() < 0.01 * wanted * wanted, "neighbours are alike: {neighbours}");
}

/// Llama 3.2's own factors, from its published file.
#[test]
fn wavelengths_are_stretched_as_in_llama() {
    let all = tensors(shape("llama-3.2-1b"), 0);
    let factors = all.iter().find(|t| t.name == "rope_freqs.weight").unwrap().values(0..32);
    assert_eq!(factors[..14], [1.0; 14]);
    assert!(factors[14..19].windows(2).all(|w| w[0] < w[1]), "{factors:?}");
    assert_eq!(factors[19..], [32.0; 13]);
}

#[test]
fn every_shape_can_be_planned_in_every_type() {
    for shape in ALL {
        let tensors = tensors(shape, 0);
        assert!(tensors.windows(2).all(|w| w[0].name != w[1].name));
        for kind in ["f32", "q8_0", "q4_k_m"].map(|name| FileType::parse(name).unwrap()) {
            for p in plan(shape, kind, &tensors) {
                assert!(p.dims[0].is_multiple_of(p.format.block_len() as u64), "{} {}", shape.name, p.name);
            }
            super::head::builder(shape, kind).unwrap();
        }
    }
}
