// The paged KV cache of one layer, in words; `op.cache` is where it begins.
//
// A page has $PAGE positions. Its block for a KV head is the keys, [words of a key][$PAGE], so that lanes, which are
// positions, read side by side; then the values, [$PAGE][words of a value], so that lanes, which are elements, do.
#if HALF
// A word is two neighbouring elements as half floats.
const PER: u32 = 2u;
alias Pair = vec2<f32>;

fn widen(word: u32) -> Pair {
    return unpack2x16float(word);
}

// To nearest even, by hand: WGSL leaves the rounding of pack2x16float open.
fn half_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let a = bits & 0x7fffffffu;
    if (a >= 0x47800000u) {
        // Too large, infinite or NaN.
        return sign | select(0x7c00u, 0x7e00u, a > 0x7f800000u);
    }
    if (a < 0x38800000u) {
        // Below the smallest normal: the sum with 0.5 rounds to multiples of 2^-24.
        return sign | (bitcast<u32>(bitcast<f32>(a) + 0.5) - 0x3f000000u);
    }
    return sign | ((a + 0xc8000fffu + ((a >> 13u) & 1u)) >> 13u);
}

fn narrow(pair: Pair) -> u32 {
    return half_bits(pair.x) | (half_bits(pair.y) << 16u);
}
#else
// A word is one element.
const PER: u32 = 1u;
alias Pair = f32;

fn widen(word: u32) -> Pair {
    return bitcast<f32>(word);
}

fn narrow(pair: Pair) -> u32 {
    return bitcast<u32>(pair);
}
#end

fn key_words(d_k: u32) -> u32 {
    return (d_k + PER - 1) / PER;
}

// Where a head's block on a page begins.
fn block_at(page: u32, head: u32, heads: u32, d_k: u32, d_v: u32) -> u32 {
    return op.cache + (page * heads + head) * $PAGE * (key_words(d_k) + key_words(d_v));
}
