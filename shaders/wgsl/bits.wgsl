// Codes of one, two and four bits of a group, lowest first: four of them from code 4 i on.

// Thirty-two codes a word.
fn one_bits(word: u32, i: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> (vec4<u32>(0u, 1u, 2u, 3u) + i * 4u)) & vec4<u32>(1u);
}

// Sixteen codes a word, which is the one that they are in.
fn two_bits(word: u32, i: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> (vec4<u32>(0u, 2u, 4u, 6u) + (i & 3u) * 8u)) & vec4<u32>(3u);
}

// Thirty-two codes a quad.
fn nibbles(quad: vec4<u32>, i: u32) -> vec4<u32> {
    return (vec4<u32>(quad[i >> 1u]) >> (vec4<u32>(0u, 4u, 8u, 12u) + (i & 1u) * 16u)) & vec4<u32>(15u);
}
