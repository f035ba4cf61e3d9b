//! From the file's rows to panels, on all workers, reading as it goes.

use super::super::pool::{Arena, Piece, Pool};
use super::{Weight, panel_bytes};
use crate::error::{Error, Result};
use crate::graph::{Graph, WeightInfo, WeightKind};
use crate::plan::{ALIGN, Plan};
use crate::source::{Source, finite, read_vector, unsupported};
use gguf::TensorInfo;
use kernels::simd::LANES;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// A worker reads about this many bytes at a time: they stay in its cache until they are repacked.
const READ_BYTES: usize = 256 << 10;
/// Progress is told each time that this much was read.
const REPORT_BYTES: usize = 32 << 20;

/// The weights of a model as the kernels read them.
pub struct Weights {
    /// One for each weight of the graph.
    pub list: Vec<Weight>,
    /// All panels, one matrix after the other: in one piece, so that even small ones lie in huge pages.
    pub panels: Arc<Arena>,
}

/// Weights that are in memory, for another plan over the same file: one that gives states in place of logits, say.
#[derive(Clone)]
pub struct Shared {
    infos: Arc<[WeightInfo]>,
    weights: Arc<Weights>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} weights", self.infos.len())
    }
}

impl Shared {
    /// The weights of a graph.
    pub(super) fn new(graph: &Graph, weights: &Arc<Weights>) -> Shared {
        Shared { infos: graph.weights.clone().into(), weights: weights.clone() }
    }

    fn at<'a>(&'a self, graph: &'a Graph) -> impl Iterator<Item = Option<usize>> + 'a {
        graph.weights.iter().map(|wanted| self.infos.iter().position(|info| info == wanted))
    }

    /// Whether these are all that a graph needs.
    pub fn cover(&self, graph: &Graph) -> bool {
        self.at(graph).all(|found| found.is_some())
    }

    /// The weights of a graph, where all of them are here.
    pub(super) fn of(&self, graph: &Graph) -> Option<Weights> {
        let list = self.at(graph).map(|found| Some(self.weights.list[found?].clone())).collect::<Option<_>>()?;
        Some(Weights { list, panels: self.weights.panels.clone() })
    }
}

/// Loads every weight of the plan.
pub fn weights(
    plan: &Plan,
    source: &dyn Source,
    pool: &Pool,
    check: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Weights> {
    let (mut list, mut jobs, mut end) = (vec![], vec![], 0);
    for info in &plan.graph().weights {
        let tensor = source.tensor(&info.name).ok_or_else(|| Error::Internal(format!("{} is gone", info.name)))?;
        list.push(match info.kind {
            WeightKind::Vector => {
                let mut values = read_vector(source, tensor)?;
                values.truncate(info.first + info.k);
                values.drain(..info.first);
                if check {
                    finite(tensor, &values, 0)?;
                }
                Weight::Vector(values)
            }
            WeightKind::Matrix => {
                let panel = panel_bytes(info.format, info.k).ok_or_else(|| unsupported(tensor))?;
                let n = info.rows.div_ceil(LANES);
                let place = end..end + info.experts * n * panel;
                end = place.end.next_multiple_of(ALIGN);
                let at_once = (READ_BYTES / (row_bytes(info) * LANES)).max(1);
                jobs.extend((0..info.experts).flat_map(|expert| {
                    let (first, start) = (info.first + expert * info.rows, place.start + expert * n * panel);
                    (0..n).step_by(at_once).map(move |panels| Job {
                        info,
                        tensor,
                        panel,
                        rows: first + panels * LANES..first + ((panels + at_once) * LANES).min(info.rows),
                        place: start + panels * panel,
                    })
                }));
                let &WeightInfo { format, rows, k, experts, .. } = info;
                Weight::Panels { format, rows, k, experts, place }
            }
        });
    }
    let panels = Arc::new(Arena::new(end, false)?);
    repack(&jobs, &Target { source, pool, check, panels: &panels }, progress)?;
    Ok(Weights { list, panels })
}

/// Bytes of a row in the file.
fn row_bytes(info: &WeightInfo) -> usize {
    info.k / info.format.block_len() * info.format.block_bytes()
}

/// Where panels come from and go.
struct Target<'a> {
    source: &'a dyn Source,
    pool: &'a Pool,
    check: bool,
    panels: &'a Arena,
}

/// Runs all jobs, some at a time, on all workers.
fn repack(jobs: &[Job], target: &Target, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let total = jobs.iter().map(|job| job.bytes() as u64).sum();
    let (mut done, mut rest) = (0, jobs);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |job: &&Job| {
            let first = bytes < REPORT_BYTES;
            bytes += job.bytes();
            first
        };
        let many = rest.iter().take_while(fits).count();
        let (now, later) = rest.split_at(many);
        let failure = Mutex::new(None);
        let one = |piece: Piece| {
            if let Err(e) = now[piece.index].run(piece, target) {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            }
        };
        target.pool.run(now.len(), one).map_err(Error::Internal)?;
        if let Some(e) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(e);
        }
        done += now.iter().map(|job| job.bytes() as u64).sum::<u64>();
        progress(done, total);
        rest = later;
    }
    Ok(())
}

/// Some panels of a matrix on their way from the file.
struct Job<'a> {
    info: &'a WeightInfo,
    tensor: &'a TensorInfo,
    /// Bytes of a panel.
    panel: usize,
    /// Their rows in the tensor.
    rows: Range<usize>,
    /// Where the first of them goes.
    place: usize,
}

impl Job<'_> {
    /// Bytes of the file.
    fn bytes(&self) -> usize {
        self.rows.len() * row_bytes(self.info)
    }

    /// Reads and repacks.
    fn run(&self, piece: Piece, target: &Target) -> Result<()> {
        let (row, first) = (row_bytes(self.info), self.rows.start);
        let mut bytes = vec![0; self.bytes()];
        target.source.read(self.tensor, (first * row) as u64, &mut bytes)?;
        if target.check {
            self.check_rows(&bytes, row, first)?;
        }
        let out =
            target.panels.claim::<u8>(piece, self.place..self.place + self.rows.len().div_ceil(LANES) * self.panel);
        for (panel, rows) in out.chunks_exact_mut(self.panel).zip(bytes.chunks(row * LANES)) {
            kernels::panel::repack(self.info.format, self.info.k, rows, panel);
        }
        Ok(())
    }

    fn check_rows(&self, bytes: &[u8], row: usize, first: usize) -> Result<()> {
        let decode = self.info.format.decoder().ok_or_else(|| unsupported(self.tensor))?;
        let mut values = vec![0.0; self.info.k];
        for (i, bytes) in bytes.chunks_exact(row).enumerate() {
            decode(bytes, &mut values);
            finite(self.tensor, &values, ((first + i) * self.info.k) as u64)?;
        }
        Ok(())
    }
}
