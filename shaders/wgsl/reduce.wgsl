// Sums and maxima over a workgroup of $WG, in one order: by halves in workgroup memory, six rounds with a barrier each; where
// EIGHTS is set, in eights of lanes and then in eights of those, with one.
#if EIGHTS
#import eights

var<workgroup> shares: array<f32, 8>;

fn share(li: u32, own: f32) -> f32 {
    workgroupBarrier();
    if (li % 8 == 0) {
        shares[li / 8] = own;
    }
    workgroupBarrier();
    return shares[li % 8];
}

fn total(li: u32, own: f32) -> f32 {
    return eight(share(li, eight(own)));
}

fn largest(li: u32, own: f32) -> f32 {
    return largest_of_eight(share(li, largest_of_eight(own)));
}
#else

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
#end
