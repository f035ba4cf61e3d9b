// Nibbles of a table. A block is two groups: a quad of nibbles each, and a word with both scales.
#import halves
#import sixteen

const TABLE = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

struct Group { low: vec4<u32>, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    return Group(quads[quad + g * 16u], half_of(words[word], g));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return look_up(nibbles(group.low, i), TABLE);
}
