// What an adapter does at most, to compare kernels with. READ: memory is read as weights lie there: sixteen lanes side
// by side walk a run of their own, so a warp of 32 reads two times 256 bytes. Otherwise: eight independent chains of multiply-and-add on four values each,
// enough to hide their latency at any occupancy.
#import step

struct Op {
    rounds: u32,
    quads: u32,
    // Numbers that the compiler does not know: neither sums nor reads may be left out.
    factor: f32,
    never: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(3) var<storage, read> quads: array<vec4<u32>>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
#if READ
    var mix = vec4<u32>(0u);
    for (var i = 0u; i < op.rounds; i += 1u) {
        let run = (id.x * ($WG / 16) + li / 16) * op.rounds * 16;
        mix ^= quads[min(run + i * 16 + li % 16, op.quads - 1)];
    }
    if ((mix.x ^ mix.y ^ mix.z ^ mix.w) == op.never) {
        arena[0] = 1.0;
    }
#else
    let x = vec4<f32>(f32(li), f32(id.x), op.factor, 1.0);
#for i in 0..8
    var a$i = x + $i.0;
#end
    for (var i = 0u; i < op.rounds; i += 1u) {
#for i in 0..8
        a$i = fma(a$i, vec4<f32>(op.factor), x);
#end
    }
    let sum = ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7));
    if (bitcast<u32>(sum.x + sum.y + sum.z + sum.w) == op.never) {
        arena[0] = f32(quads[0].x);
    }
#end
}
