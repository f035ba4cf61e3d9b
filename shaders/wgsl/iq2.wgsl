// Three magnitudes with signs, eight groups a block, all in words: the factor, nibbles that are the scales of sixteens,
// signs of a group each, magnitudes of half a group each.
#import bits
#if INTEGER
#import packed
#end

struct Group { low: vec2<u32>, signs: u32, scale0: f32, scale1: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let d = unpack2x16float(words[word]).x * 0.25;
    let small = words[word + (1u + (g >> 2u)) * 16u] >> ((g & 3u) * 8u);
    let n = vec2<f32>(vec2<u32>(small & 15u, (small >> 4u) & 15u)) + 0.5;
    let at = word + (11u + g * 2u) * 16u;
    return Group(vec2<u32>(words[at], words[at + 16u]), words[word + (3u + g) * 16u], d * n.x, d * n.y);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let size = (vec4<u32>(0x2b1908u) >> (two_bits(group.low[i >> 2u], i) * 8u)) & vec4<u32>(255u);
    let sign = one_bits(group.signs, i);
    return vec4<f32>(size) * (1.0 - 2.0 * vec4<f32>(sign));
}
