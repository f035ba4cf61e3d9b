// -1 or 1 by a bit, eight groups a block, all in words: the scales of four groups each, a word of bits each.
#import bits
#import halves

struct Group { low: u32, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    return Group(words[word + (1u + g) * 16u], half_of(words[word], g >> 2u));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(one_bits(group.low, i)) * 2.0 - 1.0;
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return around(one_bit_bytes(group.low, i) << 1u, 1u);
}
#end
