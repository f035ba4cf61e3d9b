//! What a step brings to the device: one upload of tokens, positions, page tables and angles.

use crate::batch::Batch;
use crate::graph::RopeFreqs;

/// Words of the head of the upload, which kernels see as uniform memory; tables begin after it.
pub const HEAD: usize = 64;
/// Rotary embeddings that the head has room for.
pub const MAX_ROPES: usize = 8;
/// Word of the head where the places of rotary embeddings begin.
const ROPES: usize = 8;

/// Most words of the tables of any batch.
pub fn words(tokens: usize, outputs: usize, pages: usize, ropes: &[RopeFreqs]) -> usize {
    let angles: usize = ropes.iter().map(|r| 2 * r.pairs()).sum();
    HEAD + tokens * (3 + angles) + outputs + pages
}

/// Writes the upload of a batch: the struct `Step` of `step.wgsl`, then the tables it points to.
pub fn fill(batch: &Batch, ropes: &[RopeFreqs], out: &mut Vec<u32>) {
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
    for (i, rope) in ropes.iter().enumerate() {
        out[ROPES + i] = place(out);
        for &position in batch.positions() {
            let at = out.len();
            out.resize(at + 2 * rope.pairs(), 0);
            let (cos, sin) = bytemuck::cast_slice_mut::<u32, f32>(&mut out[at..]).split_at_mut(rope.pairs());
            rope.fill(position, cos, sin);
        }
    }
}
