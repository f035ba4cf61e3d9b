// cap * tanh(s / cap). Beyond 15 tanh is 1 to the last bit, and some drivers overflow.
fn capped(s: f32, cap: f32) -> f32 {
    return cap * tanh(clamp(s / cap, -15.0, 15.0));
}

fn capped4(s: vec4<f32>, cap: f32) -> vec4<f32> {
    return cap * tanh(clamp(s / cap, vec4<f32>(-15.0), vec4<f32>(15.0)));
}
