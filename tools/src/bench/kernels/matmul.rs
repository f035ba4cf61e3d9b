//! The kernels that meet weights: matmul, quantization of activations, rows of the embedding.

use super::super::work::{self, Work};
use super::{Case, Context, Difference, Share, floats, room};
use crate::error::Result;
use engine::Precision;
use engine::backend::cpu::{acts, layout};
use engine::backend::pool::{Lines, Piece};
use engine::graph::{Graph, WeightId};
use engine::kernels::acts::Layout;
use engine::kernels::matmul::{Acts, Epilogue, MatMul as Product};
use engine::kernels::panel::{self, Weights};
use engine::kernels::simd::LANES;
use engine::kernels::{Columns, Kernels};
use engine::plan::integer_product;
use gguf::Format;

/// Rows and columns whose error is looked at: enough for a mean over thousands of sums.
const CHECKED_ROWS: usize = 256;
const CHECKED_COLUMNS: usize = 8;

/// Matrices of one shape, as panels.
struct Matrices {
    format: Format,
    rows: usize,
    k: usize,
    data: Vec<Lines>,
}

impl Matrices {
    /// The model's own, repeated until they spread over as much memory as the model.
    fn read(context: &Context, weights: &[WeightId], spread: u64) -> Result<Matrices> {
        let info = &context.graph.weights[weights[0].0 as usize];
        let (format, rows, k) = (info.format, info.rows, info.k);
        let mut data = weights.iter().map(|w| panels(context, *w)).collect::<Result<Vec<_>>>()?;
        let bytes: u64 = data.iter().map(|d| d.bytes().len() as u64).sum();
        let copies = (spread / bytes.max(1)) as usize;
        for i in 0..copies * weights.len() {
            data.push(data[i % weights.len()].copy()?);
        }
        Ok(Matrices { format, rows, k, data })
    }

    fn get(&self, call: usize) -> Weights<'_> {
        Weights { format: self.format, rows: self.rows, k: self.k, data: self.data[call % self.data.len()].bytes() }
    }
}

/// A tensor of the file as panels.
fn panels(context: &Context, weight: WeightId) -> Result<Lines> {
    let info = &context.graph.weights[weight.0 as usize];
    let missing = || engine::Error::Internal(format!("{} is gone", info.name));
    let tensor = context.source.tensor(&info.name).ok_or_else(missing)?;
    let bytes = panel::bytes(info.format, info.k).ok_or_else(|| engine::source::unsupported(tensor))?;
    let mut out = Lines::zeroed(bytes * info.rows.div_ceil(LANES))?;
    let row = tensor.size as usize / info.rows;
    let mut file = vec![0; row * LANES];
    for (p, panel) in out.bytes_mut().chunks_exact_mut(bytes).enumerate() {
        let rows = LANES.min(info.rows - p * LANES);
        let file = &mut file[..rows * row];
        context.source.read(tensor, (p * LANES * row) as u64, file)?;
        panel::repack(info.format, info.k, file, panel);
    }
    Ok(out)
}

/// `out = x * weight^T`.
pub struct MatMul<'a> {
    kernels: &'static Kernels,
    graph: &'a Graph,
    weight: WeightId,
    precision: Precision,
    matrices: Matrices,
    columns: usize,
    x: Vec<f32>,
    quantized: Option<Lines>,
}

impl<'a> MatMul<'a> {
    /// Reads the weights.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn new(context: &Context<'a>, weights: &[WeightId], columns: usize) -> Result<MatMul<'a>> {
        let spread = if columns == 1 { context.spread } else { 0 };
        let matrices = Matrices::read(context, weights, spread)?;
        let x = floats(matrices.k * columns, 1);
        let precision = context.setting.precision;
        let quantized = integer_product(matrices.format, precision)
            .then(|| quantize(context.kernels, &x, layout(precision, matrices.k, columns)));
        Ok(MatMul {
            kernels: context.kernels,
            graph: context.graph,
            weight: weights[0],
            precision,
            matrices,
            columns,
            x,
            quantized,
        })
    }

    fn product(&self, call: usize) -> Product<'_> {
        let acts = match &self.quantized {
            Some(units) => {
                let layout = layout(self.precision, self.matrices.k, self.columns);
                acts(self.precision, &units.bytes()[..layout.bytes()])
            }
            None => Acts::F32(&self.x),
        };
        Product { weights: self.matrices.get(call), acts, epilogue: Epilogue::default() }
    }
}

fn quantize(kernels: &Kernels, x: &[f32], layout: Layout) -> Lines {
    let mut units = room(layout.bytes());
    (kernels.quantize)(x, layout, 0..layout.units(), &mut units.bytes_mut()[..layout.bytes()]);
    units
}

impl Case for MatMul<'_> {
    fn work(&self) -> Work {
        work::matmul(self.graph, self.weight, self.columns, self.precision)
    }

    fn share<'a>(&'a self, piece: Piece) -> Share<'a> {
        let panels = piece.share(self.matrices.rows.div_ceil(LANES));
        let rows = (panels.end * LANES).min(self.matrices.rows) - (panels.start * LANES).min(self.matrices.rows);
        let mut out = vec![0.0; rows.max(1) * self.columns];
        Box::new(move |call| {
            if rows > 0 {
                (self.kernels.matmul)(&self.product(call), panels.clone(), &mut Columns::new(&mut out, rows));
            }
        })
    }

    fn error(&self) -> f64 {
        let (k, all) = (self.matrices.k, self.matrices.rows.div_ceil(LANES));
        let panels = all.min(CHECKED_ROWS / LANES);
        let rows = (panels * LANES).min(self.matrices.rows);
        let mut out = vec![0.0; rows * self.columns];
        (self.kernels.matmul)(&self.product(0), 0..panels, &mut Columns::new(&mut out, rows));
        let mut difference = Difference::default();
        let mut w = vec![0.0; k];
        for row in 0..rows {
            (self.kernels.embed)(&self.matrices.get(0), row, &mut w);
            for column in 0..self.columns.min(CHECKED_COLUMNS) {
                let x = &self.x[column * k..][..k];
                let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                difference.take(out[column * rows + row], exact);
            }
        }
        difference.relative()
    }
}

/// Activations to 8 bits.
pub struct Quantize {
    kernels: &'static Kernels,
    precision: Precision,
    layout: Layout,
    x: Vec<f32>,
}

impl Quantize {
    /// `columns` columns of `k` values.
    pub fn new(context: &Context, k: usize, columns: usize) -> Quantize {
        Quantize {
            kernels: context.kernels,
            precision: context.setting.precision,
            layout: layout(context.setting.precision, k, columns),
            x: floats(k * columns, 2),
        }
    }
}

impl Case for Quantize {
    fn work(&self) -> Work {
        // Largest magnitude, scaling and rounding, sums.
        Work { bytes: self.x.len() as u64 * 4, int8: 0, float: self.x.len() as u64 * 4 }
    }

    fn share<'a>(&'a self, piece: Piece) -> Share<'a> {
        let units = piece.share(self.layout.units());
        let mut out = room(self.layout.range(units.clone()).len());
        let len = self.layout.range(units.clone()).len();
        Box::new(move |_| (self.kernels.quantize)(&self.x, self.layout, units.clone(), &mut out.bytes_mut()[..len]))
    }

    /// Of the products with a matrix of ones on its diagonal: the values themselves.
    fn error(&self) -> f64 {
        let k = self.layout.k;
        let mut identity = room(panel::bytes(Format::Q8_0, k).unwrap_or(0) * k.div_ceil(LANES));
        let Some(panel) = panel::bytes(Format::Q8_0, k) else { return f64::NAN };
        for (p, panel) in identity.bytes_mut().chunks_exact_mut(panel).enumerate() {
            let rows: Vec<u8> = (p * LANES..k.min((p + 1) * LANES)).flat_map(|row| unit_row(k, row)).collect();
            panel::repack(Format::Q8_0, k, &rows, panel);
        }
        let columns = self.layout.n.min(CHECKED_COLUMNS);
        let layout = layout(self.precision, k, columns);
        let units = quantize(self.kernels, &self.x[..columns * k], layout);
        let acts = acts(self.precision, &units.bytes()[..layout.bytes()]);
        let weights = Weights { format: Format::Q8_0, rows: k, k, data: identity.bytes() };
        let mut out = vec![0.0; k * columns];
        let product = Product { weights, acts, epilogue: Epilogue::default() };
        (self.kernels.matmul)(&product, 0..weights.panels(), &mut Columns::new(&mut out, k));
        let mut difference = Difference::default();
        out.iter().zip(&self.x).for_each(|(&found, &x)| difference.take(found, f64::from(x)));
        difference.relative()
    }
}

/// A row of Q8_0 that is 1 at `at` and 0 elsewhere: in blocks of 32, scale 1 as f16, then the codes.
fn unit_row(k: usize, at: usize) -> Vec<u8> {
    let block = |b: usize| {
        let mut bytes = vec![0; 34];
        bytes[1] = 0x3c;
        if at / 32 == b {
            bytes[2 + at % 32] = 1;
        }
        bytes
    };
    (0..k / 32).flat_map(block).collect()
}

/// Rows of the embedding.
pub struct Embed {
    kernels: &'static Kernels,
    matrix: Matrices,
    tokens: usize,
}

impl Embed {
    /// Reads the table.
    ///
    /// # Errors
    /// The tensor cannot be read.
    pub fn new(context: &Context, table: WeightId, tokens: usize) -> Result<Embed> {
        Ok(Embed { kernels: context.kernels, matrix: Matrices::read(context, &[table], 0)?, tokens })
    }

    /// The row that token `i` of a call asks for: they lie far apart.
    fn row(&self, call: usize, i: usize) -> usize {
        (call * self.tokens + i).wrapping_mul(7919) % self.matrix.rows
    }
}

impl Case for Embed {
    fn work(&self) -> Work {
        let bytes = self.matrix.data[0].bytes().len() / self.matrix.rows.max(1);
        let values = (self.matrix.k * self.tokens) as u64;
        Work { bytes: (bytes * self.tokens) as u64, int8: 0, float: 2 * values }
    }

    fn share<'a>(&'a self, piece: Piece) -> Share<'a> {
        let mine = piece.share(self.tokens);
        let mut out = vec![0.0; self.matrix.k];
        Box::new(move |call| {
            mine.clone().for_each(|i| (self.kernels.embed)(&self.matrix.get(0), self.row(call, i), &mut out));
        })
    }

    /// Decoding is exact by its contract; the rows are compared with those of the plainest instruction set.
    fn error(&self) -> f64 {
        let Some(plain) = Kernels::for_isa(engine::Isa::Scalar) else { return f64::NAN };
        let (mut found, mut exact) = (vec![0.0; self.matrix.k], vec![0.0; self.matrix.k]);
        let mut difference = Difference::default();
        for i in 0..64 {
            (self.kernels.embed)(&self.matrix.get(0), self.row(0, i), &mut found);
            (plain.embed)(&self.matrix.get(0), self.row(0, i), &mut exact);
            found.iter().zip(&exact).for_each(|(&f, &e)| difference.take(f, f64::from(e)));
        }
        difference.relative()
    }
}
