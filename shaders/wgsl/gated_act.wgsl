// out = act(gate) * up, an element an invocation; a workgroup walks part of a row.
#import step
#import activation

struct Op {
    gate: u32,
    up: u32,
    out: u32,
    width: u32,
}

@group(0) @binding(1) var<uniform> op: Op;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let i = id.y * $WG + li;
    if (i >= op.width) {
        return;
    }
    let at = id.x * op.width + i;
    arena[op.out + at] = act(arena[op.gate + at]) * arena[op.up + at];
}
