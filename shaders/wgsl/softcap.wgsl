// x = cap * tanh(x / cap), an element an invocation; a workgroup walks part of a row.
#import step
#import capped

struct Op {
    x: u32,
    width: u32,
    cap: f32,
}

@group(0) @binding(1) var<uniform> op: Op;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let i = id.y * $WG + li;
    if (i < op.width) {
        let at = op.x + id.x * op.width + i;
        arena[at] = capped(arena[at], op.cap);
    }
}
