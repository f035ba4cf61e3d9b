//! The importance of columns, as `handmill imatrix` and llama.cpp's tool measure it: for each matrix the mean square of
//! each of its inputs over a text.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use engine::file::ModelFile;
use engine::source::read_vector;
use gguf::{Builder, TensorInfo};

use crate::error::{Error, Result};
use crate::ui::format::printable;

/// Ends of the names of the two tensors of a matrix.
pub const SUMS: &str = ".in_sum2";
/// How many rows were summed, one number a matrix.
pub const COUNTS: &str = ".counts";
/// The texts that were read.
pub const DATASETS: &str = "imatrix.datasets";
/// How many chunks of them.
pub const CHUNK_COUNT: &str = "imatrix.chunk_count";
/// Tokens of a chunk.
pub const CHUNK_SIZE: &str = "imatrix.chunk_size";

/// The importance of the columns of every matrix that was measured.
#[derive(Debug)]
pub struct Importance {
    file: String,
    datasets: Vec<String>,
    chunks: Option<u32>,
    by_name: HashMap<String, Vec<f32>>,
}

impl Importance {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no GGUF of this kind, or its tensors contradict each other.
    pub fn read(path: &Path) -> Result<Importance> {
        let fault = |why: String| Error::Folder { path: path.into(), why };
        let file = ModelFile::open(path)?;
        let gguf = file.parse()?;
        let source = file.source(&gguf);
        let mut by_name = HashMap::new();
        for sums in gguf.tensors() {
            let Some(name) = sums.name.strip_suffix(SUMS) else { continue };
            let counts = gguf.tensor(&format!("{name}{COUNTS}"));
            let counts = counts.ok_or_else(|| fault(format!("has {} without its counts", printable(&sums.name))))?;
            let (mut values, counts) = (read_vector(&source, sums)?, read_vector(&source, counts)?);
            let k = sums.shape.k() as usize;
            if values.len() != k * counts.len() || values.iter().chain(&counts).any(|v| !v.is_finite() || *v < 0.0) {
                let why = format!("has {} that is no {} rows of sums of squares", printable(&sums.name), counts.len());
                return Err(fault(why));
            }
            for (values, &count) in values.chunks_exact_mut(k).zip(&counts) {
                // A matrix that no token came by has no column that matters more than another.
                values.iter_mut().for_each(|v| *v = if count > 0.0 { *v / count } else { 1.0 });
                let mean = values.iter().sum::<f32>() / k as f32;
                // What never was anything but zero keeps a small say: all weights would be of no account otherwise.
                values.iter_mut().for_each(|v| *v = if mean > 0.0 { *v / mean + 1e-6 } else { 1.0 });
            }
            by_name.insert(name.to_string(), values);
        }
        if by_name.is_empty() {
            return Err(fault(format!("has no tensor that ends with {SUMS}: expected a file of handmill imatrix")));
        }
        let datasets = gguf.meta().opt_strings(DATASETS)?;
        let texts = datasets.iter().flat_map(|all| all.strings().map(|t| String::from_utf8_lossy(t).into_owned()));
        Ok(Importance {
            file: path.display().to_string(),
            datasets: texts.collect(),
            chunks: gguf.meta().opt_u32(CHUNK_COUNT)?,
            by_name,
        })
    }

    /// That of a range of a tensor's elements; none where the tensor was not measured.
    pub fn of(&self, t: &TensorInfo, range: Range<u64>) -> Option<Vec<f32>> {
        let values = self.by_name.get(&t.name)?;
        let (k, rows) = (t.shape.k(), t.shape.dims().get(1).copied().unwrap_or(1));
        let at = |i: u64| values[(i / (k * rows) * k + i % k) as usize];
        Some(range.map(at).collect())
    }

    /// Fails if a measured tensor has other columns in the model.
    ///
    /// # Errors
    /// The tensor.
    pub fn check(&self, t: &TensorInfo) -> Result<()> {
        let Some(values) = self.by_name.get(&t.name) else { return Ok(()) };
        let expected = t.shape.k() * t.shape.dims().get(2).copied().unwrap_or(1);
        if values.len() as u64 == expected {
            return Ok(());
        }
        let name = printable(&t.name);
        Err(Error::Usage(format!(
            "{}: {} columns of {name} were measured, the model has {expected}: it is of another model",
            self.file,
            values.len()
        )))
    }

    /// Writes what llama.cpp's tools write of it into a model's metadata.
    ///
    /// # Errors
    /// The keys are there already.
    pub fn keys(&self, head: &mut Builder) -> Result<()> {
        head.key("quantize.imatrix.file", self.file.clone())?;
        if let [one] = self.datasets.as_slice() {
            head.key("quantize.imatrix.dataset", one.clone())?;
        }
        head.key("quantize.imatrix.entries_count", self.by_name.len() as u32)?;
        self.chunks.map_or(Ok(()), |n| Ok(head.key("quantize.imatrix.chunks_count", n)?))
    }
}
