// The end of a product of $T columns whose $S slices of $ROWS rows lie side by side in a workgroup: adds what each slice has left
// in `sums`, at $WG for each column before it and at its invocation, one after the other, and stores the elements.
var<workgroup> sums: array<f32, $SUMS>;

fn store_sums(column: u32, half: u32, li: u32) {
    workgroupBarrier();
    if (li < $ROWS * $T) {
        let at = li / $ROWS * $WG + li % $ROWS;
        var sum = 0.0;
#for s in 0..$S
        sum += sums[at + $s * $ROWS];
#end
        store(column + li / $ROWS, half / 2, half % 2 * $ROWS + li % $ROWS, sum);
    }
}
