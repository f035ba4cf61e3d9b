// The experts of largest probability of each row of scores, the first of equals first, and their weights: `used` numbers
// of experts as floats, then as many weights. A workgroup a row.
#import step
#import reduce

struct Op {
    scores: u32,
    out: u32,
    experts: u32,
    used: u32,
    // Whether the weights are scaled to a sum of 1.
    normalize: u32,
    // Factor on the weights.
    scale: f32,
}

@group(0) @binding(1) var<uniform> op: Op;

// Probabilities; chosen ones become LEAST. Each invocation reads and writes its own.
var<workgroup> p: array<f32, $MAXEXPERTS>;
var<workgroup> chosen: array<f32, $MAXEXPERTS>;

const LEAST: f32 = -3.4e38;

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    var top = LEAST;
    for (var i = li; i < op.experts; i += $WG) {
        p[i] = arena[op.scores + id.x * op.experts + i];
        top = max(top, p[i]);
    }
    let most = largest(li, top);
    var own = 0.0;
    for (var i = li; i < op.experts; i += $WG) {
        p[i] = exp(p[i] - most);
        own += p[i];
    }
    let all = total(li, own);
    for (var i = li; i < op.experts; i += $WG) {
        p[i] /= all;
    }
    let out = op.out + id.x * 2 * op.used;
    var sum = 0.0;
    for (var slot = 0u; slot < op.used; slot += 1u) {
        var best = LEAST;
        for (var i = li; i < op.experts; i += $WG) {
            best = max(best, p[i]);
        }
        let weight = largest(li, best);
        // The smallest number by the largest of its negative.
        var number = LEAST;
        for (var i = li; i < op.experts; i += $WG) {
            if (p[i] == weight) {
                number = max(number, -f32(i));
            }
        }
        let expert = u32(min(-largest(li, number), f32(op.experts - 1)));
        if (expert % $WG == li) {
            p[expert] = LEAST;
        }
        sum += weight;
        if (li == 0) {
            arena[out + slot] = f32(expert);
            chosen[slot] = weight;
        }
    }
    if (li == 0) {
        let whole = select(1.0, sum, op.normalize == 1);
        for (var slot = 0u; slot < op.used; slot += 1u) {
            arena[out + op.used + slot] = chosen[slot] / whole * op.scale;
        }
    }
}
