// Nibbles of a table, eight groups a block: a quad each; words: the factor, a nibble for each group that is its scale.
// Formats say the table and what a scale is.
#import sixteen

struct Group { low: vec4<u32>, scale0: f32 }

fn load(quad: u32, word: u32, g: u32) -> Group {
    let n = f32((words[word + 16u] >> (g * 4u)) & 15u);
    return Group(quads[quad + g * 16u], unpack2x16float(words[word]).x * scale_of(n));
}

fn codes(group: Group, i: u32) -> vec4<f32> {
    return look_up(nibbles(group.low, i), TABLE);
}
