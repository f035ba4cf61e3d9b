//! Panels: their size, and rows read back.

use super::*;

/// Any bytes, scales that are NaN, infinite or subnormal among them.
#[test]
fn rows_come_back_as_the_decoder_gives_them() {
    let mut random = Random::new(9);
    for format in panel::formats() {
        let k = odd_k(format);
        let bytes = 37 * k / format.block_len() * format.block_bytes();
        let file: Vec<u8> = (0..bytes).map(|_| random.bits() as u8).collect();
        let matrix = Matrix::new(format, k, file);
        let expected = matrix.decoded();
        for kernels in isas() {
            for row in 0..37 {
                let mut out = vec![SENTINEL; k + 2];
                (kernels.embed)(&matrix.weights(), row, &mut out[1..=k]);
                assert_eq!(bits(&out[1..=k]), bits(&expected[row * k..][..k]), "{format} {} row {row}", kernels.isa);
                assert_eq!([out[0], out[k + 1]], [SENTINEL; 2]);
            }
        }
    }
}

#[test]
fn panels_are_as_small_as_the_rows() {
    for format in panel::formats() {
        let k = 1024;
        let file = 16 * k / format.block_len() * format.block_bytes();
        let panel = panel::bytes(format, k).expect("kernels");
        // Bits a value of formats whose panels are others: nibbles under f32 scales, and bytes.
        let bits = match format {
            // Scales of eight bits take sixteen.
            Format::Q4E => {
                assert_eq!(panel, 16 * k * 9 / 16, "{format}");
                continue;
            }
            Format::IQ4NL | Format::IQ4XS | Format::MXFP4 => Some(5),
            _ if format.name().starts_with("iq") || format.name().starts_with("tq") => Some(10),
            Format::NVFP4 | Format::Q1_0 | Format::Q2_0 => Some(10),
            _ => None,
        };
        match bits {
            Some(bits) => assert_eq!(panel, 16 * k * bits / 8, "{format}"),
            None => assert!(panel >= file && (panel - file) * 100 < 3 * file, "{format}: {panel} bytes for {file}"),
        }
        assert!(panel.is_multiple_of(64), "{format}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_none() {
    assert_eq!(panel::bytes(Format::Q4K, 128), None);
    assert_eq!(panel::bytes(Format::Q8_0, 33), None);
    assert_eq!(panel::bytes(Format::F32, usize::MAX), None);
    assert_eq!(panel::bytes(Format::I8, 32), None);
    assert_eq!(panel::bytes(Format::F16, 33), Some(2 * 1024));
}
