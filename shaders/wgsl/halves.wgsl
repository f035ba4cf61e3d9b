// A half float of a word with two of them.
fn half_of(pair: u32, i: u32) -> f32 {
    return unpack2x16float(pair >> (i * 16u)).x;
}
