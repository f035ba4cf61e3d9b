//! CPU kernels: slices and ranges in, slices out. No threads, no allocation, no `Result`, no tensors, no detection in
//! loops; a shape that does not fit is a bug of the caller and panics.
//!
//! [`Kernels::for_isa`] gives the kernels of an instruction set as plain function pointers; every set gives the same
//! bits. Each is one generic function over [`simd::Simd`] (sixteen virtual lanes), compiled here once for each set.
//!
//! Weights are repacked at load into panels of sixteen rows ([`panel`]), activations quantized ([`acts`]) or f32, and
//! [`matmul`](mod@matmul) multiplies them. Values between kernels are f32, row-major `[token][width]`.
//!
//! A worker calls [`Kernels::quantize`] for its range of units, and after all did, [`Kernels::matmul`] for its range of
//! panels with a [`Columns`] view of the rows that are its own.

#![allow(
    clippy::needless_range_loop,
    clippy::manual_is_multiple_of,
    clippy::wrong_self_convention,
    reason = "registers are indexed by constants, and `%` folds to one; `from_bits` is an operation of the lanes"
)]

pub mod acts;
pub mod attention;
pub mod isa;
pub mod kv;
pub mod math;
pub mod matmul;
pub mod panel;
pub mod roof;
pub mod rowwise;
pub mod simd;
pub mod unpack;

pub use isa::Isa;

use acts::Layout;
use attention::Block;
use isa::Token;
use kv::KvType;
use matmul::MatMul;
use panel::Weights;
use roof::Roof;
use rowwise::{Activation, Norm, Rotation};
use simd::{LANES, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// The kernels of one instruction set.
pub struct Kernels {
    /// Which.
    pub isa: Isa,
    /// [`acts::quantize`]: values `[column][k]`, their layout, a range of units, the bytes of these units.
    pub quantize: fn(&[f32], Layout, Range<usize>, &mut [u8]),
    /// [`matmul::matmul`]: the rows of a range of panels.
    pub matmul: fn(&MatMul<'_>, Range<usize>, &mut Columns<'_>),
    /// [`panel::decode`]: a row of a matrix as f32.
    pub embed: fn(&Weights<'_>, usize, &mut [f32]),
    /// [`rowwise::rms_norm`]: input, output.
    pub rms_norm: fn(&Norm<'_>, &[f32], &mut [f32]),
    /// [`rowwise::rms_norm_add`]: input, what it is added to.
    pub rms_norm_add: fn(&Norm<'_>, &[f32], &mut [f32]),
    /// [`rowwise::layer_norm`]: input, output.
    pub layer_norm: fn(&Norm<'_>, &[f32], &mut [f32]),
    /// [`rowwise::rope`]: elements of a head, heads.
    pub rope: fn(&Rotation<'_>, usize, &mut [f32]),
    /// [`rowwise::activate`].
    pub activate: fn(Activation, &mut [f32]),
    /// [`rowwise::gated`]: gate, up, output.
    pub gated: fn(Activation, &[f32], &[f32], &mut [f32]),
    /// [`rowwise::clamped_glu`]: gate, up, output.
    pub clamped_glu: fn(&[f32], &[f32], &mut [f32]),
    /// [`rowwise::add`]: summand, sum.
    pub add: fn(&[f32], &mut [f32]),
    /// [`rowwise::add_scaled`]: factor, summand, sum.
    pub add_scaled: fn(f32, &[f32], &mut [f32]),
    /// [`rowwise::scale`].
    pub scale: fn(f32, &mut [f32]),
    /// [`rowwise::softcap`].
    pub softcap: fn(f32, &mut [f32]),
    /// [`rowwise::softmax`].
    pub softmax: fn(&mut [f32]),
    /// [`rowwise::argmax`].
    pub argmax: fn(&[f32]) -> usize,
    /// [`kv::store`]: elements of the cache, block, slot, key and value.
    pub kv_store: fn(KvType, &mut [u8], usize, [&[f32]; 2]),
    /// [`attention::attend_tile`]: queries and cache, tile, scratch, partials.
    pub attend_tile: fn(&Block<'_>, usize, &mut [f32], &mut [f32]),
    /// [`attention::merge`]: size of a value, partials of the next tile, partials of those before.
    pub merge: fn(usize, &[f32], &mut [f32]),
    /// [`attention::finish`]: size of a value, partials, rows, attention sinks, output.
    pub finish: attention::Finish,
    /// What the machine can do at most.
    pub roof: Roof,
}

impl Kernels {
    /// The kernels of an instruction set, `None` where this CPU does not have it.
    pub fn for_isa(isa: Isa) -> Option<&'static Kernels> {
        fn found<S: Token>(kernels: &'static Kernels) -> Option<&'static Kernels> {
            S::new().map(|_| kernels)
        }
        match isa {
            Isa::Scalar => found::<isa::scalar::Scalar>(const { &kernels::<isa::scalar::Scalar>(Isa::Scalar) }),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => found::<isa::avx2::Avx2<false>>(const { &kernels::<isa::avx2::Avx2<false>>(Isa::Avx2) }),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2Vnni => found::<isa::avx2::Avx2<true>>(const { &kernels::<isa::avx2::Avx2<true>>(Isa::Avx2Vnni) }),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                found::<isa::avx512::Avx512<false>>(const { &kernels::<isa::avx512::Avx512<false>>(Isa::Avx512) })
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                found::<isa::avx512::Avx512<true>>(const { &kernels::<isa::avx512::Avx512<true>>(Isa::Avx512Vnni) })
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => found::<isa::neon::Neon<false>>(const { &kernels::<isa::neon::Neon<false>>(Isa::Neon) }),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => found::<isa::neon::Neon<true>>(const { &kernels::<isa::neon::Neon<true>>(Isa::NeonDot) }),
            _ => None,
        }
    }

    /// The partials of a block's rows over all tiles that they see, in `all`; those of one tile at a time pass through
    /// `tile`. Both, and `scratch`, are as long as [`attention::attend_tile`] wants them and mean nothing before.
    pub fn attend(&self, block: &Block<'_>, scratch: &mut [f32], tile: &mut [f32], all: &mut [f32]) {
        let (mut tiles, d_v) = (block.tiles(), block.params.d_v);
        match tiles.next() {
            // What is merged into the partial of no tile stays as it is.
            Some(first) => (self.attend_tile)(block, first, scratch, all),
            None => attention::clear(d_v, all),
        }
        for next in tiles {
            (self.attend_tile)(block, next, scratch, tile);
            (self.merge)(d_v, tile, all);
        }
    }

    /// The kernels of [`Isa::best`].
    pub fn best() -> &'static Kernels {
        Self::for_isa(Isa::best()).expect("the best of the available instruction sets is available")
    }
}

/// A kernel of floats as a function of a table, compiled with the instructions of `S`, the table's token.
macro_rules! entry {
    ($module:ident :: $kernel:ident ($($arg:ident),*)) => {
        |$($arg),*| token::<S>().float().vectorize(#[inline(always)] |s| $module::$kernel(s, $($arg),*))
    };
}

/// The table of an instruction set. Its functions may be called only on a CPU that has it.
const fn kernels<S: Token>(isa: Isa) -> Kernels {
    Kernels {
        isa,
        quantize: |x, layout, units, out| {
            token::<S>().vectorize(
                #[inline(always)]
                |s| acts::quantize(s, x, layout, units, out),
            );
        },
        matmul: |args, panels, out| matmul::matmul(token::<S>(), args, panels, out),
        embed: |weights, row, out| panel::decode(token::<S>(), weights, row, out),
        rms_norm: entry!(rowwise::rms_norm(norm, x, out)),
        rms_norm_add: entry!(rowwise::rms_norm_add(norm, x, out)),
        layer_norm: entry!(rowwise::layer_norm(norm, x, out)),
        rope: entry!(rowwise::rope(rotation, head_dim, x)),
        activate: entry!(rowwise::activate(act, x)),
        gated: entry!(rowwise::gated(act, gate, up, out)),
        clamped_glu: entry!(rowwise::clamped_glu(gate, up, out)),
        add: entry!(rowwise::add(x, out)),
        add_scaled: entry!(rowwise::add_scaled(factor, x, out)),
        scale: entry!(rowwise::scale(factor, x)),
        softcap: entry!(rowwise::softcap(cap, x)),
        softmax: entry!(rowwise::softmax(x)),
        argmax: entry!(rowwise::argmax(x)),
        kv_store: entry!(kv::store(ty, block, slot, kv)),
        attend_tile: entry!(attention::attend_tile(block, tile, scratch, partial)),
        merge: entry!(attention::merge(d_v, tile, all)),
        finish: entry!(attention::finish(d_v, all, rows, sinks, out)),
        roof: Roof {
            read: entry!(roof::read(bytes)),
            dot: |codes, x, rounds| {
                token::<S>().vectorize(
                    #[inline(always)]
                    |s| roof::dot(s, codes, x, rounds),
                )
            },
            fma: entry!(roof::fma(w, x, rounds)),
            accumulators: roof::accumulators::<S>(),
        },
    }
}

/// The token of the table that is being called.
#[inline(always)]
fn token<S: Token>() -> S {
    // SAFETY: the functions of a table are reached only through `Kernels::for_isa`, which gave it out after
    // `S::new` found the instructions.
    unsafe { S::assume() }
}

/// A view of some rows of an output that lies row-major `[column][rows of the whole output]`.
///
/// Workers that compute different rows of one output each hold a view of theirs; the views interleave in memory.
pub struct Columns<'a> {
    first: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> Columns<'a> {
    /// All rows of a whole output of `rows` rows.
    ///
    /// # Panics
    /// If `data` is not a multiple of `rows` long.
    pub fn new(data: &'a mut [f32], rows: usize) -> Columns<'a> {
        Self::of_rows(data, rows, 0..rows)
    }

    /// Some rows of a whole output of `stride` rows.
    ///
    /// # Panics
    /// If `data` is not a multiple of `stride` long, or the rows are not among them.
    pub fn of_rows(data: &'a mut [f32], stride: usize, rows: Range<usize>) -> Columns<'a> {
        assert!(stride > 0 && data.len().is_multiple_of(stride), "whole columns of {stride} rows");
        assert!(rows.start <= rows.end && rows.end <= stride, "rows {rows:?} of {stride}");
        let columns = data.len() / stride;
        // SAFETY: `data` is borrowed for 'a and holds `columns * stride` values; the rows end at `stride`.
        unsafe { Self::from_raw(data.as_mut_ptr(), stride, rows, columns) }
    }

    /// Some rows of an output of `stride` rows and `columns` columns that starts at `data`.
    ///
    /// # Safety
    /// For all of 'a: `data` points to `stride * columns` initialized values, `rows` are among `0..stride`, and nobody
    /// else reads or writes these rows of any column. Views of other rows may exist.
    pub unsafe fn from_raw(data: *mut f32, stride: usize, rows: Range<usize>, columns: usize) -> Columns<'a> {
        Columns {
            // SAFETY: the start of the rows lies in the output, or at its end where there are none.
            first: unsafe { data.add(if columns == 0 { 0 } else { rows.start }) },
            stride,
            rows: rows.len(),
            columns,
            lifetime: PhantomData,
        }
    }

    /// Columns.
    pub fn len(&self) -> usize {
        self.columns
    }

    /// Whether there are no columns.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// Rows of the view.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows of panel `panel` of the view in one column.
    #[inline(always)]
    pub(crate) fn panel(&mut self, column: usize, panel: usize) -> &mut [f32] {
        let start = panel * LANES;
        let end = self.rows.min(start + LANES);
        &mut self.column(column)[start..end]
    }

    /// The rows of the view in one column.
    ///
    /// # Panics
    /// If there is no such column.
    #[inline(always)]
    pub fn column(&mut self, column: usize) -> &mut [f32] {
        assert!(column < self.columns, "column {column} of {}", self.columns);
        // SAFETY: the column was just checked; the constructor's promise holds for its rows, and `&mut self` makes
        // this the only slice of the view.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(column * self.stride), self.rows) }
    }
}
