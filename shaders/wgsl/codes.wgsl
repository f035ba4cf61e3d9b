// Activations as 8-bit codes, by the rule of the processor: of each group of 32 along k, scale = max |x| / 127, codes
// round(x / scale) to nearest even. A group is $ACTQUADS quads: 32 codes, then the scale and, for minimums, the scaled sums of the
// codes of both halves and of all. What is NaN or infinite makes the scale NaN. Where a driver's quotient is off in the last
// bit, a code that lies at the middle of two may round the other way.

// What a lane knows of a group of which it has four values: their codes, and the last quad.
struct Coded { word: u32, last: vec4<u32> }

var<workgroup> tops: array<u32, $WG>;
var<workgroup> parts: array<i32, $WG>;

// Below this a group counts as zeros (2^-120), from this on nothing is finite.
const TINY: u32 = 0x03800000u;
const INFINITE: u32 = 0x7f800000u;
// 2^100, and 2^-64.
const LARGE: u32 = 0x71800000u;
const SMALLER: f32 = 5.421010862427522e-20;

// Of the bits of four values; eight lanes that follow each other have a group. Waits for the workgroup.
fn coded(li: u32, x: vec4<u32>) -> Coded {
    // Magnitudes by their bits, which are in the order of the numbers, those of NaN above all.
    let sizes = x & vec4<u32>(0x7fffffffu);
    tops[li] = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
    workgroupBarrier();
    let first = li / 8 * 8;
    var top = 0u;
#for lane in 0..8
    top = max(top, tops[first + $lane]);
#end
    var codes = vec4<i32>(0);
    var scale = 0u;
    if (top >= INFINITE) {
        scale = 0x7fc00000u;
    } else if (top >= TINY) {
        let most = bitcast<f32>(top);
        // Drivers owe no quotient of divisors beyond 2^126: of large groups both sides are made smaller by a power of two,
        // which changes no digit of what does not round to 0.
        let smaller = select(1.0, SMALLER, top >= LARGE);
        let near = round((bitcast<vec4<f32>>(x) * smaller) * (127.0 / (most * smaller)));
        codes = vec4<i32>(clamp(near, vec4<f32>(-127.0), vec4<f32>(127.0)));
        scale = bitcast<u32>(most / 127.0);
    }
    parts[li] = codes.x + codes.y + codes.z + codes.w;
    workgroupBarrier();
    let low = f32(parts[first] + parts[first + 1] + parts[first + 2] + parts[first + 3]);
    let high = f32(parts[first + 4] + parts[first + 5] + parts[first + 6] + parts[first + 7]);
    let scaled = bitcast<f32>(scale) * vec3<f32>(low, high, low + high);
    return Coded(pack4xI8(codes), vec4<u32>(scale, bitcast<vec3<u32>>(scaled)));
}
