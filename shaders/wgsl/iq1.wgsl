// -8, 0 or 8, moved by 1 up or down for every 8 values: eight groups a block, all in words: the factor, nibbles that are the
// scales of sixteens, a bit for every 8 values that are moved down, codes of half a group each.
#import bits
#if INTEGER
#import packed
#end

struct Group { low: vec2<u32>, down: u32, scale0: f32, scale1: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let d = unpack2x16float(words[word]).x * 0.125;
    let small = words[word + (1u + (g >> 2u)) * 16u] >> ((g & 3u) * 8u);
    let n = vec2<f32>(vec2<u32>(small & 15u, (small >> 4u) & 15u)) * 2.0 + 1.0;
    let at = word + (4u + g * 2u) * 16u;
    return Group(vec2<u32>(words[at], words[at + 16u]), words[word + 48u] >> (g * 4u), d * n.x, d * n.y);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let moved = 7.0 + 2.0 * f32((group.down >> (i >> 1u)) & 1u);
    return vec4<f32>(two_bits(group.low[i >> 2u], i)) * 8.0 - moved;
}
