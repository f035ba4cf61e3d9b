// out = scale * table[row] (+ add): an invocation writes one group of 32 of one token's row.
#import step
#import unpack/$FORMAT

struct Op {
    out: u32,
    k: u32,
    // First row and panels of this part of the table, and where its quads and its words begin.
    first: u32,
    panels: u32,
    quads: u32,
    words: u32,
    scale: f32,
    // By what a row is looked up: 0 the token, 1 its position, 2 the first one for all.
    lookup: u32,
    // Place in `arena`, or NONE.
    add: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(3) var<storage, read> quads: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> words: array<u32>;
@group(0) @binding(6) var<storage, read> tables: array<u32>;

fn write(i: u32, value: f32) {
    var y = value;
    if (op.add != NONE) {
        y += arena[op.add + i];
    }
    arena[op.out + i] = y;
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let token = id.x;
    let g = id.y * $WG + li;
    var row = 0u;
    if (op.lookup < 2) {
        row = tables[select(step.ids, step.positions, op.lookup == 1) + token];
    }
    let groups = (op.k + 31) / 32;
    let panel = (row - op.first) / 16;
    if (g >= groups || row < op.first || panel >= op.panels) {
        return;
    }
    let block = panel * ((groups + $GROUPS - 1) / $GROUPS) + g / $GROUPS;
    let lane = row % 16;
    let a = load(op.quads + block * $QUADS * 16 + lane, op.words + block * $WORDS * 16 + lane, g % $GROUPS);
#for s in 0..$SUBS
#for j in 0..$JOBS
#let i = $s * $JOBS + $j
#if FLOORS
    let w$i = fma(vec4<f32>(a.scale$s), codes(a, $i), vec4<f32>(-a.floor$s)) * op.scale;
#else
#if SCALED
    let w$i = (a.scale$s * codes(a, $i)) * op.scale;
#else
    let w$i = codes(a, $i) * op.scale;
#end
#end
#for e in 0..4
#let n = $i * 4 + $e
    if (g * 32 + $n < op.k) {
        write(token * op.k + g * 32 + $n, w$i[$e]);
    }
#end
#end
#end
}
