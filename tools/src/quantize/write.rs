//! Writing a model larger than memory: pieces of tensors are made on all cores and written in order, to a temporary file
//! that gets its name when it is whole.

use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};

use engine::source::not_finite;
use gguf::{Builder, Format};
use rayon::prelude::*;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::store::{folder_of, place, temporary};
use crate::ui::Ui;
use crate::ui::format::printable;

/// Numbers in a piece: whole blocks of every format.
const PIECE: u64 = 1 << 18;
/// Pieces of a thread that are made before the next are begun. Three times as many are in memory at most: being made,
/// waiting and being written.
const PIECES: usize = 8;

/// A tensor to be written.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its dimensions, the length of a row first.
    pub dims: Vec<u64>,
    /// Its format.
    pub format: Format,
}

impl Planned {
    fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Bytes of so many elements.
    fn bytes(&self, elements: u64) -> u64 {
        elements / self.format.block_len() as u64 * self.format.block_bytes() as u64
    }
}

/// Where a model goes and how it is made.
pub struct Job<'a> {
    /// The file.
    pub path: &'a Path,
    /// Threads; one a core where none are given.
    pub threads: Option<usize>,
    /// Where progress is shown.
    pub ui: Ui,
    /// Whether Ctrl-C ends it and removes what was written; false where the process has other things to do then.
    pub stoppable: bool,
}

impl Job<'_> {
    /// Writes a model: `head` holds the metadata, `make` makes the bytes of a range of elements of a tensor, which are
    /// whole blocks of its format.
    ///
    /// # Errors
    /// The first error of `make`, or the file cannot be written.
    pub fn write<F>(&self, mut head: Builder, tensors: &[Planned], make: F) -> Result<Whole<'_>>
    where
        F: Fn(usize, Range<u64>) -> Result<Vec<u8>> + Sync,
    {
        for t in tensors {
            head.tensor(&t.name, &t.dims, t.format)?;
        }
        let total: u64 = tensors.iter().map(|t| t.bytes(t.elements())).sum();
        self.room(total)?;
        let stop = if self.stoppable { interrupt()? } else { Arc::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(0)).build();
        let pool = pool.map_err(|e| Error::Usage(format!("threads cannot be started: {e}")))?;
        let file = temporary(folder_of(self.path))?;
        let bar = self.ui.bar("writing", Some(total), 0);
        let written = |e: gguf::Error| match e {
            gguf::Error::Io(e) => Error::io("cannot write", self.path)(e),
            e => e.into(),
        };
        let out = head.start(BufWriter::with_capacity(1 << 20, file)).map_err(written)?;
        // What is made is written while the next is made.
        let (send, receive) = mpsc::sync_channel::<Vec<Vec<u8>>>(1);
        let out = std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut out = out;
                for blocks in receive.into_iter().flatten() {
                    out.data(&blocks)?;
                    bar.inc(blocks.len() as u64);
                }
                Ok(out)
            });
            let made = self.make(&pool, tensors, &stop, &make, &send);
            drop(send);
            let out = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map_err(written);
            made.and(out)
        })?;
        let file = out.finish().map_err(written)?.into_inner();
        let file = file.map_err(|e| Error::io("cannot write", self.path)(e.into_error()))?;
        Ok(Whole { path: self.path, file })
    }

    /// Makes all pieces, on all cores, and sends them on in their order; ends early where nobody takes them any more.
    fn make<F>(
        &self,
        pool: &rayon::ThreadPool,
        tensors: &[Planned],
        stop: &AtomicBool,
        make: &F,
        send: &SyncSender<Vec<Vec<u8>>>,
    ) -> Result<()>
    where
        F: Fn(usize, Range<u64>) -> Result<Vec<u8>> + Sync,
    {
        for batch in pieces(tensors).chunks(PIECES * pool.current_num_threads()) {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted(printable(&self.path.display().to_string())));
            }
            let made = pool.install(|| {
                batch.par_iter().map(|(tensor, range)| make(*tensor, range.clone())).collect::<Result<Vec<_>>>()
            })?;
            if send.send(made).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn room(&self, needed: u64) -> Result<()> {
        let folder = folder_of(self.path);
        let free = fs4::available_space(folder).map_err(Error::io("cannot write in", folder))?;
        if needed > free {
            let what = printable(&self.path.display().to_string());
            return Err(Error::Space { what, path: folder.into(), needed, free });
        }
        Ok(())
    }
}

/// A model that is written but has no name yet. Dropping it deletes it.
pub struct Whole<'a> {
    path: &'a Path,
    file: NamedTempFile,
}

impl Whole<'_> {
    /// Where it is written until then.
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    /// Gives it its name, in place of an older file. Answers with its size.
    ///
    /// # Errors
    /// The file cannot be synced or renamed; then an older one is still there.
    pub fn keep(self) -> Result<u64> {
        let size = self.file.as_file().metadata().map_err(Error::io("cannot read", self.path))?.len();
        place(self.file, self.path)?;
        Ok(size)
    }
}

/// A flag that Ctrl-C sets, so that the temporary file can be removed.
fn interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))
        .map_err(|e| Error::Usage(format!("Ctrl-C cannot be handled: {e}")))?;
    Ok(stop)
}

/// All tensors, cut.
fn pieces(tensors: &[Planned]) -> Vec<(usize, Range<u64>)> {
    let cut = |(i, t): (usize, &Planned)| {
        let n = t.elements();
        (0..n).step_by(PIECE as usize).map(move |at| (i, at..n.min(at + PIECE)))
    };
    tensors.iter().enumerate().flat_map(cut).collect()
}

/// Fails at a number that is not finite; `first` is the index of the first in its tensor.
///
/// # Errors
/// The tensor, the number and where it is.
pub fn check(tensor: &str, values: &[f32], first: u64) -> Result<()> {
    let Some(i) = not_finite(values) else { return Ok(()) };
    let (name, at) = (printable(tensor), first + i as u64);
    Err(Error::Usage(format!("tensor {name}, number {at} is {}: expected finite numbers", values[i])))
}

/// Numbers, with the importance of each where it is known, as blocks of a format.
///
/// # Panics
/// If there is no encoder: recipes choose only formats that have one.
pub fn encode(values: &[f32], importance: Option<&[f32]>, format: Format) -> Vec<u8> {
    let mut blocks = vec![0; values.len() / format.block_len() * format.block_bytes()];
    format.encoder().expect("a format that can be written")(values, importance, &mut blocks);
    blocks
}
