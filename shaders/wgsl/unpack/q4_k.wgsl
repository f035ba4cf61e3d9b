// Nibbles, eight groups a block: a quad each; words: both factors, then scales and minimums of two groups each.
#import bits

struct Group { low: vec4<u32>, scale0: f32, floor0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let d = unpack2x16float(words[word]);
    // Two groups a word: scale and minimum of the first in the low bytes.
    let small = words[word + (1u + (g >> 1u)) * 16u] >> ((g & 1u) * 16u);
    let scale = d.x * f32(small & 255u);
    let floor = d.y * f32((small >> 8u) & 255u);
    return Group(quads[quad + g * 16u], scale, floor);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(group.low, i));
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return nibble_bytes(group.low, i);
}
#end
