// Parameters of both ways to compute the RMS norm.
#import step

struct Op {
    x: u32,
    out: u32,
    // Place in `arena`, or NONE.
    residual: u32,
    // Place in `vectors`.
    weight: u32,
    width: u32,
    slices: u32,
    eps: f32,
}

@group(0) @binding(1) var<uniform> op: Op;
