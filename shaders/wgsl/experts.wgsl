// out[slot] = x[slot] * weight[expert]^T (+ bias[expert]): products of which each row takes its own matrices. A workgroup
// computes a panel (16 rows, a lane each) of one expert for one slot of one row; its $S slices take the groups along k in
// turn and are added in workgroup memory, as is the column staged.
//
// Bytes: the weights of an expert once for each row that takes it, which for one sequence is as few as can be; rows of a
// long prompt that share an expert meet in the cache of the device at best.
//
// INTEGER (`--precision q8`): the staged column becomes 8-bit codes in workgroup memory, and products are integer dots as in
// `matmul_dot`. Each workgroup makes the codes anew, 16 groups at a time, which costs about what its products do.
//
// One result: an element adds up its products in an order that depends on the matrix alone, as in `matmul_wide`.
#import step
#import unpack/$FORMAT
#import slices
#if INTEGER
#import codes
#import dots
#else
#import dot
#import weight
#end

struct Op {
    x: u32,
    out: u32,
    // Where the numbers of each row's experts are, and floats from one row to the next; NONE where slot i is expert i.
    routes: u32,
    routed: u32,
    // Place in `vectors`, or NONE.
    bias: u32,
    k: u32,
    // Rows and panels of an expert.
    width: u32,
    each: u32,
    slots: u32,
    // Whether x has a part for each slot.
    parts: u32,
    // First panel, counted over all experts, and panels of this part of the tensor; where its quads and its words begin.
    first: u32,
    panels: u32,
    quads: u32,
    words: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(3) var<storage, read> quads: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> words: array<u32>;
@group(0) @binding(7) var<storage, read> vectors: array<f32>;

const TILE: u32 = $TILE; // groups of 32 that are staged at once
const SLICES: u32 = $S;

#if INTEGER
var<workgroup> staged: array<vec4<u32>, $STAGED>;
#else
var<workgroup> staged: array<vec4<f32>, $STAGED>;
#end
var<workgroup> sums: array<f32, $WG>;

// Value k of a column, 0 beyond its end.
fn value(column: u32, k: u32) -> f32 {
    return select(0.0, arena[column + min(k, op.k - 1)], k < op.k);
}

fn four(column: u32, k: u32) -> vec4<f32> {
    return vec4<f32>(value(column, k), value(column, k + 1), value(column, k + 2), value(column, k + 3));
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let lane = li % 16;
    let slot = id.y / op.each;
    var expert = slot;
    if (op.routes != NONE) {
        expert = u32(arena[op.routes + id.x * op.routed + slot]);
    }
    // Counted in this part; what lies in another part is left to that one.
    let panel = expert * op.each + id.y % op.each - op.first;
    let here = panel < op.panels;
    var column = op.x + id.x * op.k;
    if (op.parts == 1) {
        column = op.x + (id.x * op.slots + slot) * op.k;
    }
    let groups = (op.k + 31) / 32;
    let blocks = (groups + $GROUPS - 1) / $GROUPS;
    let quad = op.quads + panel * blocks * $QUADS * 16 + lane;
    let word = op.words + panel * blocks * $WORDS * 16 + lane;
    var sum = 0.0;
    for (var tile = 0u; tile < groups; tile += TILE) {
        workgroupBarrier();
        // A whole number of rounds, the same for all lanes.
        for (var round = 0u; round < TILE * 8 / $WG; round += 1u) {
            let i = round * $WG + li;
#if INTEGER
            let own_codes = coded(li, bitcast<vec4<u32>>(four(column, tile * 32 + i * 4)));
            staged[i / 8 * $ACTQUADS + i % 8 / 4][i % 4] = own_codes.word;
            if (i % 8 == 0) {
                staged[i / 8 * $ACTQUADS + 2] = own_codes.last;
            }
#else
            staged[i] = four(column, tile * 32 + i * 4);
#end
        }
        workgroupBarrier();
        let end = select(0u, min(TILE, groups - tile), here);
        for (var g = li / 16; g < end; g += SLICES) {
            let block = (tile + g) / $GROUPS;
            let a = load(quad + block * $QUADS * 16, word + block * $WORDS * 16, (tile + g) % $GROUPS);
#if INTEGER
            sum = add_group(a, half_of_codes(a, 0u), half_of_codes(a, 1u), g * $ACTQUADS, sum);
#else
            var part = 0.0;
#for s in 0..$SUBS
#for j in 0..$JOBS
            let w$s$j = weight(a, $s * $JOBS + $j, $s);
            part = add(staged[g * 8 + $s * $JOBS + $j], w$s$j, part);
#end
#if SCALED
            sum = fma(a.scale$s, part, sum);
#else
            sum += part;
#end
            part = 0.0;
#end
#end
        }
    }
    sums[li] = sum;
    workgroupBarrier();
    let row = id.y % op.each * 16 + lane;
    if (li >= 16 || !here || row >= op.width) {
        return;
    }
    var y = slices(li);
    if (op.bias != NONE) {
        y += vectors[op.bias + expert * op.width + row];
    }
    arena[op.out + (id.x * op.slots + slot) * op.width + row] = y;
}
