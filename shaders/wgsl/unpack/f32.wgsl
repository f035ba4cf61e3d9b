// Floats as they are: a group is eight quads.
struct Group { at: u32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    return Group(quad);
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(quads[group.at + i * 16u]);
}
