// Six bits around 32, eight groups a block: a quad of nibbles each; words: the factor, scales of two groups (four
// signed bytes) each, the upper two bits of half a group each.
#import bits

struct Group { low: vec4<u32>, high: vec2<u32>, scale0: f32, scale1: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let d = unpack2x16float(words[word]).x;
    let small = words[word + (1u + (g >> 1u)) * 16u] >> ((g & 1u) * 16u);
    let scales = bitcast<vec2<i32>>(vec2<u32>(small) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u);
    let at = word + (5u + g * 2u) * 16u;
    let high = vec2<u32>(words[at], words[at + 16u]);
    return Group(quads[quad + g * 16u], high, d * f32(scales.x), d * f32(scales.y));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let low = nibbles(group.low, i);
    let high = two_bits(group.high[i >> 2u], i);
    return vec4<f32>(low | (high << vec4<u32>(4u))) - 32.0;
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return around(nibble_bytes(group.low, i) | (two_bit_bytes(group.high[i >> 2u], i) << 4u), 32u);
}
#end
