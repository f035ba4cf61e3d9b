// out = (x - mean) / sqrt(variance + eps) * weight (+ bias): a workgroup for each slice of `width` of a row. The variance is
// taken around the mean in a second pass.
#import step
#import reduce

struct Op {
    x: u32,
    out: u32,
    // Places in `vectors`; a bias may be NONE.
    weight: u32,
    bias: u32,
    width: u32,
    slices: u32,
    // Whether each slice has its own weight and bias.
    weights: u32,
    biases: u32,
    eps: f32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(7) var<storage, read> vectors: array<f32>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let at = (id.x * op.slices + id.y) * op.width;
    var sum = 0.0;
    for (var i = li; i < op.width; i += $WG) {
        sum += arena[op.x + at + i];
    }
    let mean = total(li, sum) / f32(op.width);
    var squares = 0.0;
    for (var i = li; i < op.width; i += $WG) {
        let d = arena[op.x + at + i] - mean;
        squares = fma(d, d, squares);
    }
    let factor = 1.0 / sqrt(total(li, squares) / f32(op.width) + op.eps);
    let weight = op.weight + id.y * op.width * op.weights;
    let bias = op.bias + id.y * op.width * op.biases;
    for (var i = li; i < op.width; i += $WG) {
        var y = (arena[op.x + at + i] - mean) * factor * vectors[weight + i];
        if (op.bias != NONE) {
            y += vectors[bias + i];
        }
        arena[op.out + at + i] = y;
    }
}
