// Matrix product for adapters that are CPUs. Their barriers and their divergent loops are dear and a lane's loads are
// one after the other anyway, so an invocation walks all of k for its row of $R panels and $T columns, without slices.
//
// Columns are read four values at a time: a load costs such a driver a loop over its lanes, whatever its width. Where
// there are subgroups, their lanes share out the quads of a column and hand them round ($SUBGROUP lanes at least);
// elsewhere each lane reads all of them.
#import matmul

#if R4
alias Rows = vec4<f32>;
#else
alias Rows = f32;
#end

// Four values of a column, zeros beyond its end.
fn four(column: u32, quad: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), arena[op.x / 4 + column * (op.k / 4) + quad], quad * 4 < op.k);
}

@compute @workgroup_size($WG)
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(local_invocation_index) li: u32,
#if SUBGROUP
    @builtin(subgroup_invocation_id) own: u32,
#end
) {
    let lane = li % 16;
    let panel = (id.x * ($WG / 16) + li / 16) * $R;
    let groups = (op.k + 31) / 32;
    let blocks = (groups + $GROUPS - 1) / $GROUPS;
    let last = columns() - 1;
#for r in 0..$R
    let quad$r = op.quads + min(panel + $r, op.panels - 1) * blocks * $QUADS * 16 + lane;
    let word$r = op.words + min(panel + $r, op.panels - 1) * blocks * $WORDS * 16 + lane;
#end
#for c in 0..$T
    let column$c = min(id.y * $T + $c, last);
    var sum$c = Rows(0.0);
#end
    for (var g = 0u; g < groups; g += 1u) {
        let block = g / $GROUPS;
#for r in 0..$R
        let a$r = load(quad$r + block * $QUADS * 16, word$r + block * $WORDS * 16, g % $GROUPS);
#end
#for c in 0..$T
        var part$c = Rows(0.0);
#for q in 0..$SHARES
#if SUBGROUP
        let x$c_$q = four(column$c, g * 8 + $q * $SHARE + own);
#else
        let x$c_$q = four(column$c, g * 8 + $q);
#end
#end
#end
#for s in 0..$SUBS
#for j in 0..$JOBS
#for r in 0..$R
        let w$s$j_$r = weight(a$r, $s * $JOBS + $j, $s);
#end
#let quad = $s * $JOBS + $j
#let q = $quad / $SHARE
#let m = $quad % $SHARE
#for e in 0..4
#if R4
        let v$s$j$e = vec4<f32>(w$s$j_0[$e], w$s$j_1[$e], w$s$j_2[$e], w$s$j_3[$e]);
#else
        let v$s$j$e = w$s$j_0[$e];
#end
#for c in 0..$T
#if SUBGROUP
        part$c = fma(Rows(subgroupBroadcast(x$c_$q[$e], u32($m))), v$s$j$e, part$c);
#else
        part$c = fma(Rows(x$c_$q[$e]), v$s$j$e, part$c);
#end
#end
#end
#end
#for c in 0..$T
#if SCALED
#if R4
        sum$c = fma(vec4<f32>(a0.scale$s, a1.scale$s, a2.scale$s, a3.scale$s), part$c, sum$c);
#else
        sum$c = fma(a0.scale$s, part$c, sum$c);
#end
#else
        sum$c += part$c;
#end
        part$c = Rows(0.0);
#end
#end
    }
#for c in 0..$T
#for r in 0..$R
#if R4
    store(id.y * $T + $c, panel + $r, lane, sum$c[$r]);
#else
    store(id.y * $T + $c, panel + $r, lane, sum$c);
#end
#end
#end
}
