// Matrix product for `--precision q8`, for up to some tens of columns: codes of weights times the codes that `quantize` has made
// of the columns. Shared out as in `matmul_wide`: half a panel a workgroup, slices of k side by side, one barrier.
//
// Dots of a group are exact integers; only their sum along k is rounded, here in runs of groups, on the processor in one.
//
// Bytes: every weight once for each $T columns, 8 lanes 128 bytes side by side; columns 1.5 bytes a value, a third of floats.
// Workgroup memory: 1 KiB a column. Measured on a H100 for one column of the matrices of a 1B model: 0.82 of the time of
// `matmul_wide` for Q4_K, 0.79 for Q6_K.
#import matmul
#import matmul_sums
#import dots

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let lane = id.x % 2 * $ROWS + li % $ROWS;
    let panel = id.x / 2;
    let column = id.y * $T;
    let groups = op.k / 32;
    let blocks = (groups + $GROUPS - 1) / $GROUPS;
    let quad = op.quads + panel * blocks * $QUADS * 16 + lane;
    let word = op.words + panel * blocks * $WORDS * 16 + lane;
#for c in 0..$T
    // Columns beyond the last are computed from it, and not stored.
    let base$c = op.x / 4 + min(column + $c, columns() - 1) * groups * $ACTQUADS;
    var sum$c = 0.0;
#end
    let run = (groups + $S - 1) / $S;
    let end = min((li / $ROWS + 1) * run, groups);
    for (var g = li / $ROWS * run; g < end; g += 1u) {
        let block = g / $GROUPS;
        let a = load(quad + block * $QUADS * 16, word + block * $WORDS * 16, g % $GROUPS);
        let first = half_of_codes(a, 0u);
        let second = half_of_codes(a, 1u);
#for c in 0..$T
        sum$c = add_group(a, first, second, base$c + g * $ACTQUADS, sum$c);
#end
    }
#for c in 0..$T
    sums[$c * $WG + li] = sum$c;
#end
    store_sums(column, id.x, li);
}
