// out = scale * (x * weight^T) (+ bias) (+ residual): what both ways of computing it share.
//
// One result: an element of the output adds up its products in an order that depends on the matrix alone: groups of 32
// along k ascending within a slice, slices ascending. So it is the same bits whatever columns are computed beside it.
#import step
#import unpack/$FORMAT
#import weight

struct Op {
    // Places in `arena`: columns of k floats; columns of `width` floats; the same, or NONE.
    x: u32,
    out: u32,
    residual: u32,
    // Place in `vectors`, or NONE.
    bias: u32,
    k: u32,
    width: u32,
    // First row and panels of this part of the matrix, and where its quads and its words begin.
    first: u32,
    panels: u32,
    quads: u32,
    words: u32,
    // Whether columns are wanted outputs, not tokens.
    outputs: u32,
    scale: f32,
    // Matrices whose panels follow in the same part, with the same columns: the row where each begins, 0 where there is
    // none; what stands above for the first.
    second: u32,
    second_out: u32,
    second_bias: u32,
    second_width: u32,
    third: u32,
    third_out: u32,
    third_bias: u32,
    third_width: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(3) var<storage, read> quads: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> words: array<u32>;
@group(0) @binding(7) var<storage, read> vectors: array<f32>;

fn columns() -> u32 {
    return select(step.tokens, step.outputs, op.outputs == 1u);
}

// Writes an element whose products are added up.
fn store(column: u32, panel: u32, lane: u32, sum: f32) {
    var row = op.first + panel * 16 + lane;
    var out = op.out;
    var bias = op.bias;
    var width = op.width;
    if (op.third != 0u && row >= op.third) {
        row -= op.third;
        out = op.third_out;
        bias = op.third_bias;
        width = op.third_width;
    } else if (op.second != 0u && row >= op.second) {
        row -= op.second;
        out = op.second_out;
        bias = op.second_bias;
        width = op.second_width;
    }
    if (column >= columns() || panel >= op.panels || row >= width) {
        return;
    }
    var y = sum * op.scale;
    if (bias != NONE) {
        y += vectors[bias + row];
    }
    if (op.residual != NONE) {
        y += peek(op.residual + column * width + row);
    }
    poke(out + column * width + row, y);
}
