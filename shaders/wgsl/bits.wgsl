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
#if INTEGER

// The same four codes as bytes of a word, the first in the lowest.
fn one_bit_bytes(word: u32, i: u32) -> u32 {
    return (((word >> (i * 4u)) & 15u) * 0x00204081u) & 0x01010101u;
}

fn two_bit_bytes(word: u32, i: u32) -> u32 {
    let four = (word >> ((i & 3u) * 8u)) & 255u;
    let two = (four | (four << 12u)) & 0x000f000fu;
    return (two | (two << 6u)) & 0x03030303u;
}

fn nibble_bytes(quad: vec4<u32>, i: u32) -> u32 {
    let four = (quad[i >> 1u] >> ((i & 1u) * 16u)) & 0xffffu;
    let two = (four | (four << 8u)) & 0x00ff00ffu;
    return (two | (two << 4u)) & 0x0f0f0f0fu;
}

// Bytes less a zero of at most 128, signed.
fn around(bytes: u32, zero: u32) -> u32 {
    return (bytes + (128u - zero) * 0x01010101u) ^ 0x80808080u;
}
#end
