// Floats of four bits, twice their value, under half of a power of two. A block is four groups: a quad of nibbles each, and
// a word with four exponents.
#import sixteen

const TABLE = vec4<u32>(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);

struct Group { low: vec4<u32>, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let e = (words[word] >> (g * 8u)) & 255u;
    // Below 2 the power is no normal number.
    let bits = select((e - 1u) << 23u, 0x200000u << e, e < 2u);
    return Group(quads[quad + g * 16u], bitcast<f32>(bits));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return look_up(nibbles(group.low, i), TABLE);
}
