// out = (x - mean) / sqrt(variance + eps) * weight (+ bias): a workgroup for each slice of `width` of a row. The variance is
// taken around the mean in a second pass.
//
// Reads as those of `rms_norm`: all of $READS pieces an invocation at once, the row kept for both passes and the output.
#import step
#import reduce
#import walk
#let pass = $READS * $WG

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
@group(0) @binding(7) var<storage, read> vectors: array<Piece>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let n = op.width / SIZE;
    let row = (id.x * op.slices + id.y) * n;
    let source = op.x / SIZE + row;
    let weights = op.weight / SIZE + id.y * n * op.weights;
    let biases = op.bias / SIZE + id.y * n * op.biases;
#for r in 0..$READS
#let ahead = $r * $WG
    let has$r = li + $ahead < n;
    let at$r = min(li + $ahead, n - 1);
    let x$r = arena[source + at$r];
    let weight$r = vectors[weights + at$r];
    var bias$r = Piece();
#end
    if (op.bias != NONE) {
#for r in 0..$READS
        bias$r = vectors[biases + at$r];
#end
    }
    var sums = Piece();
#for r in 0..$READS
    sums += select(Piece(), x$r, has$r);
#end
    for (var i = li + $pass; i < n; i += $WG) {
        sums += arena[source + i];
    }
    let mean = first_total(li, sum_of(sums)) / f32(op.width);
    var squares = Piece();
#for r in 0..$READS
    let d$r = x$r - mean;
    let own$r = select(Piece(), d$r, has$r);
    squares = fma(own$r, own$r, squares);
#end
    for (var i = li + $pass; i < n; i += $WG) {
        let d = arena[source + i] - mean;
        squares = fma(d, d, squares);
    }
    let factor = 1.0 / sqrt(total(li, sum_of(squares)) / f32(op.width) + op.eps);
    let out = op.out / SIZE + row;
#for r in 0..$READS
    if (has$r) {
        arena[out + at$r] = d$r * factor * weight$r + bias$r;
    }
#end
    for (var i = li + $pass; i < n; i += $WG) {
        var y = (arena[source + i] - mean) * factor * vectors[weights + i];
        if (op.bias != NONE) {
            y += vectors[biases + i];
        }
        arena[out + i] = y;
    }
}
