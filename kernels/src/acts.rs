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

/// The largest code: of two planes 127 of the high one and 63 of the low one.
const fn largest(planes: usize) -> f32 {
    if planes == 1 { 127.0 } else { (127 * (1 << LOW_BITS) + (1 << (LOW_BITS - 1)) - 1) as f32 }
}

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
        let mut columns: [&[[f32; GROUP]]; T] = [&[]; T];
        for (i, values) in columns.iter_mut().enumerate().take(T / PLANES) {
            let row = x.chunks_exact(layout.k).nth(tile * T / PLANES + i).unwrap_or(&[]);
            *values = row.get(chunk * CHUNK * GROUP..).unwrap_or(&[]).as_chunks().0;
        }
        quantize_unit::<S, T, PLANES>(s, &columns, groups);
    }
}

/// One number for each group and column of bytes of a unit: that of group `g` and column `c` at `g * T + c`. So what
/// follows from them is computed for sixteen groups at a time.
type Stats = [[f32; LANES]; CHUNK * TILE / LANES];

/// Both sums of halves go through one reduction, the second times this: they are at most 16 * 127 < 2^11 in magnitude,
/// and all that is added up stays a whole number below 2^24.
const SHIFT: f32 = 8192.0;

/// Quantizes a unit. Columns of values come first in `columns`; groups that a column lacks are zeros.
#[inline(always)]
fn quantize_unit<S: Simd, const T: usize, const PLANES: usize>(
    s: S,
    columns: &[&[[f32; GROUP]]; T],
    out: &mut [Group<T>],
) {
    let group = |g: usize, c: usize| columns[c / PLANES].get(g).unwrap_or(&[0.0; GROUP]).as_chunks().0;
    let mut max: Stats = Default::default();
    for g in 0..out.len() {
        for c in (0..T).step_by(PLANES) {
            let x = group(g, c);
            let largest = s.reduce_max(s.max(s.abs(s.load(&x[0])), s.abs(s.load(&x[1]))));
            max.as_flattened_mut()[g * T + c..][..PLANES].fill(largest);
        }
    }
    let largest = s.splat(largest(PLANES));
    let mut inverse: Stats = Default::default();
    for (inverse, max) in inverse.iter_mut().zip(&max) {
        let max = s.load(max);
        s.store(s.select_lt(max, s.splat(TINY), s.splat(0.0), s.div(largest, max)), inverse);
    }
    let mut sums: Stats = Default::default();
    for (g, out) in out.iter_mut().enumerate() {
        for c in (0..T).step_by(PLANES) {
            let (x, at) = (group(g, c), g * T + c);
            let inverse = s.splat(inverse.as_flattened()[at]);
            let rounded = [s.round(s.mul(s.load(&x[0]), inverse)), s.round(s.mul(s.load(&x[1]), inverse))];
            let sums = &mut sums.as_flattened_mut()[at..at + PLANES];
            if PLANES == 1 {
                sums[0] = plane(s, rounded, out, c);
                continue;
            }
            // A NaN stays one in both planes.
            let step = s.splat((1 << LOW_BITS) as f32);
            let high = rounded.map(|codes| s.round(s.mul(codes, s.splat(1.0 / (1 << LOW_BITS) as f32))));
            sums[0] = plane(s, high, out, c);
            sums[1] = plane(s, [s.fnma(high[0], step, rounded[0]), s.fnma(high[1], step, rounded[1])], out, c + 1);
        }
    }
    finish::<S, T, PLANES>(s, &max, &sums, out);
}

/// Writes a plane's codes of a group. Returns the sum of its first half plus [`SHIFT`] times that of the second, NaN
/// where a code is.
#[inline(always)]
fn plane<S: Simd, const T: usize>(s: S, rounded: [S::F32; 2], out: &mut Group<T>, column: usize) -> f32 {
    for h in 0..2 {
        let codes = s.max(s.min(rounded[h], s.splat(127.0)), s.splat(-127.0));
        let mut bytes = [0; LANES];
        s.store_i8(s.to_i32(codes), &mut bytes);
        for (step, quad) in bytes.as_chunks::<4>().0.iter().enumerate() {
            out[4 * h + step][column] = i32::from_ne_bytes(quad.map(i8::cast_unsigned));
        }
    }
    // A NaN of x is still one when rounded, and so is infinity times the inverse of infinity: the sums show them.
    s.reduce_add(s.fma(rounded[1], s.splat(SHIFT), rounded[0]))
}

/// Writes what follows from the magnitudes and sums of a unit: scales and sums of codes.
#[inline(always)]
fn finish<S: Simd, const T: usize, const PLANES: usize>(s: S, max: &Stats, sums: &Stats, out: &mut [Group<T>]) {
    let largest = s.splat(largest(PLANES));
    let (zero, nan, finite) = (s.splat(0.0), s.splat(f32::NAN), s.splat(f32::INFINITY));
    for i in 0..(out.len() * T).div_ceil(LANES) {
        let (max, sums) = (s.load(&max[i]), s.load(&sums[i]));
        let scale = s.select_lt(max, s.splat(TINY), zero, s.div(max, largest));
        let scale = s.select_lt(sums, finite, scale, nan);
        let sums = s.select_lt(sums, finite, sums, zero);
        // + 0.0 for the sum of negative zeros.
        let high = s.add(s.round(s.mul(sums, s.splat(1.0 / SHIFT))), zero);
        let mut halves = [s.fnma(high, s.splat(SHIFT), sums), high];
        let mut put = |field: usize, values: [i32; LANES]| {
            for (out, &values) in out.iter_mut().skip(i * LANES / T).zip(values.as_chunks().0) {
                out[field] = values;
            }
        };
        let negative = |a| s.i32_array(s.sub_i32(s.splat_i32(0), a));
        let sum = s.to_i32(s.add(halves[0], halves[1]));
        put(SUM, negative(s.shl_i32::<7>(sum)));
        put(SUM_8, negative(s.shl_i32::<3>(sum)));
        for h in 0..2 {
            put(HALF_SUMS + h, negative(s.shl_i32::<5>(s.to_i32(halves[h]))));
        }
        if PLANES == 2 {
            halves = halves.map(|sum| joined(s, sum));
        }
        put(SCALE, bits(s, scale));
        put(SCALED_SUM, bits(s, s.mul(scale, s.add(halves[0], halves[1]))));
        for h in 0..2 {
            put(SCALED_HALF_SUMS + h, bits(s, s.mul(scale, halves[h])));
        }
    }
}

/// What two planes make together, in the lanes of both: whole numbers below 2^24.
#[inline(always)]
fn joined<S: Simd>(s: S, planes: S::F32) -> S::F32 {
    let [of_high, of_low] = [(1 << LOW_BITS) as f32, 1.0];
    let own: [f32; LANES] = std::array::from_fn(|lane| if lane % 2 == 0 { of_high } else { of_low });
    let other: [f32; LANES] = std::array::from_fn(|lane| if lane % 2 == 0 { of_low } else { of_high });
    s.fma(planes, s.load(&own), s.mul(s.swap_pairs(planes), s.load(&other)))
}

/// The bits of lanes.
#[inline(always)]
fn bits<S: Simd>(s: S, x: S::F32) -> [i32; LANES] {
    let mut lanes = [0.0; LANES];
    s.store(x, &mut lanes);
    lanes.map(|x: f32| x.to_bits().cast_signed())
}
