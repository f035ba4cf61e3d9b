// Turns queries in place; turns keys and stores them; stores values. A workgroup walks part of one token: pairs of all
// query heads, then words of all keys, then words of all values.
#import step
#import cache

struct Op {
    q: u32,
    k: u32,
    v: u32,
    // Rotary embedding and its pairs a head; 0 pairs where there is none.
    rope: u32,
    pairs: u32,
    // Whether elements 2i and 2i + 1 make a pair, else i and i + pairs.
    adjacent: u32,
    heads: u32,
    heads_kv: u32,
    d_k: u32,
    d_v: u32,
    // Where the layer's cache begins.
    cache: u32,
}

@group(0) @binding(1) var<uniform> op: Op;
@group(0) @binding(5) var<storage, read_write> cache: array<u32>;
@group(0) @binding(6) var<storage, read> tables: array<u32>;

// Cosine and sine of a pair.
fn angle(token: u32, pair: u32) -> vec2<f32> {
    let at = step.ropes[op.rope / 4][op.rope % 4] + token * 2 * op.pairs + pair;
    return vec2<f32>(bitcast<f32>(tables[at]), bitcast<f32>(tables[at + op.pairs]));
}

// The first element of a pair and the distance to the second.
fn pair_of(pair: u32) -> vec2<u32> {
    return select(vec2<u32>(pair, op.pairs), vec2<u32>(2 * pair, 1u), op.adjacent == 1u);
}

fn turn_query(token: u32, i: u32) {
    let pair = i % op.pairs;
    let place = pair_of(pair);
    let at = op.q + (token * op.heads + i / op.pairs) * op.d_k + place.x;
    let t = angle(token, pair);
    let a = arena[at];
    let b = arena[at + place.y];
    arena[at] = fma(-b, t.y, a * t.x);
    arena[at + place.y] = fma(a, t.y, b * t.x);
}

// An element of a turned key; 0 beyond the last.
fn turned_key(token: u32, head: u32, d: u32) -> f32 {
    let at = op.k + (token * op.heads_kv + head) * op.d_k;
    if (d >= op.d_k) {
        return 0.0;
    }
    let own = arena[at + d];
    if (d >= 2 * op.pairs) {
        return own;
    }
    let second = select(d >= op.pairs, d % 2 == 1, op.adjacent == 1u);
    let pair = select(d % max(op.pairs, 1u), d / 2, op.adjacent == 1u);
    let place = pair_of(pair);
    let t = angle(token, pair);
    if (second) {
        return fma(arena[at + place.x], t.y, own * t.x);
    }
    return fma(-arena[at + place.x + place.y], t.y, own * t.x);
}

fn value_element(token: u32, head: u32, d: u32) -> f32 {
    if (d >= op.d_v) {
        return 0.0;
    }
    return arena[op.v + (token * op.heads_kv + head) * op.d_v + d];
}

fn store_key(token: u32, i: u32) {
    let words = key_words(op.d_k);
    let head = i / words;
    let word = i % words;
#if HALF
    let e = vec2<f32>(turned_key(token, head, 2 * word), turned_key(token, head, 2 * word + 1));
#else
    let e = turned_key(token, head, word);
#end
    let position = tables[step.positions + token];
    cache[own_block(token, head, position) + word * $PAGE + position % $PAGE] = narrow(e);
}

fn store_value(token: u32, i: u32) {
    let words = key_words(op.d_v);
    let head = i / words;
    let word = i % words;
#if HALF
    let e = vec2<f32>(value_element(token, head, 2 * word), value_element(token, head, 2 * word + 1));
#else
    let e = value_element(token, head, word);
#end
    let position = tables[step.positions + token];
    let values = own_block(token, head, position) + $PAGE * key_words(op.d_k);
    cache[values + position % $PAGE * words + word] = narrow(e);
}

fn own_block(token: u32, head: u32, position: u32) -> u32 {
    let page = tables[step.pages + tables[step.page_starts + token] + position / $PAGE];
    return block_at(page, head, op.heads_kv, op.d_k, op.d_v);
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let turns = op.heads * op.pairs;
    let keys = op.heads_kv * key_words(op.d_k);
    let values = op.heads_kv * key_words(op.d_v);
    let i = id.y * $WG + li;
    if (i < turns) {
        turn_query(id.x, i);
    } else if (i < turns + keys) {
        store_key(id.x, i - turns);
    } else if (i < turns + keys + values) {
        store_value(id.x, i - turns - keys);
    }
}
