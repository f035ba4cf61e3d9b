// Five bits around 16. A block is two groups: a quad of nibbles each, a word with both scales, a word of fifth bits each.
#import bits
#import halves

struct Group { low: vec4<u32>, high: u32, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    return Group(quads[quad + g * 16u], words[word + 16u + g * 16u], half_of(words[word], g));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let low = nibbles(group.low, i);
    let high = one_bits(group.high, i);
    return vec4<f32>(low | (high << vec4<u32>(4u))) - 16.0;
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return around(nibble_bytes(group.low, i) | (one_bit_bytes(group.high, i) << 4u), 16u);
}
#end
