// The rows whose logits are wanted.
#import step

struct Op {
    x: u32,
    out: u32,
    width: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(6) var<storage, read> tables: array<u32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let i = id.y * $WG + li;
    if (i < op.width) {
        arena[op.out + id.x * op.width + i] = arena[op.x + tables[step.wanted + id.x] * op.width + i];
    }
}
