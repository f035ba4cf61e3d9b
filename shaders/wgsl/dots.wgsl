// Groups of codes times groups of codes of a column, which stand at places of `staged`, or where DIRECT is set of `arena`, as
// `codes` lays them out.

// Sixteen products, four an instruction where the driver has one.
fn sixteen_products(w: vec4<u32>, x: vec4<u32>) -> i32 {
    let low = dot4I8Packed(w.x, x.x) + dot4I8Packed(w.y, x.y);
    return low + dot4I8Packed(w.z, x.z) + dot4I8Packed(w.w, x.w);
}

// The codes of a half of a group.
fn half_of_codes(a: Group, half: u32) -> vec4<u32> {
    let i = half * 4;
    return vec4<u32>(packed(a, i), packed(a, i + 1), packed(a, i + 2), packed(a, i + 3));
}

fn quad_of_codes(at: u32) -> vec4<u32> {
#if DIRECT
    return arena[at];
#else
    return staged[at];
#end
}

// Adds a group to a sum: dots of all codes that share a scale are exact integers, then fma(dot, scale * xscale, sum), and for a
// format with minimums less minimum * scaled sum of codes, as the processor does it.
fn add_group(a: Group, first: vec4<u32>, second: vec4<u32>, at: u32, sum: f32) -> f32 {
    let low = sixteen_products(first, quad_of_codes(at));
    let high = sixteen_products(second, quad_of_codes(at + 1));
    let more = bitcast<vec4<f32>>(quad_of_codes(at + 2));
#if WHOLE
    let y = fma(f32(low + high), a.scale0 * more.x, sum);
#if FLOORS
    return fma(-a.floor0, more.w, y);
#else
    return y;
#end
#else
    var y = fma(f32(low), a.scale0 * more.x, sum);
#if FLOORS
    y = fma(-a.floor0, more.y, y);
#end
    y = fma(f32(high), a.scale1 * more.x, y);
#if FLOORS
    y = fma(-a.floor1, more.z, y);
#end
    return y;
#end
}
