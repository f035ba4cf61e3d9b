// Merges the results that `attention.wgsl` has left of the tiles of a token and query head. An invocation has an element of the
// head; it reads sixteen tiles before it merges the first, as it waits for memory and for little else.
//
// Bytes: d_v + 2 floats a tile, side by side: one wait for memory for each 1024 positions beside the dispatch. Measured on a H100
// for 32 heads and 9 tiles: 10 us, of which 5 are the dispatch.
#import tiles

@compute @workgroup_size($WG)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let token = id.x;
    let parts = (op.d_v + $WG - 1) / $WG;
    let head = id.y / parts;
    let d = id.y % parts * $WG + li;
    let own = min(d, op.d_v - 1);
    let seen = seen_by(token);
    let count = (seen.y - 1) / $TILE - seen.x / $TILE + 1;
    let first = result_at(token, head, 0u);
    var sums = Sums(NOTHING, 0.0, 0.0, 0.0);
    for (var tile = 0u; tile < count; tile += 16u) {
#for i in 0..16
        let at$i = first + min(tile + $i, count - 1) * (op.d_v + 2);
        let x$i = arena[at$i + own];
        let m$i = arena[at$i + op.d_v];
        let l$i = arena[at$i + op.d_v + 1];
#end
#for i in 0..16
        // No branch, as drivers would move the reads into it. What is nothing changes nothing.
        let real$i = tile + $i < count;
        sums = merged(sums, Sums(select(NOTHING, m$i, real$i), select(0.0, l$i, real$i), select(0.0, x$i, real$i), 0.0));
#end
    }
    if (d < op.d_v) {
        arena[op.out + (token * op.heads + head) * op.d_v + d] = ended(sums, sink_of(head)).x;
    }
}
