// Five bits with a minimum. A block is one group: a quad of nibbles, a word with scale and minimum, a word of fifth bits.
#import bits

struct Group { low: vec4<u32>, high: u32, scale0: f32, floor0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let pair = unpack2x16float(words[word]);
    return Group(quads[quad], words[word + 16u], pair.x, -pair.y);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let low = nibbles(group.low, i);
    let high = one_bits(group.high, i);
    return vec4<f32>(low | (high << vec4<u32>(4u)));
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return nibble_bytes(group.low, i) | (one_bit_bytes(group.high, i) << 4u);
}
#end
