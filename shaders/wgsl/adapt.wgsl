// x = s * x, s how strong an adapter is for the row's sequence: an element an invocation.
#import step

struct Op {
    x: u32,
    width: u32,
    // Which adapter, and how many there are.
    adapter: u32,
    adapters: u32,
    // Whether rows are wanted outputs, not tokens.
    outputs: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(6) var<storage, read> tables: array<u32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let i = id.y * $WG + li;
    if (i >= op.width) {
        return;
    }
    var token = id.x;
    if (op.outputs == 1) {
        token = tables[step.wanted + id.x];
    }
    let strength = bitcast<f32>(tables[step.strengths + token * op.adapters + op.adapter]);
    arena[op.x + id.x * op.width + i] *= strength;
}
