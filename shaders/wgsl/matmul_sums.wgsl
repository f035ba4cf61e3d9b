// The end of a product of $T columns whose slices lie side by side in a workgroup: adds what each slice has left in `sums`, at
// $WG for each column before it and at its invocation, and stores the elements. One lane adds a row, or where EIGHTS is set
// eight lanes at once; the same bits.
#import slices
#if EIGHTS
#import eights
#end

var<workgroup> sums: array<f32, $SUMS>;

fn store_sums(column: u32, panel: u32, li: u32) {
    workgroupBarrier();
#if EIGHTS
#for c in 0..$T
    let all$c = eight(sums[$c * $WG + li % 8 * 16 + li / 8]);
    if (li % 8 == 0) {
        store(column + $c, panel, li / 8, all$c);
    }
#end
#else
    for (var i = li; i < 16 * $T; i += $WG) {
        store(column + i / 16, panel, i % 16, slices(i / 16 * $WG + i % 16));
    }
#end
}
