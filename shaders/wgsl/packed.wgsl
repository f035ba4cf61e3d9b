// Four codes as signed bytes of a word, of formats that have them in a table.
fn packed(group: Group, i: u32) -> u32 {
    return pack4xI8(vec4<i32>(codes(group, i)));
}
