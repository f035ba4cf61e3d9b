// out = sum over slots of weight * x[slot] (+ residual), slots ascending: an element an invocation.
#import step

struct Op {
    x: u32,
    // Numbers of experts, then their weights.
    routes: u32,
    slots: u32,
    // Place in `arena`, or NONE.
    residual: u32,
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
    var y = 0.0;
    if (op.residual != NONE) {
        y = arena[op.residual + at];
    }
    let weights = op.routes + id.x * 2 * op.slots + op.slots;
    for (var slot = 0u; slot < op.slots; slot += 1u) {
        y = fma(arena[weights + slot], arena[op.x + (id.x * op.slots + slot) * op.width + i], y);
    }
    arena[op.out + at] = y;
}
