// What changes from step to step. Places are words of `tables`.
struct Step {
    tokens: u32,
    outputs: u32,
    // Token ids; positions in their sequences; where each token's page table begins; rows whose logits are wanted.
    ids: u32,
    positions: u32,
    page_starts: u32,
    wanted: u32,
    pages: u32,
    // Of each token: positions that its sequence has after this step; how strong each adapter is for it.
    lengths: u32,
    strengths: u32,
    // Cosines and sines of each rotary embedding: for each token the cosines of all pairs, then the sines.
    ropes: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> step: Step;
// Everything that steps compute: row-major floats.
@group(0) @binding(2) var<storage, read_write> arena: array<f32>;

const NONE: u32 = 0xffffffffu;
