//! Model files of an operating system: opened once and read, never mapped.
//!
//! The header is parsed from a copy of the file's start, the weights are read into the backend's layout. So a file that is
//! cut or changed while it loads ends a read early or is found out by its length and time: an error, where a mapping would
//! be a signal. What happens to it later changes nothing.

use crate::error::{Error, Result};
use crate::source::Source;
use gguf::{Endian, Gguf, Part, TensorInfo};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Bytes of a file's start that are read for its header, the next where one is too few: headers of small models have
/// up to 2 MiB, those with a vocabulary of 262,144 tokens 6 MiB. No header in use comes near the last.
const HEADS: [u64; 4] = [2 << 20, 8 << 20, 32 << 20, 256 << 20];

/// The files of a model on disk.
pub struct ModelFile {
    parts: Vec<OnDisk>,
}

/// One file.
struct OnDisk {
    path: PathBuf,
    file: File,
    opened: Metadata,
    /// Its start, in as many sizes as were needed.
    heads: [OnceLock<Vec<u8>>; HEADS.len()],
    tail: OnceLock<Vec<u8>>,
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
        Ok(ModelFile { parts: paths.into_iter().map(OnDisk::open).collect::<Result<_>>()? })
    }

    /// Parses the header.
    ///
    /// # Errors
    /// What is wrong with the file, and where.
    pub fn parse(&self) -> Result<Gguf<'_>> {
        let mut sizes = vec![0; self.parts.len()];
        loop {
            let parts = self.parts.iter().zip(&sizes).map(|(part, &size)| part.ends(size));
            let parts = parts.collect::<Result<Vec<_>>>()?;
            match Gguf::parse_parts(&parts) {
                Err(error) => match error.more_needed() {
                    Some((part, need)) if need <= HEADS[HEADS.len() - 1] => {
                        sizes[part] = HEADS.iter().position(|&head| head >= need).unwrap_or(HEADS.len() - 1);
                    }
                    Some((part, need)) => return Err(self.parts[part].too_long(need)),
                    None => return Err(error.into()),
                },
                Ok(gguf) => return Ok(gguf),
            }
        }
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
        self.parts.iter().try_for_each(OnDisk::check_unchanged)
    }
}

impl OnDisk {
    fn open(path: PathBuf) -> Result<OnDisk> {
        let io = |source| Error::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        let opened = file.metadata().map_err(io)?;
        if !opened.is_file() {
            return Err(io(std::io::Error::other("it is no regular file")));
        }
        Ok(OnDisk { path, file, opened, heads: Default::default(), tail: OnceLock::new() })
    }

    /// Its start, in one of the sizes of [`HEADS`], and its end.
    fn ends(&self, size: usize) -> Result<Part<'_>> {
        let len = self.opened.len();
        let head = self.keep(&self.heads[size], 0, len.min(HEADS[size]))?;
        if len <= HEADS[size] {
            return Ok(Part::whole(head));
        }
        let last = len.min(Part::TAIL);
        Ok(Part::ends(head, self.keep(&self.tail, len - last, last)?, len))
    }

    /// Bytes of the file, read where they are not yet in memory.
    fn keep<'a>(&self, cell: &'a OnceLock<Vec<u8>>, offset: u64, len: u64) -> Result<&'a [u8]> {
        if let Some(bytes) = cell.get() {
            return Ok(bytes);
        }
        let mut bytes = vec![0; len as usize];
        self.read_at(offset, &mut bytes)?;
        Ok(cell.get_or_init(|| bytes))
    }

    fn too_long(&self, need: u64) -> Error {
        let most = HEADS[HEADS.len() - 1];
        let text = format!("its header goes on to byte {need} at least, expected it to end within {most} bytes");
        Error::Io { path: self.path.clone(), source: std::io::Error::other(text) }
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

/// Fills `out` with the bytes of a file from `offset` on.
///
/// # Errors
/// The file cannot be read, or ends early.
#[cfg(unix)]
pub fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

/// Fills `out` with the bytes of a file from `offset` on.
///
/// # Errors
/// The file cannot be read, or ends early.
#[cfg(windows)]
pub fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> std::io::Result<()> {
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
