// Two bits with minimums, eight groups a block, all in words: both factors, scales and minimums (nibbles of four bytes)
// of two groups each, the codes of half a group each.
#import bits

struct Group { low: vec2<u32>, scale0: f32, scale1: f32, floor0: f32, floor1: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let d = unpack2x16float(words[word]);
    let small = words[word + (1u + (g >> 1u)) * 16u] >> ((g & 1u) * 16u);
    let n = vec4<f32>((vec4<u32>(small) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u));
    let at = word + (5u + g * 2u) * 16u;
    let low = vec2<u32>(words[at], words[at + 16u]);
    return Group(low, d.x * n.x, d.x * n.z, d.y * n.y, d.y * n.w);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return vec4<f32>(two_bits(group.low[i >> 2u], i));
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return two_bit_bytes(group.low[i >> 2u], i);
}
#end
