// Sums and maxima over a workgroup of $WG, in one order.

var<workgroup> shares: array<f32, $WG>;

fn total(li: u32, own: f32) -> f32 {
    workgroupBarrier();
    shares[li] = own;
    workgroupBarrier();
    for (var half = $WG / 2u; half > 0u; half /= 2u) {
        if (li < half) {
            shares[li] += shares[li + half];
        }
        workgroupBarrier();
    }
    return shares[0];
}

fn largest(li: u32, own: f32) -> f32 {
    workgroupBarrier();
    shares[li] = own;
    workgroupBarrier();
    for (var half = $WG / 2u; half > 0u; half /= 2u) {
        if (li < half) {
            shares[li] = max(shares[li], shares[li + half]);
        }
        workgroupBarrier();
    }
    return shares[0];
}
