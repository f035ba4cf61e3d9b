// Sums and maxima over a workgroup of $WG, a multiple of 64, in one order: in workgroup memory, each of sixteen invocations a
// part and then every one all of those, with two barriers; where EIGHTS is set, in eights of lanes, and then every eight all
// of those, with one. Whoever adds up again waits first, so that nobody still reads what is overwritten.
#if EIGHTS
#import eights
#let eights = $WG / 8
#let rounds = $WG / 64

var<workgroup> shares: array<f32, $eights>;

fn first_total(li: u32, own: f32) -> f32 {
    let part = eight(own);
    if (li % 8 == 0) {
        shares[li / 8] = part;
    }
    workgroupBarrier();
    var sum = shares[li % 8];
#for i in 1..$rounds
    sum += shares[$i * 8 + li % 8];
#end
    return eight(sum);
}

fn largest(li: u32, own: f32) -> f32 {
    workgroupBarrier();
    let part = largest_of_eight(own);
    if (li % 8 == 0) {
        shares[li / 8] = part;
    }
    workgroupBarrier();
    var most = shares[li % 8];
#for i in 1..$rounds
    most = max(most, shares[$i * 8 + li % 8]);
#end
    return largest_of_eight(most);
}
#else
#let each = $WG / 16

var<workgroup> shares: array<f32, $WG>;
var<workgroup> parts: array<f32, 16>;

fn first_total(li: u32, own: f32) -> f32 {
    shares[li] = own;
    workgroupBarrier();
    if (li < 16) {
        var part = shares[li];
#for i in 1..$each
        part += shares[$i * 16 + li];
#end
        parts[li] = part;
    }
    workgroupBarrier();
    var sum = parts[0];
#for i in 1..16
    sum += parts[$i];
#end
    return sum;
}

fn largest(li: u32, own: f32) -> f32 {
    workgroupBarrier();
    shares[li] = own;
    workgroupBarrier();
    if (li < 16) {
        var part = shares[li];
#for i in 1..$each
        part = max(part, shares[$i * 16 + li]);
#end
        parts[li] = part;
    }
    workgroupBarrier();
    var most = parts[0];
#for i in 1..16
    most = max(most, parts[$i]);
#end
    return most;
}
#end

fn total(li: u32, own: f32) -> f32 {
    workgroupBarrier();
    return first_total(li, own);
}
