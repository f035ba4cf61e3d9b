// Some columns of x to some of out: an element an invocation.
#import step

struct Op {
    x: u32,
    out: u32,
    // Floats of a row of x and of out.
    width: u32,
    width_out: u32,
    // Runs, and floats of each.
    heads: u32,
    run: u32,
    // First float of the first run, and from there to the next: of what is read, of what is written.
    source: u32,
    source_next: u32,
    target_at: u32,
    target_next: u32,
}

@group(0) @binding(1) var<uniform> op: Op;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let i = id.y * $WG + li;
    if (i >= op.heads * op.run) {
        return;
    }
    let head = i / op.run;
    let x = op.x + id.x * op.width + op.source + head * op.source_next + i % op.run;
    arena[op.out + id.x * op.width_out + op.target_at + head * op.target_next + i % op.run] = arena[x];
}
