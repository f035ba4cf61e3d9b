// Larger for larger logits and largest for NaN; 0 for -inf.
fn key_of(logit: f32) -> u32 {
    let bits = bitcast<u32>(logit);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0xffffffffu;
    }
    if (bits == 0xff800000u) {
        return 0u;
    }
    // Both zeros are one number.
    let sound = select(bits, 0u, bits == 0x80000000u);
    return select(sound | 0x80000000u, ~sound, sound > 0x80000000u);
}
