// The RMS norm for adapters that are CPUs: a workgroup is one subgroup, so nothing waits at a barrier, and all loads are
// quads. out = x / sqrt(mean(x^2) + eps) * weight (+ residual).
#import rms

@group(0) @binding(7) var<storage, read> vectors: array<vec4<f32>>;

@compute @workgroup_size($SUB)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(subgroup_invocation_id) own: u32) {
    let quads = op.width / 4;
    let at = (id.x * op.slices + id.y) * quads;
    var squares = vec4<f32>(0.0);
    for (var i = own; i < quads; i += $SUB) {
        let x = arena[op.x / 4 + at + i];
        squares = fma(x, x, squares);
    }
    let sum = subgroupAdd((squares.x + squares.y) + (squares.z + squares.w));
    let factor = 1.0 / sqrt(sum / f32(op.width) + op.eps);
    for (var i = own; i < quads; i += $SUB) {
        var y = arena[op.x / 4 + at + i] * factor * vectors[op.weight / 4 + i];
        if (op.residual != NONE) {
            y += arena[op.residual / 4 + at + i];
        }
        arena[op.out / 4 + at + i] = y;
    }
}
