// Signed bytes. A block is two groups: two quads of bytes each, and a word with both scales.
#import halves

struct Group { first: vec4<u32>, second: vec4<u32>, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let at = quad + g * 32u;
    return Group(quads[at], quads[at + 16u], half_of(words[word], g));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let four = select(group.first[i & 3u], group.second[i & 3u], i >= 4u);
    return vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(four) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u));
}
#if INTEGER

fn packed(group: Group, i: u32) -> u32 {
    return select(group.first[i & 3u], group.second[i & 3u], i >= 4u);
}
#end
