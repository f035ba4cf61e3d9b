//! From the file's rows to the device's layout: threads read and pack pieces while the device copies those before.

use super::adapter::Opened;
use super::merge;
use super::slab::{Place, Slabs};
use crate::error::{Error, Result};
use crate::graph::{Graph, WeightInfo, WeightKind};
use crate::source::{Source, finite, read_vector};
use gguf::TensorInfo;
use shaders::Layout;
use shaders::layout::LANES;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use wgpu::{Buffer, BufferUsages};

/// About as many bytes are packed and handed over at a time.
const PIECE: usize = 4 << 20;
/// The driver may hold copies of about as many bytes before it must have taken them.
const IN_FLIGHT: usize = 64 << 20;
/// More threads than this read no faster.
const THREADS: usize = 8;

/// A part of a matrix that fits a binding, or of several that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Which buffer has its panels.
    pub buffer: usize,
    /// Where its quads begin, in quads.
    pub quads: usize,
    /// Where its words begin, in words.
    pub words: usize,
    /// Its first panel, counted over all experts.
    pub first: usize,
    /// Its panels.
    pub panels: usize,
    /// Bytes of its panels.
    pub bytes: u64,
}

/// Every weight of a graph on the device.
pub struct Weights {
    /// The buffers of all matrices.
    pub buffers: Vec<Buffer>,
    /// The parts of each matrix; none where the weight is a vector, or follows in the parts of another.
    pub matrices: Vec<Vec<Part>>,
    /// Place of each vector in `vectors`, in floats.
    pub places: Vec<u32>,
    /// Place of the slopes of ALiBi in `vectors`.
    pub slopes: u32,
    /// All vectors.
    pub vectors: Buffer,
}

/// Bytes that the weights of a graph take on a device.
pub fn bytes(graph: &Graph) -> u64 {
    let of = |w: &WeightInfo| match (w.kind, Layout::of(w.format)) {
        (WeightKind::Matrix, Some(layout)) => w.experts * w.rows.div_ceil(LANES) * layout.panel_bytes(w.k),
        _ => w.k.next_multiple_of(4) * 4,
    };
    graph.weights.iter().map(|w| of(w) as u64).sum::<u64>() + graph.slopes.len() as u64 * 4
}

/// Fails if the graph has a weight that no kernel can multiply.
///
/// # Errors
/// The tensor and its format.
pub fn check(graph: &Graph) -> Result<()> {
    match graph.weights.iter().find(|w| w.kind == WeightKind::Matrix && Layout::of(w.format).is_none()) {
        None => Ok(()),
        Some(w) => Err(Error::Tensor {
            name: w.name.clone(),
            found: format!("format {}, for which there is no GPU kernel", w.format.name()),
            expected: format!(
                "one of {}; or run on the processor (--device cpu)",
                shaders::layout::ALL.map(|l| l.format.name()).join(", ")
            ),
        }),
    }
}

/// Uploads all weights.
///
/// # Errors
/// A weight that cannot be read or is not finite, or no room on the device.
pub fn upload(
    gpu: &Opened,
    graph: &Graph,
    source: &dyn Source,
    check: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Weights> {
    let tensors = graph
        .weights
        .iter()
        .map(|w| source.tensor(&w.name).ok_or_else(|| Error::Internal(format!("{} is gone", w.name))));
    let tensors = tensors.collect::<Result<Vec<_>>>()?;
    let (mut places, mut floats) = (vec![], vec![]);
    for (info, tensor) in graph.weights.iter().zip(&tensors) {
        places.push(floats.len() as u32);
        if info.kind == WeightKind::Vector {
            floats.extend(vector(info, tensor, source, check)?);
            // Some kernels read them by fours.
            floats.resize(floats.len().next_multiple_of(4), 0.0);
        }
    }
    let slopes = floats.len() as u32;
    floats.extend_from_slice(&graph.slopes);
    let mut slabs = Slabs::new(gpu);
    let (matrices, jobs) = lay_out(graph, &mut slabs)?;
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST;
    let buffers = slabs.make(gpu, "weights", usage)?;
    let vectors = gpu.buffer("vectors", floats.len() as u64 * 4, usage)?;
    let mut uploader = Uploader { gpu, in_flight: 0 };
    uploader.write(&vectors, 0, bytemuck::cast_slice(&floats))?;
    let total = tensors.iter().map(|t| t.size).sum();
    let mut done = Done::new(graph, &tensors);
    let reader = Reader { graph, tensors: &tensors, source, check };
    pack_all(&reader, &jobs, &mut |job, packed| {
        uploader.write(&buffers[job.quads.buffer], job.quads.at, bytemuck::cast_slice(&packed.quads))?;
        uploader.write(&buffers[job.words.buffer], job.words.at, bytemuck::cast_slice(&packed.words))?;
        progress(done.after(job), total);
        Ok(())
    })?;
    uploader.flush()?;
    progress(total, total);
    Ok(Weights { buffers, matrices, places, slopes, vectors })
}

fn vector(info: &WeightInfo, tensor: &TensorInfo, source: &dyn Source, check: bool) -> Result<Vec<f32>> {
    let mut values = read_vector(source, tensor)?;
    values.truncate(info.first + info.k);
    values.drain(..info.first);
    if check {
        finite(tensor, &values, 0)?;
    }
    Ok(values)
}

/// Panels of a matrix that are read, packed and handed over together.
struct Job {
    /// Which weight.
    weight: usize,
    /// Its panels, counted over all experts.
    panels: Range<usize>,
    /// Where their quads go.
    quads: Place,
    /// Where their words go.
    words: Place,
}

/// The parts of each matrix, those of a run of products one after the other, and what there is to do.
fn lay_out(graph: &Graph, slabs: &mut Slabs) -> Result<(Vec<Vec<Part>>, Vec<Job>)> {
    let weight = |op: &usize| graph.ops[*op].weights().first().map(|w| w.0 as usize);
    let runs: Vec<Vec<usize>> =
        merge::products(graph).iter().map(|run| run.iter().filter_map(weight).collect()).collect();
    let (mut matrices, mut jobs) = (vec![vec![]; graph.weights.len()], vec![]);
    for (i, info) in graph.weights.iter().enumerate().filter(|(_, info)| info.kind == WeightKind::Matrix) {
        let run = runs.iter().find(|run| run.contains(&i)).cloned().unwrap_or_else(|| vec![i]);
        if run[0] != i {
            continue;
        }
        let missing = || Error::Internal(format!("{} has no layout", info.name));
        let (layout, k) = (Layout::of(info.format).ok_or_else(missing)?, info.k);
        let (quads, words) = (layout.panel_quads(k), layout.panel_words(k));
        let all: usize = run.iter().map(|&w| panels(&graph.weights[w])).sum();
        let parts = all.div_ceil((slabs.most() as usize / layout.panel_bytes(k)).max(1));
        let each = all.div_ceil(parts);
        for first in (0..all).step_by(each) {
            let n = each.min(all - first);
            let bytes = (n * layout.panel_bytes(k)) as u64;
            let Place { buffer, at } = slabs.place(bytes);
            let word_at = at + (n * quads * 4) as u64;
            let (quad, word) = (at as usize / 16, word_at as usize / 4);
            matrices[i].push(Part { buffer, quads: quad, words: word, first, panels: n, bytes });
            let place = |panel: usize| {
                let panel = panel - first;
                let [quads, words] = [at + (panel * quads * 4) as u64, word_at + (panel * words * 4) as u64];
                [Place { buffer, at: quads }, Place { buffer, at: words }]
            };
            list(graph, &run, first..first + n, (PIECE / layout.panel_bytes(k)).max(1), &place, &mut jobs);
        }
    }
    Ok((matrices, jobs))
}

/// Lists what makes some panels of a run of matrices, each of one matrix and at most `at_once` panels.
fn list(
    graph: &Graph,
    run: &[usize],
    wanted: Range<usize>,
    at_once: usize,
    place: &dyn Fn(usize) -> [Place; 2],
    jobs: &mut Vec<Job>,
) {
    let mut start = 0;
    for &weight in run {
        let end = start + panels(&graph.weights[weight]);
        let own = wanted.start.max(start)..wanted.end.min(end);
        for first in own.clone().step_by(at_once) {
            let [quads, words] = place(first);
            jobs.push(Job { weight, panels: first - start..own.end.min(first + at_once) - start, quads, words });
        }
        start = end;
    }
}

/// Panels of a matrix: experts begin one of their own.
fn panels(info: &WeightInfo) -> usize {
    info.experts * info.rows.div_ceil(LANES)
}

/// Hands bytes to the driver and waits when it holds many.
struct Uploader<'a> {
    gpu: &'a Opened,
    in_flight: usize,
}

impl Uploader<'_> {
    fn write(&mut self, buffer: &Buffer, at: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.gpu.queue.write_buffer(buffer, at, bytes);
        self.gpu.queue.submit([]);
        self.in_flight += bytes.len();
        if self.in_flight > IN_FLIGHT { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.in_flight = 0;
        self.gpu.queue.submit([]);
        self.gpu.wait()
    }
}

/// How much of the file is done, matrix by matrix.
struct Done {
    /// Panels of each weight, of them done, and bytes in the file.
    weights: Vec<[u64; 3]>,
    bytes: u64,
}

impl Done {
    fn new(graph: &Graph, tensors: &[&TensorInfo]) -> Done {
        let weights = graph.weights.iter().zip(tensors).map(|(w, t)| [panels(w) as u64, 0, t.size]);
        Done { weights: weights.collect(), bytes: 0 }
    }

    /// Bytes that are done when one job more is.
    fn after(&mut self, job: &Job) -> u64 {
        let [all, done, size] = &mut self.weights[job.weight];
        let share = |panels: u64| (u128::from(*size) * u128::from(panels) / u128::from(*all)) as u64;
        self.bytes -= share(*done);
        *done += job.panels.len() as u64;
        self.bytes += share(*done);
        self.bytes
    }
}

/// Where panels come from.
struct Reader<'a> {
    graph: &'a Graph,
    tensors: &'a [&'a TensorInfo],
    source: &'a dyn Source,
    check: bool,
}

/// Panels in the layout of the device.
struct Packed {
    quads: Vec<u32>,
    words: Vec<u32>,
}

/// Does all jobs on several threads; what each makes is taken on this one, in any order.
///
/// # Errors
/// That of the first job that fails, or of `take`.
fn pack_all(reader: &Reader, jobs: &[Job], take: &mut dyn FnMut(&Job, Packed) -> Result<()>) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(jobs.len());
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |results: SyncSender<(usize, Result<Packed>)>| {
        while !ended.load(Relaxed) {
            let index = next.fetch_add(1, Relaxed);
            let Some(job) = jobs.get(index) else { return };
            if results.send((index, reader.pack(job))).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        let (sender, results) = sync_channel(threads);
        for _ in 0..threads {
            let sender = sender.clone();
            scope.spawn(|| work(sender));
        }
        drop(sender);
        let mut failed: Option<(usize, Error)> = None;
        // Jobs are begun in order, so that all before one that fails end too.
        for (index, packed) in results {
            match packed.and_then(|packed| if failed.is_none() { take(&jobs[index], packed) } else { Ok(()) }) {
                Err(error) if failed.as_ref().is_none_or(|(first, _)| index < *first) => failed = Some((index, error)),
                _ => {}
            }
            ended.store(failed.is_some(), Relaxed);
        }
        failed.map_or(Ok(()), |(_, error)| Err(error))
    })
}

impl Reader<'_> {
    /// Reads and packs some panels.
    fn pack(&self, job: &Job) -> Result<Packed> {
        let (info, tensor) = (&self.graph.weights[job.weight], self.tensors[job.weight]);
        let layout = Layout::of(info.format).ok_or_else(|| crate::source::unsupported(tensor))?;
        let k = info.k;
        let row = k / layout.format.block_len() * layout.format.block_bytes();
        let all = rows(info, job.panels.start).start..rows(info, job.panels.end - 1).end;
        let mut file = vec![0; all.len() * row];
        self.source.read(tensor, (all.start * row) as u64, &mut file)?;
        if self.check {
            check_rows(info, tensor, &file, all.start)?;
        }
        let (quads, words) = (layout.panel_quads(k), layout.panel_words(k));
        let mut packed = Packed { quads: vec![0; job.panels.len() * quads], words: vec![0; job.panels.len() * words] };
        for (i, panel) in job.panels.clone().enumerate() {
            let own = rows(info, panel);
            let own = &file[(own.start - all.start) * row..(own.end - all.start) * row];
            layout.pack(k, own, &mut packed.quads[i * quads..][..quads], &mut packed.words[i * words..][..words]);
        }
        Ok(packed)
    }
}

/// Rows of the tensor that make a panel: experts end inside one.
fn rows(info: &WeightInfo, panel: usize) -> Range<usize> {
    let each = info.rows.div_ceil(LANES);
    let (expert, panel) = (panel / each, panel % each);
    let at = |row: usize| info.first + expert * info.rows + row.min(info.rows);
    at(panel * LANES)..at((panel + 1) * LANES)
}

/// Fails if one of some whole rows, the first of which is row `first`, has a value that is not finite.
fn check_rows(info: &WeightInfo, tensor: &TensorInfo, bytes: &[u8], first: usize) -> Result<()> {
    let decode = info.format.decoder().ok_or_else(|| crate::source::unsupported(tensor))?;
    let mut values = vec![0.0; info.k];
    let row = info.k / info.format.block_len() * info.format.block_bytes();
    for (i, bytes) in bytes.chunks_exact(row).enumerate() {
        decode(bytes, &mut values);
        finite(tensor, &values, ((first + i) * info.k) as u64)?;
    }
    Ok(())
}
