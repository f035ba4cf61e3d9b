// The largest logit of each wanted row, the first of equals: a workgroup takes a slice of a row, and where MERGE is set,
// the results of the row's slices. What comes out is one word a row: the token, with the highest bit set if it is the first
// that is not a number, or all bits if every logit is -inf.
//
// Bytes: the row once, a warp reading 512 bytes side by side; $SLICES slices a row of $WG invocations, each with four reads
// under way: a row of a large vocabulary is one round of them. Expected: a few microseconds, against the read-back of the
// row that it saves. EIGHTS: one barrier, not two.
#import step
#import logit
#if EIGHTS
#import eights
#end

struct Op {
    x: u32,
    width: u32,
    // Most rows: where the results of slices begin.
    rows: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(8) var<storage, read_write> results: array<u32>;

#let eights = $WG / 8
#let rounds = $WG / 64
#let each = $WG / 16
#if EIGHTS
var<workgroup> bests: array<vec2<u32>, $eights>;
#else
var<workgroup> bests: array<vec2<u32>, $WG>;
var<workgroup> parts: array<vec2<u32>, 16>;
#end

// Of two keys with their tokens.
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}

#if EIGHTS
// The best of eight neighbouring lanes, in every one of them.
fn best_of_eight(own: vec2<u32>) -> vec2<u32> {
    var best = own;
#for step in 0..3
    best = better(best, subgroupShuffleXor(best, 1u << $step));
#end
    return best;
}

// The best of all invocations.
fn reduce(li: u32, own: vec2<u32>) -> vec2<u32> {
    let part = best_of_eight(own);
    if (li % 8 == 0) {
        bests[li / 8] = part;
    }
    workgroupBarrier();
    var best = bests[li % 8];
#for i in 1..$rounds
    best = better(best, bests[$i * 8 + li % 8]);
#end
    return best_of_eight(best);
}
#else
// The best of all invocations.
fn reduce(li: u32, own: vec2<u32>) -> vec2<u32> {
    bests[li] = own;
    workgroupBarrier();
    if (li < 16) {
        var part = bests[li];
#for i in 1..$each
        part = better(part, bests[$i * 16 + li]);
#end
        parts[li] = part;
    }
    workgroupBarrier();
    var best = parts[0];
#for i in 1..16
    best = better(best, parts[$i]);
#end
    return best;
}
#end

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    var own = vec2<u32>(0u, NONE);
#if MERGE
    if (li < $SLICES) {
        let at = op.rows + (id.x * $SLICES + li) * 2;
        own = vec2<u32>(results[at], results[at + 1]);
    }
    let best = reduce(li, own);
    if (li == 0) {
        let bad = select(0u, 0x80000000u, best.x == 0xffffffffu);
        results[id.x] = select(best.y | bad, NONE, best.x == 0);
    }
#else
#let pass = 4 * $WG
    let quads = op.width / 4;
    let each = (quads + $SLICES - 1) / $SLICES;
    let row = op.x / 4 + id.x * quads;
    let end = min(quads, (id.y + 1) * each);
    for (var q = id.y * each + li; q < end; q += $pass) {
#for r in 0..4
#let ahead = $r * $WG
        // The last quad again where there are no more: its logits are no better than themselves.
        let at$r = min(q + $ahead, end - 1);
        let four$r = arena[row + at$r];
#end
#for r in 0..4
#for e in 0..4
        let key$r$e = key_of(four$r[$e]);
        if (key$r$e > own.x) {
            own = vec2<u32>(key$r$e, at$r * 4 + $e);
        }
#end
#end
    }
    let best = reduce(li, own);
    if (li == 0) {
        let at = op.rows + (id.x * $SLICES + id.y) * 2;
        results[at] = best.x;
        results[at + 1] = best.y;
    }
#end
}
