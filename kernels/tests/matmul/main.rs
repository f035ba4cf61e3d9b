//! Weights, activations and the matmul: on every instruction set of this CPU, against naive twins.

mod axiom;
mod edges;
mod embed;
mod epilogue;
mod exact;
mod quantize;

use gguf::Format;
use kernels::acts::Layout;
use kernels::matmul::{Acts, Epilogue, MatMul};
use kernels::panel::{self, Weights};
use kernels::{Columns, Isa, Kernels};

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes that start at a multiple of 64.
struct Buffer {
    lines: Vec<Line>,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Buffer {
        Buffer { lines: vec![Line([0xa5; 64]); len.div_ceil(64)], len }
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// A sequence of numbers, the same for the same seed: xorshift64*.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// From -1 to 1.
    fn float(&mut self) -> f32 {
        (self.bits() % 20_001) as f32 / 10_000.0 - 1.0
    }

    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// The bytes of one field of two bytes of a block: a scale of about 1/64.
fn scale(random: &mut Random) -> [u8; 2] {
    half::f16::from_f32(random.float() / 64.0).to_le_bytes()
}

/// Rows as in a file: random codes, finite scales.
fn rows(format: Format, rows: usize, k: usize, random: &mut Random) -> Vec<u8> {
    let n = rows * k;
    match format {
        Format::F32 => bytemuck::cast_slice(&random.floats(n)).to_vec(),
        Format::F16 => (0..n).flat_map(|_| half::f16::from_f32(random.float()).to_le_bytes()).collect(),
        Format::BF16 => (0..n).flat_map(|_| half::bf16::from_f32(random.float()).to_le_bytes()).collect(),
        _ => {
            let bytes = n / format.block_len() * format.block_bytes();
            let mut data: Vec<u8> = (0..bytes).map(|_| random.bits() as u8).collect();
            for block in data.chunks_exact_mut(format.block_bytes()) {
                format.set_factor(block, (random.float() / 64.0).abs());
                for field in format.factors() {
                    for number in block[field.at..][..2 * field.count].chunks_exact_mut(2) {
                        number.copy_from_slice(&scale(random));
                    }
                }
            }
            data
        }
    }
}

/// A matrix: as in a file, and in panels.
struct Matrix {
    format: Format,
    rows: usize,
    k: usize,
    file: Vec<u8>,
    panels: Buffer,
}

impl Matrix {
    fn new(format: Format, k: usize, file: Vec<u8>) -> Matrix {
        let row = k / format.block_len() * format.block_bytes();
        let rows = file.len() / row;
        let bytes = panel::bytes(format, k).expect("a format with kernels");
        let mut panels = Buffer::new(rows.div_ceil(16) * bytes);
        for (rows, panel) in file.chunks(16 * row).zip(panels.bytes_mut().chunks_exact_mut(bytes)) {
            panel::repack(format, k, rows, panel);
        }
        Matrix { format, rows, k, file, panels }
    }

    fn random(format: Format, count: usize, k: usize, random: &mut Random) -> Matrix {
        Matrix::new(format, k, rows(format, count, k, random))
    }

    fn weights(&self) -> Weights<'_> {
        Weights { format: self.format, rows: self.rows, k: self.k, data: self.panels.bytes() }
    }

    /// The values, by the decoder of the format.
    fn decoded(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.k];
        self.format.decoder().expect("a decoder")(&self.file, &mut values);
        values
    }
}

/// What the activations of a matmul are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Precision {
    F32,
    Q8,
    Q16,
}

/// Every format with every precision it takes.
fn cases() -> impl Iterator<Item = (Format, Precision)> {
    panel::formats().flat_map(|format| {
        let codes = [(format, Precision::Q8), (format, Precision::Q16)];
        let codes = codes.into_iter().filter(|(format, _)| panel::is_coded(*format));
        codes.chain([(format, Precision::F32)])
    })
}

/// A k for the format that is no multiple of what its kernels like, so far as the format allows.
fn odd_k(format: Format) -> usize {
    match format.block_len() {
        1 => 173,
        32 => 9 * 32,
        len => 3 * len,
    }
}

fn isas() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().map(|isa| Kernels::for_isa(isa).expect("an available instruction set"))
}

/// How the activations lie, where they are quantized.
fn layout(precision: Precision, k: usize, n: usize) -> Option<Layout> {
    match precision {
        Precision::F32 => None,
        Precision::Q8 => Some(Layout::new(k, n)),
        Precision::Q16 => Some(Layout::new(k, n).in_two_planes()),
    }
}

fn quantized(kernels: &Kernels, x: &[f32], layout: Layout) -> Buffer {
    let mut units = Buffer::new(layout.bytes());
    (kernels.quantize)(x, layout, 0..layout.units(), units.bytes_mut());
    units
}

/// What no kernel may write over.
const SENTINEL: f32 = -1.625e30;

/// The product with each column of `x`, `[column][row]`, the panels cut at `cuts`, sentinels checked.
fn product(kernels: &Kernels, matrix: &Matrix, x: &[f32], precision: Precision, cuts: &[usize]) -> Vec<f32> {
    product_with(kernels, matrix, x, precision, cuts, Epilogue::default(), None)
}

#[allow(clippy::too_many_arguments)]
fn product_with(
    kernels: &Kernels,
    matrix: &Matrix,
    x: &[f32],
    precision: Precision,
    cuts: &[usize],
    epilogue: Epilogue<'_>,
    start: Option<&[f32]>,
) -> Vec<f32> {
    let (rows, n) = (matrix.rows, x.len() / matrix.k);
    // Before and after the rows of each column, and after the last column.
    let (before, stride) = (3, rows + 7);
    let mut out = vec![SENTINEL; stride * n + 5];
    for column in 0..start.map_or(0, |_| n) {
        let start = &start.expect("checked")[column * rows..][..rows];
        out[column * stride + before..][..rows].copy_from_slice(start);
    }
    let units = layout(precision, matrix.k, n).map(|layout| quantized(kernels, x, layout));
    let acts = match (&units, precision) {
        (Some(units), Precision::Q8) => Acts::Q8(units.bytes()),
        (Some(units), _) => Acts::Q16(units.bytes()),
        (None, _) => Acts::F32(x),
    };
    let args = MatMul { weights: matrix.weights(), acts, epilogue };
    let ends = cuts.iter().copied().chain([rows.div_ceil(16)]);
    for (first, end) in [0].into_iter().chain(cuts.iter().copied()).zip(ends) {
        let own = before + rows.min(16 * first)..before + rows.min(16 * end);
        let mut view = Columns::of_rows(&mut out[..stride * n], stride, own);
        (kernels.matmul)(&args, first..end, &mut view);
    }
    let mut values = Vec::new();
    for (i, value) in out.into_iter().enumerate() {
        let (column, row) = (i / stride, i % stride);
        if column < n && (before..before + rows).contains(&row) {
            values.push(value);
        } else {
            assert_eq!(value, SENTINEL, "{}: column {column}, row {row} is not of the output", kernels.isa);
        }
    }
    values
}

/// Bits, every NaN the same.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| if v.is_nan() { f32::NAN } else { *v }.to_bits()).collect()
}
