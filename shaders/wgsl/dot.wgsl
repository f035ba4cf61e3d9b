// Adds four products to a sum, in order.
fn add(x: vec4<f32>, w: vec4<f32>, sum: f32) -> f32 {
    return fma(x.w, w.w, fma(x.z, w.z, fma(x.y, w.y, fma(x.x, w.x, sum))));
}
