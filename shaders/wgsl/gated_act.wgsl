// out = act(gate) * up, an element an invocation; a workgroup walks part of a row.
#import step

struct Op {
    gate: u32,
    up: u32,
    out: u32,
    width: u32,
}

@group(0) @binding(1) var<uniform> op: Op;

// 1 / (1 + e^-x) without overflow.
fn logistic(x: f32) -> f32 {
    let z = exp(-abs(x));
    return select(1.0, z, x < 0.0) / (1.0 + z);
}

fn act(x: f32) -> f32 {
#if SILU
    let y = max(x, -128.0);
    return y * logistic(y);
#end
#if GELUTANH
    // x / 2 (1 + tanh(u)) = x logistic(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
    let y = max(x, -32.0);
    return y * logistic(y * fma(y * y, 0.071354814, 1.595769));
#end
#if GELUERF
    // x Phi(x); the error function after Abramowitz and Stegun 7.1.26, at most 1.5e-7 off.
    let a = min(abs(x), 14.5) * 0.70710678;
    let t = 1.0 / fma(0.3275911, a, 1.0);
    let p = t * fma(t, fma(t, fma(t, fma(t, 1.061405429, -1.453152027), 1.421413741), -0.284496736), 0.254829592);
    let tail = 0.5 * p * exp(-a * a);
    return max(x, -32.0) * select(1.0 - tail, tail, x < 0.0);
#end
#if RELU
    return max(x, 0.0);
#end
#if RELUSQUARED
    let y = max(x, 0.0);
    return y * y;
#end
#if SIGMOID
    return logistic(x);
#end
}

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let i = id.y * $WG + li;
    if (i >= op.width) {
        return;
    }
    let at = id.x * op.width + i;
    arena[op.out + at] = act(arena[op.gate + at]) * arena[op.up + at];
}
