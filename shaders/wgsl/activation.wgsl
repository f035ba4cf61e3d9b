// Activation functions: `act` is the one that is asked for.
#import logistic

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
