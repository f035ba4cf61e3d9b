// The $K largest logits of each wanted row, of equals those of the lowest tokens: a workgroup takes a slice of a row, and
// where MERGE is set, what the row's slices found. Pairs of token and logit in no order; a token NONE where there are no
// more. Tokens at -inf are left out; those that are not numbers come before all.
//
// The least of them is found digit by digit, eight bits at a time, by counting how many candidates have which: first of
// the logit, then, among equal ones, of the token. It ends as soon as a count is what is wanted.
//
// Bytes: the row once from memory, then up to seven times from the caches, lanes side by side; $SLICES slices of $WG
// invocations a row, each with eight reads under way. A digit takes four barriers. Expected: some microseconds, against the
// read-back of the row that it saves and the processor's pass over it.
#import step
#import logit
#let pass = 8 * $WG

struct Op {
    x: u32,
    width: u32,
    // Where what is found of each row is, and what its slices find.
    out: u32,
    slices: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(8) var<storage, read_write> results: array<u32>;

// How many candidates have each digit, and each sixteen of them; which digit is wanted, how many have a larger one, and how
// many that or a larger one.
var<workgroup> counts: array<atomic<u32>, 256>;
var<workgroup> sixteens: array<u32, 16>;
var<workgroup> digit: u32;
var<workgroup> above: u32;
var<workgroup> within: u32;
var<workgroup> taken: atomic<u32>;

struct Candidate {
    // Larger for larger logits, 0 for none; larger for lower tokens, 24 bits; the logit.
    key: u32,
    order: u32,
    logit: u32,
}

// The candidates of this workgroup, and one of them.
fn count(slice: u32) -> u32 {
#if MERGE
    return $SLICES * $K;
#else
    let each = (op.width / 4 + $SLICES - 1) / $SLICES * 4;
    return min(op.width, (slice + 1) * each) - min(op.width, slice * each);
#end
}

fn candidate(row: u32, slice: u32, i: u32) -> Candidate {
#if MERGE
    let at = op.slices + (row * $SLICES * $K + i) * 2;
    let token = results[at];
    let logit = results[at + 1];
    return Candidate(select(key_of(bitcast<f32>(logit)), 0u, token == NONE), 0xffffffu - token, logit);
#else
    let each = (op.width / 4 + $SLICES - 1) / $SLICES * 4;
    let token = slice * each + i;
    let logit = peek(op.x + row * op.width + token);
    return Candidate(key_of(logit), 0xffffffu - token, bitcast<u32>(logit));
#end
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let n = count(id.y);
    // The least that is taken: digits found so far, zeros below.
    var key = 0u;
    var order = 0u;
    var wanted: u32 = $K;
    if (li == 0) {
        atomicStore(&taken, 0u);
    }
    for (var place = 0u; place < 7; place += 1u) {
        let by_key = place < 4;
        let shift = select(16 - (place - 4) * 8, 24 - place * 8, by_key);
        atomicStore(&counts[li], 0u);
        if (li == 0) {
            digit = NONE;
        }
        workgroupBarrier();
        for (var start = 0u; start < n; start += $pass) {
#for r in 0..8
#let ahead = $r * $WG
            let c$r = candidate(id.x, id.y, min(start + li + $ahead, n - 1));
#end
#for r in 0..8
#let ahead = $r * $WG
            // Whether it has the digits found so far.
            let rest$r = select(c$r.order ^ order, c$r.key ^ key, by_key);
            let same$r = (by_key || c$r.key == key) && (place % 4 == 0 || rest$r >> (shift + 8) == 0);
            if (start + li + $ahead < n && c$r.key != 0 && same$r) {
                atomicAdd(&counts[(select(c$r.order, c$r.key, by_key) >> shift) & 255], 1u);
            }
#end
        }
        workgroupBarrier();
        if (li < 16) {
            var sixteen = 0u;
#for i in 0..16
            sixteen += atomicLoad(&counts[li * 16 + $i]);
#end
            sixteens[li] = sixteen;
        }
        workgroupBarrier();
        var larger = 0u;
#for i in 1..16
        larger += select(0u, sixteens[$i], $i > li / 16);
        larger += select(0u, atomicLoad(&counts[li / 16 * 16 + $i]), $i > li % 16);
#end
        let least = larger + atomicLoad(&counts[li]);
        if (least >= wanted && larger < wanted) {
            digit = li;
            above = larger;
            within = least;
        }
        workgroupBarrier();
        let found = workgroupUniformLoad(&digit);
        if (found == NONE) {
            // There are not so many: all are taken.
            break;
        }
        let exact = workgroupUniformLoad(&within) == wanted;
        wanted -= workgroupUniformLoad(&above);
        if (by_key) {
            key |= found << shift;
        } else {
            order |= found << shift;
        }
        if (exact) {
            break;
        }
    }
#if MERGE
    let at = op.out + id.x * $K * 2;
#else
    let at = op.slices + (id.x * $SLICES + id.y) * $K * 2;
#end
    for (var start = 0u; start < n; start += $pass) {
#for r in 0..8
#let ahead = $r * $WG
        let c$r = candidate(id.x, id.y, min(start + li + $ahead, n - 1));
#end
#for r in 0..8
#let ahead = $r * $WG
        let taken$r = c$r.key > key || (c$r.key == key && c$r.order >= order);
        if (start + li + $ahead < n && c$r.key != 0 && taken$r) {
            let slot = atomicAdd(&taken, 1u);
            results[at + slot * 2] = 0xffffffu - c$r.order;
            results[at + slot * 2 + 1] = c$r.logit;
        }
#end
    }
    workgroupBarrier();
    for (var slot = atomicLoad(&taken) + li; slot < $K; slot += $WG) {
        results[at + slot * 2] = NONE;
    }
}
