// Parameters of every way to compute attention.
#import step
#import cache
#import capped

struct Op {
    q: u32,
    out: u32,
    heads: u32,
    heads_kv: u32,
    d_k: u32,
    d_v: u32,
    scale: f32,
    // A score becomes cap * tanh(score / cap); 0 leaves it.
    cap: f32,
    // Keys at this distance or farther are not seen.
    window: u32,
    // Whether a token sees those before it only.
    causal: u32,
    // Places in `vectors`, one a query head, or NONE: how much scores fall with distance (Press et al., 2022); scores of
    // keys without values.
    slopes: u32,
    sinks: u32,
    // Where the layer's cache begins.
    cache: u32,
    // Of `attention.wgsl`: slices of a tile's positions that values are added in; workgroups that share the words of a value;
    // most tiles that the queries of a workgroup see; where the results of tiles lie.
    slices: u32,
    rounds: u32,
    tiles: u32,
    scratch: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
