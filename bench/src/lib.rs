//! Cases of the kernel benches: every format that has kernels, with each precision of activations it takes, in shapes
//! of real layers. The formats come from the one list that the tests loop over, so a new format is benched by being
//! there. A case checks its answer before it is timed: a wrong kernel cannot win.
#![forbid(unsafe_code)]

use gguf::Format;
use kernels::acts::Layout;
use kernels::matmul::{Acts, Epilogue, MatMul};
use kernels::panel::{self, Weights};
use kernels::simd::LANES;
use kernels::{Columns, Isa, Kernels};
use tests::random::Random;
use tests::tiny;

/// Rows and k of matrices: a projection of a small model, and one of a model of a thousand million parameters.
pub const SHAPES: [(usize, usize); 2] = [(576, 576), (2048, 2048)];
/// Columns: a generated token, a few sequences, a piece of a prompt.
pub const COLUMNS: [usize; 3] = [1, 8, 64];

/// The kernels of every instruction set of this processor.
pub fn isas() -> impl Iterator<Item = &'static Kernels> {
    Isa::available().filter_map(Kernels::for_isa)
}

/// Memory that begins at a cache line.
pub struct Aligned {
    bytes: Vec<u8>,
    first: usize,
}

impl Aligned {
    /// Zeros.
    pub fn zeroed(len: usize) -> Aligned {
        let bytes = vec![0; len + 63];
        let first = bytes.as_ptr().align_offset(64);
        Aligned { bytes, first }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.first..][..self.bytes.len() - 63]
    }

    /// The bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.bytes.len() - 63;
        &mut self.bytes[self.first..][..len]
    }
}

/// A matrix of random weights in panels.
pub struct Matrix {
    format: Format,
    rows: usize,
    k: usize,
    panels: Aligned,
    /// The values, as the format's decoder gives them.
    values: Vec<f32>,
}

impl Matrix {
    /// A matrix with weights of the size that layers have.
    ///
    /// # Panics
    /// If the format has no kernels, or `k` is no multiple of its block length.
    pub fn random(format: Format, rows: usize, k: usize) -> Matrix {
        let file = tiny::weights(format, rows * k, 0.1, &mut Random::new(1));
        let panel = panel::bytes(format, k).expect("a format with kernels and whole blocks");
        let mut panels = Aligned::zeroed(rows.div_ceil(LANES) * panel);
        let row = file.len() / rows;
        for (rows, panel) in file.chunks(LANES * row).zip(panels.bytes_mut().chunks_exact_mut(panel)) {
            panel::repack(format, k, rows, panel);
        }
        let mut values = vec![0.0; rows * k];
        format.decoder().expect("a format with kernels has a decoder")(&file, &mut values);
        Matrix { format, rows, k, panels, values }
    }

    fn weights(&self) -> Weights<'_> {
        Weights { format: self.format, rows: self.rows, k: self.k, data: self.panels.bytes() }
    }
}

/// How activations meet a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 8-bit codes.
    Q8,
    /// As they are.
    F32,
}

/// Every format with every precision that it takes.
pub fn formats() -> impl Iterator<Item = (Format, Precision)> {
    panel::formats().flat_map(|format| {
        let q8 = panel::is_coded(format).then_some((format, Precision::Q8));
        q8.into_iter().chain([(format, Precision::F32)])
    })
}

/// A matmul, ready to run.
pub struct Product<'a> {
    kernels: &'static Kernels,
    matrix: &'a Matrix,
    x: Vec<f32>,
    units: Option<Aligned>,
    columns: usize,
    out: Vec<f32>,
}

impl<'a> Product<'a> {
    /// A matrix times random columns.
    pub fn new(kernels: &'static Kernels, matrix: &'a Matrix, columns: usize, precision: Precision) -> Product<'a> {
        let mut random = Random::new(2);
        let x: Vec<f32> = (0..columns * matrix.k).map(|_| random.signed()).collect();
        let units = (precision == Precision::Q8).then(|| {
            let layout = Layout::new(matrix.k, columns);
            let mut units = Aligned::zeroed(layout.bytes());
            (kernels.quantize)(&x, layout, 0..layout.units(), units.bytes_mut());
            units
        });
        Product { kernels, matrix, x, units, columns, out: vec![0.0; columns * matrix.rows] }
    }

    /// Computes all rows of all columns.
    pub fn run(&mut self) {
        let acts = match &self.units {
            Some(units) => Acts::Q8(units.bytes()),
            None => Acts::F32(&self.x),
        };
        let weights = self.matrix.weights();
        let product = MatMul { weights, acts, epilogue: Epilogue::default() };
        (self.kernels.matmul)(&product, 0..weights.panels(), &mut Columns::new(&mut self.out, weights.rows));
    }

    /// Bytes of weights that a run reads.
    pub fn bytes(&self) -> u64 {
        self.matrix.panels.bytes().len() as u64
    }

    /// Multiplications and additions of a run.
    pub fn ops(&self) -> u64 {
        (2 * self.matrix.rows * self.matrix.k * self.columns) as u64
    }

    /// Runs once; gives the root mean square of the difference to f64, over that of the exact result.
    pub fn error(&mut self) -> f64 {
        self.run();
        let (mut squares, mut exact_squares) = (0.0, 0.0);
        for (x, out) in self.x.chunks_exact(self.matrix.k).zip(self.out.chunks_exact(self.matrix.rows)) {
            for (w, out) in self.matrix.values.chunks_exact(self.matrix.k).zip(out) {
                let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                squares += (f64::from(*out) - exact).powi(2);
                exact_squares += exact.powi(2);
            }
        }
        (squares / exact_squares).sqrt()
    }

    /// What rounding allows of [`Product::error`]. Codes of activations that lie evenly in -1 to 1 are 1/127 apart: an
    /// error of 1/127/sqrt(12) against a root mean square of 1/sqrt(3), 0.4 %. Sums of f32 err by some 2^-24.
    pub fn allowed(&self) -> f64 {
        if self.units.is_some() { 8e-3 } else { 1e-5 }
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    /// Every case of the benches, in a shape that takes no time, gives the right answer.
    #[test]
    fn answers_are_right() {
        for (format, precision) in formats() {
            let matrix = Matrix::random(format, 40, 768);
            for kernels in isas() {
                let mut product = Product::new(kernels, &matrix, 2, precision);
                let (error, allowed) = (product.error(), product.allowed());
                assert!(error < allowed, "{format} {precision:?} on {}: {error}", kernels.isa);
            }
        }
    }

    #[test]
    fn memory_is_aligned() {
        for len in [0, 1, 64, 1000] {
            let mut memory = Aligned::zeroed(len);
            assert_eq!((memory.bytes().len(), memory.bytes().as_ptr().align_offset(64)), (len, 0));
            assert_eq!(memory.bytes_mut().len(), len);
        }
    }
}
