// Four weights of a row, from code 4 i of a group on, as all products multiply them: with the minimum of their part of the group taken
// off where a format has minimums, else but for their scale.
fn weight(a: Group, i: u32, part: u32) -> vec4<f32> {
#if FLOORS
#if WHOLE
    return fma(vec4<f32>(a.scale0), codes(a, i), vec4<f32>(-a.floor0));
#else
    let second = part == 1u;
    return fma(vec4<f32>(select(a.scale0, a.scale1, second)), codes(a, i), vec4<f32>(-select(a.floor0, a.floor1, second)));
#end
#else
    return codes(a, i);
#end
}
