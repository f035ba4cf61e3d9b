// Sums and maxima of eight neighbouring lanes, in every one of them and in one order. Any subgroup of 8 lanes or more will
// do, if lanes are invocations in order: that is what drivers do, and a test when a model is loaded makes sure of it.
fn eight(own: f32) -> f32 {
    let two = own + subgroupShuffleXor(own, 1u);
    let four = two + subgroupShuffleXor(two, 2u);
    return four + subgroupShuffleXor(four, 4u);
}

fn largest_of_eight(own: f32) -> f32 {
    let two = max(own, subgroupShuffleXor(own, 1u));
    let four = max(two, subgroupShuffleXor(two, 2u));
    return max(four, subgroupShuffleXor(four, 4u));
}
