// The largest logit of each wanted row, the first of equals: a workgroup takes a slice of a row, and where MERGE is set,
// the results of the row's slices. What comes out is one word a row: the token, with the highest bit set if it is the first
// that is not a number, or all bits if every logit is -inf.
//
// Bytes: the row once, a warp reading 512 bytes side by side; 16 slices a row, so that one row of a large vocabulary has
// 1024 invocations. Expected: a few microseconds, against the read-back of the row that it saves. EIGHTS: 2 barriers, not 7.
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

#if EIGHTS
var<workgroup> keys: array<u32, 8>;
var<workgroup> tokens: array<u32, 8>;
#else
var<workgroup> keys: array<u32, $WG>;
var<workgroup> tokens: array<u32, $WG>;
#end

#if EIGHTS
// The best of eight neighbouring lanes, in every one of them.
fn best_of_eight(own: vec2<u32>) -> vec2<u32> {
    var best = own;
#for step in 0..3
    let other$step = subgroupShuffleXor(best, 1u << $step);
    best = select(best, other$step, other$step.x > best.x || (other$step.x == best.x && other$step.y < best.y));
#end
    return best;
}

// Leaves the best of all invocations in the first place.
fn reduce(li: u32, key: u32, token: u32) {
    let best = best_of_eight(vec2<u32>(key, token));
    if (li % 8 == 0) {
        keys[li / 8] = best.x;
        tokens[li / 8] = best.y;
    }
    workgroupBarrier();
    let all = best_of_eight(vec2<u32>(keys[li % 8], tokens[li % 8]));
    workgroupBarrier();
    if (li == 0) {
        keys[0] = all.x;
        tokens[0] = all.y;
    }
}
#else
// Leaves the best of all invocations in the first place.
fn reduce(li: u32, key: u32, token: u32) {
    keys[li] = key;
    tokens[li] = token;
    workgroupBarrier();
    for (var half = $WG / 2u; half > 0u; half /= 2u) {
        if (li < half) {
            let other = keys[li + half];
            if (other > keys[li] || (other == keys[li] && tokens[li + half] < tokens[li])) {
                keys[li] = other;
                tokens[li] = tokens[li + half];
            }
        }
        workgroupBarrier();
    }
}
#end

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    var key = 0u;
    var token = NONE;
#if MERGE
    if (li < $SLICES) {
        let at = op.rows + (id.x * $SLICES + li) * 2;
        key = results[at];
        token = results[at + 1];
    }
    reduce(li, key, token);
    if (li == 0) {
        let bad = select(0u, 0x80000000u, keys[0] == 0xffffffffu);
        results[id.x] = select(tokens[0] | bad, NONE, keys[0] == 0);
    }
#else
    let quads = op.width / 4;
    let each = (quads + $SLICES - 1) / $SLICES;
    let row = op.x / 4 + id.x * quads;
    for (var q = id.y * each + li; q < min(quads, (id.y + 1) * each); q += $WG) {
        let four = arena[row + q];
#for e in 0..4
        let key$e = key_of(four[$e]);
        if (key$e > key) {
            key = key$e;
            token = q * 4 + $e;
        }
#end
    }
    reduce(li, key, token);
    if (li == 0) {
        let at = op.rows + (id.x * $SLICES + id.y) * 2;
        results[at] = keys[0];
        results[at + 1] = tokens[0];
    }
#end
}
