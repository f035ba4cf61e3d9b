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
    // Blocks of up to four tokens of one sequence, each its first token and how many; whether all are single tokens.
    blocks: u32,
    single: u32,
    // Tiles of the longest sequence, as attention cuts it.
    tiles: u32,
    // Cosines and sines of each rotary embedding: for each token the cosines of all pairs, then the sines.
    ropes: array<vec4<u32>, 2>,
}

@group(0) @binding(0) var<uniform> step: Step;
// Everything that steps compute: row-major floats.
#if QUADWISE
#if BITS
// Codes among them: never as floats, as drivers may change the bits of one that is no number.
@group(0) @binding(2) var<storage, read_write> arena: array<vec4<u32>>;

fn peek(at: u32) -> f32 {
    return bitcast<f32>(arena[at / 4][at % 4]);
}

fn poke(at: u32, value: f32) {
    arena[at / 4][at % 4] = bitcast<u32>(value);
}
#else
@group(0) @binding(2) var<storage, read_write> arena: array<vec4<f32>>;

fn peek(at: u32) -> f32 {
    return arena[at / 4][at % 4];
}

fn poke(at: u32, value: f32) {
    arena[at / 4][at % 4] = value;
}
#end
#else
@group(0) @binding(2) var<storage, read_write> arena: array<f32>;

fn peek(at: u32) -> f32 {
    return arena[at];
}

fn poke(at: u32, value: f32) {
    arena[at] = value;
}
#end

const NONE: u32 = 0xffffffffu;
