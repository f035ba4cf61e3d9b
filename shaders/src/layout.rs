//! How weights lie in a GPU's memory: THE list of formats that have an `unpack/<format>.wgsl`.
//!
//! Sixteen rows make a panel. A panel's rows are cut into blocks; of each block every row has some *quads* (four words,
//! read at once) and some *words*. Those of the sixteen rows lie side by side, so that neighbouring lanes, which are
//! neighbouring rows, read neighbouring memory: 256 bytes of quads or 64 of words. A matrix is all its quads, panel by
//! panel and block by block, then all its words:
//!
//! `quads[((panel * blocks + block) * Q + i) * 16 + lane]`, `words[((panel * blocks + block) * W + i) * 16 + lane]`.
//!
//! Bits a weight are those of the file, give or take 6 % (sums of small scales are spelled out in bytes), but for formats
//! whose values stand in codebooks or digits, which are spelled out, so that a lane needs no table in memory:
//!
//! | format | bits in the file | bits here |
//! | --- | --- | --- |
//! | IQ1_S, IQ1_M | 1.56, 1.75 | 2.5 |
//! | IQ2_XXS, IQ2_XS, IQ2_S | 2.06, 2.31, 2.56 | 3.38 |
//! | IQ3_XXS, IQ3_S | 3.06, 3.44 | 4.25 |
//! | TQ1_0 | 1.69 | 2.13 |

use bytemuck::{Pod, from_bytes};
use gguf::format::Scaled;
use gguf::{Block, Format};

/// Rows of a panel.
pub const LANES: usize = 16;
/// Values of a group, the unit of `load` in WGSL.
pub const GROUP: usize = 32;

/// How one format lies in memory.
#[derive(Clone, Copy)]
pub struct Layout {
    /// The format.
    pub format: Format,
    /// Values of a block.
    pub block: usize,
    /// Quads of a block and row.
    pub quads: usize,
    /// Words of a block and row.
    pub words: usize,
    /// Values that share a scale, 32 or 16; none where values are floats.
    pub sub: Option<usize>,
    /// Whether a minimum is taken off.
    pub floors: bool,
    pack: fn(&[u8], &mut [u32]),
}

macro_rules! row {
    ($format:ident, $block:literal, $quads:literal, $words:literal, $sub:expr, $floors:literal, $pack:expr) => {
        Layout {
            format: Format::$format,
            block: $block,
            quads: $quads,
            words: $words,
            sub: $sub,
            floors: $floors,
            pack: $pack,
        }
    };
}

/// Every format that has GPU kernels.
pub const ALL: [Layout; 29] = [
    row!(F32, 32, 8, 0, None, false, copy),
    row!(F16, 32, 4, 0, None, false, copy),
    row!(BF16, 32, 4, 0, None, false, copy),
    row!(Q4_0, 64, 2, 1, Some(32), false, q4_0),
    row!(Q4_1, 32, 1, 1, Some(32), true, q4_1),
    row!(Q5_0, 64, 2, 3, Some(32), false, q5_0),
    row!(Q5_1, 32, 1, 2, Some(32), true, q5_1),
    row!(Q8_0, 64, 4, 1, Some(32), false, q8_0),
    row!(Q4E, 128, 4, 1, Some(32), false, q4_e),
    row!(Q2K, 256, 0, 21, Some(16), true, q2_k),
    row!(Q3K, 256, 0, 29, Some(16), false, q3_k),
    row!(Q4K, 256, 8, 5, Some(32), true, q4_k),
    row!(Q5K, 256, 8, 13, Some(32), true, q5_k),
    row!(Q6K, 256, 8, 21, Some(16), false, q6_k),
    row!(IQ1S, 256, 0, 20, Some(16), false, iq1_s),
    row!(IQ1M, 256, 0, 20, Some(16), false, iq1_m),
    row!(IQ2XXS, 256, 0, 27, Some(16), false, iq2_xxs),
    row!(IQ2XS, 256, 0, 27, Some(16), false, iq2_xs),
    row!(IQ2S, 256, 0, 27, Some(16), false, iq2_s),
    row!(IQ3XXS, 256, 8, 2, Some(32), false, iq3_xxs),
    row!(IQ3S, 256, 8, 2, Some(32), false, iq3_s),
    row!(IQ4NL, 64, 2, 1, Some(32), false, iq4_nl),
    row!(IQ4XS, 256, 8, 3, Some(32), false, iq4_xs),
    row!(MXFP4, 128, 4, 1, Some(32), false, mxfp4),
    row!(NVFP4, 64, 2, 1, Some(16), false, nvfp4),
    row!(TQ1_0, 256, 0, 17, Some(32), false, tq1_0),
    row!(TQ2_0, 256, 0, 17, Some(32), false, tq2_0),
    row!(Q1_0, 256, 0, 9, Some(32), false, q1_0),
    row!(Q2_0, 128, 0, 9, Some(32), false, q2_0),
];

impl Layout {
    /// The layout of a format, if it has kernels.
    pub fn of(format: Format) -> Option<&'static Layout> {
        ALL.iter().find(|l| l.format == format)
    }

    /// Blocks of a row of `k` values.
    pub fn blocks(&self, k: usize) -> usize {
        k.div_ceil(self.block)
    }

    /// Words of the quads of one panel.
    pub fn panel_quads(&self, k: usize) -> usize {
        self.blocks(k) * self.quads * 4 * LANES
    }

    /// Words of the words of one panel.
    pub fn panel_words(&self, k: usize) -> usize {
        self.blocks(k) * self.words * LANES
    }

    /// Bytes of a panel.
    pub fn panel_bytes(&self, k: usize) -> usize {
        (self.panel_quads(k) + self.panel_words(k)) * 4
    }

    /// Writes up to sixteen consecutive rows of a file, little-endian, into a panel's quads and words. Values beyond the
    /// last and rows beyond the last are zeros.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub fn pack(&self, k: usize, rows: &[u8], quads: &mut [u32], words: &mut [u32]) {
        let row_bytes = k / self.format.block_len() * self.format.block_bytes();
        let block_bytes = self.block / self.format.block_len() * self.format.block_bytes();
        assert!(rows.len().is_multiple_of(row_bytes) && rows.len() <= LANES * row_bytes, "up to sixteen whole rows");
        assert!(quads.len() == self.panel_quads(k) && words.len() == self.panel_words(k), "words of a panel");
        quads.fill(0);
        words.fill(0);
        let mut own = [0; 64];
        let own = &mut own[..self.quads * 4 + self.words];
        for (lane, row) in rows.chunks_exact(row_bytes).enumerate() {
            for (block, bytes) in row.chunks(block_bytes).enumerate() {
                own.fill(0);
                (self.pack)(bytes, own);
                let (own_quads, own_words) = own.split_at(self.quads * 4);
                for (i, quad) in own_quads.chunks_exact(4).enumerate() {
                    quads[((block * self.quads + i) * LANES + lane) * 4..][..4].copy_from_slice(quad);
                }
                for (i, word) in own_words.iter().enumerate() {
                    words[(block * self.words + i) * LANES + lane] = *word;
                }
            }
        }
    }
}

/// The bytes as they are.
fn copy(bytes: &[u8], out: &mut [u32]) {
    bytemuck::cast_slice_mut::<u32, u8>(out)[..bytes.len()].copy_from_slice(bytes);
}

/// `count` codes of `bits` bits, the first in the lowest bits of the first word.
fn put(out: &mut [u32], bits: usize, codes: impl Iterator<Item = u8>) {
    for (i, code) in codes.enumerate() {
        out[i * bits / 32] |= u32::from(code) << (i * bits % 32);
    }
}

fn pair(low: [u8; 2], high: [u8; 2]) -> u32 {
    u32::from_le_bytes([low[0], low[1], high[0], high[1]])
}

/// The blocks of a file that make a block here: one, two, or at the end of a row one of two.
fn blocks<B: Block + Pod>(bytes: &[u8]) -> impl Iterator<Item = &B> {
    bytes.chunks_exact(B::BYTES).map(from_bytes)
}

/// Nibbles of the legacy formats in order of their elements.
fn nibbles(qs: &[u8; 16]) -> impl Iterator<Item = u8> {
    qs.iter().map(|q| q & 15).chain(qs.iter().map(|q| q >> 4))
}

fn q4_0(bytes: &[u8], out: &mut [u32]) {
    for (g, b) in blocks::<gguf::format::Q4_0>(bytes).enumerate() {
        put(&mut out[4 * g..], 4, nibbles(&b.qs));
        out[8] |= pair(b.d, [0; 2]) << (16 * g);
    }
}

fn q4_e(bytes: &[u8], out: &mut [u32]) {
    for (g, b) in blocks::<gguf::format::Q4E>(bytes).enumerate() {
        put(&mut out[4 * g..], 4, nibbles(&b.qs));
        out[16] |= u32::from(b.e[0]) << (8 * g);
    }
}

fn q4_1(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::Q4_1>(bytes) {
        put(out, 4, nibbles(&b.qs));
        out[4] = pair(b.d, b.m);
    }
}

fn q5_0(bytes: &[u8], out: &mut [u32]) {
    for (g, b) in blocks::<gguf::format::Q5_0>(bytes).enumerate() {
        put(&mut out[4 * g..], 4, nibbles(&b.qs));
        out[8] |= pair(b.d, [0; 2]) << (16 * g);
        out[9 + g] = u32::from_le_bytes(b.qh);
    }
}

fn q5_1(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::Q5_1>(bytes) {
        put(out, 4, nibbles(&b.qs));
        out[4] = pair(b.d, b.m);
        out[5] = u32::from_le_bytes(b.qh);
    }
}

fn q8_0(bytes: &[u8], out: &mut [u32]) {
    for (g, b) in blocks::<gguf::format::Q8_0>(bytes).enumerate() {
        put(&mut out[8 * g..], 8, b.qs.iter().copied());
        out[16] |= pair(b.d, [0; 2]) << (16 * g);
    }
}

fn q2_k(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::Q2K>(bytes) {
        out[0] = pair(b.d, b.dmin);
        put(&mut out[1..], 8, b.scales.iter().copied());
        put(&mut out[5..], 2, (0..256).map(|i| b.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3));
    }
}

fn q3_k(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::Q3K>(bytes) {
        out[0] = pair(b.d, [0; 2]);
        put(&mut out[1..], 8, b.group_scales().iter().map(|&s| s as u8));
        put(&mut out[5..], 2, (0..256).map(|i| b.qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3));
        put(&mut out[21..], 1, (0..256).map(|i| b.hmask[i % 32] >> (i / 32) & 1));
    }
}

/// Scale and minimum of each group side by side.
fn small_scales(packed: &[u8; 12]) -> impl Iterator<Item = u8> {
    let (scales, mins) = gguf::format::scales_and_mins(packed);
    (0..8).flat_map(move |g| [scales[g], mins[g]])
}

fn q4_k(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::Q4K>(bytes) {
        put(out, 4, (0..256).map(|i| b.qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15));
        out[32] = pair(b.d, b.dmin);
        put(&mut out[33..], 8, small_scales(&b.scales));
    }
}

fn q5_k(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::Q5K>(bytes) {
        put(out, 4, (0..256).map(|i| b.qs[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15));
        out[32] = pair(b.d, b.dmin);
        put(&mut out[33..], 8, small_scales(&b.scales));
        put(&mut out[37..], 1, (0..256).map(|i| b.qh[i % 32] >> (i / 32) & 1));
    }
}

fn q6_k(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::Q6K>(bytes) {
        put(out, 4, (0..256).map(|i| b.ql[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4) & 15));
        out[32] = pair(b.d, [0; 2]);
        put(&mut out[33..], 8, b.scales.iter().copied());
        put(&mut out[37..], 2, (0..256).map(|i| b.qh[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3));
    }
}

/// The integers of a block of 256 values, and the bits of its factor where that comes first.
fn integers<B: Scaled + Pod>(b: &B) -> ([i8; 256], u32) {
    let (mut codes, mut scales) = ([0; 256], [0.0; 16]);
    b.parts(&mut codes, &mut scales);
    let bytes = bytemuck::bytes_of(b);
    (codes, pair([bytes[0], bytes[1]], [0; 2]))
}

/// Nibbles of scales for every 16, of bytes that have one for every 32 in their four high bits.
fn tops(tails: impl Iterator<Item = u8>) -> impl Iterator<Item = u8> {
    tails.flat_map(|tail| [tail >> 4; 2])
}

fn iq1<B: Scaled + Pod>(b: &B, d: u32, scales: impl Iterator<Item = u8>, out: &mut [u32]) {
    let codes = integers(b).0;
    out[0] = d;
    put(&mut out[1..], 4, scales);
    // Values are 8 t - 1 or 8 t + 1.
    put(&mut out[3..], 1, codes.iter().step_by(8).map(|v| u8::from((v + 9) % 8 == 0)));
    put(&mut out[4..], 2, codes.iter().map(|v| ((v + 9) / 8) as u8));
}

fn iq1_s(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::IQ1S>(bytes) {
        iq1(b, pair(b.d, [0; 2]), tops(b.qh.chunks_exact(2).map(|high| high[1] & 0x70)), out);
    }
}

fn iq1_m(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::IQ1M>(bytes) {
        let words: Vec<u32> = b.scales.chunks_exact(2).map(|w| u32::from(w[0]) | u32::from(w[1]) << 8).collect();
        let d = (0..4).fold(0, |d, i| d | words[i] >> 12 << (4 * i));
        iq1(b, d, (0..16).map(|i| (words[i / 4] >> (i % 4 * 3) & 7) as u8), out);
    }
}

fn iq2<B: Scaled + Pod>(b: &B, scales: impl Iterator<Item = u8>, out: &mut [u32]) {
    let (codes, d) = integers(b);
    out[0] = d;
    put(&mut out[1..], 4, scales);
    put(&mut out[3..], 1, codes.iter().map(|v| u8::from(*v < 0)));
    // The magnitudes 8, 25, 43.
    put(&mut out[11..], 2, codes.iter().map(|v| v.unsigned_abs() / 20));
}

/// Nibbles, the low one of a byte first.
fn nibbles_of(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().flat_map(|byte| [byte & 15, byte >> 4])
}

fn iq2_xxs(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::IQ2XXS>(bytes) {
        iq2(b, tops(b.qs.chunks_exact(8).map(|g| g[7])), out);
    }
}

fn iq2_xs(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::IQ2XS>(bytes) {
        iq2(b, nibbles_of(&b.scales), out);
    }
}

fn iq2_s(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::IQ2S>(bytes) {
        iq2(b, nibbles_of(&b.scales), out);
    }
}

/// `step` is the distance of magnitudes.
fn iq3<B: Scaled + Pod>(b: &B, step: u8, scales: impl Iterator<Item = u8>, out: &mut [u32]) {
    let (codes, d) = integers(b);
    put(out, 4, codes.iter().map(|v| (v.unsigned_abs() / step) | (u8::from(*v < 0) << 3)));
    out[32] = d;
    put(&mut out[33..], 4, scales);
}

fn iq3_xxs(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::IQ3XXS>(bytes) {
        iq3(b, 8, b.tails.chunks_exact(4).map(|tail| tail[3] >> 4), out);
    }
}

fn iq3_s(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::IQ3S>(bytes) {
        iq3(b, 2, nibbles_of(&b.scales), out);
    }
}

fn iq4_nl(bytes: &[u8], out: &mut [u32]) {
    for (g, b) in blocks::<gguf::format::IQ4NL>(bytes).enumerate() {
        put(&mut out[4 * g..], 4, nibbles(&b.qs));
        out[8] |= pair(b.d, [0; 2]) << (16 * g);
    }
}

fn iq4_xs(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::IQ4XS>(bytes) {
        put(out, 4, (0..256).map(|i| b.qs[i / 32 * 16 + i % 16] >> (i / 16 % 2 * 4) & 15));
        out[32] = pair(b.d, [0; 2]);
        let high = u16::from_le_bytes(b.scales_h);
        let scale = |(g, low): (usize, u8)| (low | ((high >> (2 * g) & 3) as u8) << 4).wrapping_sub(32);
        put(&mut out[33..], 8, nibbles_of(&b.scales_l).enumerate().map(scale));
    }
}

fn mxfp4(bytes: &[u8], out: &mut [u32]) {
    for (g, b) in blocks::<gguf::format::MXFP4>(bytes).enumerate() {
        put(&mut out[4 * g..], 4, nibbles(&b.qs));
        out[16] |= u32::from(b.e[0]) << (8 * g);
    }
}

fn nvfp4(bytes: &[u8], out: &mut [u32]) {
    for b in blocks::<gguf::format::NVFP4>(bytes) {
        put(out, 4, (0..64).map(|i| b.qs[i / 16 * 8 + i % 8] >> (i / 8 % 2 * 4) & 15));
        // What is no number counts as 0.
        put(&mut out[8..], 8, b.d.iter().map(|&d| if d == 0x7f { 0 } else { d }));
    }
}

fn ternary<B: Scaled + Pod>(b: &B, d: [u8; 2], out: &mut [u32]) {
    out[0] = pair(d, [0; 2]);
    put(&mut out[1..], 2, integers(b).0.iter().map(|v| (v + 1) as u8));
}

fn tq1_0(bytes: &[u8], out: &mut [u32]) {
    blocks::<gguf::format::TQ1_0>(bytes).for_each(|b| ternary(b, b.d, out));
}

fn tq2_0(bytes: &[u8], out: &mut [u32]) {
    blocks::<gguf::format::TQ2_0>(bytes).for_each(|b| ternary(b, b.d, out));
}

fn q1_0(bytes: &[u8], out: &mut [u32]) {
    for (i, b) in blocks::<gguf::format::Q1_0>(bytes).enumerate() {
        out[0] |= pair(b.d, [0; 2]) << (16 * i);
        put(&mut out[1 + 4 * i..], 8, b.qs.iter().copied());
    }
}

fn q2_0(bytes: &[u8], out: &mut [u32]) {
    for (i, b) in blocks::<gguf::format::Q2_0>(bytes).enumerate() {
        out[0] |= pair(b.d, [0; 2]) << (16 * i);
        put(&mut out[1 + 4 * i..], 8, b.qs.iter().copied());
    }
}
