// Matrix product for GPUs and many columns. A workgroup computes four panels (64 rows) for 64 columns, an invocation 4 x 4 of
// them in registers. Weights are unpacked once for all 64 columns and wait in workgroup memory with the columns, both with k
// as the slower index: 16 values of k at a time.
//
// The same bits as `matmul_wide`: its runs of groups are walked one after the other and added in their order, groups as there.
//
// Bytes: every weight once for each 64 columns, every value of a column once for each 64 rows. Workgroup memory: 9 KiB, so
// registers alone (some 80) bound the occupancy. A step of k takes 16 products from 2 reads of workgroup memory. Measured on a
// H100 (57 TFLOP/s in f32 by the roof's kernel): 23 to 25 TFLOP/s, where tiles of 8 columns in the way of `matmul_wide` reach 13.
// Tiles of 128 x 128 gain a fifth more in large matrices and lose two fifths in small ones.
#import matmul

var<workgroup> weights: array<vec4<f32>, 256>;
// A quad more a row, so that lanes that write to one of four rows do not wait for each other.
var<workgroup> values: array<vec4<f32>, 272>;
#if SCALED
var<workgroup> scales: array<vec4<f32>, $SCALES>;
#end

// A quad of a column: one of four of a half of a group.
fn value(base: u32, own: u32, g: u32, half: u32) -> vec4<f32> {
    let at = g * 8 + half * 4 + own;
#if RAGGED
    // Zeros beyond the last; nothing lies between columns.
    if (at >= op.k / 4) {
        return vec4<f32>(0.0);
    }
#end
    return arena[base + at];
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let groups = (op.k + 31) / 32;
    let blocks = (groups + $GROUPS - 1) / $GROUPS;
    let run = (groups + $S - 1) / $S;
    let column = id.y * 64;
    // Which four rows and columns are computed; which row, quad of its codes, column and quad of its values are fetched.
    let rows = li % 16;
    let four = li / 16;
    let row = li % 64;
    let share = li / 64;
    let panel = min(id.x * 4 + row / 16, op.panels - 1);
    let quad = op.quads + panel * blocks * $QUADS * 16 + row % 16;
    let word = op.words + panel * blocks * $WORDS * 16 + row % 16;
    // Columns beyond the last are computed from it, and not stored.
    let base = (op.x + min(column + li / 4, columns() - 1) * op.k) / 4;
#for c in 0..4
    var total$c = vec4<f32>(0.0);
    var sum$c = vec4<f32>(0.0);
#end
    // What the next group takes is on its way while this one is computed.
    var a = load(quad, word, 0u);
#for h in 0..2
    var x$h = value(base, li % 4, 0u, $h);
#end
    for (var g = 0u; g < groups; g += 1u) {
        if (g % run == 0u) {
#for c in 0..4
            total$c += sum$c;
            sum$c = vec4<f32>(0.0);
#end
        }
        let now = a;
        let next = min(g + 1, groups - 1);
        a = load(quad + next / $GROUPS * $QUADS * 16, word + next / $GROUPS * $WORDS * 16, next % $GROUPS);
#for c in 0..4
        var part$c = vec4<f32>(0.0);
#end
#for h in 0..2
#let own = $h * 4
        let w$h = weight(now, $own + share, $h);
        workgroupBarrier();
#for i in 0..4
        weights[share * 64 + $i * 16 + row / 4][row % 4] = w$h[$i];
        values[li % 4 * 68 + $i * 17 + li / 16][li / 4 % 4] = x$h[$i];
#end
#if SCALED
        if (share == $h) {
#if WHOLE
            scales[row / 4][row % 4] = now.scale0;
#else
            scales[$h * 16 + row / 4][row % 4] = now.scale$h;
#end
        }
#end
        workgroupBarrier();
        x$h = value(base, li % 4, next, $h);
#for k in 0..16
        {
            let w = weights[$k * 16 + rows];
            let x = values[$k * 17 + four];
#for c in 0..4
            part$c = fma(w, vec4<f32>(x[$c]), part$c);
#end
        }
#end
#if !WHOLE
#for c in 0..4
#if SCALED
        sum$c = fma(scales[$h * 16 + rows], part$c, sum$c);
#else
        sum$c += part$c;
#end
        part$c = vec4<f32>(0.0);
#end
#end
#end
#if WHOLE
#for c in 0..4
#if SCALED
        sum$c = fma(scales[rows], part$c, sum$c);
#else
        sum$c += part$c;
#end
#end
#end
    }
#for c in 0..4
    total$c += sum$c;
#for r in 0..4
    store(column + four * 4 + $c, id.x * 4 + rows / 4, rows % 4 * 4 + $r, total$c[$r]);
#end
#end
}
