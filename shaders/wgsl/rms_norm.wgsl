// out = x / sqrt(mean(x^2) + eps) * weight (+ residual): a workgroup for each slice of `width` of a row.
//
// Bytes: a row once, weights once, lanes side by side. A row is one workgroup, so one token takes the latency of its walk:
// all reads of $READS pieces an invocation, those of weights and residuals too, are under way before the first is used,
// and none of them depends on a condition; pieces beyond the end are the last one again. Rows of more are read twice.
#import rms
#import reduce
#import walk
#let pass = $READS * $WG

@group(0) @binding(7) var<storage, read> vectors: array<Piece>;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let n = op.width / SIZE;
    let row = (id.x * op.slices + id.y) * n;
    let source = op.x / SIZE + row;
    let weights = op.weight / SIZE;
    let more = op.residual / SIZE + row;
#for r in 0..$READS
#let ahead = $r * $WG
    let at$r = min(li + $ahead, n - 1);
    let x$r = arena[source + at$r];
    let weight$r = vectors[weights + at$r];
    var add$r = Piece();
#end
    if (op.residual != NONE) {
#for r in 0..$READS
        add$r = arena[more + at$r];
#end
    }
    var squares = Piece();
#for r in 0..$READS
#let ahead = $r * $WG
    let own$r = select(Piece(), x$r, li + $ahead < n);
    squares = fma(own$r, own$r, squares);
#end
    for (var start: u32 = $pass; start < n; start += $pass) {
#for r in 0..$READS
#let ahead = $r * $WG
        let next$r = arena[source + min(start + li + $ahead, n - 1)];
#end
#for r in 0..$READS
#let ahead = $r * $WG
        let part$r = select(Piece(), next$r, start + li + $ahead < n);
        squares = fma(part$r, part$r, squares);
#end
    }
    let factor = 1.0 / sqrt(first_total(li, sum_of(squares)) / f32(op.width) + op.eps);
    let out = op.out / SIZE + row;
#for r in 0..$READS
#let ahead = $r * $WG
    if (li + $ahead < n) {
        arena[out + at$r] = x$r * factor * weight$r + add$r;
    }
#end
    for (var i = li + $pass; i < n; i += $WG) {
        var y = arena[source + i] * factor * vectors[weights + i];
        if (op.residual != NONE) {
            y += arena[more + i];
        }
        arena[out + i] = y;
    }
}
