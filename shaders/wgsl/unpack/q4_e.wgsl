// Nibbles around 8. A block is four groups: a quad of nibbles each, and a word with four scales of eight bits: a sign, and
// exponent and mantissa where those of binary16 are, for a fourth of the scale.
#import bits

struct Group { low: vec4<u32>, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let byte = words[word] >> (g * 8u);
    let scale = 4.0 * unpack2x16float(((byte & 128u) << 8u) | ((byte & 127u) << 7u)).x;
    return Group(quads[quad + g * 16u], scale);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(group.low, i)) - 8.0;
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return around(nibble_bytes(group.low, i), 8u);
}
#end
