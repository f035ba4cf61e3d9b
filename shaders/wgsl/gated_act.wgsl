// out = act(gate) * up, or, where CLAMPED, g / (1 + e^(-1.702 g)) * (u + 1) with g the gate cut at 7 and u cut at 7 and
// -7: an element an invocation; a workgroup walks part of a row.
#import step
#if CLAMPED
#import logistic
#else
#import activation
#end

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
#if CLAMPED
    let g = min(arena[op.gate + at], 7.0);
    let u = clamp(arena[op.up + at], -7.0, 7.0);
    arena[op.out + at] = g * logistic(g * 1.702) * (u + 1.0);
#else
    arena[op.out + at] = act(arena[op.gate + at]) * arena[op.up + at];
#end
}
