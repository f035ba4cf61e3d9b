// What norms share: a row in pieces, each a quad or, where rows are no quads, a float.
#if QUADWISE
alias Piece = vec4<f32>;
const SIZE: u32 = 4;

fn sum_of(piece: Piece) -> f32 {
    return (piece.x + piece.y) + (piece.z + piece.w);
}
#else
alias Piece = f32;
const SIZE: u32 = 1;

fn sum_of(piece: Piece) -> f32 {
    return piece;
}
#end
