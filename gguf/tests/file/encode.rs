//! Quantization against the output of `llama-quantize` for the same matrix.

use gguf::Format;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::formats::fixture;

fn decode(format: Format, blocks: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; blocks.len() / format.block_bytes() * format.block_len()];
    format.decoder().unwrap()(blocks, &mut values);
    values
}

fn encode(format: Format, values: &[f32]) -> Vec<u8> {
    let mut blocks = vec![0; values.len() / format.block_len() * format.block_bytes()];
    format.encoder().unwrap()(values, None, &mut blocks);
    blocks
}

/// Root of the mean squared error; weighted by `rms + |x|` of groups of 32 if asked for.
fn error(x: &[f32], y: &[f32], weighted: bool) -> f64 {
    let mut sum = 0.0;
    for (x, y) in x.chunks(32).zip(y.chunks(32)) {
        let rms = (x.iter().map(|v| f64::from(v * v)).sum::<f64>() / x.len() as f64).sqrt();
        for (x, y) in x.iter().zip(y) {
            let w = if weighted { rms + f64::from(x.abs()) } else { 1.0 };
            sum += w * f64::from(x - y).powi(2);
        }
    }
    (sum / x.len() as f64).sqrt()
}

fn encoded_formats() -> Vec<Format> {
    Format::ALL.iter().copied().filter(|f| f.encoder().is_some()).collect()
}

#[test]
fn one_pass_formats_equal_the_reference_byte_for_byte() {
    let original = decode(Format::F32, &fixture("f32.bin"));
    for format in [Format::Q8_0, Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1] {
        let (ours, theirs) = (encode(format, &original), fixture(&format!("{format}.bin")));
        let differ = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
        assert_eq!((ours.len(), differ), (theirs.len(), 0), "{format}");
    }
}

#[test]
fn searched_formats_are_closer_than_the_reference() {
    let original = decode(Format::F32, &fixture("f32.bin"));
    // The limits are what the search reaches on this matrix, plus 0.002.
    for (format, limit) in [
        (Format::Q2K, 1.0),
        (Format::Q3K, 1.0),
        (Format::Q4K, 0.989),
        (Format::Q5K, 0.963),
        (Format::Q6K, 0.960),
        (Format::IQ4NL, 1.0),
        (Format::IQ4XS, 1.0),
        (Format::MXFP4, 1.0),
        (Format::TQ1_0, 1.0),
        (Format::TQ2_0, 1.0),
    ] {
        let ours = decode(format, &encode(format, &original));
        let theirs = decode(format, &fixture(&format!("{format}.bin")));
        for weighted in [false, true] {
            let ratio = error(&original, &ours, weighted) / error(&original, &theirs, weighted);
            assert!(ratio < limit, "{format}, weighted {weighted}: {ratio}");
        }
    }
}

/// Every number of a float format stays itself; what lies between two goes to the nearer, of equal ones to the even.
#[test]
fn floats_are_rounded_to_nearest() {
    for format in [Format::F32, Format::F16, Format::BF16] {
        let width = format.block_bytes();
        // All of 16 bits, and the same upper halves for 32.
        let numbers: Vec<u8> =
            (0..=u16::MAX).flat_map(|bits| [&[0, 0][..width - 2], &bits.to_le_bytes()].concat()).collect();
        let finite = |v: &[u8]| decode(format, v)[0].is_finite();
        let numbers: Vec<u8> = numbers.chunks(width).filter(|v| finite(v)).flatten().copied().collect();
        assert_eq!(encode(format, &decode(format, &numbers)), numbers, "{format}");
    }
    let bf16 = |bits: u32| u16::from_le_bytes(encode(Format::BF16, &[f32::from_bits(bits)]).try_into().unwrap());
    assert_eq!([0x3f80_7fff, 0x3f80_8000, 0x3f80_8001, 0x3f81_8000].map(bf16), [0x3f80, 0x3f80, 0x3f81, 0x3f82]);
    assert_eq!([f32::MAX.to_bits(), f32::MIN.to_bits()].map(bf16), [0x7f7f, 0xff7f]);
    let f16 = |x: f32| u16::from_le_bytes(encode(Format::F16, &[x]).try_into().unwrap());
    let ulp = 2f32.powi(-10);
    assert_eq!([1.0 + ulp / 2.0, 1.0 + ulp * 0.51, 1.0 + ulp * 1.5].map(f16), [0x3c00, 0x3c01, 0x3c02]);
    assert_eq!([65504.0, 65519.0, 1e9, -1e9].map(f16), [0x7bff, 0x7bff, 0x7bff, 0xfbff]);
}

#[test]
fn zeros_stay_zeros() {
    for format in encoded_formats() {
        assert_eq!(decode(format, &encode(format, &[0.0; 512])), [0.0; 512], "{format}");
        assert_eq!(decode(format, &encode(format, &[-0.0; 256])), [0.0; 256], "{format}");
    }
}

#[test]
fn a_constant_survives() {
    for format in encoded_formats() {
        // Half a step between neighbours where the scale is coarse, and numbers beyond its range.
        let (coarse, small) = match format {
            Format::MXFP4 => (0.25, false),
            Format::Q4E => (0.07, true),
            _ => (0.0, false),
        };
        // Not below 0.25, where the scales of K-quants become subnormal in binary16.
        for value in [1.0f32, -1.0, 0.25, -3000.0] {
            let y = decode(format, &encode(format, &[value; 256]));
            // Half a step of binary16 in the scale, and in K-quants one more in the smaller scales; half a step of bfloat16.
            let limit = if format == Format::BF16 { 1.0 / 256.0 } else { 2.0f32 / 1024.0 }.max(coarse);
            if small && value < -60.0 {
                continue;
            }
            let worst = y.iter().map(|y| (y - value).abs() / value.abs()).fold(0.0, f32::max);
            assert!(worst < limit, "{format} {value}: {worst}");
        }
    }
}

/// Blocks of values: even, heavy-tailed, sparse, offset.
fn values() -> impl Strategy<Value = Vec<f32>> {
    let shape = prop_oneof![Just(1i32), Just(3), Just(7)];
    let scale = prop::sample::select(&[1e-3f32, 1.0, 500.0][..]);
    (vec(-1.0f32..1.0, 256), shape, scale, -2.0f32..2.0, any::<bool>()).prop_map(|(x, power, scale, offset, shift)| {
        let offset = if shift { offset } else { 0.0 };
        x.iter().map(|v| (v.powi(power) + offset) * scale).collect()
    })
}

proptest! {
    /// The root-mean-square error stays below a share of the largest value: about a third of a code
    /// for even values in a range around zero, with room for a scale that fits its group badly.
    #[test]
    fn errors_are_bounded(x in values()) {
        let largest = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        for format in encoded_formats() {
            let share = match format {
                // Scales end at 7.5.
                Format::Q4E if largest > 50.0 => continue,
                Format::TQ1_0 | Format::TQ2_0 => 1.0 / 2.0,
                Format::Q2K => 1.0 / 4.0,
                Format::Q3K | Format::MXFP4 => 1.0 / 6.0,
                Format::IQ4NL | Format::IQ4XS | Format::Q4E => 1.0 / 12.0,
                Format::Q4_0 => 1.0 / 16.0,
                Format::Q5_0 => 1.0 / 32.0,
                Format::Q4_1 | Format::Q4K => 1.0 / 22.0,
                Format::Q5_1 | Format::Q5K => 1.0 / 44.0,
                Format::Q6K => 1.0 / 80.0,
                _ => 1.0 / 250.0,
            };
            let y = decode(format, &encode(format, &x));
            let e = error(&x, &y, false);
            // Scales below the smallest binary16 are lost.
            prop_assert!(e <= f64::from(largest) * share + 1e-5, "{format}: {e} of {largest}");
        }
    }

    #[test]
    fn any_bits_are_taken(bits in vec(any::<u32>(), 256)) {
        let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let finite: Vec<f32> = x.iter().map(|v| if v.is_finite() { *v } else { 0.0 }).collect();
        for format in encoded_formats() {
            prop_assert_eq!(encode(format, &x).len(), 256 / format.block_len() * format.block_bytes());
            let y = decode(format, &encode(format, &finite));
            prop_assert!(y.iter().all(|v| v.is_finite()), "{format}");
        }
    }

    /// The same input gives the same bytes, block by block.
    #[test]
    fn blocks_do_not_see_each_other(x in values(), y in values()) {
        for format in encoded_formats() {
            let both = encode(format, &[&x[..], &y[..]].concat());
            prop_assert_eq!(both, [encode(format, &x), encode(format, &y)].concat(), "{}", format);
        }
    }
}

/// Errors of columns that matter grow less than those of others shrink.
#[test]
fn importance_moves_the_error() {
    let original = decode(Format::F32, &fixture("f32.bin"));
    let importance: Vec<f32> = (0..original.len()).map(|i| if i % 4 == 0 { 20.0 } else { 0.1 }).collect();
    let error = |y: &[f32]| {
        let of_column = |i: usize| f64::from(importance[i]) * f64::from(original[i] - y[i]).powi(2);
        (0..y.len()).map(of_column).sum::<f64>()
    };
    for format in encoded_formats().into_iter().filter(|f| f.block_len() > 1 && *f != Format::Q8_0) {
        let mut blocks = encode(format, &original);
        let before = error(&decode(format, &blocks));
        format.encoder().unwrap()(&original, Some(&importance), &mut blocks);
        let after = error(&decode(format, &blocks));
        assert!(after < before, "{format}: {after} where it was {before}");
    }
}

/// Ternary weights, which BitNet's are, come back as they were.
#[test]
fn ternary_weights_are_exact() {
    let x: Vec<f32> = (0..512).map(|i| [0.0, 0.375, -0.375, 0.375, 0.0][i * 7 % 5]).collect();
    for format in [Format::TQ1_0, Format::TQ2_0] {
        assert_eq!(decode(format, &encode(format, &x)), x, "{format}");
    }
}

/// Every scale of the format, and codes at both ends.
#[test]
fn q4_e_is_what_its_definition_says() {
    for byte in 0..=255u8 {
        let (sign, exponent, mantissa) = (byte >> 7, i32::from(byte >> 3 & 15), f32::from(byte & 7));
        let size =
            if exponent == 0 { mantissa * 2f32.powi(-15) } else { (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 13) };
        let scale = if sign == 1 { -size } else { size };
        let mut block = [0; 17];
        (block[0], block[1]) = (byte, 0xf0);
        let y = decode(Format::Q4E, &block);
        assert_eq!((y[0], y[16], y[1]), (scale * -8.0, scale * 7.0, scale * -8.0), "{byte}");
    }
    let original = decode(Format::F32, &fixture("f32.bin"));
    let [ours, legacy] =
        [Format::Q4E, Format::Q4_0].map(|f| error(&original, &decode(f, &encode(f, &original)), false));
    assert!(ours < legacy, "{ours} where Q4_0 has {legacy}");
}
