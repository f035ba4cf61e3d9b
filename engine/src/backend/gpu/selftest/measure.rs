//! The error of one kernel on small random input, against f64 arithmetic of the processor.

use super::super::adapter::Opened;
use super::super::probe::{Memory, quantized, run};
use super::super::tables::HEAD;
use crate::error::{Error, Result};
use gguf::Format;
use shaders::layout::{GROUP, LANES};
use shaders::{ACT_QUADS, Kernel, Layout, NONE, PAGE, Reducing, SLICES, Walk, Way, ops};

/// The error of a kernel; infinite if the driver refuses it.
pub fn error(gpu: &Opened, kernel: Kernel) -> Result<f64> {
    let measured = match kernel {
        Kernel::MatMul { format, columns, way } => product(gpu, format, columns, way),
        Kernel::Quantize => quantize(gpu),
        Kernel::RmsNormNarrow(_) => norm(gpu, kernel, Walk::Short, false),
        Kernel::Eights(Reducing::RmsNorm(walk)) => norm(gpu, kernel, walk, false),
        Kernel::Eights(Reducing::LayerNorm(walk)) => norm(gpu, kernel, walk, true),
        Kernel::Eights(Reducing::Best { .. }) => best(gpu, kernel),
        Kernel::AttentionNarrow { half, subgroup, blocks } => attention(gpu, kernel, half, blocks * subgroup * 4),
        _ => return Err(Error::Internal(format!("{} has no test", kernel.name()))),
    };
    Ok(measured.unwrap_or(f64::INFINITY))
}

/// Numbers without a pattern (the finalizer of splitmix64), of [-1, 1).
fn random(i: usize) -> f32 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// Normalized mean square error.
fn nmse(found: &[f32], expected: &[f64]) -> f64 {
    let error: f64 = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum();
    error / expected.iter().map(|e| e * e).sum::<f64>()
}

/// Two rows of nine groups, more than a workgroup takes. What is off is counted in codes and in the numbers behind them.
fn quantize(gpu: &Opened) -> Result<f64> {
    let (rows, k) = (2, 9 * GROUP);
    let x: Vec<f32> = (0..rows * k).map(|i| random(i) * 1.5f32.powi((i / GROUP) as i32 - 9)).collect();
    let (words, _) = quantized(&x, k)?;
    let op = ops::Quantize { x: 0, out: x.len() as u32, k: k as u32 };
    let mut arena = x;
    let at = arena.len();
    arena.resize(at + words.len(), 0.0);
    let memory = Memory { op: bytemuck::bytes_of(&op), arena: &arena, ..Memory::default() };
    let after = run(gpu, Kernel::Quantize, &memory, [rows as u32, 2])?;
    let numbers = |words: &[u32]| -> Vec<f64> {
        let of = |group: &[u32]| -> Vec<f64> {
            let (codes, scales) = group.split_at(GROUP / 4);
            let codes = codes.iter().flat_map(|word| word.to_le_bytes().map(|code| f64::from(code.cast_signed())));
            codes.chain(scales.iter().map(|bits| f64::from(f32::from_bits(*bits)))).collect()
        };
        words.chunks(ACT_QUADS * 4).flat_map(of).collect()
    };
    let found: Vec<f32> = numbers(bytemuck::cast_slice(&after.arena[at..])).iter().map(|v| *v as f32).collect();
    Ok(nmse(&found, &numbers(&words)))
}

/// Whole blocks of any codes, with factors that are sound.
fn blocks(format: Format, decode: gguf::format::Decoder, bytes: usize) -> Vec<u8> {
    let mut out: Vec<u8> = (0..bytes).map(|i| (random(i).to_bits() >> 8) as u8).collect();
    for (b, block) in out.chunks_exact_mut(format.block_bytes()).enumerate() {
        for field in format.fields() {
            for i in 0..field.count {
                let (at, value) = (field.at + i * field.width, random(b * 64 + i));
                match (format, field.width) {
                    (Format::F32, 4) => block[at..at + 4].copy_from_slice(&value.to_le_bytes()),
                    (Format::BF16, 2) => block[at..at + 2].copy_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
                    (_, 2) => block[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                    _ => {}
                }
            }
        }
        // Some formats have other factors, which may be infinite.
        let mut values = vec![0.0; format.block_len()];
        decode(block, &mut values);
        if values.iter().any(|v| !v.is_finite() || v.abs() > 1e6) {
            block.fill(0);
        }
    }
    out
}

/// Rows that end inside a panel, columns that end inside a tile, and a row of two blocks at least.
fn product(gpu: &Opened, format: Format, columns: usize, way: Way) -> Result<f64> {
    let internal = || Error::Internal(format!("{format} has no layout"));
    let (layout, decode) = (Layout::of(format).ok_or_else(internal)?, format.decoder().ok_or_else(internal)?);
    let (rows, k, n) = (23, 2 * layout.block.max(format.block_len()), columns.max(2) - 1);
    let row = k / format.block_len() * format.block_bytes();
    let bytes = blocks(format, decode, rows * row);
    let mut weights = vec![0.0; rows * k];
    bytes.chunks_exact(row).zip(weights.chunks_exact_mut(k)).for_each(|(bytes, values)| decode(bytes, values));
    let panels = rows.div_ceil(LANES);
    let (quads, words) = (layout.panel_quads(k), layout.panel_words(k));
    let mut packed = vec![0; panels * (quads + words)];
    let (all_quads, all_words) = packed.split_at_mut(panels * quads);
    for (p, rows) in bytes.chunks(row * LANES).enumerate() {
        layout.pack(k, rows, &mut all_quads[p * quads..][..quads], &mut all_words[p * words..][..words]);
    }
    let mut arena: Vec<f32> = (0..n * k).map(|i| random(i + 7)).collect();
    let mut x: Vec<f64> = arena.iter().map(|x| f64::from(*x)).collect();
    if way.is_dot() {
        let (words, values) = quantized(&arena, k)?;
        (arena, x) = (bytemuck::pod_collect_to_vec(&words), values);
    }
    let at = arena.len();
    let dot = |i: usize| {
        let terms = weights[i % rows * k..][..k].iter().zip(&x[i / rows * k..]);
        terms.map(|(w, x)| f64::from(*w) * x).sum()
    };
    let expected: Vec<f64> = (0..n * rows).map(dot).collect();
    let op = ops::MatmulWide {
        x: 0,
        out: at as u32,
        residual: NONE,
        bias: NONE,
        k: k as u32,
        width: rows as u32,
        first: 0,
        panels: panels as u32,
        words: (panels * quads) as u32,
        outputs: 1,
        scale: 1.0,
        ..ops::MatmulWide::default()
    };
    arena.resize(at + n * rows, 0.0);
    let mut tables = vec![0; HEAD];
    tables[1] = n as u32;
    let memory =
        Memory { tables: &tables, op: bytemuck::bytes_of(&op), arena: &arena, weights: &packed, ..Memory::default() };
    let grid = [way.workgroups(columns, panels) as u32, n.div_ceil(columns) as u32];
    let after = run(gpu, Kernel::MatMul { format, columns, way }, &memory, grid)?;
    Ok(nmse(&after.arena[at..], &expected))
}

/// Rows that are not whole rounds of a workgroup, and more than it keeps; where `centred`, their mean is taken off first.
fn norm(gpu: &Opened, kernel: Kernel, walk: Walk, centred: bool) -> Result<f64> {
    let width = match walk {
        Walk::Floats => 301,
        Walk::Short => 100,
        Walk::Long => 4500,
    };
    let (rows, eps) = (3, 1e-5);
    let mut arena: Vec<f32> = (0..rows * width).map(random).collect();
    let weight: Vec<f32> = (0..width).map(|i| random(i + 1000)).collect();
    let mean = |of: &[f64]| of.iter().sum::<f64>() / width as f64;
    let row = |x: &[f32]| {
        let mut x: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
        let off = if centred { mean(&x) } else { 0.0 };
        x.iter_mut().for_each(|v| *v -= off);
        let squares: Vec<f64> = x.iter().map(|v| v * v).collect();
        let factor = 1.0 / (mean(&squares) + f64::from(eps)).sqrt();
        x.iter().zip(&weight).map(|(v, w)| v * factor * f64::from(*w)).collect::<Vec<_>>()
    };
    let expected: Vec<f64> = arena.chunks(width).flat_map(row).collect();
    let (x, out, weight_at, width_of, slices) = (0, arena.len() as u32, 0, width as u32, 1);
    let plain = ops::RmsNorm { x, out, residual: NONE, weight: weight_at, width: width_of, slices, eps };
    let layer =
        ops::LayerNorm { x, out, weight: weight_at, bias: NONE, width: width_of, slices, weights: 0, biases: 0, eps };
    let op = if centred { bytemuck::bytes_of(&layer) } else { bytemuck::bytes_of(&plain) };
    arena.resize(2 * rows * width, 0.0);
    let memory = Memory { op, arena: &arena, vectors: &weight, ..Memory::default() };
    let after = run(gpu, kernel, &memory, [rows as u32, 1])?;
    Ok(nmse(&after.arena[rows * width..], &expected))
}

/// The largest of each slice of some rows, two of which have it twice.
fn best(gpu: &Opened, kernel: Kernel) -> Result<f64> {
    let (rows, width) = (3, 4 * SLICES * 300);
    let mut arena: Vec<f32> = (0..rows * width).map(random).collect();
    for row in 0..rows {
        (arena[row * width + 300 * row], arena[row * width + 300 * row + 7]) = (2.0, 2.0);
    }
    let op = ops::Best { x: 0, width: width as u32, rows: rows as u32 };
    let results = vec![0; rows * (1 + 2 * SLICES)];
    let memory = Memory { op: bytemuck::bytes_of(&op), arena: &arena, cache: &results, ..Memory::default() };
    let after = run(gpu, kernel, &memory, [rows as u32, SLICES as u32])?;
    let first = |slice: &[f32]| (0..slice.len()).rev().max_by(|&a, &b| slice[a].total_cmp(&slice[b])).unwrap_or(0);
    let slices = arena.chunks(width / SLICES).enumerate();
    let expected: Vec<f64> = slices.map(|(i, s)| (i % SLICES * (width / SLICES) + first(s)) as f64).collect();
    let found: Vec<f32> = after.cache[rows..].chunks(2).map(|found| found[1] as f32).collect();
    Ok(nmse(&found, &expected))
}

/// Two heads that share their keys, over a page and a half; tokens of one block, the last of which see it all. Values
/// have `words` words.
fn attention(gpu: &Opened, kernel: Kernel, half: bool, words: usize) -> Result<f64> {
    let per = if half { 2 } else { 1 };
    let (tokens, heads, d, first) = (3, 2, words * per, 45);
    let positions = first + tokens;
    // Of keys and values: what the cache holds, as `cache.wgsl` lays it out, and as numbers.
    let mut cache = vec![0u32; 2 * PAGE * 2 * words];
    let mut rows = [vec![0.0; positions * d], vec![0.0; positions * d]];
    for position in 0..positions {
        let (page, slot) = (position / PAGE * PAGE * 2 * words, position % PAGE);
        for word in 0..words {
            for (side, at) in [word * PAGE + slot, PAGE * words + slot * words + word].into_iter().enumerate() {
                let of = |i: usize| random((side * positions + position) * d + word * per + i);
                let (a, b) = (half::f16::from_f32(of(0)), half::f16::from_f32(of(1)));
                let row = &mut rows[side][position * d + word * per..][..per];
                match row {
                    [x, y] => {
                        (*x, *y) = (f64::from(a.to_f32()), f64::from(b.to_f32()));
                        cache[page + at] = u32::from(a.to_bits()) | u32::from(b.to_bits()) << 16;
                    }
                    row => {
                        row[0] = f64::from(of(0));
                        cache[page + at] = of(0).to_bits();
                    }
                }
            }
        }
    }
    let mut arena: Vec<f32> = (0..tokens * heads * d).map(|i| random(i + 99_991)).collect();
    let [keys, values] = rows;
    let expected: Vec<f64> =
        (0..tokens * heads).flat_map(|i| attend(&arena[i * d..][..d], &keys, &values, first + i / heads + 1)).collect();
    let mut tables = vec![0; HEAD];
    (tables[0], tables[3], tables[4], tables[6], tables[9]) = (tokens as u32, 0, 3, 6, 8);
    tables.extend((first..positions).map(|p| p as u32));
    tables.extend([0, 0, 0, 0, 1, 0, tokens as u32]);
    let op = ops::Attention {
        q: 0,
        out: arena.len() as u32,
        heads: heads as u32,
        heads_kv: 1,
        d_k: d as u32,
        d_v: d as u32,
        scale: SCALE,
        cap: 0.0,
        window: u32::MAX,
        causal: 1,
        slopes: NONE,
        sinks: NONE,
        cache: 0,
        ..ops::Attention::default()
    };
    let out = arena.len();
    arena.resize(2 * out, 0.0);
    let op = bytemuck::bytes_of(&op);
    let memory = Memory { tables: &tables, op, arena: &arena, cache: &cache, ..Memory::default() };
    let after = run(gpu, kernel, &memory, [1, heads as u32])?;
    Ok(nmse(&after.arena[out..], &expected))
}

/// On scores of the test.
const SCALE: f32 = 0.125;

/// What a query takes of the first `n` values.
fn attend(query: &[f32], keys: &[f64], values: &[f64], n: usize) -> Vec<f64> {
    let d = query.len();
    let dot = |key: &[f64]| query.iter().zip(key).map(|(q, k)| f64::from(*q) * k).sum::<f64>();
    let scores: Vec<f64> = keys.chunks(d).take(n).map(|key| (f64::from(SCALE) * dot(key)).exp()).collect();
    let total: f64 = scores.iter().sum();
    let element = |e: usize| scores.iter().zip(values.chunks(d)).map(|(s, v)| s * v[e]).sum::<f64>() / total;
    (0..d).map(element).collect()
}
