//! Where tensor bytes come from: files of an operating system, or bytes already in memory.
//!
//! Weights are copied once, into the layout of a backend. Files are read, never mapped while a model runs: a file
//! that is cut or changed is then an error of a read, not a signal, and peak memory is that of the copy.

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
        out.copy_from_slice(&all[offset as usize..][..out.len()]);
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

/// The error for a tensor whose format has no decoder or kernel.
pub fn unsupported(tensor: &TensorInfo) -> Error {
    let known: Vec<_> = gguf::Format::ALL.iter().filter(|f| f.decoder().is_some()).map(|f| f.name()).collect();
    Error::Tensor {
        name: tensor.name.clone(),
        found: format!("format {}, which has no decoder yet", tensor.format.name()),
        expected: format!("one of {}", known.join(", ")),
    }
}
