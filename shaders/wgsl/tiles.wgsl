// Attention in tiles of $TILE positions, aligned in the sequence: what a token sees, where the results of its tiles lie, and the
// one way to merge them, ascending, by the rule of the online softmax (Milakov and Gimelshein, 2018). All sums are written
// as what they are rounded as, so that every kernel that has this text gives the same bits.
#import attend

#if MANY
alias Many = vec4<f32>;
#else
alias Many = f32;
#end

@group(0) @binding(6) var<storage, read> tables: array<u32>;
@group(0) @binding(7) var<storage, read> vectors: array<f32>;

// Below every score.
const NOTHING: f32 = -3.4e38;

// The first position that a token sees, and the first beyond.
fn seen_by(token: u32) -> vec2<u32> {
    let position = tables[step.positions + token];
    let length = tables[step.lengths + token];
    let start = position + 1 - min(position + 1, op.window);
    return vec2<u32>(start, select(min(length, position + min(op.window, length)), position + 1, op.causal == 1));
}

// Where the result of a tile lies, counted from the first that the token sees: sums, then maximum and weight.
fn result_at(token: u32, head: u32, tile: u32) -> u32 {
    return op.scratch + ((token * op.heads + head) * min(step.tiles, op.tiles) + tile) * (op.d_v + 2);
}

// The score of a head's sink, a key without a value.
fn sink_of(head: u32) -> f32 {
    if (op.sinks == NONE) {
        return NOTHING;
    }
    return vectors[op.sinks + head];
}

// Of some positions the largest score, the weights of all under it, and the weighted sums of one or two elements of their values.
struct Sums {
    m: Many,
    l: Many,
    x: Many,
    y: Many,
}

fn merged(a: Sums, b: Sums) -> Sums {
    let top = max(a.m, b.m);
    let of_a = exp(a.m - top);
    let of_b = exp(b.m - top);
    return Sums(top, fma(b.l, of_b, a.l * of_a), fma(b.x, of_b, a.x * of_a), fma(b.y, of_b, a.y * of_a));
}

// What comes out: sums over weights, with that of the sink.
fn ended(a: Sums, sink: Many) -> Sums {
    let top = max(a.m, sink);
    let keep = exp(a.m - top);
    let l = fma(a.l, keep, exp(sink - top));
    return Sums(top, l, a.x * keep / l, a.y * keep / l);
}
