// Matrix product for `--precision q8` and many columns: four panels (64 rows) times 64 columns a workgroup, 4 x 4 an invocation, as
// `matmul_tile` does it with floats, of codes as `matmul_dot`, with its bits.
//
// Bytes: every weight once for each 64 columns, every code of a column once for each 64 rows. Workgroup memory: 6 KiB at most. A
// group takes 128 dots of four codes an invocation and some 50 other products, where floats take 512. Measured on a H100: 0.61 of
// the time of `matmul_tile` for Q4_K.
#import matmul

// Words of codes, of four rows or columns each, by their place in a group; scales and floors of rows, scales and sums of columns.
var<workgroup> weights: array<vec4<u32>, 128>;
var<workgroup> values: array<vec4<u32>, 128>;
var<workgroup> scales: array<vec4<f32>, 32>;
var<workgroup> floors: array<vec4<f32>, 32>;
var<workgroup> more: array<vec4<f32>, 64>;

fn dots(w: vec4<u32>, x: u32) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(w.x, x), dot4I8Packed(w.y, x), dot4I8Packed(w.z, x), dot4I8Packed(w.w, x));
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let groups = op.k / 32;
    let blocks = (groups + $GROUPS - 1) / $GROUPS;
    let run = (groups + $S - 1) / $S;
    let column = id.y * 64;
    // Which four rows and columns are computed; which row and share of its codes, column and quad of its codes are fetched.
    let rows = li % 16;
    let four = li / 16;
    let row = li % 64;
    let share = li / 64;
    let panel = min(id.x * 4 + row / 16, op.panels - 1);
    let quad = op.quads + panel * blocks * $QUADS * 16 + row % 16;
    let word = op.words + panel * blocks * $WORDS * 16 + row % 16;
    // Columns beyond the last are computed from it, and not stored.
    let base = op.x / 4 + min(column + row, columns() - 1) * groups * $ACTQUADS + min(share, 2);
#for c in 0..4
    var total$c = vec4<f32>(0.0);
    var sum$c = vec4<f32>(0.0);
#end
    for (var g = 0u; g < groups; g += 1u) {
        if (g % run == 0u) {
#for c in 0..4
            total$c += sum$c;
            sum$c = vec4<f32>(0.0);
#end
        }
        let a = load(quad + g / $GROUPS * $QUADS * 16, word + g / $GROUPS * $WORDS * 16, g % $GROUPS);
        let w = vec2<u32>(packed(a, share * 2), packed(a, share * 2 + 1));
        let x = arena[base + g * $ACTQUADS];
        workgroupBarrier();
        let at = share * 32 + row / 4;
        weights[at][row % 4] = w.x;
        weights[at + 16][row % 4] = w.y;
        if (share < 2) {
#for i in 0..4
            values[share * 64 + $i * 16 + row / 4][row % 4] = x[$i];
#end
        } else if (share == 2) {
            // Scale, scaled sums of both halves and of all.
#for i in 0..4
            more[$i * 16 + row / 4][row % 4] = bitcast<f32>(x[$i]);
#end
        } else {
            scales[row / 4][row % 4] = a.scale0;
#if !WHOLE
            scales[16 + row / 4][row % 4] = a.scale1;
#end
#if FLOORS
            floors[row / 4][row % 4] = a.floor0;
#if !WHOLE
            floors[16 + row / 4][row % 4] = a.floor1;
#end
#end
        }
        workgroupBarrier();
        let xscale = more[four];
#for h in 0..2
#for c in 0..4
        var dot$h_$c = vec4<i32>(0);
#end
#for j in 0..4
        {
            let w = weights[($h * 4 + $j) * 16 + rows];
            let x = values[($h * 4 + $j) * 16 + four];
#for c in 0..4
            dot$h_$c += dots(w, x[$c]);
#end
        }
#end
#end
#if WHOLE
#for c in 0..4
        sum$c = fma(vec4<f32>(dot0_$c + dot1_$c), scales[rows] * xscale[$c], sum$c);
#if FLOORS
        sum$c = fma(-floors[rows], vec4<f32>(more[48 + four][$c]), sum$c);
#end
#end
#else
#for h in 0..2
#let sum = $h * 16 + 16
#for c in 0..4
        sum$c = fma(vec4<f32>(dot$h_$c), scales[$h * 16 + rows] * xscale[$c], sum$c);
#if FLOORS
        sum$c = fma(-floors[$h * 16 + rows], vec4<f32>(more[$sum + four][$c]), sum$c);
#end
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
