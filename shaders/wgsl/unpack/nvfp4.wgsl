// Floats of four bits, twice their value, under half of an 8-bit float for every 16. A block is two groups: a quad of
// nibbles each, and a word with four scales: exponent and mantissa go where those of binary16 are, 2^8 too small.
#import sixteen

const TABLE = vec4<u32>(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);

struct Group { low: vec4<u32>, scale0: f32, scale1: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let small = words[word] >> (g * 16u);
    let scales = unpack2x16float(((small & 127u) << 7u) | ((small & 0x7f00u) << 15u)) * 128.0;
    return Group(quads[quad + g * 16u], scales.x, scales.y);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return look_up(nibbles(group.low, i), TABLE);
}
