// Nibbles of the table of IQ4_NL, eight groups a block: a quad each; words: the factor, scales of four groups (signed bytes)
// each.
#import sixteen

const TABLE = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

struct Group { low: vec4<u32>, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let d = unpack2x16float(words[word]).x;
    let small = words[word + (1u + (g >> 2u)) * 16u] << (24u - (g & 3u) * 8u);
    return Group(quads[quad + g * 16u], d * f32(bitcast<i32>(small) >> 24u));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return look_up(nibbles(group.low, i), TABLE);
}
