//! The weights of a folder: one file of safetensors, or several that an index lists.
//!
//! Headers are parsed by the `safetensors` crate, which proves that the tensors fill the data without gaps; that the data
//! is as long as the file says is proved here. Files are read in pieces, never mapped and never whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use engine::file::read_exact_at;
use gguf::Format;
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::config::{object, read_json};
use crate::error::{Error, Result};

/// The index of weights in several files.
const INDEX: &str = "model.safetensors.index.json";
/// The file of weights in one.
const SINGLE: &str = "model.safetensors";
/// Most bytes of a header; what the format's own library accepts.
const LONGEST_HEADER: u64 = 100_000_000;

/// A tensor of a folder.
#[derive(Clone, Debug)]
pub struct Stored {
    file: usize,
    /// Where its data begins in the file.
    offset: u64,
    dtype: Dtype,
    /// Dimensions, the length of a row last.
    pub shape: Vec<u64>,
}

impl Stored {
    /// The format with the same bytes, where it is of a float type that is read.
    pub fn format(&self) -> Option<Format> {
        match self.dtype {
            Dtype::F32 => Some(Format::F32),
            Dtype::F16 => Some(Format::F16),
            Dtype::BF16 => Some(Format::BF16),
            _ => None,
        }
    }

    /// Its type in words.
    pub fn type_name(&self) -> String {
        format!("{:?}", self.dtype)
    }
}

/// All tensors of a folder, by name.
pub struct Weights {
    files: Vec<(PathBuf, File)>,
    /// The tensors.
    pub tensors: BTreeMap<String, Stored>,
}

impl Weights {
    /// Opens the files of a folder and reads their headers.
    ///
    /// # Errors
    /// There are no weights in safetensors, a file is no such file, or the index names what is not there.
    pub fn open(folder: &Path) -> Result<Weights> {
        let index = folder.join(INDEX);
        let listed = if index.is_file() { Some(listed(&index)?) } else { None };
        let names: BTreeSet<String> = match &listed {
            Some(map) => map.values().cloned().collect(),
            None => [single(folder)?].into(),
        };
        let mut weights = Weights { files: Vec::new(), tensors: BTreeMap::new() };
        for name in names {
            weights.add(folder.join(name))?;
        }
        for (tensor, file) in listed.into_iter().flatten() {
            let found = weights.tensors.get(&tensor).map(|t| weights.files[t.file].0.as_path());
            if found != Some(folder.join(&file).as_path()) {
                return Err(Error::Folder { path: index, why: format!("says that {tensor} is in {file}: it is not") });
            }
        }
        Ok(weights)
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let file = File::open(&path).map_err(Error::io("cannot read", &path))?;
        let (start, header) = header(&path, &file)?;
        for (name, info) in header.tensors() {
            let stored = Stored {
                file: self.files.len(),
                offset: start + info.data_offsets.0 as u64,
                dtype: info.dtype,
                shape: info.shape.iter().map(|&d| d as u64).collect(),
            };
            if let Some(first) = self.tensors.insert(name.clone(), stored) {
                let why = format!("has tensor {name}, which {} has too", self.files[first.file].0.display());
                return Err(Error::Folder { path, why });
            }
        }
        self.files.push((path, file));
        Ok(())
    }

    /// Bytes of all tensors, whatever their type.
    pub fn bytes(&self) -> u64 {
        let bits = |t: &Stored| t.shape.iter().product::<u64>().saturating_mul(t.dtype.bitsize() as u64);
        self.tensors.values().map(|t| bits(t) / 8).sum()
    }

    /// Reads numbers of a tensor from the `first` on.
    ///
    /// # Errors
    /// The file cannot be read or has become shorter.
    ///
    /// # Panics
    /// If the tensor has no format: those are refused before.
    pub fn read(&self, tensor: &Stored, first: u64, out: &mut [f32]) -> Result<()> {
        let format = tensor.format().expect("a float type");
        let width = format.block_bytes();
        let (path, file) = &self.files[tensor.file];
        let mut bytes = vec![0; out.len() * width];
        read_exact_at(file, tensor.offset + first * width as u64, &mut bytes)
            .map_err(Error::io("cannot read", path))?;
        format.decoder().expect("floats are decoded")(&bytes, out);
        Ok(())
    }
}

/// The file of each tensor that an index lists.
fn listed(path: &Path) -> Result<BTreeMap<String, String>> {
    let fault = |why: String| Error::Folder { path: path.into(), why };
    let json = read_json(path)?;
    let map = object(&json, "weight_map").ok_or_else(|| fault("has no object weight_map".into()))?;
    let mut files = BTreeMap::new();
    for (tensor, file) in map {
        let name = file.as_str().filter(|name| Path::new(name).file_name() == Some(name.as_ref()));
        let name =
            name.ok_or_else(|| fault(format!("{tensor} is in {file}: expected the name of a file beside it")))?;
        files.insert(tensor.clone(), name.to_string());
    }
    match files.is_empty() {
        true => Err(fault("lists no tensor".into())),
        false => Ok(files),
    }
}

/// The name of the one file of weights.
fn single(folder: &Path) -> Result<String> {
    if folder.join(SINGLE).is_file() {
        return Ok(SINGLE.into());
    }
    let entries = std::fs::read_dir(folder).map_err(Error::io("cannot read", folder))?;
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".safetensors")).collect();
    found.sort();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Error::Folder {
            path: folder.into(),
            why: format!("has no {SINGLE} and no {INDEX}: weights in other formats are not read"),
        }),
        n => Err(Error::Folder {
            path: folder.into(),
            why: format!("has {n} files of safetensors but no {INDEX} that says which belong together"),
        }),
    }
}

/// The header of a file, and where its data begins.
fn header(path: &Path, file: &File) -> Result<(u64, Metadata)> {
    let fault = |why: String| Error::Folder { path: path.into(), why };
    let size = file.metadata().map_err(Error::io("cannot read", path))?.len();
    if size < 8 {
        return Err(fault(format!("has {size} bytes: expected 8 bytes of length and a header")));
    }
    let mut length = [0; 8];
    read_exact_at(file, 0, &mut length).map_err(Error::io("cannot read", path))?;
    let length = u64::from_le_bytes(length);
    let most = (size - 8).min(LONGEST_HEADER);
    if length > most {
        return Err(fault(format!("says that its header has {length} bytes: expected at most {most}")));
    }
    let mut text = vec![0; length as usize];
    read_exact_at(file, 8, &mut text).map_err(Error::io("cannot read", path))?;
    let header: Metadata =
        serde_json::from_slice(&text).map_err(|e| fault(format!("has a header that cannot be used: {e}")))?;
    let (found, expected) = (size - 8 - length, header.data_len() as u64);
    if found != expected {
        return Err(fault(format!("has {found} bytes of data: its header lists {expected}")));
    }
    Ok((8 + length, header))
}
