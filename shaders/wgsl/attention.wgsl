// Attention of $Q queries that see one sequence and one KV head: of a single token and head, or of four, which are the tokens of
// a block, or, where each block is a single token, heads of a group. They share what is read of keys and values.
//
// A tile of $TILE positions is computed by itself. Scores: an invocation has a position and every fourth run of eight words of
// its key. Values: an invocation has a word and one of `slices` runs of positions, which interleave. What parts and slices
// give is added in their order, so the bits depend on nothing but the query and what it sees.
//
// SPLIT: a workgroup computes one tile and leaves its result to `attention_merge.wgsl`. Else it walks all tiles.
//
// Bytes: keys and values once for the queries of a workgroup. Neighbouring lanes read neighbouring words: keys by lines of
// $PAGE positions, values by rows.
//
// Waits: eight loads are under way before the first is used, and the first values are asked for before the scores are known. A
// key of 32 words is one round of loads for the tile, as is a value of 32 words; then 5 barriers (6 of them a tile where tiles
// are walked). So a tile takes little more than the three waits for memory that depend on each other: tables, pages, keys.
// Measured on a H100 for one token and SPLIT, 32 heads of 64: 12 us at 512 positions, of which a dispatch with its barrier is 5; a
// workgroup that walked the cache alone took 344. Beyond what fills the device expect, with four queries at once, the bandwidth
// of the second-level cache.
//
// Occupancy: 256 invocations; with one query 6.5 KiB of workgroup memory, with four 15.3 KiB, so 4 of them where there are 64
// KiB. A prompt of 512 tokens takes 188 us a layer there (1,359 before queries shared their loads), bound by arithmetic and
// workgroup memory.
#import tiles

@group(0) @binding(5) var<storage, read> cache: array<u32>;

#if MANY
alias Places = vec4<u32>;
alias Flags = vec4<bool>;
#else
alias Places = u32;
alias Flags = bool;
#end

var<workgroup> query: array<Many, $KEY>;
// Of parts of keys, then of slices of values.
var<workgroup> shares: array<Many, $SHARES>;
// Scores of the tile's positions, then their weights; the largest of eight scores; the sum of eight weights.
var<workgroup> marks: array<Many, $TILE>;
var<workgroup> tops: array<Many, 8>;
var<workgroup> totals: array<Many, 8>;

fn top_of_tile() -> Many {
    var top = tops[0];
#for i in 1..8
    top = max(top, tops[$i]);
#end
    return top;
}

// The slices' sums of a word, `wide` of which lie side by side.
fn of_slices(own: u32, wide: u32) -> Many {
    var sum = shares[own];
#for i in 1..8
    sum = select(sum, sum + shares[own + min(u32($i), op.slices - 1) * wide], u32($i) < op.slices);
#end
    return sum;
}

fn chosen(a: Sums, b: Sums, second: Flags) -> Sums {
    return Sums(select(a.m, b.m, second), select(a.l, b.l, second), select(a.x, b.x, second), select(a.y, b.y, second));
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let row = id.y / op.rounds;
    let group = op.heads / op.heads_kv;
#if MANY
    let single = step.single == 1;
    let begins = tables[step.blocks + 2 * id.x];
    let count = tables[step.blocks + 2 * id.x + 1];
    // Workgroups of a KV head where queries are heads.
    let each = (group + 3) / 4;
    let kv_head = select(row / group, row / each, single);
#for s in 0..4
    let member$s = row % each * 4 + $s;
    let valid$s = select($s < count, member$s < group, single);
    let token$s = begins + select(min(u32($s), count - 1), 0u, single);
    let head$s = select(row, kv_head * group + min(member$s, group - 1), single);
    let seen$s = seen_by(token$s);
#end
    let start = vec4<u32>(seen0.x, seen1.x, seen2.x, seen3.x);
    let beyond = vec4<u32>(seen0.y, seen1.y, seen2.y, seen3.y);
    let begin = min(min(start.x, start.y), min(start.z, start.w));
    let end = max(max(beyond.x, beyond.y), max(beyond.z, beyond.w));
#else
    let kv_head = row / group;
    let valid0 = true;
    let token0 = id.x;
    let head0 = row;
    let seen0 = seen_by(token0);
    let start = seen0.x;
    let beyond = seen0.y;
    let begin = start;
    let end = beyond;
#end
#if SPLIT
    let tile = (begin / $TILE + id.z) * $TILE;
    if (tile >= end) {
        return;
    }
#end
    let pages = step.pages + tables[step.page_starts + token0];
    let key = key_words(op.d_k);
    let value = key_words(op.d_v);
    // Beyond the last element are zeros, to whole eights of words.
    for (var d = li; d < (key + 7) / 8 * 8 * PER; d += $WG) {
        let e = min(d, op.d_k - 1);
#for s in 0..$Q
        let q$s = arena[op.q + (token$s * op.heads + head$s) * op.d_k + e];
#end
#if MANY
        query[d] = select(Many(0.0), Many(q0, q1, q2, q3), d < op.d_k);
#else
        query[d] = select(0.0, q0, d < op.d_k);
#end
    }
#for s in 0..$Q
    let position$s = f32(tables[step.positions + token$s]);
    var slope$s = 0.0;
    if (op.slopes != NONE) {
        slope$s = vectors[op.slopes + head$s];
    }
#end
#if MANY
    let position = Many(position0, position1, position2, position3);
    let slope = Many(slope0, slope1, slope2, slope3);
    let sink = Many(sink_of(head0), sink_of(head1), sink_of(head2), sink_of(head3));
#else
    let position = position0;
    let slope = slope0;
    let sink = sink_of(head0);
#end
    let slot = li % $TILE;
    let first = id.y % op.rounds * $WG;
    let wide = min(value - first, u32($WG));
    let slice = min(li / wide, op.slices - 1);
    let word = first + li % wide;
    // Sums are kept by the last invocations: the first have the scores.
    let own = u32($WG) - 1 - li;
    var sums = Sums(Many(NOTHING), Many(0.0), Many(0.0), Many(0.0));
#if SPLIT
    {
        workgroupBarrier();
#else
    for (var tile = begin / $TILE * $TILE; tile < end; tile += u32($TILE)) {
        workgroupBarrier();
#end
        // What lies before and behind what they see may be anything: it has no weight, and is not read.
        let low = max(begin, tile) - tile;
        let high = min(end - tile, u32($TILE)) - 1;
        let page = pages + tile / $PAGE;
        let block0 = block_at(tables[page + low / $PAGE], kv_head, op.heads_kv, op.d_k, op.d_v);
        let block1 = block_at(tables[page + high / $PAGE], kv_head, op.heads_kv, op.d_k, op.d_v);
        let keys = select(block0, block1, slot >= $PAGE) + slot % $PAGE;
        var product = Many(0.0);
        for (var w = li / $TILE * 8; w < key; w += $STRIDE) {
#for i in 0..8
            let k$i = cache[keys + min(w + $i, key - 1) * $PAGE];
#end
#for i in 0..8
            let e$i = widen(k$i);
#if HALF
            product = fma(query[2 * (w + $i)], Many(e$i.x), product);
            product = fma(query[2 * (w + $i) + 1], Many(e$i.y), product);
#else
            product = fma(query[w + $i], Many(e$i), product);
#end
#end
        }
        shares[li] = product;
        let values = vec2<u32>(block0, block1) + key * $PAGE + word;
#for i in 0..8
        let p$i = clamp(slice + $i * op.slices, low, high);
        var v$i = cache[select(values.x, values.y, p$i >= $PAGE) + p$i % $PAGE * value];
#end
        workgroupBarrier();
        let at = tile + slot;
        let seen = (Places(at) >= start) & (Places(at) < beyond);
        var score = Many(NOTHING);
        if (li < $TILE) {
            score = shares[li];
#for i in 1..$PARTS
#let part = $i * $TILE
            score += shares[$part + li];
#end
            score *= op.scale;
            if (op.cap > 0.0) {
#if MANY
                score = capped4(score, op.cap);
#else
                score = capped(score, op.cap);
#end
            }
            score = fma(-slope, abs(Many(f32(at)) - position), score);
            marks[li] = select(Many(NOTHING), score, seen);
        }
        workgroupBarrier();
        if (li < 8) {
            var top = marks[8 * li];
#for i in 1..8
            top = max(top, marks[8 * li + $i]);
#end
            tops[li] = top;
        }
        workgroupBarrier();
        if (li < $TILE) {
            marks[li] = select(Many(0.0), exp(score - top_of_tile()), seen);
        }
        workgroupBarrier();
        if (li < 8) {
            var total = marks[8 * li];
#for i in 1..8
            total += marks[8 * li + $i];
#end
            totals[li] = total;
        }
        var x = Many(0.0);
        var y = Many(0.0);
        for (var p = slice; p < $TILE; p += 8 * op.slices) {
            let next = p + 8 * op.slices;
#for i in 0..8
            var u$i = 0u;
#end
            if (next < $TILE) {
#for i in 0..8
                let p$i = clamp(next + $i * op.slices, low, high);
                u$i = cache[select(values.x, values.y, p$i >= $PAGE) + p$i % $PAGE * value];
#end
            }
#for i in 0..8
            let weight$i = marks[p + $i * op.slices];
            let e$i = widen(v$i);
#if HALF
            x = fma(weight$i, Many(e$i.x), x);
            y = fma(weight$i, Many(e$i.y), y);
#else
            x = fma(weight$i, Many(e$i), x);
#end
            v$i = u$i;
#end
        }
        shares[li] = x;
#if HALF
        shares[u32($WG) + li] = y;
#end
        workgroupBarrier();
        if (own < wide) {
            var l = totals[0];
#for i in 1..8
            l += totals[$i];
#end
            var of_tile = Sums(top_of_tile(), l, of_slices(own, wide), Many(0.0));
#if HALF
            of_tile.y = of_slices(u32($WG) + own, wide);
#end
#if SPLIT
            sums = of_tile;
#else
            let meets = (start < Places(tile + $TILE)) & (beyond > Places(tile));
            sums = chosen(sums, merged(sums, of_tile), meets);
#end
        }
    }
    if (own >= wide) {
        return;
    }
    let d = (first + own) * PER;
#if !SPLIT
    sums = ended(sums, sink);
#end
#for s in 0..$Q
#if MANY
    let m$s = sums.m[$s];
    let l$s = sums.l[$s];
    let x$s = sums.x[$s];
    let y$s = sums.y[$s];
#else
    let m$s = sums.m;
    let l$s = sums.l;
    let x$s = sums.x;
    let y$s = sums.y;
#end
#if SPLIT
    if (valid$s && seen$s.x < tile + $TILE && seen$s.y > tile) {
        let at = result_at(token$s, head$s, tile / $TILE - seen$s.x / $TILE);
        if (d == 0) {
            arena[at + op.d_v] = m$s;
            arena[at + op.d_v + 1] = l$s;
        }
#else
    if (valid$s) {
        let at = op.out + (token$s * op.heads + head$s) * op.d_v;
#end
        arena[at + d] = x$s;
#if HALF
        if (d + 1 < op.d_v) {
            arena[at + d + 1] = y$s;
        }
#end
    }
#end
}
