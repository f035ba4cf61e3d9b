//! Quantization against its definition.

use super::*;
use kernels::acts;

/// One group by the definition: scale, codes of each plane.
fn group(x: &[f32], planes: usize) -> (f32, Vec<Vec<i32>>) {
    let largest = if planes == 1 { 127.0 } else { 16319.0 };
    let max = x.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    if x.iter().any(|x| !x.is_finite()) {
        return (f32::NAN, vec![]);
    }
    if max < 2f32.powi(-120) {
        return (0.0, vec![vec![0; x.len()]; planes]);
    }
    let codes = x.iter().map(|x| (x * (largest / max)).round_ties_even().clamp(-largest, largest) as i32);
    if planes == 1 {
        return (max / largest, vec![codes.collect()]);
    }
    let high: Vec<i32> = codes.clone().map(|code| (code as f32 / 128.0).round_ties_even() as i32).collect();
    let low = codes.zip(&high).map(|(code, high)| code - 128 * high).collect();
    (max / largest, vec![high, low])
}

fn check<const T: usize>(x: &[f32], layout: Layout, units: &[u8]) {
    let Layout { k, planes, .. } = layout;
    let groups: &[acts::Group<T>] = bytemuck::cast_slice(units);
    let (per_column, tiles) = (k.div_ceil(64) * 2, layout.tiles());
    for (column, x) in x.chunks_exact(k).enumerate() {
        for (g, x) in x.chunks_exact(32).enumerate() {
            let (scale, codes) = group(x, planes);
            let halves = |half: usize| -> f32 {
                let sum = |plane: &Vec<i32>| plane[16 * half..][..16].iter().sum::<i32>();
                let sums: Vec<i32> = codes.iter().map(sum).collect();
                (if planes == 2 { 128 * sums[0] + sums[1] } else { sums[0] }) as f32
            };
            for plane in 0..planes {
                let (chunk, c) = (g / 8, (column * planes + plane) % T);
                let in_chunk = (per_column - chunk * 8).min(8);
                let found = &groups[chunk * 8 * tiles + (column * planes + plane) / T * in_chunk + g % 8];
                let float = |field: usize| f32::from_bits(found[field][c].cast_unsigned());
                assert_eq!(bits(&[float(acts::SCALE)]), bits(&[scale]));
                if scale.is_nan() {
                    assert!(float(acts::SCALED_SUM).is_nan() && float(acts::SCALED_HALF_SUMS + 1).is_nan());
                    continue;
                }
                let read: Vec<i32> =
                    (0..32).map(|i| found[i / 4][c].to_ne_bytes()[i % 4].cast_signed().into()).collect();
                assert_eq!(read, codes[plane]);
                let (low, high): (i32, i32) = (read[..16].iter().sum(), read[16..].iter().sum());
                assert_eq!(found[acts::SUM][c], -128 * (low + high));
                assert_eq!(found[acts::SUM_8][c], -8 * (low + high));
                assert_eq!([found[acts::HALF_SUMS][c], found[acts::HALF_SUMS + 1][c]], [-32 * low, -32 * high]);
                let scaled = [acts::SCALED_SUM, acts::SCALED_HALF_SUMS, acts::SCALED_HALF_SUMS + 1].map(float);
                let sums = [halves(0) + halves(1), halves(0), halves(1)];
                assert_eq!(bits(&scaled), bits(&sums.map(|sum| scale * sum)));
            }
        }
    }
}

fn check_all(x: &[f32], k: usize) {
    let layout = acts::Layout::new(k, x.len() / k);
    check_layout(x, layout);
    check_layout(x, layout.in_two_planes());
}

fn check_layout(x: &[f32], layout: Layout) {
    let expected = quantized(Kernels::for_isa(Isa::Scalar).expect("scalar"), x, layout);
    match layout.tile() {
        1 => check::<1>(x, layout, expected.bytes()),
        2 => check::<2>(x, layout, expected.bytes()),
        _ => check::<4>(x, layout, expected.bytes()),
    }
    for kernels in isas() {
        // Unit by unit, from the last one on.
        let mut units = Buffer::new(layout.bytes());
        for unit in (0..layout.units()).rev() {
            (kernels.quantize)(x, layout, unit..unit + 1, &mut units.bytes_mut()[layout.range(unit..unit + 1)]);
        }
        assert!(units.bytes() == expected.bytes(), "{} {layout:?}", kernels.isa);
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
