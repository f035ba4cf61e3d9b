//! From the file's rows to panels, on all workers, reading as it goes.

use super::super::pool::{Arena, Pool, Worker};
use super::{Weight, panel_bytes};
use crate::error::{Error, Result};
use crate::graph::{WeightInfo, WeightKind};
use crate::plan::Plan;
use crate::source::{Source, read_vector, unsupported};
use gguf::TensorInfo;
use kernels::simd::LANES;
use std::sync::{Mutex, PoisonError};

/// A worker reads about this many bytes at a time: they stay in its cache until they are repacked.
const READ_BYTES: usize = 256 << 10;

/// Loads every weight of the plan.
pub fn weights(
    plan: &Plan,
    source: &dyn Source,
    pool: &Pool,
    check: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Weight>> {
    let wanted = &plan.graph().weights;
    let tensor = |w: &WeightInfo| source.tensor(&w.name).ok_or_else(|| Error::Internal(format!("{} is gone", w.name)));
    let sizes = wanted.iter().map(|w| tensor(w).map(|t| t.size)).collect::<Result<Vec<_>>>()?;
    let (mut done, total) = (0, sizes.iter().sum());
    let mut weights = vec![];
    for (info, size) in wanted.iter().zip(sizes) {
        let tensor = tensor(info)?;
        weights.push(match info.kind {
            WeightKind::Vector => {
                let values = read_vector(source, tensor)?;
                if check {
                    check_finite(tensor, &values, 0)?;
                }
                Weight::Vector(values)
            }
            WeightKind::Matrix => panels(info, tensor, source, pool, check)?,
        });
        done += size;
        progress(done, total);
    }
    Ok(weights)
}

fn panels(info: &WeightInfo, tensor: &TensorInfo, source: &dyn Source, pool: &Pool, check: bool) -> Result<Weight> {
    let bytes = panel_bytes(info.format, info.k).ok_or_else(|| unsupported(tensor))?;
    let n = info.rows.div_ceil(LANES);
    let data = Arena::new(n * bytes, false);
    let failure = Mutex::new(None);
    let job = Job { info, tensor, source, check, panel: bytes, data: &data };
    pool.run(|worker| {
        if let Err(e) = job.share(worker, n) {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
        }
    })
    .map_err(Error::Internal)?;
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(Weight::Panels { format: info.format, rows: info.rows, k: info.k, data }),
    }
}

/// One matrix on its way into panels.
struct Job<'a> {
    info: &'a WeightInfo,
    tensor: &'a TensorInfo,
    source: &'a dyn Source,
    check: bool,
    panel: usize,
    data: &'a Arena,
}

impl Job<'_> {
    /// Reads and repacks this worker's panels.
    fn share(&self, worker: Worker, n: usize) -> Result<()> {
        let WeightInfo { format, rows, k, .. } = *self.info;
        let row = self.tensor.size as usize / rows;
        let at_once = (READ_BYTES / (row * LANES)).max(1);
        let mut bytes = vec![0; at_once * row * LANES];
        let mine = worker.share(n);
        let out = self.data.claim::<u8>(worker, mine.start * self.panel..mine.end * self.panel);
        for (i, panels) in out.chunks_mut(at_once * self.panel).enumerate() {
            let first = (mine.start + i * at_once) * LANES;
            let last = (first + panels.len() / self.panel * LANES).min(rows);
            let bytes = &mut bytes[..(last - first) * row];
            self.source.read(self.tensor, (first * row) as u64, bytes)?;
            if self.check {
                self.check_rows(bytes, row, first)?;
            }
            for (panel, rows) in panels.chunks_exact_mut(self.panel).zip(bytes.chunks(row * LANES)) {
                kernels::panel::repack(format, k, rows, panel);
            }
        }
        Ok(())
    }

    fn check_rows(&self, bytes: &[u8], row: usize, first: usize) -> Result<()> {
        let decode = self.info.format.decoder().ok_or_else(|| unsupported(self.tensor))?;
        let mut values = vec![0.0; self.info.k];
        for (i, bytes) in bytes.chunks_exact(row).enumerate() {
            decode(bytes, &mut values);
            check_finite(self.tensor, &values, ((first + i) * self.info.k) as u64)?;
        }
        Ok(())
    }
}

fn check_finite(tensor: &TensorInfo, values: &[f32], first: u64) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::NotFinite { name: tensor.name.clone(), index: first + i as u64 }),
    }
}
