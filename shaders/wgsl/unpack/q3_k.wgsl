// Three bits around 4, eight groups a block, all in words: the factor, scales of two groups (four signed bytes) each,
// the low two bits of half a group each, the third bits of a group each.
#import bits

struct Group { low: vec2<u32>, high: u32, scale0: f32, scale1: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let d = unpack2x16float(words[word]).x;
    let small = words[word + (1u + (g >> 1u)) * 16u] >> ((g & 1u) * 16u);
    let scales = bitcast<vec2<i32>>(vec2<u32>(small) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u);
    let at = word + (5u + g * 2u) * 16u;
    let low = vec2<u32>(words[at], words[at + 16u]);
    return Group(low, words[word + (21u + g) * 16u], d * f32(scales.x), d * f32(scales.y));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let low = two_bits(group.low[i >> 2u], i);
    let high = one_bits(group.high, i);
    return vec4<f32>(low | (high << vec4<u32>(2u))) - 4.0;
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return around(two_bit_bytes(group.low[i >> 2u], i) | (one_bit_bytes(group.high, i) << 2u), 4u);
}
#end
