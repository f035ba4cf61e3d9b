// 1 / (1 + e^-x) without overflow.
fn logistic(x: f32) -> f32 {
    let z = exp(-abs(x));
    return select(1.0, z, x < 0.0) / (1.0 + z);
}
