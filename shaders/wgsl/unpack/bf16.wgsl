// The upper halves of floats: a group is four quads of eight values.
struct Group { at: u32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    return Group(quad);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let eight = quads[group.at + (i >> 1u) * 16u];
    let four = select(eight.xy, eight.zw, (i & 1u) == 1u);
    return bitcast<vec4<f32>>(vec4<u32>(four.x << 16u, four.x & 0xffff0000u, four.y << 16u, four.y & 0xffff0000u));
}
