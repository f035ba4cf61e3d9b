//! Quantization against its definition.

use super::*;
use kernels::acts;

/// One group by the definition: scale, codes.
fn group(x: &[f32]) -> (f32, Vec<i32>) {
    let max = x.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    if x.iter().any(|x| !x.is_finite()) {
        return (f32::NAN, vec![]);
    }
    if max < 2f32.powi(-120) {
        return (0.0, vec![0; x.len()]);
    }
    let code = |x: &f32| (x * (127.0 / max)).round_ties_even().clamp(-127.0, 127.0) as i32;
    (max / 127.0, x.iter().map(code).collect())
}

fn check<const T: usize>(x: &[f32], k: usize, units: &[u8]) {
    let n = x.len() / k;
    let groups: &[acts::Group<T>] = bytemuck::cast_slice(units);
    let (per_column, tiles) = (k.div_ceil(64) * 2, n.div_ceil(T));
    for (column, x) in x.chunks_exact(k).enumerate() {
        for (g, x) in x.chunks_exact(32).enumerate() {
            let (chunk, c) = (g / 8, column % T);
            let in_chunk = (per_column - chunk * 8).min(8);
            let found = &groups[chunk * 8 * tiles + column / T * in_chunk + g % 8];
            let float = |field: usize| f32::from_bits(found[field][c].cast_unsigned());
            let (scale, codes) = group(x);
            assert_eq!(bits(&[float(acts::SCALE)]), bits(&[scale]));
            if scale.is_nan() {
                assert!(float(acts::SCALED_SUM).is_nan() && float(acts::SCALED_HALF_SUMS + 1).is_nan());
                continue;
            }
            let read: Vec<i32> = (0..32).map(|i| found[i / 4][c].to_ne_bytes()[i % 4].cast_signed().into()).collect();
            assert_eq!(read, codes);
            let (low, high): (i32, i32) = (codes[..16].iter().sum(), codes[16..].iter().sum());
            assert_eq!(found[acts::SUM][c], -128 * (low + high));
            assert_eq!(found[acts::SUM_8][c], -8 * (low + high));
            assert_eq!([found[acts::HALF_SUMS][c], found[acts::HALF_SUMS + 1][c]], [-32 * low, -32 * high]);
            let scaled = [acts::SCALED_SUM, acts::SCALED_HALF_SUMS, acts::SCALED_HALF_SUMS + 1].map(float);
            assert_eq!(bits(&scaled), bits(&[low + high, low, high].map(|sum| scale * sum as f32)));
        }
    }
}

fn check_all(x: &[f32], k: usize) {
    let layout = acts::Layout::new(k, x.len() / k);
    let expected = quantized(Kernels::for_isa(Isa::Scalar).expect("scalar"), x, k);
    if layout.n == 1 {
        check::<1>(x, k, expected.bytes())
    } else {
        check::<4>(x, k, expected.bytes())
    }
    for kernels in isas() {
        // Unit by unit, from the last one on.
        let mut units = Buffer::new(layout.bytes());
        for unit in (0..layout.units()).rev() {
            (kernels.quantize)(x, layout, unit..unit + 1, &mut units.bytes_mut()[layout.range(unit..unit + 1)]);
        }
        assert!(units.bytes() == expected.bytes(), "{} k = {k}, n = {}", kernels.isa, layout.n);
    }
}

#[test]
fn is_its_definition() {
    let mut random = Random::new(4);
    for k in [32, 64, 96, 256, 288, 544] {
        for n in [1, 2, 3, 4, 5, 9] {
            check_all(&random.floats(n * k), k);
        }
    }
}

#[test]
fn large_and_small() {
    let mut random = Random::new(5);
    for magnitude in [0.0, f32::from_bits(1), 1e-38, 2f32.powi(-121), 2f32.powi(-120), 1e-20, 1e20, f32::MAX] {
        let x: Vec<f32> = random.floats(2 * 64).iter().map(|x| x * magnitude).collect();
        check_all(&x, 64);
        check_all(&x, 128);
    }
}

#[test]
fn ties_and_ends() {
    // The largest is 127, so codes are the numbers rounded, halves to even.
    let x: Vec<f32> = (0..32).map(|i| [127.0, -127.0, 0.5, 1.5, -2.5, 126.5, -126.5, 0.0][i % 8]).collect();
    check_all(&x, 32);
}
