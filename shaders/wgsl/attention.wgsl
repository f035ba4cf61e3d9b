// Attention of one token and one query head a workgroup, over tiles of $WG positions of the cache from position 0 on,
// merged ascending by the rule of the online softmax (Milakov and Gimelshein, 2018). What a token sees does not depend
// on the batch, nor does the order of its sums.
//
// Bytes: keys and values of the KV head once for each query head of its group; lanes read side by side in both.
//
// Occupancy: a workgroup has $WG invocations and at most 7 KiB of workgroup memory, so 8 or more fit a compute unit. One
// sequence has only as many workgroups as heads: expect the latency of a walk over its cache, not the bandwidth of a large
// GPU; from some tens of heads and sequences on, half of the bandwidth or more.
//
// EIGHTS: the maximum and the sum of a tile wait at 4 barriers, not at 16, of which a tile has 6 in all, not 18. Same bytes; the
// order of the sums is another one.
#import attend
#import reduce

@group(0) @binding(5) var<storage, read> cache: array<u32>;
@group(0) @binding(6) var<storage, read> tables: array<u32>;
@group(0) @binding(7) var<storage, read> vectors: array<f32>;

var<workgroup> query: array<f32, 1024>;
var<workgroup> sums: array<Pair, $VALUEWORDS>;
var<workgroup> weights: array<f32, $WG>;
var<workgroup> blocks: array<u32, $TILEPAGES>;

fn score(block: u32, slot: u32) -> f32 {
    var s = 0.0;
    for (var word = 0u; word < key_words(op.d_k); word += 1u) {
        let k = widen(cache[block + word * $PAGE + slot]);
#if HALF
        s = fma(query[2 * word], k.x, s);
        s = fma(query[2 * word + 1], k.y, s);
#else
        s = fma(query[word], k, s);
#end
    }
    s *= op.scale;
    if (op.cap > 0.0) {
        s = capped(s, op.cap);
    }
    return s;
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let token = id.x;
    let head = id.y;
    let words = key_words(op.d_v);
    for (var d = li; d < (op.d_k + 1) / 2 * 2; d += $WG) {
        query[d] = select(0.0, arena[op.q + (token * op.heads + head) * op.d_k + d], d < op.d_k);
    }
    for (var w = li; w < words; w += $WG) {
        sums[w] = Pair(0.0);
    }
    let position = tables[step.positions + token];
    let pages = step.pages + tables[step.page_starts + token];
    let length = tables[step.lengths + token];
    let start = position + 1 - min(position + 1, op.window);
    let beyond = select(min(length, position + min(op.window, length)), position + 1, op.causal == 1);
    var slope = 0.0;
    if (op.slopes != NONE) {
        slope = vectors[op.slopes + head];
    }
    let kv_head = head / (op.heads / op.heads_kv);
    var m = -3.4e38;
    var l = 0.0;
    for (var tile = start / $WG * $WG; tile < beyond; tile += $WG) {
        workgroupBarrier();
        if (li < $TILEPAGES && tile + li * $PAGE < beyond) {
            blocks[li] = block_at(tables[pages + tile / $PAGE + li], kv_head, op.heads_kv, op.d_k, op.d_v);
        }
        workgroupBarrier();
        let at = tile + li;
        let seen = at >= start && at < beyond;
        var s = -3.4e38;
        if (seen) {
            s = fma(-slope, abs(f32(at) - f32(position)), score(blocks[li / $PAGE], li % $PAGE));
        }
        let top = max(m, largest(li, s));
        let weight = select(0.0, exp(s - top), seen);
        weights[li] = weight;
        let keep = exp(m - top);
        l = fma(l, keep, total(li, weight));
        m = top;
        let end = min($WG, beyond - tile);
        let first = max(start, tile) - tile;
        for (var w = li; w < words; w += $WG) {
            var sum = sums[w] * keep;
            for (var p = first; p < end; p += 1u) {
                let v = widen(cache[blocks[p / $PAGE] + $PAGE * key_words(op.d_k) + p % $PAGE * words + w]);
                sum = fma(Pair(weights[p]), v, sum);
            }
            sums[w] = sum;
        }
    }
    var keep = 1.0;
    if (op.sinks != NONE) {
        let sink = vectors[op.sinks + head];
        let top = max(m, sink);
        keep = exp(m - top);
        l = fma(l, keep, exp(sink - top));
    }
    let out = op.out + (token * op.heads + head) * op.d_v;
    for (var w = li; w < words; w += $WG) {
#if HALF
        let y = sums[w] * keep / l;
        arena[out + 2 * w] = y.x;
        if (2 * w + 1 < op.d_v) {
            arena[out + 2 * w + 1] = y.y;
        }
#else
        arena[out + w] = sums[w] * keep / l;
#end
    }
}
