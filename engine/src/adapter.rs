//! Low-rank adapters (Hu et al., 2021): `y = W x + s * B (A x)` where a file has `A` and `B` for a matrix `W`.
//!
//! Nothing is merged: a product with `W` is followed by two small ones, so that each sequence of a batch has its own
//! adapters at its own strengths, and what it gets is the same bits in whatever company. Adapters of embeddings, which
//! are looked up, and of experts are refused.
//!
//! ```text
//! general.type = "adapter", adapter.type = "lora", adapter.lora.alpha
//! NAME.lora_a  {inputs, rank}        NAME.lora_b  {rank, outputs}
//! ```

use crate::error::{Error, Result};
use crate::file::{FileSource, ModelFile};
use crate::source::{ADAPTER_ENDS as ENDS, Source};
use gguf::{Gguf, TensorInfo};
use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

/// An adapter to load beside a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Its file.
    pub path: PathBuf,
    /// How strong it is for requests that do not say: 1 as it was trained, 0 not at all.
    pub scale: f32,
}

impl FromStr for Adapter {
    type Err = String;

    /// `FILE` or `FILE:SCALE`.
    fn from_str(text: &str) -> Result<Adapter, String> {
        let (path, scale) = match text.rsplit_once(':') {
            Some((path, scale)) if !path.is_empty() => match scale.parse::<f32>() {
                Ok(scale) => (path, scale),
                Err(_) => (text, 1.0),
            },
            _ => (text, 1.0),
        };
        if path.is_empty() || !scale.is_finite() {
            return Err("expected FILE or FILE:SCALE, as in style.gguf:0.5".into());
        }
        Ok(Adapter { path: path.into(), scale })
    }
}

/// Opens the files of adapters.
///
/// # Errors
/// One that cannot be opened.
pub fn open(adapters: &[Adapter]) -> Result<Vec<ModelFile>> {
    adapters.iter().map(|a| ModelFile::open(&a.path)).collect()
}

/// A model with its adapters: one source of tensors.
pub struct Adapted<'a> {
    base: &'a dyn Source,
    layers: Vec<FileSource<'a>>,
    /// The model's, then the adapters'.
    tensors: Vec<TensorInfo>,
    /// By name where one of the adapters' stands, which adapter it is of, and which of its tensors.
    index: HashMap<String, [usize; 3]>,
    alphas: Vec<f32>,
}

impl<'a> Adapted<'a> {
    /// Puts adapters on a model of this architecture.
    ///
    /// # Errors
    /// A file that is no adapter, or one of another model.
    pub fn new(
        base: &'a dyn Source,
        arch: &str,
        files: &'a [ModelFile],
        parsed: &[Gguf],
        adapters: &[Adapter],
    ) -> Result<Adapted<'a>> {
        let mut all =
            Adapted { base, layers: vec![], tensors: base.tensors().to_vec(), index: HashMap::new(), alphas: vec![] };
        for (i, ((file, gguf), adapter)) in files.iter().zip(parsed).zip(adapters).enumerate() {
            let expect = |key: &str, expected: &str| -> Result<()> {
                match gguf.meta().opt_str(key)? {
                    Some(found) if found == expected => Ok(()),
                    found => Err(Error::Key {
                        key: format!("{key} of {}", adapter.path.display()),
                        found: found.map_or("missing".into(), |text| format!("\"{text}\"")),
                        expected: format!("\"{expected}\""),
                    }),
                }
            };
            expect("general.type", "adapter")?;
            expect("adapter.type", "lora")?;
            expect("general.architecture", arch)?;
            all.alphas.push(gguf.meta().opt_f32("adapter.lora.alpha")?.unwrap_or(0.0));
            for (at, tensor) in gguf.tensors().iter().enumerate() {
                check(base, gguf, tensor)?;
                let name = format!("adapter.{i}.{}", tensor.name);
                all.index.insert(name.clone(), [all.tensors.len(), i, at]);
                all.tensors.push(TensorInfo { name, ..tensor.clone() });
            }
            all.layers.push(file.source(gguf));
        }
        Ok(all)
    }
}

/// Fails unless a tensor is one of two for a matrix of the model.
fn check(base: &dyn Source, gguf: &Gguf, tensor: &TensorInfo) -> Result<()> {
    let fault =
        |found: &str, expected: String| Err(Error::Tensor { name: tensor.name.clone(), found: found.into(), expected });
    let Some(end) = ENDS.iter().position(|end| tensor.name.ends_with(end)) else {
        return fault("no part of an adapter", format!("a name that ends with {}", ENDS.join(" or ")));
    };
    let matrix = &tensor.name[..tensor.name.len() - ENDS[end].len()];
    let Some(of) = base.tensor(matrix) else {
        return fault("an adapter of a tensor that the model does not have", "one of the model's matrices".into());
    };
    if matrix == "token_embd.weight" || of.shape.dims().len() != 2 {
        return fault("an adapter of an embedding or of experts", "adapters of other matrices".into());
    }
    let Some(other) = gguf.tensor(&format!("{matrix}{}", ENDS[1 - end])) else {
        return fault("half of an adapter", format!("{matrix}{} beside it", ENDS[1 - end]));
    };
    let (a, b) = if end == 0 { (tensor, other) } else { (other, tensor) };
    let [k, rows] = [of.shape.dims()[0], of.shape.dims()[1]];
    let rank = a.shape.dims().get(1).copied().unwrap_or(1);
    let fits = |t: &TensorInfo, dims: [u64; 2]| {
        let found = t.shape.dims();
        found[0] == dims[0] && found.get(1).copied().unwrap_or(1) == dims[1] && found.len() <= 2
    };
    if !fits(a, [k, rank]) || !fits(b, [rank, rows]) {
        let found = format!("shapes {:?} and {:?}", a.shape.dims(), b.shape.dims());
        return fault(&found, format!("shapes [{k}, rank] and [rank, {rows}]"));
    }
    Ok(())
}

impl Source for Adapted<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        match self.index.get(name) {
            None => self.base.tensor(name),
            Some(&[place, ..]) => Some(&self.tensors[place]),
        }
    }

    fn read(&self, tensor: &TensorInfo, offset: u64, out: &mut [u8]) -> Result<()> {
        match self.index.get(&tensor.name) {
            None => self.base.read(tensor, offset, out),
            Some(&[_, layer, at]) => self.layers[layer].read(&self.layers[layer].tensors()[at], offset, out),
        }
    }

    fn alphas(&self) -> &[f32] {
        &self.alphas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_strength() {
        let parse = |text: &str| text.parse::<Adapter>();
        let adapter = |path: &str, scale| Ok(Adapter { path: path.into(), scale });
        assert_eq!(parse("a.gguf"), adapter("a.gguf", 1.0));
        assert_eq!(parse("a.gguf:0.5"), adapter("a.gguf", 0.5));
        assert_eq!(parse("C:a.gguf"), adapter("C:a.gguf", 1.0));
        assert!(parse("").is_err() && parse("a:inf").is_err());
    }
}
