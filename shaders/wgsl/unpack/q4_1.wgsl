// Nibbles with a minimum. A block is one group: a quad of nibbles, and a word with scale and minimum.
#import bits

struct Group { low: vec4<u32>, scale0: f32, floor0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let pair = unpack2x16float(words[word]);
    return Group(quads[quad], pair.x, -pair.y);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(nibbles(group.low, i));
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return nibble_bytes(group.low, i);
}
#end
