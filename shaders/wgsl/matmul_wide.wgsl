// Matrix product for GPUs. A workgroup computes a panel (16 rows, a lane each) for $T columns; its $S slices take the
// groups along k in turn and are added in workgroup memory, as are the columns staged.
//
// Bytes: every weight once for each $T columns; the 16 lanes of two neighbouring slices read 512 bytes side by side, so
// a warp of 32 reads whole lines. Workgroup memory: 12 KiB for 8 columns, so 8 workgroups of 128 fit where there are
// 100 KiB. Expected for one column: 70 % of memory bandwidth or more once a matrix has some hundred panels; below that
// the latency of one pass along k.
#import matmul
#import dot

const TILE: u32 = $TILE; // groups of 32 that are staged at once
const SLICES: u32 = $S;

var<workgroup> staged: array<vec4<f32>, $STAGED>;
var<workgroup> sums: array<f32, $SUMS>;

// Four values of a column, zeros beyond its end.
fn four(column: u32, k: u32) -> vec4<f32> {
    let at = op.x + column * op.k + k;
    if (column >= columns() || k >= op.k) {
        return vec4<f32>(0.0);
    }
    if (k + 4 <= op.k) {
        return vec4<f32>(arena[at], arena[at + 1], arena[at + 2], arena[at + 3]);
    }
    var v = vec4<f32>(arena[at], 0.0, 0.0, 0.0);
    if (k + 1 < op.k) { v.y = arena[at + 1]; }
    if (k + 2 < op.k) { v.z = arena[at + 2]; }
    return v;
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let lane = li % 16;
    let slice = li / 16;
    let column = id.y * $T;
    let groups = (op.k + 31) / 32;
    let blocks = (groups + $GROUPS - 1) / $GROUPS;
    let quad = op.quads + id.x * blocks * $QUADS * 16 + lane;
    let word = op.words + id.x * blocks * $WORDS * 16 + lane;
#for c in 0..$T
    var sum$c = 0.0;
#end
    for (var tile = 0u; tile < groups; tile += TILE) {
        workgroupBarrier();
        for (var i = li; i < $T * TILE * 8; i += $WG) {
            staged[i] = four(column + i / (TILE * 8), tile * 32 + i % (TILE * 8) * 4);
        }
        workgroupBarrier();
        let end = min(TILE, groups - tile);
        for (var g = slice; g < end; g += SLICES) {
            let block = (tile + g) / $GROUPS;
            let a = load(quad + block * $QUADS * 16, word + block * $WORDS * 16, (tile + g) % $GROUPS);
#for c in 0..$T
            var part$c = 0.0;
#end
#for s in 0..$SUBS
#for j in 0..$JOBS
#if FLOORS
            let w$s$j = fma(vec4<f32>(a.scale$s), codes(a, $s * $JOBS + $j), vec4<f32>(-a.floor$s));
#else
            let w$s$j = codes(a, $s * $JOBS + $j);
#end
#for c in 0..$T
            part$c = add(staged[$c * TILE * 8 + g * 8 + $s * $JOBS + $j], w$s$j, part$c);
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
    }
#for c in 0..$T
    sums[$c * $WG + li] = sum$c;
#end
    workgroupBarrier();
    for (var i = li; i < 16 * $T; i += $WG) {
        let at = i / 16 * $WG + i % 16;
        var sum = sums[at];
        for (var s = 1u; s < SLICES; s += 1u) {
            sum += sums[at + s * 16];
        }
        store(column + i / 16, id.x, i % 16, sum);
    }
}
