// Nibbles around 8. A block is two groups: a quad of nibbles each, and a word with both scales.
struct Group { low: vec4<u32>, scale0: f32 }

fn half_of(pair: u32, i: u32) -> f32 {
    return unpack2x16float(pair >> (i * 16u)).x;
}

fn load(quad: u32, word: u32, g: u32) -> Group {
    return Group(quads[quad + g * 16u], half_of(words[word], g));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return vec4<f32>((vec4<u32>(group.low[i >> 1u]) >> (vec4<u32>(0u, 4u, 8u, 12u) + (i & 1u) * 16u)) & vec4<u32>(15u)) - 8.0;
}
