// Attention for adapters that are CPUs. A workgroup is one subgroup of $SUB lanes, so nothing waits at a barrier, and
// $Q queries share what it reads of keys and values: the tokens of a block, or, where each block is one token, heads of
// one group. Tiles are pages of the cache, merged ascending by the rule of the online softmax (Milakov and Gimelshein,
// 2018); what a query sees and the order of its sums do not depend on the queries beside it.
//
// Such drivers load lane after lane, so all loads are quads: of keys, four neighbouring positions of one word; of values,
// four neighbouring words of one position. Queries and weights are handed round in the subgroup.
#import attend

@group(0) @binding(5) var<storage, read> cache: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> tables: array<u32>;

// Where a query of a token and head begins, in elements of heads of one.
fn row_of(token: u32, head: u32) -> u32 {
    return token * op.heads + head;
}

fn score(s: vec4<f32>) -> vec4<f32> {
    if (op.cap > 0.0) {
        return capped4(s * op.scale, op.cap);
    }
    return s * op.scale;
}

@compute @workgroup_size($SUB)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(subgroup_invocation_id) own: u32) {
    let first = tables[step.blocks + 2 * id.x];
    let count = tables[step.blocks + 2 * id.x + 1];
    let group = op.heads / op.heads_kv;
    // Workgroups of a KV head where queries are heads.
    let each = (group + $Q - 1) / $Q;
    let kv_head = select(id.y / group, id.y / each, step.single == 1);
    var last = 0u;
    var begin = 0xffffffffu;
#for s in 0..$Q
    let member$s = id.y % each * $Q + $s;
    let valid$s = select($s < count, member$s < group, step.single == 1);
    let token$s = first + select(min(u32($s), count - 1), 0u, step.single == 1);
    let head$s = select(id.y, kv_head * group + min(member$s, group - 1), step.single == 1);
    let position$s = tables[step.positions + token$s];
    let start$s = position$s + 1 - min(position$s + 1, op.window);
    last = max(last, position$s);
    begin = min(begin, start$s);
    var m$s = -3.4e38;
    var l$s = 0.0;
#for b in 0..$VB
#for h in 0..$PER
    var sum$s_$b_$h = vec4<f32>(0.0);
#end
#end
#end
    let pages = step.pages + tables[step.page_starts + first];
    let words = key_words(op.d_k);
    let value_quads = key_words(op.d_v) / 4;
    for (var tile = begin / $PAGE * $PAGE; tile <= last; tile += $PAGE) {
        let keys = block_at(tables[pages + tile / $PAGE], kv_head, op.heads_kv, op.d_k, op.d_v) / 4;
        let values = keys + $PAGE / 4 * words;
#for s in 0..$Q
#for i in 0..$PQ
        var s$s_$i = vec4<f32>(0.0);
#end
#end
        for (var d = 0u; d < op.d_k; d += $CHUNK) {
#for s in 0..$Q
            let q$s = select(vec4<f32>(0.0), arena[(op.q + row_of(token$s, head$s) * op.d_k + d) / 4 + own], d + own * 4 < op.d_k);
#end
#for w in 0..$CHUNKWORDS
            let word$w = keys + min(d / $PER + $w, words - 1) * ($PAGE / 4) + own;
#for i in 0..$PQ
            let k$w_$i = cache[word$w + $i * $SUB];
#if HALF
#let e = $w * 2
#let quad = $e / 4
#let part = $e % 4
#let more = $part + 1
            let x$w_$i = unpack2x16float(k$w_$i.x);
            let y$w_$i = unpack2x16float(k$w_$i.y);
            let z$w_$i = unpack2x16float(k$w_$i.z);
            let u$w_$i = unpack2x16float(k$w_$i.w);
#for s in 0..$Q
            s$s_$i = fma(vec4<f32>(subgroupBroadcast(q$s[$part], u32($quad))), vec4<f32>(x$w_$i.x, y$w_$i.x, z$w_$i.x, u$w_$i.x), s$s_$i);
            s$s_$i = fma(vec4<f32>(subgroupBroadcast(q$s[$more], u32($quad))), vec4<f32>(x$w_$i.y, y$w_$i.y, z$w_$i.y, u$w_$i.y), s$s_$i);
#end
#else
#let quad = $w / 4
#let part = $w % 4
#for s in 0..$Q
            s$s_$i = fma(vec4<f32>(subgroupBroadcast(q$s[$part], u32($quad))), bitcast<vec4<f32>>(k$w_$i), s$s_$i);
#end
#end
#end
#end
        }
#for s in 0..$Q
        var high$s = -3.4e38;
#for i in 0..$PQ
        let at$s_$i = vec4<u32>(tile + ($i * $SUB + own) * 4) + vec4<u32>(0u, 1u, 2u, 3u);
        let seen$s_$i = (at$s_$i >= vec4<u32>(start$s)) & (at$s_$i <= vec4<u32>(position$s));
        let c$s_$i = select(vec4<f32>(-3.4e38), score(s$s_$i), seen$s_$i);
        high$s = max(high$s, max(max(c$s_$i.x, c$s_$i.y), max(c$s_$i.z, c$s_$i.w)));
#end
        let top$s = max(m$s, subgroupMax(high$s));
        let keep$s = exp(m$s - top$s);
        m$s = top$s;
        l$s *= keep$s;
#for i in 0..$PQ
        let w$s_$i = select(vec4<f32>(0.0), exp(c$s_$i - top$s), seen$s_$i);
        l$s += (w$s_$i.x + w$s_$i.y) + (w$s_$i.z + w$s_$i.w);
#end
#for b in 0..$VB
#for h in 0..$PER
        sum$s_$b_$h *= keep$s;
#end
#end
#end
        // Behind the last position is memory of others, which may hold anything: its weight is 0, so it is not read.
        let end = min(last - tile, $PAGE - 1u);
#for p in 0..$PAGE
#let i = $p / 4 / $SUB
#let lane = $p / 4 % $SUB
#let part = $p % 4
        let row$p = values + min(u32($p), end) * value_quads + own;
#for b in 0..$VB
        let v$p_$b = cache[row$p + $b * $SUB];
#if HALF
        let a$p_$b = vec4<f32>(unpack2x16float(v$p_$b.x), unpack2x16float(v$p_$b.y));
        let b$p_$b = vec4<f32>(unpack2x16float(v$p_$b.z), unpack2x16float(v$p_$b.w));
#else
        let a$p_$b = bitcast<vec4<f32>>(v$p_$b);
#end
#end
#for s in 0..$Q
        let w$p_of_$s = vec4<f32>(subgroupBroadcast(w$s_$i[$part], u32($lane)));
#for b in 0..$VB
        sum$s_$b_0 = fma(w$p_of_$s, a$p_$b, sum$s_$b_0);
#if HALF
        sum$s_$b_1 = fma(w$p_of_$s, b$p_$b, sum$s_$b_1);
#end
#end
#end
#end
    }
#for s in 0..$Q
    let total$s = subgroupAdd(l$s);
    if (valid$s) {
#for b in 0..$VB
#let quad = $b * $SUB
        let quad$s_$b = $quad + own;
        if (quad$s_$b < value_quads) {
#for h in 0..$PER
            arena[(op.out + row_of(token$s, head$s) * op.d_v) / 4 + quad$s_$b * $PER + $h] = sum$s_$b_$h / total$s;
#end
        }
#end
    }
#end
}
