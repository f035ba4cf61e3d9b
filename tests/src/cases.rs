//! Cases of kernels, for tests and benches: every format that has kernels, with each precision of activations that it
//! takes, in shapes of real layers, and attention over caches of real depths. The formats come from the one list that
//! everything loops over, so a new format is tested and benched by being there. A case can check its answer against f64:
//! a bench does it before it times, so that a wrong kernel cannot win.

use engine::Precision;
use engine::plan::integer_product;
use gguf::Format;
use kernels::acts::Layout;
use kernels::attention::{Block, Cache, MAX_ROWS, Params, Queries, partial_len, scratch_len};
use kernels::kv::{self, KvType, PAGE};
use kernels::matmul::{Acts, Epilogue, MatMul};
use kernels::panel::{self, Weights};
use kernels::simd::LANES;
use kernels::{Columns, Isa, Kernels};

use crate::random::Random;
use crate::tiny;

/// Rows and k of matrices: the feed-forward of SmolLM2-135M, and a projection of Llama-3.2-1B.
pub const SHAPES: [(usize, usize); 2] = [(1536, 576), (2048, 2048)];
/// Columns: a generated token, a few sequences, a prompt.
pub const COLUMNS: [usize; 3] = [1, 4, 512];
/// Rows and columns whose error is looked at.
const CHECKED: (usize, usize) = (64, 4);

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

/// Every format with every precision that it takes.
pub fn formats() -> impl Iterator<Item = (Format, Precision)> {
    panel::formats().flat_map(|format| {
        let taken = move |&p: &Precision| p == Precision::F32 || integer_product(format, p);
        Precision::ALL.into_iter().filter(taken).map(move |p| (format, p))
    })
}

/// A matmul, ready to run.
pub struct Product<'a> {
    kernels: &'static Kernels,
    matrix: &'a Matrix,
    x: Vec<f32>,
    precision: Precision,
    units: Option<Aligned>,
    columns: usize,
    out: Vec<f32>,
}

impl<'a> Product<'a> {
    /// A matrix times random columns.
    pub fn new(kernels: &'static Kernels, matrix: &'a Matrix, columns: usize, precision: Precision) -> Product<'a> {
        let mut random = Random::new(2);
        let x: Vec<f32> = (0..columns * matrix.k).map(|_| random.signed()).collect();
        let units = integer_product(matrix.format, precision).then(|| {
            let layout = Layout::new(matrix.k, columns);
            let layout = if precision == Precision::Q16 { layout.in_two_planes() } else { layout };
            let mut units = Aligned::zeroed(layout.bytes());
            (kernels.quantize)(&x, layout, 0..layout.units(), units.bytes_mut());
            units
        });
        Product { kernels, matrix, x, precision, units, columns, out: vec![0.0; columns * matrix.rows] }
    }

    /// Computes all rows of all columns.
    pub fn run(&mut self) {
        let acts = match &self.units {
            Some(units) if self.precision == Precision::Q16 => Acts::Q16(units.bytes()),
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

    /// Runs once; gives the root mean square of the difference to f64, over that of the exact result, of some rows of
    /// some columns.
    pub fn error(&mut self) -> f64 {
        self.run();
        let (rows, k) = (self.matrix.rows, self.matrix.k);
        let mut difference = Difference::default();
        for column in (0..self.columns).step_by(self.columns.div_ceil(CHECKED.1)) {
            let (x, out) = (&self.x[column * k..][..k], &self.out[column * rows..][..rows]);
            for row in (0..rows).step_by(rows.div_ceil(CHECKED.0)) {
                let weights = &self.matrix.values[row * k..][..k];
                let exact: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                difference.take(out[row], exact);
            }
        }
        difference.relative()
    }

    /// What rounding allows of [`Product::error`]. Codes of activations that lie evenly in -1 to 1 are 1/127 apart: an
    /// error of 1/127/sqrt(12) against a root mean square of 1/sqrt(3), 0.4 %; with two planes 128 times less. Sums of
    /// f32 err by some 2^-24.
    pub fn allowed(&self) -> f64 {
        match (&self.units, self.precision) {
            (None, _) => 1e-5,
            (Some(_), Precision::Q16) => 8e-5,
            (Some(_), _) => 8e-3,
        }
    }
}

/// Root mean square of differences.
#[derive(Default)]
struct Difference {
    squares: f64,
    exact: f64,
}

impl Difference {
    fn take(&mut self, found: f32, exact: f64) {
        self.squares += (f64::from(found) - exact).powi(2);
        self.exact += exact.powi(2);
    }

    fn relative(&self) -> f64 {
        (self.squares / self.exact).sqrt()
    }
}

/// Depths of caches.
pub const DEPTHS: [usize; 2] = [512, 4096];

/// Attention of one token's query heads of a KV head, over a cache, ready to run: 4 heads of 64, as in Llama-3.2-1B.
pub struct Attention {
    kernels: &'static Kernels,
    kv: KvType,
    q: Vec<f32>,
    /// Keys and values as they were stored.
    pairs: Vec<f32>,
    cache: Aligned,
    pages: Vec<u32>,
    /// Scratch, a tile's partial result, the merged one, the outputs.
    memory: [Vec<f32>; 4],
}

const HEAD: usize = 64;
const GROUP: usize = 4;

impl Attention {
    /// Over a cache of so many positions; the token is the last of them.
    pub fn new(kernels: &'static Kernels, kv: KvType, depth: usize) -> Attention {
        let mut random = Random::new(4);
        let block = kv::block_bytes(kv, HEAD, HEAD);
        let pages = depth.div_ceil(PAGE);
        let pairs: Vec<f32> = (0..depth * 2 * HEAD).map(|_| random.signed()).collect();
        let mut cache = Aligned::zeroed(pages * block);
        for (position, pair) in pairs.chunks_exact(2 * HEAD).enumerate() {
            let page = &mut cache.bytes_mut()[position / PAGE * block..][..block];
            let (k, v) = pair.split_at(HEAD);
            (kernels.kv_store)(kv, page, position % PAGE, [k, v]);
        }
        let partial = vec![0.0; partial_len(MAX_ROWS, HEAD)];
        Attention {
            kernels,
            kv,
            q: (0..GROUP * HEAD).map(|_| random.signed()).collect(),
            pairs,
            cache,
            pages: (0..pages as u32).collect(),
            memory: [vec![0.0; scratch_len(HEAD)], partial.clone(), partial, vec![0.0; GROUP * HEAD]],
        }
    }

    fn depth(&self) -> usize {
        self.pairs.len() / (2 * HEAD)
    }

    /// Computes all of it.
    pub fn run(&mut self) {
        let block = kv::block_bytes(self.kv, HEAD, HEAD);
        let (scale, len) = (1.0 / (HEAD as f32).sqrt(), self.pairs.len() / (2 * HEAD));
        let params = Params {
            d_k: HEAD,
            d_v: HEAD,
            group: GROUP,
            scale,
            softcap: None,
            window: None,
            causal: true,
            kv: self.kv,
        };
        let positions = [len as u32 - 1];
        let queries = Queries { data: &self.q, stride: GROUP * HEAD, positions: &positions, slopes: None };
        let pages = &self.pages;
        let cache = Cache { data: self.cache.bytes(), page_stride: block, offset: 0, pages, tables: &[0], len };
        let block = Block { params, queries, cache };
        let [scratch, tile, all, out] = &mut self.memory;
        let partial = partial_len(block.rows(), HEAD);
        let (tile, all) = (&mut tile[..partial], &mut all[..partial]);
        self.kernels.attend(&block, scratch, tile, all);
        (self.kernels.finish)(HEAD, all, 0..block.rows(), None, out);
    }

    /// Bytes of cache that a run reads.
    pub fn bytes(&self) -> u64 {
        self.cache.bytes().len() as u64
    }

    /// Runs once; gives the root mean square of the difference to f64, over that of the exact result.
    pub fn error(&mut self) -> f64 {
        self.run();
        let mut difference = Difference::default();
        for (q, out) in self.q.chunks_exact(HEAD).zip(self.memory[3].chunks_exact(HEAD)) {
            let dot = |k: &[f32]| k.iter().zip(q).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
            let scores: Vec<f64> = self.pairs.chunks_exact(2 * HEAD).map(|pair| dot(&pair[..HEAD]) / 8.0).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (i, &found) in out.iter().enumerate() {
                let value = |position: usize| f64::from(self.pairs[(2 * position + 1) * HEAD + i]);
                let exact: f64 = (0..self.depth()).map(|p| weights[p] * value(p)).sum::<f64>() / total;
                difference.take(found, exact);
            }
        }
        difference.relative()
    }

    /// What rounding allows of [`Attention::error`]: values that lie evenly around zero cancel out but for a share of
    /// 1/sqrt(depth), against which halves of 2^-11 are set.
    pub fn allowed(&self) -> f64 {
        let rounding = if self.kv == KvType::F16 { 2f64.powi(-11) } else { 2f64.powi(-20) };
        4.0 * rounding
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn memory_is_aligned() {
        for len in [0, 1, 64, 1000] {
            let mut memory = Aligned::zeroed(len);
            assert_eq!((memory.bytes().len(), memory.bytes().as_ptr().align_offset(64)), (len, 0));
            assert_eq!(memory.bytes_mut().len(), len);
        }
    }
}
