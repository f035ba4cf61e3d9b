// out = x / sqrt(mean(x^2) + eps) * weight (+ residual): a workgroup for each slice of `width` of a row.
//
// Bytes: a row twice (the second time from a cache), weights once, lanes side by side. A row is one workgroup, so one token
// takes the latency of its walk: a few microseconds. EIGHTS: of 8 barriers of the sum 2 are left.
#import rms
#import reduce

@group(0) @binding(7) var<storage, read> vectors: array<f32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let at = (id.x * op.slices + id.y) * op.width;
    var own = 0.0;
    for (var i = li; i < op.width; i += $WG) {
        let x = arena[op.x + at + i];
        own = fma(x, x, own);
    }
    let factor = 1.0 / sqrt(total(li, own) / f32(op.width) + op.eps);
    for (var i = li; i < op.width; i += $WG) {
        var y = arena[op.x + at + i] * factor * vectors[op.weight + i];
        if (op.residual != NONE) {
            y += arena[op.residual + at + i];
        }
        arena[op.out + at + i] = y;
    }
}
