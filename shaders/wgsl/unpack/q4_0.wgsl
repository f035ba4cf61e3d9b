// Nibbles around 8. A block is two groups: a quad of nibbles each, and a word with both scales.
#import bits
#import halves

struct Group { low: vec4<u32>, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    return Group(quads[quad + g * 16u], half_of(words[word], g));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(group.low, i)) - 8.0;
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return around(nibble_bytes(group.low, i), 8u);
}
#end
