// What the eight slices of a row have added up to, of the results in `sums`: in pairs of pairs, as eights of lanes do it.
fn slices(at: u32) -> f32 {
    let low = (sums[at] + sums[at + 16]) + (sums[at + 32] + sums[at + 48]);
    let high = (sums[at + 64] + sums[at + 80]) + (sums[at + 96] + sums[at + 112]);
    return low + high;
}
