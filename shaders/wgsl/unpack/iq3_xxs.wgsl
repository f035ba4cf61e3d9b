// Spelled out: a sign and one of eight magnitudes.
#import iq3

const TABLE = vec4<u32>(0x1c140c04u, 0x3e342c24u, 0xe4ecf4fcu, 0xc2ccd4dcu);

fn scale_of(n: f32) -> f32 {
    return n * 0.5 + 0.25;
}
