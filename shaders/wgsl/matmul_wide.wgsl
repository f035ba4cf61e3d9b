// Matrix product for GPUs and up to some tens of columns. A workgroup computes $ROWS rows, half a panel, for $T columns: a
// lane each row, $S slices of k side by side, each a run of groups that follow each other. Nothing is staged: the lanes of a
// slice read the same quads of a column, which the first-level cache serves, and there is one barrier in all.
//
// Bytes: every weight once for each $T columns; 8 lanes read 128 bytes side by side, a whole line. Workgroup memory: 1 KiB a
// column. Latency, not bandwidth, bounds small matrices: a slice of 2,048 values is two groups, so two rounds of loads. Measured on
// a H100 (3 TB/s) for one column: F16 2.6 TB/s, Q8_0 2.0, Q6_K 1.75, Q4_K 1.6 where the matrix has 16,000 rows; 0.5 TB/s and 5
// microseconds for 2,048 x 2,048 of Q4_K. Eight slices took 12 microseconds there, sixty-four 5.6.
//
// ODD: for rows of floats that are not whole quads.
#import matmul
#import dot
#import matmul_sums

#if RAGGED
// Four values of a column, zeros beyond its end.
fn four(base: u32, k: u32) -> vec4<f32> {
#if ODD
    var v = vec4<f32>(0.0);
#for i in 0..4
    if (k + $i < op.k) { v[$i] = arena[base + k + $i]; }
#end
    return v;
#else
    if (k >= op.k) {
        return vec4<f32>(0.0);
    }
    return arena[(base + k) / 4];
#end
}
#end

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let lane = id.x % 2 * $ROWS + li % $ROWS;
    let panel = id.x / 2;
    let column = id.y * $T;
    let groups = (op.k + 31) / 32;
    let blocks = (groups + $GROUPS - 1) / $GROUPS;
    let quad = op.quads + panel * blocks * $QUADS * 16 + lane;
    let word = op.words + panel * blocks * $WORDS * 16 + lane;
#for c in 0..$T
    // Columns beyond the last are computed from it, and not stored.
    let base$c = op.x + min(column + $c, columns() - 1) * op.k;
    var sum$c = 0.0;
#end
    let run = (groups + $S - 1) / $S;
    let end = min((li / $ROWS + 1) * run, groups);
    for (var g = li / $ROWS * run; g < end; g += 1u) {
        let block = g / $GROUPS;
        let a = load(quad + block * $QUADS * 16, word + block * $WORDS * 16, g % $GROUPS);
#for c in 0..$T
        var part$c = 0.0;
#end
#for s in 0..$SUBS
#for j in 0..$JOBS
#let i = $s * $JOBS + $j
        let w$i = weight(a, $i, $s);
#for c in 0..$T
#if RAGGED
        part$c = add(four(base$c, g * 32 + $i * 4), w$i, part$c);
#else
        part$c = add(arena[base$c / 4 + g * 8 + $i], w$i, part$c);
#end
#end
#end
#for c in 0..$T
#if SCALED
        sum$c = fma(a.scale$s, part$c, sum$c);
#else
        sum$c += part$c;
#end
        part$c = 0.0;
#end
#end
    }
#for c in 0..$T
    sums[$c * $WG + li] = sum$c;
#end
    store_sums(column, id.x, li);
}
