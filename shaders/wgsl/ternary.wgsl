// -1, 0 or 1 by two bits, eight groups a block, all in words: the scale, codes of half a group each.
#import bits

struct Group { low: vec2<u32>, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let at = word + (1u + g * 2u) * 16u;
    return Group(vec2<u32>(words[at], words[at + 16u]), unpack2x16float(words[word]).x);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(two_bits(group.low[i >> 2u], i)) - 1.0;
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return around(two_bit_bytes(group.low[i >> 2u], i), 1u);
}
#end
