// Nibbles that stand for sixteen signed bytes.
#import bits
#if INTEGER
#import packed
#end

// The bytes of a table of four words that nibbles stand for: selects, not memory, as some drivers copy an array wherever
// it is indexed.
fn look_up(n: vec4<u32>, table: vec4<u32>) -> vec4<f32> {
    let second = (n & vec4<u32>(4u)) != vec4<u32>(0u);
    let low = select(vec4<u32>(table.x), vec4<u32>(table.y), second);
    let high = select(vec4<u32>(table.z), vec4<u32>(table.w), second);
    let word = select(low, high, n > vec4<u32>(7u));
    return vec4<f32>(bitcast<vec4<i32>>(word << (vec4<u32>(24u) - (n & vec4<u32>(3u)) * 8u)) >> vec4<u32>(24u));
}
