//! Where tensor bytes come from: files of an operating system, or bytes already in memory.
//!
//! Weights are copied once, into the layout of a backend. Files are read, never mapped: a file that is cut or changed is
//! then an error of a read, not a signal, and peak memory is that of the copy.

use crate::error::{Error, Result};
use gguf::{Gguf, TensorInfo};

/// The tensors of a model.
pub trait Source: Sync {
    /// All tensors, in file order.
    fn tensors(&self) -> &[TensorInfo];
    /// The tensor of this name.
    fn tensor(&self, name: &str) -> Option<&TensorInfo>;
    /// Reads `out.len()` bytes of a tensor from `offset` within it, little-endian. Whole blocks only.
    ///
    /// # Errors
    /// The file cannot be read, or ends early.
    fn read(&self, tensor: &TensorInfo, offset: u64, out: &mut [u8]) -> Result<()>;
    /// What the low-rank adapters of the model say that their products are multiplied by; 0 for those that say nothing.
    fn alphas(&self) -> &[f32] {
        &[]
    }
}

/// Ends of the names of the two tensors that a low-rank adapter has for a matrix.
pub const ADAPTER_ENDS: [&str; 2] = [".lora_a", ".lora_b"];

/// The name of one of those two in a model with adapters.
pub fn adapter_tensor(adapter: usize, matrix: &str, end: usize) -> String {
    format!("adapter.{adapter}.{matrix}{}", ADAPTER_ENDS[end])
}

impl Source for Gguf<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        Gguf::tensors(self)
    }

    fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        Gguf::tensor(self, name)
    }

    fn read(&self, tensor: &TensorInfo, offset: u64, out: &mut [u8]) -> Result<()> {
        let all = self.little_endian(tensor);
        let wanted = usize::try_from(offset).ok().and_then(|start| all.get(start..)?.get(..out.len()));
        let wanted = wanted.ok_or_else(|| Error::Internal(format!("{} is not in memory", tensor.name)))?;
        out.copy_from_slice(wanted);
        Ok(())
    }
}

/// A whole tensor as floats. For vectors: norms, biases, factors.
///
/// # Errors
/// The tensor cannot be read, or its format cannot be decoded.
pub fn read_vector(source: &dyn Source, tensor: &TensorInfo) -> Result<Vec<f32>> {
    let decode = tensor.format.decoder().ok_or_else(|| unsupported(tensor))?;
    let mut bytes = vec![0; tensor.size as usize];
    source.read(tensor, 0, &mut bytes)?;
    let mut out = vec![0.0; tensor.shape.elements() as usize];
    decode(&bytes, &mut out);
    Ok(out)
}

/// Bytes that are decoded at a time: whole blocks that stay in a cache.
const PIECE: usize = 64 << 10;

/// Reads every weight and fails at the first that is NaN or infinite. Formats without a decoder are passed over.
/// `progress` hears the bytes done and the bytes in all.
///
/// # Errors
/// Such a weight, by tensor and element, or a file that cannot be read.
pub fn check_finite(source: &dyn Source, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let total = source.tensors().iter().map(|tensor| tensor.size).sum();
    let mut done = 0;
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for tensor in source.tensors() {
        let Some(decode) = tensor.format.decoder() else { continue };
        let (block, len) = (tensor.format.block_bytes(), tensor.format.block_len());
        let at_once = (PIECE / block).max(1);
        for first in (0..tensor.size).step_by(at_once * block) {
            let piece = (tensor.size - first).min((at_once * block) as u64) as usize;
            bytes.resize(piece, 0);
            values.resize(piece / block * len, 0.0);
            source.read(tensor, first, &mut bytes)?;
            decode(&bytes, &mut values);
            finite(tensor, &values, first / block as u64 * len as u64)?;
            done += piece as u64;
            progress(done, total);
        }
    }
    Ok(())
}

/// Fails at a value that is not finite; `first` is the index of the first value in its tensor.
///
/// # Errors
/// The tensor and the element.
pub(crate) fn finite(tensor: &TensorInfo, values: &[f32], first: u64) -> Result<()> {
    match not_finite(values) {
        None => Ok(()),
        Some(i) => Err(Error::NotFinite { name: tensor.name.clone(), index: first + i as u64 }),
    }
}

/// Index of the first value that is not finite.
pub fn not_finite(values: &[f32]) -> Option<usize> {
    // All of them first, in vectors: a search that may end anywhere takes one at a time.
    let odd = values.iter().fold(false, |odd, v| odd | !v.is_finite());
    odd.then(|| values.iter().position(|v| !v.is_finite())).flatten()
}

/// The error for a tensor whose format has no decoder or kernel.
pub fn unsupported(tensor: &TensorInfo) -> Error {
    let known: Vec<_> = gguf::Format::ALL.iter().filter(|f| f.decoder().is_some()).map(|f| f.name()).collect();
    Error::Tensor {
        name: tensor.name.clone(),
        found: format!("format {}, which has no decoder yet", tensor.format.name()),
        expected: format!("one of {}", known.join(", ")),
    }
}
