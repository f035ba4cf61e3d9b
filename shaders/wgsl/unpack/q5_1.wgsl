// Five bits with a minimum. A block is one group: a quad of nibbles, a word with scale and minimum, a word of fifth bits.
struct Group { low: vec4<u32>, high: u32, scale0: f32, floor0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let pair = unpack2x16float(words[word]);
    return Group(quads[quad], words[word + 16u], pair.x, -pair.y);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let low = (vec4<u32>(group.low[i >> 1u]) >> (vec4<u32>(0u, 4u, 8u, 12u) + (i & 1u) * 16u)) & vec4<u32>(15u);
    let high = (vec4<u32>(group.high) >> (vec4<u32>(0u, 1u, 2u, 3u) + i * 4u)) & vec4<u32>(1u);
    return vec4<f32>(low | (high << vec4<u32>(4u)));
}
