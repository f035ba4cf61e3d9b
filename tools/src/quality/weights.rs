//! How far the matrices of two files are apart.

use std::path::Path;

use engine::file::{FileSource, ModelFile};
use engine::source::{Source, unsupported};
use gguf::{Format, TensorInfo};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::ui::Ui;
use crate::ui::format::printable;

/// Numbers that are compared at a time: whole blocks of every format.
const PIECE: u64 = 1 << 18;

/// A matrix in both files.
pub struct Compared {
    /// Its name.
    pub name: String,
    /// Its format in the candidate.
    pub format: Format,
    /// Sums of the squares of the differences, and of the truth's weights.
    pub squares: (f64, f64),
    /// Its weights.
    pub elements: u64,
}

impl Compared {
    /// Root mean square of the difference, relative to that of the weights.
    pub fn error(&self) -> f64 {
        ratio(self.squares)
    }

    /// Root mean square of the difference.
    pub fn rmse(&self) -> f64 {
        (self.squares.0 / self.elements as f64).sqrt()
    }
}

/// The error of all matrices together.
pub fn whole(all: &[Compared]) -> f64 {
    ratio(all.iter().fold((0.0, 0.0), |(a, b), c| (a + c.squares.0, b + c.squares.1)))
}

/// Sums of the squares of the differences, and of the truth's numbers.
pub fn squares(x: &[f32], truth: &[f32]) -> (f64, f64) {
    x.iter()
        .zip(truth)
        .fold((0.0, 0.0), |(a, b), (x, y)| (a + (f64::from(*x) - f64::from(*y)).powi(2), b + f64::from(*y).powi(2)))
}

/// The root of such sums, one relative to the other.
pub fn ratio((error, size): (f64, f64)) -> f64 {
    if error == 0.0 { 0.0 } else { (error / size).sqrt() }
}

/// Compares every tensor of more than one dimension; also the candidate's bytes, and its bits a weight.
///
/// # Errors
/// A file cannot be read, or the candidate has other tensors.
pub fn compare(candidate: &Path, truth: &Path, ui: Ui) -> Result<(Vec<Compared>, u64, f64)> {
    let files = [ModelFile::open(candidate)?, ModelFile::open(truth)?];
    let parsed = [files[0].parse()?, files[1].parse()?];
    let sources = [files[0].source(&parsed[0]), files[1].source(&parsed[1])];
    let matrices: Vec<&TensorInfo> = parsed[0].tensors().iter().filter(|t| t.shape.dims().len() > 1).collect();
    let bar = ui.bar("comparing weights", Some(matrices.iter().map(|t| t.size).sum()), 0);
    let mut all = Vec::new();
    for t in matrices {
        all.push(one(&sources, t, candidate)?);
        bar.inc(t.size);
    }
    let (size, elements) =
        parsed[0].tensors().iter().fold((0, 0), |(size, n), t| (size + t.size, n + t.shape.elements()));
    Ok((all, files[0].size(), size as f64 * 8.0 / elements.max(1) as f64))
}

fn one([ours, theirs]: &[FileSource; 2], t: &TensorInfo, path: &Path) -> Result<Compared> {
    let other = theirs.tensor(&t.name).filter(|other| other.shape == t.shape).ok_or_else(|| {
        let why = format!("has tensor {} of shape {:?}, the truth has not", printable(&t.name), t.shape);
        Error::Folder { path: path.into(), why }
    })?;
    let n = t.shape.elements();
    let pieces: Vec<u64> = (0..n).step_by(PIECE as usize).collect();
    let of_pieces = pieces.par_iter().map(|&first| {
        let count = PIECE.min(n - first);
        let (x, y) = (read(ours, t, first, count)?, read(theirs, other, first, count)?);
        Ok(squares(&x, &y))
    });
    let of_pieces: Vec<(f64, f64)> = of_pieces.collect::<Result<_>>()?;
    let squares = of_pieces.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    Ok(Compared { name: t.name.clone(), format: t.format, squares, elements: n })
}

/// Numbers of a tensor.
fn read(source: &FileSource, t: &TensorInfo, first: u64, count: u64) -> Result<Vec<f32>> {
    let (len, width) = (t.format.block_len() as u64, t.format.block_bytes() as u64);
    let decode = t.format.decoder().ok_or_else(|| unsupported(t))?;
    let mut bytes = vec![0; (count / len * width) as usize];
    source.read(t, first / len * width, &mut bytes)?;
    let mut values = vec![0.0; count as usize];
    decode(&bytes, &mut values);
    Ok(values)
}
