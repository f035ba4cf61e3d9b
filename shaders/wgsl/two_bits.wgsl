// Codes of two bits, lowest first, sixteen a word.
fn two_bits(word: u32, i: u32) -> vec4<u32> {
    return (vec4<u32>(word) >> (vec4<u32>(0u, 2u, 4u, 6u) + (i & 3u) * 8u)) & vec4<u32>(3u);
}
