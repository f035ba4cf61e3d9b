// Matrix product for `--precision q8`: codes of weights times the codes that `quantize` has made of the columns. A workgroup
// computes a panel (16 rows, a lane each) for $T columns; its $S slices take the groups along k in turn and are added in
// workgroup memory, as are the columns staged.
//
// Dots of a group are exact integers; only their sum along k is rounded, here in eight chains, on the processor in one.
//
// Bytes: every weight once for each $T columns, as in `matmul_wide`: the 16 lanes of two neighbouring slices read 512 bytes
// side by side. Columns: 1.5 bytes a value, a third of floats. Workgroup memory: 6 KiB of columns and 4 KiB of sums at most, so
// 8 workgroups of 128 fit where there are 100 KiB. Expected for one column: as `matmul_wide`, 70 % of memory bandwidth or
// more once a matrix has some hundred panels; for many, a fourth of its multiplications and no conversions to float.
//
// EIGHTS: as there, the slices of a row are added by eight lanes at once, and a single column is read where it lies, without a
// barrier. The same bits.
#import matmul
#import matmul_sums
#import dots

const TILE: u32 = $TILE; // groups of 32 that are staged at once
const SLICES: u32 = $S;
const WIDTH: u32 = TILE * $ACTQUADS; // quads of a column that are staged at once

#if !DIRECT
var<workgroup> staged: array<vec4<u32>, $STAGED>;
#end

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let lane = li % 16;
    let slice = li / 16;
    let column = id.y * $T;
    let groups = op.k / 32;
    let blocks = (groups + $GROUPS - 1) / $GROUPS;
    let quad = op.quads + id.x * blocks * $QUADS * 16 + lane;
    let word = op.words + id.x * blocks * $WORDS * 16 + lane;
#for c in 0..$T
    var sum$c = 0.0;
#end
#if DIRECT
    {
        let tile = 0u;
        let end = groups;
#else
    for (var tile = 0u; tile < groups; tile += TILE) {
        workgroupBarrier();
        let end = min(TILE, groups - tile);
        for (var i = li; i < $T * WIDTH; i += $WG) {
            // Columns beyond the last are computed from it, and not stored.
            let c = min(column + i / WIDTH, columns() - 1);
            let at = (c * groups + tile) * $ACTQUADS + min(i % WIDTH, end * $ACTQUADS - 1);
            staged[i] = arena[op.x / 4 + at];
        }
        workgroupBarrier();
#end
        for (var g = slice; g < end; g += SLICES) {
            let block = (tile + g) / $GROUPS;
            let a = load(quad + block * $QUADS * 16, word + block * $WORDS * 16, (tile + g) % $GROUPS);
            let first = half_of_codes(a, 0u);
            let second = half_of_codes(a, 1u);
#if DIRECT
            sum0 = add_group(a, first, second, op.x / 4 + (column * groups + g) * $ACTQUADS, sum0);
#else
#for c in 0..$T
#let start = $c * $TILE
            sum$c = add_group(a, first, second, ($start + g) * $ACTQUADS, sum$c);
#end
#end
        }
    }
#for c in 0..$T
    sums[$c * $WG + li] = sum$c;
#end
    store_sums(column, id.x, li);
}
