//! What a model file is: the facts that stand beside every figure.

use crate::error::{Error, Result};
use crate::quantize::types::FileType;
use crate::store::{Digest, Hasher};
use crate::ui::Ui;
use engine::file::ModelFile;
use gguf::Gguf;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// A model file.
#[derive(Clone, Debug)]
pub struct Model {
    /// Where it is.
    pub path: PathBuf,
    /// Architecture, size and mixture of formats, as llama-bench words it: `llama 1B Q4_K - Medium`.
    pub kind: String,
    /// Bytes of all tensors.
    pub size: u64,
    /// Numbers in all tensors.
    pub params: u64,
    /// Of the file's bytes, or those of all its parts in order.
    pub sha256: Digest,
}

impl Model {
    /// Reads the header and hashes the file, which also brings it into the system's cache.
    ///
    /// # Errors
    /// The file cannot be read, or is no GGUF.
    pub fn look(path: &Path, ui: Ui) -> Result<Model> {
        let file = ModelFile::open(path)?;
        let gguf = file.parse()?;
        let tensors = gguf.tensors();
        Ok(Model {
            path: path.to_path_buf(),
            kind: kind(&gguf)?,
            size: tensors.iter().map(|t| t.size).sum(),
            params: tensors.iter().map(|t| t.shape.elements()).sum(),
            sha256: hash(path, file.size(), ui)?,
        })
    }

    /// The last part of its path.
    pub fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

fn kind(gguf: &Gguf) -> Result<String> {
    let meta = gguf.meta();
    let arch = meta.str("general.architecture").map_err(engine::Error::from)?;
    let params: u64 = gguf.tensors().iter().map(|t| t.shape.elements()).sum();
    let size = match meta.opt_str("general.size_label") {
        Ok(Some(label)) => label.to_string(),
        _ => rounded(params),
    };
    let mixture = meta.opt_u32("general.file_type").ok().flatten();
    let known = mixture.and_then(FileType::words).map(str::to_string);
    Ok(format!("{arch} {size} {}", known.unwrap_or_else(|| commonest(gguf))))
}

/// `1.2B`, `135M`.
fn rounded(params: u64) -> String {
    match params as f64 {
        n if n >= 1e10 => format!("{:.0}B", n / 1e9),
        n if n >= 1e9 => format!("{:.1}B", n / 1e9),
        n => format!("{:.0}M", n / 1e6),
    }
}

/// The format that most numbers are in.
fn commonest(gguf: &Gguf) -> String {
    let count = |format| gguf.tensors().iter().filter(|t| t.format == format).map(|t| t.shape.elements()).sum::<u64>();
    let format = gguf.tensors().iter().map(|t| t.format).max_by_key(|&f| count(f));
    format.map_or_else(String::new, |f| f.name().to_uppercase())
}

fn hash(path: &Path, size: u64, ui: Ui) -> Result<Digest> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let parts = gguf::split::part_names(name).unwrap_or_else(|| vec![name.to_string()]);
    // Smaller files are hashed before a bar could be read.
    let bar = if size > 1 << 30 { ui } else { Ui::Silent }.bar("hashing", Some(size), 0);
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    for part in parts {
        let path = path.with_file_name(part);
        let mut file = File::open(&path).map_err(Error::io("cannot read", &path))?;
        loop {
            let n = file.read(&mut buffer).map_err(Error::io("cannot read", &path))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            bar.inc(n as u64);
        }
    }
    Ok(hasher.finish().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_words() {
        for (n, text) in
            [(134_515_008, "135M"), (1_235_814_432, "1.2B"), (8_030_261_248, "8.0B"), (70_553_706_496, "71B")]
        {
            assert_eq!(rounded(n), text);
        }
    }
}
