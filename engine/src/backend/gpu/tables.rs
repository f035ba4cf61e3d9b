//! What a step brings to the device: one upload of tokens, positions, page tables and angles.

use super::lower::Counts;
use crate::batch::Batch;
use crate::graph::{Graph, Op};
use shaders::{POSITIONS, QUERIES};

/// Words of the head of the upload, which kernels see as uniform memory; tables begin after it.
pub const HEAD: usize = 64;
/// Rotary embeddings that the head has room for.
pub const MAX_ROPES: usize = 8;
/// Word of the head where the places of rotary embeddings begin.
const ROPES: usize = 12;

/// Low-rank adapters of a graph.
pub fn adapters(graph: &Graph) -> usize {
    let number = |op: &Op| if let Op::Adapt { adapter, .. } = op { adapter + 1 } else { 0 };
    graph.ops.iter().map(number).max().unwrap_or(0)
}

/// Most words of the tables of any batch.
pub fn words(graph: &Graph, tokens: usize, outputs: usize, pages: usize) -> usize {
    let angles: usize = graph.ropes.iter().map(|r| 2 * r.pairs()).sum();
    HEAD + tokens * (6 + adapters(graph) + angles) + outputs + pages
}

/// Blocks of up to [`QUERIES`] tokens of one sequence: of each its first token and how many.
fn blocks(batch: &Batch) -> impl Iterator<Item = [usize; 2]> {
    batch.segments().iter().flat_map(|segment| {
        let end = segment.tokens.end;
        segment.tokens.clone().step_by(QUERIES).map(move |first| [first, QUERIES.min(end - first)])
    })
}

/// What the forms of dispatches depend on.
pub fn count(batch: &Batch) -> Counts {
    let (tokens, blocks) = (batch.tokens().len(), blocks(batch).count());
    let lengths = batch.segments().iter().map(|segment| segment.start + segment.tokens.len());
    let tiles = lengths.max().unwrap_or(0).div_ceil(POSITIONS);
    Counts { tokens, outputs: batch.outputs().len(), blocks, single: blocks == tokens, tiles }
}

/// Writes the upload of a batch with its [counts](count): the struct `Step` of `step.wgsl`, then the tables it points to.
pub fn fill(batch: &Batch, counts: Counts, graph: &Graph, out: &mut Vec<u32>) {
    out.clear();
    out.resize(HEAD, 0);
    let place = |out: &Vec<u32>| (out.len() - HEAD) as u32;
    out[0] = batch.tokens().len() as u32;
    out[1] = batch.outputs().len() as u32;
    out[2] = place(out);
    out.extend_from_slice(batch.tokens());
    out[3] = place(out);
    out.extend_from_slice(batch.positions());
    out[4] = place(out);
    for segment in batch.segments() {
        out.extend(segment.tokens.clone().map(|_| segment.pages.start as u32));
    }
    out[5] = place(out);
    out.extend_from_slice(batch.outputs());
    out[6] = place(out);
    out.extend_from_slice(batch.pages());
    out[7] = place(out);
    for segment in batch.segments() {
        out.extend(segment.tokens.clone().map(|_| (segment.start + segment.tokens.len()) as u32));
    }
    out[8] = place(out);
    let adapters = adapters(graph);
    for token in 0..batch.tokens().len() {
        out.extend((0..adapters).map(|adapter| batch.strength(token, adapter).to_bits()));
    }
    out[9] = place(out);
    out.extend(blocks(batch).flatten().map(|n| n as u32));
    (out[10], out[11]) = (u32::from(counts.single), counts.tiles as u32);
    for (i, rope) in graph.ropes.iter().enumerate() {
        out[ROPES + i] = place(out);
        for &position in batch.positions() {
            let at = out.len();
            out.resize(at + 2 * rope.pairs(), 0);
            let (cos, sin) = bytemuck::cast_slice_mut::<u32, f32>(&mut out[at..]).split_at_mut(rope.pairs());
            rope.fill(position, cos, sin);
        }
    }
}
