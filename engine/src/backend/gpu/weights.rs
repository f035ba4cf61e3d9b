//! From the file's rows to the device's layout, a few panels at a time.

use super::adapter::Opened;
use crate::error::{Error, Result};
use crate::graph::{Graph, WeightInfo, WeightKind};
use crate::source::{Source, read_vector};
use gguf::TensorInfo;
use shaders::Layout;
use shaders::layout::LANES;
use std::ops::Range;
use wgpu::{Buffer, BufferUsages};

/// About as many bytes are packed and handed over at a time.
const PIECE: usize = 4 << 20;
/// The driver may hold copies of about as many bytes before it must have taken them.
const IN_FLIGHT: usize = 64 << 20;

/// A part of a matrix that fits a binding.
pub struct Part {
    /// Its panels, as [`shaders::layout`] says.
    pub buffer: Buffer,
    /// Its first panel, counted over all experts.
    pub first: usize,
    /// Its panels.
    pub panels: usize,
    /// Where its words begin, in words.
    pub words: usize,
    /// Bytes of its panels.
    pub bytes: u64,
}

/// Every weight of a graph on the device.
pub struct Weights {
    /// The parts of each matrix; none where the weight is a vector.
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
        _ => w.k * w.rows * 4,
    };
    graph.weights.iter().map(|w| of(w) as u64).sum()
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
    let tensor = |w: &WeightInfo| source.tensor(&w.name).ok_or_else(|| Error::Internal(format!("{} is gone", w.name)));
    let total = graph.weights.iter().map(|w| tensor(w).map(|t| t.size)).sum::<Result<u64>>()?;
    let (mut done, mut matrices, mut places, mut floats) = (0, vec![], vec![], vec![]);
    let mut uploader = Uploader { gpu, in_flight: 0 };
    for info in &graph.weights {
        let tensor = tensor(info)?;
        places.push(floats.len() as u32);
        let mut parts = vec![];
        match info.kind {
            WeightKind::Vector => {
                let mut values = read_vector(source, tensor)?;
                values.truncate(info.first + info.k);
                values.drain(..info.first);
                if check {
                    check_finite(tensor, &values, 0)?;
                }
                floats.extend(values);
                // Some kernels read them by fours.
                floats.resize(floats.len().next_multiple_of(4), 0.0);
            }
            WeightKind::Matrix => {
                let matrix = Matrix { info, tensor, source, check };
                parts = matrix.upload(&mut uploader)?;
            }
        }
        matrices.push(parts);
        done += tensor.size;
        progress(done, total);
    }
    let slopes = floats.len() as u32;
    floats.extend_from_slice(&graph.slopes);
    let vectors = gpu.buffer("vectors", floats.len() as u64 * 4, BufferUsages::STORAGE | BufferUsages::COPY_DST)?;
    uploader.write(&vectors, 0, bytemuck::cast_slice(&floats))?;
    uploader.flush()?;
    Ok(Weights { matrices, places, slopes, vectors })
}

/// Hands bytes to the driver and waits when it holds many.
struct Uploader<'a> {
    gpu: &'a Opened,
    in_flight: usize,
}

impl Uploader<'_> {
    fn write(&mut self, buffer: &Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.gpu.queue.write_buffer(buffer, at as u64, bytes);
        self.in_flight += bytes.len();
        if self.in_flight > IN_FLIGHT { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.in_flight = 0;
        self.gpu.queue.submit([]);
        let done = self.gpu.device.poll(wgpu::PollType::wait_indefinitely());
        self.gpu.check()?;
        done.map(|_| ()).map_err(|e| self.gpu.error(e.to_string(), "load the model again, or use another device"))
    }
}

/// One matrix on its way.
struct Matrix<'a> {
    info: &'a WeightInfo,
    tensor: &'a TensorInfo,
    source: &'a dyn Source,
    check: bool,
}

impl Matrix<'_> {
    fn upload(&self, to: &mut Uploader) -> Result<Vec<Part>> {
        let layout = Layout::of(self.info.format).ok_or_else(|| crate::source::unsupported(self.tensor))?;
        let limits = to.gpu.device.limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) as usize;
        let (panels, panel) = (self.info.experts * self.panels(), layout.panel_bytes(self.info.k));
        let parts = panels.div_ceil((most / panel).max(1));
        let each = panels.div_ceil(parts);
        (0..panels).step_by(each).map(|first| self.part(to, layout, first, each.min(panels - first))).collect()
    }

    /// Panels of an expert.
    fn panels(&self) -> usize {
        self.info.rows.div_ceil(LANES)
    }

    /// Rows of the tensor that make a panel: experts end inside one.
    fn rows(&self, panel: usize) -> Range<usize> {
        let (expert, panel) = (panel / self.panels(), panel % self.panels());
        let at = |row: usize| self.info.first + expert * self.info.rows + row.min(self.info.rows);
        at(panel * LANES)..at((panel + 1) * LANES)
    }

    fn part(&self, to: &mut Uploader, layout: &Layout, first: usize, panels: usize) -> Result<Part> {
        let k = self.info.k;
        let (quads, words) = (layout.panel_quads(k), layout.panel_words(k));
        let bytes = panels * layout.panel_bytes(k);
        let buffer = to.gpu.buffer(&self.info.name, bytes as u64, BufferUsages::STORAGE | BufferUsages::COPY_DST)?;
        let part = Part { buffer, first, panels, words: panels * quads, bytes: bytes as u64 };
        let at_once = (PIECE / layout.panel_bytes(k)).clamp(1, panels);
        let (mut own_quads, mut own_words) = (vec![0; at_once * quads], vec![0; at_once * words]);
        let row = k / layout.format.block_len() * layout.format.block_bytes();
        let mut file = vec![0; at_once * LANES * row];
        for start in (0..panels).step_by(at_once) {
            let n = at_once.min(panels - start);
            let rows = |i: usize| self.rows(first + start + i);
            let all = rows(0).start..rows(n - 1).end;
            let file = &mut file[..all.len() * row];
            self.source.read(self.tensor, (all.start * row) as u64, file)?;
            if self.check {
                self.check_rows(file, row, all.start)?;
            }
            for i in 0..n {
                let rows = &file[(rows(i).start - all.start) * row..(rows(i).end - all.start) * row];
                layout.pack(k, rows, &mut own_quads[i * quads..][..quads], &mut own_words[i * words..][..words]);
            }
            to.write(&part.buffer, start * quads * 4, bytemuck::cast_slice(&own_quads[..n * quads]))?;
            to.write(&part.buffer, (part.words + start * words) * 4, bytemuck::cast_slice(&own_words[..n * words]))?;
        }
        Ok(part)
    }

    fn check_rows(&self, bytes: &[u8], row: usize, first: usize) -> Result<()> {
        let decode = self.info.format.decoder().ok_or_else(|| crate::source::unsupported(self.tensor))?;
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
