//! THE list of tensor formats. Everything that differs by format and is known without loops is a
//! row here; all else (loader, tests, benches, `inspect`, kernels) walks [`Format::ALL`].
//!
//! To add a format: its block struct with `decode` in `format/`, and one row. [`own`] shows it by an example.

mod encode;
mod float;
mod kquant;
mod legacy;
pub mod own;
mod scaled;

use std::fmt;

use encode::lanes::Lanes;
pub use float::{BF16, F16, F32};
pub use kquant::{Q2K, Q3K, Q4K, Q5K, Q6K, scales_and_mins};
pub use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub use own::{OWN, Q4E};
pub use scaled::{FP4_VALUES, IQ4_VALUES, Scaled};
pub use scaled::{IQ1M, IQ1S, IQ2S, IQ2XS, IQ2XXS, IQ3S, IQ3XXS, IQ4NL, IQ4XS, MXFP4, NVFP4, Q1_0, Q2_0, TQ1_0, TQ2_0};

/// A format's block as it stands in a file: plain bytes, alignment 1, no padding.
///
/// Multi-byte fields are little-endian; see [`crate::Gguf::little_endian`] for other files.
pub trait Block: bytemuck::Pod {
    /// The row of the list that this block belongs to.
    const FORMAT: Format;
    /// Elements a block.
    const LEN: usize;
    /// Bytes a block.
    const BYTES: usize = size_of::<Self>();

    /// Writes the block's `LEN` values. This is the definition of the format: every operation is
    /// rounded to f32 once, in the order written, and all faster paths are tested against it.
    ///
    /// # Panics
    /// If `out` is shorter than `LEN`.
    fn decode(&self, out: &mut [f32]);

    /// Writes the values of `blocks` to as many times `LEN` numbers, with the bits of [`Block::decode`]. A format whose
    /// blocks are short may have a faster way.
    fn decode_all(blocks: &[Self], out: &mut [f32]) {
        for (block, values) in blocks.iter().zip(out.chunks_exact_mut(Self::LEN)) {
            block.decode(values);
        }
    }
}

/// A block that we also quantize to.
pub trait Encode: Block {
    /// The block whose decoded values come closest to `x` by the format's method, where errors of some columns may count
    /// more than those of others, searched in the registers that `cpu` shows to be there. Deterministic; values that are
    /// not finite give a block of unspecified content.
    ///
    /// # Panics
    /// If `x` or the importance of its columns is shorter than `LEN`.
    fn encode<V: Lanes>(cpu: V::Token, x: &[f32], importance: Option<&[f32]>) -> Self;
}

/// Decodes whole blocks: bytes of blocks in, values out. Stops at the end of the shorter one.
pub type Decoder = fn(&[u8], &mut [f32]);

/// Encodes whole blocks: values in, with the importance of each where it is known, bytes of blocks out. Stops at the end of
/// the shorter one.
pub type Encoder = fn(&[f32], Option<&[f32]>, &mut [u8]);

/// A multi-byte field of a block: `count` numbers of `width` bytes from byte `at` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// First byte in the block.
    pub at: usize,
    /// Bytes a number: 2, 4 or 8.
    pub width: usize,
    /// How many numbers.
    pub count: usize,
}

const fn field(at: usize, width: usize, count: usize) -> Field {
    Field { at, width, count }
}

struct Row {
    format: Format,
    id: u32,
    name: &'static str,
    len: usize,
    bytes: usize,
    fields: &'static [Field],
    decoder: Option<Decoder>,
    encoder: Option<Encoder>,
}

/// How a row comes to its decoder and encoder: `raw` formats have none, `read` ones decode,
/// `full` ones encode as well. The size of the block struct must be that of the row.
macro_rules! codec {
    (raw $len:literal $bytes:literal) => {
        (None, None)
    };
    (read $block:ty; $len:literal $bytes:literal) => {{
        const { assert!(<$block>::LEN == $len && <$block>::BYTES == $bytes) };
        (Some(decode_blocks::<$block> as Decoder), None)
    }};
    (full $block:ty; $len:literal $bytes:literal) => {{
        const { assert!(<$block>::LEN == $len && <$block>::BYTES == $bytes) };
        (Some(decode_blocks::<$block> as Decoder), Some(encode::encode_blocks::<$block> as Encoder))
    }};
}

macro_rules! formats {
    ($($variant:ident = $id:literal, $name:literal, $len:literal in $bytes:literal,
        [$($at:literal: $width:literal x $count:literal),*], $kind:ident $($block:ty)?;)*) => {
        /// A tensor format of ggml. The names of the variants are those of the format, written
        /// without the underscore before a letter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Format { $($variant,)* }

        const ROWS: &[Row] = &[$({
            let (decoder, encoder) = codec!($kind $($block;)? $len $bytes);
            Row {
                format: Format::$variant, id: $id, name: $name, len: $len, bytes: $bytes,
                fields: &[$(field($at, $width, $count)),*], decoder, encoder,
            }
        },)*];

        impl Format {
            /// Every format of the list, by id.
            pub const ALL: &'static [Format] = &[$(Format::$variant),*];
        }
    };
}

formats! {
//  variant   id  name      values in bytes, fields of more than one byte (at: width x count), codec
    F32     =  0, "f32",        1 in   4, [0: 4 x 1], full F32;
    F16     =  1, "f16",        1 in   2, [0: 2 x 1], full F16;
    Q4_0    =  2, "q4_0",      32 in  18, [0: 2 x 1], full Q4_0;
    Q4_1    =  3, "q4_1",      32 in  20, [0: 2 x 2], full Q4_1;
    Q5_0    =  6, "q5_0",      32 in  22, [0: 2 x 1], full Q5_0;
    Q5_1    =  7, "q5_1",      32 in  24, [0: 2 x 2], full Q5_1;
    Q8_0    =  8, "q8_0",      32 in  34, [0: 2 x 1], full Q8_0;
    Q8_1    =  9, "q8_1",      32 in  36, [0: 2 x 2], raw;
    Q2K     = 10, "q2_k",     256 in  84, [80: 2 x 2], full Q2K;
    Q3K     = 11, "q3_k",     256 in 110, [108: 2 x 1], full Q3K;
    Q4K     = 12, "q4_k",     256 in 144, [0: 2 x 2], full Q4K;
    Q5K     = 13, "q5_k",     256 in 176, [0: 2 x 2], full Q5K;
    Q6K     = 14, "q6_k",     256 in 210, [208: 2 x 1], full Q6K;
    Q8K     = 15, "q8_k",     256 in 292, [0: 4 x 1, 260: 2 x 16], raw;
    IQ2XXS  = 16, "iq2_xxs",  256 in  66, [0: 2 x 33], read IQ2XXS;
    IQ2XS   = 17, "iq2_xs",   256 in  74, [0: 2 x 33], read IQ2XS;
    IQ3XXS  = 18, "iq3_xxs",  256 in  98, [0: 2 x 1], read IQ3XXS;
    IQ1S    = 19, "iq1_s",    256 in  50, [0: 2 x 1, 34: 2 x 8], read IQ1S;
    IQ4NL   = 20, "iq4_nl",    32 in  18, [0: 2 x 1], full IQ4NL;
    IQ3S    = 21, "iq3_s",    256 in 110, [0: 2 x 1], read IQ3S;
    IQ2S    = 22, "iq2_s",    256 in  82, [0: 2 x 1], read IQ2S;
    IQ4XS   = 23, "iq4_xs",   256 in 136, [0: 2 x 2], full IQ4XS;
    I8      = 24, "i8",         1 in   1, [], raw;
    I16     = 25, "i16",        1 in   2, [0: 2 x 1], raw;
    I32     = 26, "i32",        1 in   4, [0: 4 x 1], raw;
    I64     = 27, "i64",        1 in   8, [0: 8 x 1], raw;
    F64     = 28, "f64",        1 in   8, [0: 8 x 1], raw;
    IQ1M    = 29, "iq1_m",    256 in  56, [48: 2 x 4], read IQ1M;
    BF16    = 30, "bf16",       1 in   2, [0: 2 x 1], full BF16;
    TQ1_0   = 34, "tq1_0",    256 in  54, [52: 2 x 1], full TQ1_0;
    TQ2_0   = 35, "tq2_0",    256 in  66, [64: 2 x 1], full TQ2_0;
    MXFP4   = 39, "mxfp4",     32 in  17, [], full MXFP4;
    NVFP4   = 40, "nvfp4",     64 in  36, [], read NVFP4;
    Q1_0    = 41, "q1_0",     128 in  18, [0: 2 x 1], read Q1_0;
    Q2_0    = 42, "q2_0",      64 in  18, [0: 2 x 1], read Q2_0;
    Q4E     = 1024, "q4_e",    32 in  17, [], full Q4E;
}

// Rows are found by `format as usize`, names are unique, fields lie inside the block.
const _: () = {
    let mut i = 0;
    while i < ROWS.len() {
        assert!(ROWS[i].format as usize == i && Format::ALL[i] as usize == i);
        assert!(i == 0 || ROWS[i - 1].id < ROWS[i].id);
        let mut f = 0;
        while f < ROWS[i].fields.len() {
            let Field { at, width, count } = ROWS[i].fields[f];
            assert!(at + width * count <= ROWS[i].bytes);
            f += 1;
        }
        i += 1;
    }
};

impl Format {
    const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The format of an id in a file; `None` for ids that never were, or that were removed.
    pub fn from_id(id: u32) -> Option<Format> {
        ROWS.binary_search_by_key(&id, |row| row.id).ok().map(|at| ROWS[at].format)
    }

    /// The format of a name such as `q4_k`, in any case.
    pub fn from_name(name: &str) -> Option<Format> {
        ROWS.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.format)
    }

    /// The id in a file.
    pub fn id(self) -> u32 {
        self.row().id
    }

    /// The name, lower case: `q4_k`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Elements a block.
    pub const fn block_len(self) -> usize {
        self.row().len
    }

    /// Bytes a block.
    pub const fn block_bytes(self) -> usize {
        self.row().bytes
    }

    /// Bytes of a row of `k` elements; `None` where `k` is no multiple of the block length or the
    /// result overflows.
    pub fn row_bytes(self, k: u64) -> Option<u64> {
        let len = self.block_len() as u64;
        k.is_multiple_of(len).then(|| (k / len).checked_mul(self.block_bytes() as u64)).flatten()
    }

    /// The fields of a block that have a byte order.
    pub fn fields(self) -> &'static [Field] {
        self.row().fields
    }

    /// The fields of a block that are binary16 factors of its values; none where factors are something else.
    pub fn factors(self) -> &'static [Field] {
        match self {
            Format::IQ2XXS | Format::IQ2XS | Format::IQ1S | Format::IQ4XS => &[Field { at: 0, width: 2, count: 1 }],
            Format::IQ1M => &[],
            _ if self.fields().iter().all(|field| field.width == 2) => self.fields(),
            _ => &[],
        }
    }

    /// Sets every factor of a block to `factor`, or to what is next to it and can be written: for makers of random
    /// blocks, whose values are then as large as wanted.
    ///
    /// # Panics
    /// If `block` is not one block.
    pub fn set_factor(self, block: &mut [u8], factor: f32) {
        assert_eq!(block.len(), self.block_bytes(), "bytes of a block");
        let half = half::f16::from_f32(factor);
        for field in self.factors() {
            block[field.at..][..2 * field.count]
                .chunks_exact_mut(2)
                .for_each(|f| f.copy_from_slice(&half.to_le_bytes()));
        }
        // The exponent of twice the factor, as its table holds doubles; at most 2.
        let exponent = (factor.abs().to_bits() >> 23) as u8;
        match self {
            Format::MXFP4 => block[0] = exponent.saturating_add(1),
            Format::Q4E => block[0] = (half::f16::from_f32(factor / 4.0).to_bits() >> 7 & 127) as u8,
            Format::NVFP4 => block[..4].fill(exponent.saturating_sub(119).min(15) << 3),
            Format::IQ1M => {
                for (i, three) in block[48..].chunks_exact_mut(2).enumerate() {
                    three[1] = three[1] & 15 | ((half.to_bits() >> (4 * i) & 15) as u8) << 4;
                }
            }
            _ => {}
        }
    }

    /// Decodes whole little-endian blocks to f32; `None` where the format is not decoded.
    pub fn decoder(self) -> Option<Decoder> {
        self.row().decoder
    }

    /// Encodes f32 to whole little-endian blocks; `None` where we do not quantize to the format.
    pub fn encoder(self) -> Option<Encoder> {
        self.row().encoder
    }

    /// Swaps the byte order of every field of whole blocks, in place.
    pub fn swap_bytes(self, blocks: &mut [u8]) {
        for block in blocks.chunks_exact_mut(self.block_bytes()) {
            for f in self.fields() {
                block[f.at..f.at + f.width * f.count].chunks_exact_mut(f.width).for_each(|number| number.reverse());
            }
        }
    }

    /// The ids of the list, for messages.
    pub(crate) fn known_ids() -> String {
        let ids: Vec<String> = ROWS.iter().map(|row| format!("{} ({})", row.id, row.name)).collect();
        ids.join(", ")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    let n = (bytes.len() / B::BYTES).min(out.len() / B::LEN);
    B::decode_all(bytemuck::cast_slice(&bytes[..n * B::BYTES]), &mut out[..n * B::LEN]);
}
