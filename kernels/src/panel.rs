//! Weights in memory: panels of sixteen rows, see [`crate::unpack`] for what is in a block.
//!
//! Panel `p` holds the rows `16 p ..`, starts at byte `p *` [`bytes`] of the matrix and is its blocks along k, one after
//! the other. Rows beyond the last are zeros. The buffer of a matrix starts at a multiple of 64 bytes.

use crate::isa::Token;
use crate::isa::scalar::Scalar;
use crate::simd::LANES;
use crate::unpack::expand::Values;
use crate::unpack::{GROUP, Table, Unpack};
use gguf::Format;

/// A weight matrix in panels.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// The format its rows had in the file.
    pub format: Format,
    /// Rows, the outputs of a matmul.
    pub rows: usize,
    /// Values a row.
    pub k: usize,
    /// [`Weights::panels`] panels, aligned to 64 bytes.
    pub data: &'a [u8],
}

impl<'a> Weights<'a> {
    /// Panels of the matrix.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Blocks of a panel.
    #[inline(always)]
    pub(crate) fn blocks<U: Unpack>(&self) -> usize {
        self.k.div_ceil(U::K)
    }

    /// The blocks of all panels.
    #[inline(always)]
    pub(crate) fn all<U: Unpack>(&self) -> &'a [U::Block] {
        bytemuck::cast_slice(&self.data[..self.panels() * self.blocks::<U>() * size_of::<U::Block>()])
    }
}

/// Formats that have kernels.
pub fn formats() -> impl Iterator<Item = Format> {
    Scalar::ROWS.iter().map(|row| row.format)
}

/// Whether the format has integer codes, so that its matmul takes quantized activations. The others meet f32.
pub fn is_coded(format: Format) -> bool {
    Scalar::row(format).is_some_and(|row| row.q8.is_some())
}

/// Bytes of one panel; `None` where the format has no kernels, `k` is no multiple of its block length, or the size
/// overflows.
pub fn bytes(format: Format, k: usize) -> Option<usize> {
    let row = Scalar::row(format)?;
    k.is_multiple_of(format.block_len()).then(|| k.div_ceil(row.k).checked_mul(row.bytes))?
}

/// Writes the panel of up to sixteen consecutive rows of a file, little-endian. Any content of `rows` is accepted.
///
/// # Panics
/// If the format has no kernels, `rows` is not 1 to 16 whole rows of `k` values, or `panel` is not [`bytes`] long and
/// aligned to 4.
pub fn repack(format: Format, k: usize, rows: &[u8], panel: &mut [u8]) {
    let row = Scalar::row(format).expect("a format with kernels");
    assert_eq!(Some(panel.len()), bytes(format, k), "bytes of a panel");
    let row_bytes = k / format.block_len() * format.block_bytes();
    assert!(
        !rows.is_empty() && rows.len().is_multiple_of(row_bytes) && rows.len() / row_bytes <= LANES,
        "{} bytes are not 1 to 16 rows of {row_bytes}",
        rows.len()
    );
    panel.fill(0);
    let step = row.k / format.block_len() * format.block_bytes();
    for (lane, file) in rows.chunks_exact(row_bytes).enumerate() {
        for (file, block) in file.chunks(step).zip(panel.chunks_exact_mut(row.bytes)) {
            (row.pack)(file, lane, block);
        }
    }
}

/// Decodes row `row` to f32, bit-equal to the format's decoder: each value is one product, or one product and one sum,
/// whose factors `d * scale` and `dmin * min` are exact.
///
/// # Panics
/// If there is no such row, `out` is not `k` long, or the format has no kernels.
pub fn decode<S: Token>(s: S, weights: &Weights<'_>, row: usize, out: &mut [f32]) {
    assert!(row < weights.rows, "row {row} of {}", weights.rows);
    assert_eq!(out.len(), weights.k, "values of a row");
    let format = S::row(weights.format).expect("a format with kernels");
    let (panel, lane) = (row / LANES, row % LANES);
    let mut group = Values::ZERO;
    for (g, out) in out.chunks_mut(GROUP).enumerate() {
        (format.values)(s.float(), weights, panel, g, &mut group);
        for (i, out) in out.iter_mut().enumerate() {
            let (scale, value) = (group.scales[i / format.sub][lane], group.values[i][lane]);
            *out = if format.mins { scale.mul_add(value, -group.mins[i / format.sub][lane]) } else { scale * value };
        }
    }
}
