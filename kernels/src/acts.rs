//! Activations as integers, in the layout that the matmul reads.
//!
//! Each column (a token) is cut into groups of 32 along k: `scale = max |x| / 127`, codes `round(x / scale)` in
//! -127..=127. The same bytes serve every format and ISA.
//!
//! Or in **two planes**: codes of 15 bits, `scale = max |x| / 16319`, each `128 * high + low` with `high` in -127..=127
//! and `low` in -64..=64. A column is then two columns of bytes, one beside the other, which the same dots multiply:
//! what follows says column for one of bytes.
//!
//! Columns stand in **tiles** of four (a single column alone), the last tile filled with zeros. Along k, eight
//! groups make a **chunk**. One chunk of one tile is a **unit**; units are stored chunk by chunk, in each chunk tile by
//! tile, so that a range of units is a range of bytes: threads take ranges. A unit is its [`Group`]s.

use crate::matmul::CHUNK;
use crate::simd::{LANES, Simd};
use crate::unpack::{GROUP, STEPS};
use std::ops::Range;

/// Columns of a tile where there is more than one.
pub const TILE: usize = 4;

/// One group of `T` columns, a row for each field:
/// 0 to 7 the codes, four along k in a word as they lie in memory; then [`SCALE`], [`SUM`], [`SCALED_SUM`], and for
/// each half of 16 [`HALF_SUMS`] and [`SCALED_HALF_SUMS`], and last [`SUM_8`].
pub type Group<const T: usize> = [[i32; T]; FIELDS];

/// Rows of a group.
pub const FIELDS: usize = 16;
/// Bits of the f32 scale.
pub const SCALE: usize = STEPS;
/// `-128 *` the sum of the codes.
pub const SUM: usize = STEPS + 1;
/// Bits of the f32 `scale *` the sum of the codes (of both planes, in the column of each).
pub const SCALED_SUM: usize = STEPS + 2;
/// `-32 *` the sums of the codes of the halves.
pub const HALF_SUMS: usize = STEPS + 3;
/// Bits of the f32 `scale *` the sums of the codes of the halves (of both planes, in the column of each).
pub const SCALED_HALF_SUMS: usize = STEPS + 5;
/// `-8 *` the sum of the codes.
pub const SUM_8: usize = STEPS + 7;

/// The largest code of two planes: 127 of the high one and 63 of the low one.
const LARGEST: f32 = (127 * (1 << LOW_BITS) + (1 << (LOW_BITS - 1)) - 1) as f32;
/// Bits of the low plane.
pub const LOW_BITS: i32 = 7;

/// Groups whose largest magnitude is below this (2^-120) become zeros: nearly half of all f32 exponents below what
/// activations reach, and `127 / max` stays finite.
const TINY: f32 = f32::from_bits((127 - 120) << 23);

/// Where everything lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Values along k, a multiple of 32.
    pub k: usize,
    /// Columns of values.
    pub n: usize,
    /// Columns of bytes for one of values: 1 or 2.
    pub planes: usize,
}

impl Layout {
    /// The layout of `n` columns of `k` values.
    ///
    /// # Panics
    /// If `k` is no multiple of 32.
    pub fn new(k: usize, n: usize) -> Layout {
        assert!(k.is_multiple_of(GROUP), "k = {k} must be a multiple of 32");
        Layout { k, n, planes: 1 }
    }

    /// The same in two planes.
    pub fn in_two_planes(self) -> Layout {
        Layout { planes: 2, ..self }
    }

    /// Columns of a tile.
    pub fn tile(&self) -> usize {
        if self.n == 1 { self.planes } else { TILE }
    }

    /// Tiles.
    pub fn tiles(&self) -> usize {
        (self.n * self.planes).div_ceil(self.tile())
    }

    /// The tiles that hold a range of columns of values. A border within a tile belongs to the tile.
    pub fn tiles_of(&self, columns: Range<usize>) -> Range<usize> {
        (columns.start * self.planes).div_ceil(self.tile())..(columns.end * self.planes).div_ceil(self.tile())
    }

    /// Groups along k, an even number: the last may be all zeros.
    pub fn groups(&self) -> usize {
        self.k.div_ceil(2 * GROUP) * 2
    }

    /// Units.
    pub fn units(&self) -> usize {
        self.groups().div_ceil(CHUNK) * self.tiles()
    }

    /// The bytes of a range of units.
    pub fn range(&self, units: Range<usize>) -> Range<usize> {
        self.byte(units.start)..self.byte(units.end)
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.byte(self.units())
    }

    /// Groups of a unit of this chunk.
    fn groups_in(&self, chunk: usize) -> usize {
        (self.groups() - chunk * CHUNK).min(CHUNK)
    }

    /// First byte of a unit.
    fn byte(&self, unit: usize) -> usize {
        let groups = match unit / self.tiles().max(1) {
            chunk if chunk * CHUNK >= self.groups() => self.groups() * self.tiles(),
            chunk => {
                let before = chunk * CHUNK * self.tiles();
                before + unit % self.tiles() * self.groups_in(chunk)
            }
        };
        groups * size_of::<Group<1>>() * self.tile()
    }
}

/// The units of a buffer.
#[derive(Clone, Copy)]
pub struct Units<'a, const T: usize> {
    groups: &'a [Group<T>],
    layout: Layout,
}

impl<'a, const T: usize> Units<'a, T> {
    /// Over all bytes of a layout with tiles of `T` columns.
    ///
    /// # Panics
    /// If the length is not that of the layout, or the bytes are not aligned to 4.
    pub fn new(bytes: &'a [u8], layout: Layout) -> Self {
        assert_eq!(layout.tile(), T, "columns of a tile");
        assert_eq!(bytes.len(), layout.bytes(), "bytes of the activations");
        Units { groups: bytemuck::cast_slice(bytes), layout }
    }

    /// Tiles.
    pub fn tiles(&self) -> usize {
        self.layout.tiles()
    }

    /// Chunks along k.
    pub fn chunks(&self) -> usize {
        self.layout.groups().div_ceil(CHUNK)
    }

    /// Bytes of all units of a tile.
    pub fn tile_bytes(&self) -> usize {
        self.layout.groups() * size_of::<Group<T>>()
    }

    /// The groups of tile `tile` in chunk `chunk`.
    #[inline(always)]
    pub fn get(&self, chunk: usize, tile: usize) -> &'a [Group<T>] {
        let len = self.layout.groups_in(chunk);
        let start = chunk * CHUNK * self.layout.tiles() + tile * len;
        &self.groups[start..start + len]
    }
}

/// Quantizes a range of units of the columns `x` (row-major `[n][k]`) into `out`, their bytes. A NaN or infinity
/// makes its group's scale NaN, and so every output of its column.
///
/// # Panics
/// If the lengths are not those of the layout, or `out` is not aligned to 4.
#[inline(always)]
pub fn quantize<S: Simd>(s: S, x: &[f32], layout: Layout, units: Range<usize>, out: &mut [u8]) {
    assert_eq!(x.len(), layout.k * layout.n, "values of the activations");
    assert_eq!(out.len(), layout.range(units.clone()).len(), "bytes of the units");
    match (layout.tile(), layout.planes) {
        (1, _) => quantize_tiles::<S, 1, 1>(s, x, layout, units, bytemuck::cast_slice_mut(out)),
        (2, _) => quantize_tiles::<S, 2, 2>(s, x, layout, units, bytemuck::cast_slice_mut(out)),
        (_, 1) => quantize_tiles::<S, TILE, 1>(s, x, layout, units, bytemuck::cast_slice_mut(out)),
        _ => quantize_tiles::<S, TILE, 2>(s, x, layout, units, bytemuck::cast_slice_mut(out)),
    }
}

#[inline(always)]
fn quantize_tiles<S: Simd, const T: usize, const PLANES: usize>(
    s: S,
    x: &[f32],
    layout: Layout,
    units: Range<usize>,
    mut out: &mut [Group<T>],
) {
    for unit in units {
        let (chunk, tile) = (unit / layout.tiles(), unit % layout.tiles());
        let (groups, rest) = out.split_at_mut(layout.groups_in(chunk));
        out = rest;
        for column in (0..T).step_by(PLANES) {
            let row = x.chunks_exact(layout.k).nth((tile * T + column) / PLANES).unwrap_or(&[]);
            let row = row.get(chunk * CHUNK * GROUP..).unwrap_or(&[]);
            let (values, _) = row.as_chunks::<GROUP>();
            let filled = values.len().min(groups.len());
            for (group, values) in groups.iter_mut().zip(values) {
                quantize_group::<S, T, PLANES>(s, values, group, column);
            }
            for group in &mut groups[filled..] {
                group.iter_mut().for_each(|field| field[column..column + PLANES].fill(0));
            }
        }
    }
}

/// Both sums of halves go through one reduction, the second times this: they are at most 16 * 127 < 2^11 in magnitude,
/// and all that is added up stays a whole number below 2^24.
const SHIFT: f32 = 8192.0;

#[inline(always)]
fn quantize_group<S: Simd, const T: usize, const PLANES: usize>(
    s: S,
    x: &[f32; GROUP],
    out: &mut Group<T>,
    column: usize,
) {
    let largest = if PLANES == 1 { 127.0 } else { LARGEST };
    let (halves, _) = x.as_chunks::<LANES>();
    let x = [s.load(&halves[0]), s.load(&halves[1])];
    let max = s.reduce_max(s.max(s.abs(x[0]), s.abs(x[1])));
    let inverse = s.splat(if max < TINY { 0.0 } else { largest / max });
    let rounded = [s.round(s.mul(x[0], inverse)), s.round(s.mul(x[1], inverse))];
    let scale = |poisoned: bool| match max {
        _ if poisoned => f32::NAN,
        max if max < TINY => 0.0,
        max => max / largest,
    };
    if PLANES == 1 {
        let [low, high] = plane(s, rounded, out, column);
        finish(scale(low.is_nan()), [low, high], out, column);
        return;
    }
    // A NaN stays one in both planes.
    let step = s.splat((1 << LOW_BITS) as f32);
    let high = rounded.map(|codes| s.round(s.div(codes, step)));
    let low = [s.fnma(high[0], step, rounded[0]), s.fnma(high[1], step, rounded[1])];
    let of_high = plane(s, high, out, column);
    let of_low = plane(s, low, out, column + 1);
    let step = (1 << LOW_BITS) as f32;
    let sums = [step * of_high[0] + of_low[0], step * of_high[1] + of_low[1]];
    finish(scale(sums[0].is_nan()), sums, out, column);
    finish(scale(sums[0].is_nan()), sums, out, column + 1);
}

/// Writes a plane's codes and what follows from their sums alone. Returns the sums of its halves, NaN where a code is.
#[inline(always)]
fn plane<S: Simd, const T: usize>(s: S, rounded: [S::F32; 2], out: &mut Group<T>, column: usize) -> [f32; 2] {
    for h in 0..2 {
        let codes = s.max(s.min(rounded[h], s.splat(127.0)), s.splat(-127.0));
        let mut bytes = [0; LANES];
        s.store_i8(s.to_i32(codes), &mut bytes);
        for (step, quad) in bytes.as_chunks::<4>().0.iter().enumerate() {
            out[4 * h + step][column] = i32::from_ne_bytes(quad.map(i8::cast_unsigned));
        }
    }
    // A NaN of x is still one when rounded, and so is infinity times the inverse of infinity: the sums show them.
    let sums = s.reduce_add(s.fma(rounded[1], s.splat(SHIFT), rounded[0]));
    // + 0.0 for the sum of negative zeros.
    let high = (sums / SHIFT).round_ties_even() + 0.0;
    let low = sums - high * SHIFT;
    for (h, sum) in [low, high].into_iter().enumerate() {
        out[HALF_SUMS + h][column] = sum as i32 * -32;
    }
    out[SUM][column] = (low + high) as i32 * -128;
    out[SUM_8][column] = (low + high) as i32 * -8;
    [low, high]
}

/// Writes the scale, and what follows from it and the sums of the codes' halves.
#[inline(always)]
fn finish<const T: usize>(scale: f32, halves: [f32; 2], out: &mut Group<T>, column: usize) {
    out[SCALE][column] = scale.to_bits().cast_signed();
    for h in 0..2 {
        out[SCALED_HALF_SUMS + h][column] = (scale * halves[h]).to_bits().cast_signed();
    }
    out[SCALED_SUM][column] = (scale * (halves[0] + halves[1])).to_bits().cast_signed();
}
