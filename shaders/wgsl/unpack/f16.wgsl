// Half floats: a group is four quads of eight values.
struct Group { at: u32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    return Group(quad);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    let eight = quads[group.at + (i >> 1u) * 16u];
    let four = select(eight.xy, eight.zw, (i & 1u) == 1u);
    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));
}
