//! Layout of the KV cache in memory, and the kernel that writes it.
//!
//! A page holds [`PAGE`] consecutive positions of one sequence. Its part for one layer and one KV head, a *block*,
//! is contiguous: the keys transposed, `[d_k][PAGE]`, so that a lane is a key and one line of the cache feeds all
//! keys of the page with one element of the query; then the values by position, `[PAGE][value_stride(d_v)]`, so
//! that a lane is an element of the output. Where blocks lie in a page, and which page is whose, is the caller's.

use crate::simd::{LANES, Simd};
use bytemuck::Pod;

/// Positions on a page.
pub const PAGE: usize = 32;

/// What an element of the cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Half floats, rounded to nearest even on the way in.
    #[default]
    F16,
    /// Floats as computed.
    F32,
}

impl KvType {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            KvType::F16 => 2,
            KvType::F32 => 4,
        }
    }
}

/// Elements from one position's value to the next: `d_v` rounded up to whole lanes, the rest zeros.
pub const fn value_stride(d_v: usize) -> usize {
    d_v.next_multiple_of(LANES)
}

/// Bytes of a block for keys of `d_k` and values of `d_v` elements: a multiple of 64.
pub const fn block_bytes(ty: KvType, d_k: usize, d_v: usize) -> usize {
    PAGE * (d_k + value_stride(d_v)) * ty.bytes()
}

/// A type of the cache's memory.
pub(crate) trait Element: Pod {
    /// Sixteen elements, widened exactly.
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F32;
    /// Sixteen elements, rounded to nearest even.
    fn store<S: Simd>(s: S, v: S::F32, out: &mut [Self; LANES]);
}

/// The bits of a half float.
impl Element for u16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[u16; LANES]) -> S::F32 {
        s.load_f16(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::F32, out: &mut [u16; LANES]) {
        s.store_f16(v, out);
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32; LANES]) -> S::F32 {
        s.load(x)
    }
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::F32, out: &mut [f32; LANES]) {
        s.store(v, out);
    }
}

/// Writes the key and the value of one position into its block, `slot` being its place on the page (0 to 31).
/// Every element of the slot is written, padding included.
///
/// # Panics
/// If `block` is not [`block_bytes`] of `k.len()` and `v.len()` long or not aligned for its elements.
#[inline(always)]
pub fn store<S: Simd>(s: S, ty: KvType, block: &mut [u8], slot: usize, [k, v]: [&[f32]; 2]) {
    assert_eq!(block.len(), block_bytes(ty, k.len(), v.len()), "bytes of a KV block");
    assert!(slot < PAGE, "slot {slot} of a page of {PAGE}");
    match ty {
        KvType::F16 => store_as::<S, u16>(s, block, slot, [k, v]),
        KvType::F32 => store_as::<S, f32>(s, block, slot, [k, v]),
    }
}

#[inline(always)]
fn store_as<S: Simd, E: Element>(s: S, block: &mut [u8], slot: usize, [k, v]: [&[f32]; 2]) {
    let (keys, values) = bytemuck::cast_slice_mut::<u8, E>(block).split_at_mut(PAGE * k.len());
    let mut lanes = [E::zeroed(); LANES];
    for (rows, x) in keys.chunks_mut(PAGE * LANES).zip(k.chunks(LANES)) {
        E::store(s, s.load_partial(x, 0.0), &mut lanes);
        for (row, &e) in rows.chunks_exact_mut(PAGE).zip(&lanes) {
            row[slot] = e;
        }
    }
    let stride = value_stride(v.len());
    let value = &mut values[slot * stride..][..stride];
    for (out, x) in value.as_chunks_mut::<LANES>().0.iter_mut().zip(v.chunks(LANES)) {
        E::store(s, s.load_partial(x, 0.0), out);
    }
}
