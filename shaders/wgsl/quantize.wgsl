// Activations as 8-bit codes for `--precision q8`; `codes` says how and in what layout.
//
// Eight lanes a group, a quad each; a workgroup takes eight groups of a row. Bytes: 4 a value read and 1.5 written, side by
// side; once for all products of the value.
#import step
#import codes

struct Op {
    // Places in `arena`: rows of k floats; their codes.
    x: u32,
    out: u32,
    k: u32,
}

@group(0) @binding(1) var<uniform> op: Op;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let groups = op.k / 32;
    let g = id.y * ($WG / 8) + li / 8;
    let own = li % 8;
    var x = vec4<u32>(0u);
    if (g < groups) {
        x = arena[(op.x + id.x * op.k) / 4 + g * 8 + own];
    }
    let own_codes = coded(li, x);
    if (g >= groups) {
        return;
    }
    let at = op.out / 4 + (id.x * groups + g) * $ACTQUADS;
    arena[at + own / 4][own % 4] = own_codes.word;
    if (own == 0) {
        arena[at + 2] = own_codes.last;
    }
}
