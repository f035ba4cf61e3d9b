// What an adapter does at most, to compare kernels with. READ: memory is read from end to end, each invocation with eight
// quads under way, a workgroup 32 KiB side by side; where it has no more, it begins again. INT8: dots of four codes, as the
// integer products take them. Otherwise: multiply-and-add of floats. Both in eight chains, enough to hide their latency at
// any occupancy, written out so that the loop, with what guards it, counts for little.
#import step

struct Op {
    rounds: u32,
    // Runs of memory, each what a workgroup reads at once.
    runs: u32,
    // Numbers that the compiler does not know: neither sums nor reads may be left out.
    factor: f32,
    codes: u32,
    never: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(3) var<storage, read> quads: array<vec4<u32>>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32, @builtin(num_workgroups) all: vec3<u32>) {
#if READ
#let run = 8 * $WG
    var mix = vec4<u32>(0u);
    for (var i = 0u; i < op.rounds; i += 1u) {
        let at = (i * all.x + id.x) % op.runs * $run + li;
#for i in 0..8
#let ahead = $i * $WG
        let quad$i = quads[at + $ahead];
#end
        mix ^= ((quad0 ^ quad1) ^ (quad2 ^ quad3)) ^ ((quad4 ^ quad5) ^ (quad6 ^ quad7));
    }
    if ((mix.x ^ mix.y ^ mix.z ^ mix.w) == op.never) {
        arena[0] = 1.0;
    }
#else
#if INT8
#for i in 0..8
    var a$i = i32(li * 8 + $i);
#end
    for (var i = 0u; i < op.rounds; i += 1u) {
#for r in 0..32
#for i in 0..8
        a$i += dot4I8Packed(bitcast<u32>(a$i), op.codes);
#end
#end
    }
    let sum = ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7));
    if (bitcast<u32>(sum) == op.never) {
        arena[0] = f32(quads[0].x);
    }
#else
    let x = vec4<f32>(f32(li), f32(id.x), op.factor, 1.0);
    let factor = vec4<f32>(op.factor);
#for i in 0..8
    var a$i = x + $i.0;
#end
    for (var i = 0u; i < op.rounds; i += 1u) {
#for r in 0..8
#for i in 0..8
        a$i = fma(a$i, factor, x);
#end
#end
    }
    let sum = ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7));
    if (bitcast<u32>(sum.x + sum.y + sum.z + sum.w) == op.never) {
        arena[0] = f32(quads[0].x);
    }
#end
#end
}
