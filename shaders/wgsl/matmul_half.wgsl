enable f16;
// Matrix product with half floats. A workgroup computes a panel (16 rows, a lane each) for $T columns; its $S slices take the
// groups along k in turn and are added in workgroup memory, as are the columns staged.
//
// Weights and staged columns are rounded to 11 bits, a quad of a column under a power of two of its own, so that neither is
// out of range; four products are added in halves, all else in f32. Off by an NMSE of 2e-7 to 3e-7 a product (f32: 1e-14; codes
// of 8 bits: 2e-5).
//
// Bytes: every weight once for each $T columns; the 16 lanes of two neighbouring slices read 512 bytes side by side, so a
// warp of 32 reads whole lines; a staged column takes 12 bytes a quad, not 16. Only where it is asked for: measured, a H100 and
// lavapipe alike lose by it against `matmul_wide` and `matmul_tile`, since four halves are too few to pay for their conversion.
#import matmul
#import slices

const TILE: u32 = $TILE; // groups of 32 that are staged at once
const SLICES: u32 = $S;

// Quads over powers of two, and those.
var<workgroup> staged: array<vec4<f16>, $STAGED>;
var<workgroup> sizes: array<f32, $STAGED>;
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

fn stage(i: u32, x: vec4<f32>) {
    let a = abs(x);
    let size = bitcast<u32>(max(max(a.x, a.y), max(a.z, a.w))) & 0x7f800000u;
    // Below the least power there is nothing.
    let inverse = select(bitcast<f32>(0x7f000000u - min(size, 0x7f000000u)), 0.0, size == 0u);
    staged[i] = vec4<f16>(x * inverse);
    sizes[i] = bitcast<f32>(size);
}

fn add_halves(i: u32, w: vec4<f16>, sum: f32) -> f32 {
    let p = staged[i] * w;
    let pairs = p.xy + p.zw;
    return fma(sizes[i], f32(pairs.x + pairs.y), sum);
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
            let x = four(column + i / (TILE * 8), tile * 32 + i % (TILE * 8) * 4);
            stage(i, x);
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
#let i = $s * $JOBS + $j
            let h$i = vec4<f16>(weight(a, $i, $s));
#for c in 0..$T
            part$c = add_halves($c * TILE * 8 + g * 8 + $i, h$i, part$c);
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
        store(column + i / 16, id.x, i % 16, slices(i / 16 * $WG + i % 16));
    }
}
