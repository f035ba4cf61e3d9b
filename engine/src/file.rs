//! Model files of an operating system: opened once, mapped while their header is parsed, then read.
//!
//! Nothing of the mapping is kept: the weights are read into the backend's layout. A file that is cut or replaced
//! later changes nothing, and one that changes during the load is found out by its length and time.

use crate::error::{Error, Result};
use crate::source::Source;
use gguf::{Endian, Gguf, TensorInfo};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

/// The parts of a model on disk.
pub struct ModelFile {
    parts: Vec<Part>,
}

struct Part {
    path: PathBuf,
    file: File,
    opened: Metadata,
    map: memmap2::Mmap,
}

impl ModelFile {
    /// Opens a model file and, where its name says that it is one of several, all of them.
    ///
    /// # Errors
    /// A part that cannot be opened, or is no file.
    pub fn open(path: &Path) -> Result<ModelFile> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let paths = match gguf::split::part_names(name) {
            Some(names) => names.iter().map(|n| path.with_file_name(n)).collect(),
            None => vec![path.to_path_buf()],
        };
        Ok(ModelFile { parts: paths.into_iter().map(Part::open).collect::<Result<_>>()? })
    }

    /// Parses the header.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub fn parse(&self) -> Result<Gguf<'_>> {
        let bytes: Vec<&[u8]> = self.parts.iter().map(|p| &p.map[..]).collect();
        Ok(match bytes[..] {
            [one] => Gguf::parse(one)?,
            _ => Gguf::parse_split(&bytes)?,
        })
    }

    /// Bytes of all parts.
    pub fn size(&self) -> u64 {
        self.parts.iter().map(|p| p.opened.len()).sum()
    }

    /// The tensors, read from the files as they are wanted.
    pub fn source(&self, gguf: &Gguf) -> FileSource<'_> {
        let tensors = gguf.tensors().to_vec();
        let index = tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), i)).collect();
        FileSource { file: self, tensors, index, endian: gguf.endian() }
    }

    /// Fails if a file is not what it was when it was opened.
    ///
    /// # Errors
    /// The part that changed.
    pub fn check_unchanged(&self) -> Result<()> {
        self.parts.iter().try_for_each(Part::check_unchanged)
    }
}

impl Part {
    fn open(path: PathBuf) -> Result<Part> {
        let io = |source| Error::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        let opened = file.metadata().map_err(io)?;
        if !opened.is_file() {
            return Err(io(std::io::Error::other("it is no regular file")));
        }
        // SAFETY: the mapping is read-only and private to this value; it is read only while the header is parsed,
        // right after the length was taken from the open file.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Part { path, file, opened, map })
    }

    fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|source| Error::Io { path: self.path.clone(), source })?;
        if now.len() == self.opened.len() && now.modified().ok() == self.opened.modified().ok() {
            return Ok(());
        }
        let detail = format!("it had {} bytes, now {}", self.opened.len(), now.len());
        Err(Error::Changed { path: self.path.clone(), detail })
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, offset, out).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let detail = format!("it ends before byte {}", offset + out.len() as u64);
                Error::Changed { path: self.path.clone(), detail }
            }
            _ => Error::Io { path: self.path.clone(), source },
        })
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> std::io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => {
                offset += n as u64;
                out = &mut out[n..];
            }
        }
    }
    Ok(())
}

/// The tensors of a [`ModelFile`].
pub struct FileSource<'a> {
    file: &'a ModelFile,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    endian: Endian,
}

impl Source for FileSource<'_> {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).map(|&i| &self.tensors[i])
    }

    fn read(&self, tensor: &TensorInfo, offset: u64, out: &mut [u8]) -> Result<()> {
        self.file.parts[tensor.part].read_at(tensor.offset + offset, out)?;
        if self.endian == Endian::Big {
            tensor.format.swap_bytes(out);
        }
        Ok(())
    }
}
