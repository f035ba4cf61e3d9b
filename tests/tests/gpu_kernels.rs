//! Every variant of every shader on every adapter against naive f64 twins: odd sizes, edges of panels, blocks and tiles,
//! and sentinels around what it may write.

use engine::backend::Device;
use engine::backend::gpu::adapter::{Opened, open};
use engine::backend::gpu::probe::{After, Memory, run};
use gguf::Format;
use shaders::layout::{ALL, LANES, Layout};
use shaders::{Act, COLUMNS, Kernel, NONE, ROW_WG, Way, ops};
use tests::gpu::{nmse, obtain};
use tests::random::Random;

/// Products of up to some hundred terms in f32.
const PRODUCT: f64 = 1e-11;
/// Functions of a driver's own exp and tanh, which may be off by some 1e-6.
const FUNCTION: f64 = 1e-10;
/// Stands where nothing may write.
const SENTINEL: f32 = -7.25e30;

/// Runs `check` on every adapter; what it returns are its failures.
fn on_every_adapter(check: &dyn Fn(&Opened) -> Vec<String>) {
    let (adapters, _busy) = obtain();
    let mut failures = Vec::new();
    for a in &adapters {
        let gpu = open(&Device::Index(a.index)).unwrap_or_else(|error| panic!("{error}"));
        failures.extend(check(&gpu).into_iter().map(|row| format!("{} ({}): {row}", a.name, a.api)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn floats(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| random.signed()).collect()
}

/// The head of an upload with `tokens` tokens, all of them wanted, and tables after it.
fn step(tokens: usize, tables: &[(usize, Vec<u32>)]) -> Vec<u32> {
    let mut words = vec![0; 64];
    (words[0], words[1]) = (tokens as u32, tokens as u32);
    for (field, table) in tables {
        words[*field] = (words.len() - 64) as u32;
        words.extend(table);
    }
    words
}

/// What of a result is off: its error, and sentinels that are gone.
fn compare(name: &str, found: &After, at: usize, expected: &[f64], allowed: f64) -> Option<String> {
    let (own, rest) = found.arena[at..].split_at(expected.len());
    let found: Vec<f64> = own.iter().map(|&v| f64::from(v)).collect();
    let off = nmse(&found, expected);
    if !matches!(off.partial_cmp(&allowed), Some(std::cmp::Ordering::Less)) {
        return Some(format!("{name}: NMSE {off:.1e}, allowed {allowed:.0e}"));
    }
    rest.iter().any(|&v| v != SENTINEL).then(|| format!("{name}: wrote behind its output"))
}

/// What a kernel leaves, which must run.
fn done(gpu: &Opened, kernel: Kernel, memory: &Memory, grid: [u32; 2]) -> After {
    run(gpu, kernel, memory, grid).unwrap_or_else(|error| panic!("{error}"))
}

/// A random matrix: rows of a file, the layout of the device, and its values.
struct Matrix {
    packed: Vec<u32>,
    words: usize,
    panels: usize,
    values: Vec<f32>,
}

fn matrix(random: &mut Random, format: Format, rows: usize, k: usize) -> Matrix {
    let layout = Layout::of(format).expect("a layout");
    let row = format.row_bytes(k as u64).expect("whole blocks") as usize;
    let values = floats(random, rows * k);
    let bytes: Vec<u8> = match format.encoder() {
        Some(encode) => {
            let mut bytes = vec![0; rows * row];
            encode(&values, None, &mut bytes);
            bytes
        }
        None => raw(random, format, rows * row),
    };
    let mut values = vec![0.0; rows * k];
    format.decoder().expect("a decoder")(&bytes, &mut values);
    let panels = rows.div_ceil(LANES);
    let (quads, words) = (layout.panel_quads(k), layout.panel_words(k));
    let mut packed = vec![0; panels * (quads + words)];
    let (all_quads, all_words) = packed.split_at_mut(panels * quads);
    for (p, rows) in bytes.chunks(row * LANES).enumerate() {
        layout.pack(k, rows, &mut all_quads[p * quads..][..quads], &mut all_words[p * words..][..words]);
    }
    Matrix { packed, words: panels * quads, panels, values }
}

/// Bytes of a format that we do not quantize to: any codes, with factors that are sound.
fn raw(random: &mut Random, format: Format, n: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..n).map(|_| random.bits() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for field in format.fields() {
            for i in 0..field.count {
                let value = half::f16::from_f32(random.signed());
                let at = field.at + i * field.width;
                match (format, field.width) {
                    (Format::F32, _) => block[at..at + 4].copy_from_slice(&random.signed().to_le_bytes()),
                    (Format::BF16, _) => {
                        block[at..at + 2].copy_from_slice(&half::bf16::from_f32(random.signed()).to_le_bytes())
                    }
                    _ => block[at..at + 2].copy_from_slice(&value.to_le_bytes()),
                }
            }
        }
    }
    bytes
}

fn can(gpu: &Opened, kernel: Kernel) -> bool {
    match kernel {
        Kernel::MatMul { way: Way::NarrowSubgroup(n), .. } => {
            gpu.description.features.contains(&"subgroups") && gpu.description.subgroup[0] as usize >= n
        }
        _ => true,
    }
}

/// The axiom: however many columns a workgroup has, the bits are the same. Gives those that have others than the first.
fn other_bits(results: &[(usize, Vec<f32>)]) -> impl Iterator<Item = usize> {
    let differs = |result: &[f32]| result.iter().zip(&results[0].1).any(|(a, b)| a.to_bits() != b.to_bits());
    results.iter().skip(1).filter(move |(_, result)| differs(result)).map(|(columns, _)| *columns)
}

fn product(gpu: &Opened, format: Format, way: Way, [rows, k, n]: [usize; 3]) -> Vec<String> {
    let mut random = Random::new((rows * 31 + k * 7 + n) as u64 + u64::from(format.id()));
    let m = matrix(&mut random, format, rows, k);
    let (x, bias) = (floats(&mut random, n * k), floats(&mut random, rows));
    let expected: Vec<f64> = (0..n * rows)
        .map(|i| {
            let (column, row) = (i / rows, i % rows);
            let terms = m.values[row * k..][..k].iter().zip(&x[column * k..]);
            let sum: f64 = terms.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            0.5 * sum + f64::from(bias[row]) + f64::from(x[i % x.len()])
        })
        .collect();
    // Columns, residuals (which repeat the columns), output, sentinels.
    let residual: Vec<f32> = (0..n * rows).map(|i| x[i % x.len()]).collect();
    let at = x.len() + residual.len();
    let mut arena = [x, residual].concat();
    arena.resize(at + n * rows + 100, SENTINEL);
    let op = ops::MatmulWide {
        x: 0,
        out: at as u32,
        residual: (n * k) as u32,
        bias: 0,
        k: k as u32,
        width: rows as u32,
        first: 0,
        panels: m.panels as u32,
        words: m.words as u32,
        outputs: 1,
        scale: 0.5,
    };
    let tables = step(n, &[]);
    let memory = Memory {
        tables: &tables,
        op: bytemuck::bytes_of(&op),
        arena: &arena,
        weights: &m.packed,
        vectors: &bias,
        ..Memory::default()
    };
    let mut failures = vec![];
    let mut results: Vec<(usize, Vec<f32>)> = vec![];
    for columns in COLUMNS {
        let kernel = Kernel::MatMul { format, columns, way };
        if !can(gpu, kernel) {
            continue;
        }
        let grid = [m.panels.div_ceil(way.panels(columns)) as u32, n.div_ceil(columns) as u32];
        let name = format!("{} of {rows} x {k}, {n} columns", kernel.name());
        match run(gpu, kernel, &memory, grid) {
            Err(error) => failures.push(format!("{name}: {error}")),
            Ok(after) => {
                failures.extend(compare(&name, &after, at, &expected, PRODUCT));
                results.push((columns, after.arena));
            }
        }
    }
    let of = format!("matmul-{format} {way:?} of {rows} x {k}");
    failures.extend(other_bits(&results).map(|columns| format!("{of}: other bits in tiles of {columns} columns")));
    failures
}

#[test]
fn products_of_every_format_and_way() {
    on_every_adapter(&|gpu| {
        let mut failures = vec![];
        for layout in ALL {
            // A row of one block, and one of several that ends inside a tile; rows that end inside a panel.
            let k = layout.format.block_len().max(32);
            let shapes = [[17, k, 3], [70, 5 * k, 9]];
            for way in Way::ALL {
                failures.extend(shapes.into_iter().flat_map(|shape| product(gpu, layout.format, way, shape)));
            }
        }
        for way in Way::ALL {
            // Floats may have rows of any length; a long row passes several tiles.
            for shape in [[1, 1, 1], [5, 33, 2], [16, 2500, 8]] {
                failures.extend(product(gpu, Format::F32, way, shape));
            }
        }
        failures
    });
}

#[test]
fn rows_of_tables_of_every_format() {
    on_every_adapter(&|gpu| {
        let mut failures = vec![];
        for layout in ALL {
            let (rows, k, n) = (37, 3 * layout.format.block_len().max(11), 4);
            let mut random = Random::new(u64::from(layout.format.id()) + 5);
            let m = matrix(&mut random, layout.format, rows, k);
            let ids = vec![36, 0, 17, 36];
            let expected: Vec<f64> = ids
                .iter()
                .flat_map(|&id| m.values[id as usize * k..][..k].iter().map(|&v| f64::from(v) * 1.5))
                .collect();
            let op = ops::Embed {
                out: 0,
                k: k as u32,
                first: 0,
                panels: m.panels as u32,
                words: m.words as u32,
                scale: 1.5,
                lookup: 0,
                add: NONE,
            };
            let (tables, arena) = (step(n, &[(2, ids)]), vec![SENTINEL; n * k + 100]);
            let memory = Memory {
                tables: &tables,
                op: bytemuck::bytes_of(&op),
                arena: &arena,
                weights: &m.packed,
                ..Memory::default()
            };
            let kernel = Kernel::Embed(layout.format);
            let after = done(gpu, kernel, &memory, [n as u32, k.div_ceil(32).div_ceil(ROW_WG) as u32]);
            failures.extend(compare(&kernel.name(), &after, 0, &expected, PRODUCT));
        }
        failures
    });
}

fn act(act: Act, x: f64) -> f64 {
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    match act {
        Act::Silu => x * logistic(x),
        Act::GeluTanh => x * logistic(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)),
        Act::GeluErf => {
            // The error function by its series where that converges fast, and by its limit elsewhere.
            let z = x / 2f64.sqrt();
            let mut term = z;
            let mut sum = z;
            for n in 1..200 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            let erf = if z.abs() > 5.0 { z.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() };
            0.5 * x * (1.0 + erf)
        }
        Act::Relu => x.max(0.0),
        Act::ReluSquared => x.max(0.0).powi(2),
        Act::Sigmoid => logistic(x),
    }
}

#[test]
fn gated_activations() {
    on_every_adapter(&|gpu| {
        let mut failures = vec![];
        let (rows, width) = (2, 150);
        let mut random = Random::new(9);
        let mut gate: Vec<f32> = floats(&mut random, rows * width).iter().map(|x| x * 6.0).collect();
        gate[..6].copy_from_slice(&[0.0, -0.0, 100.0, -100.0, 30.0, -30.0]);
        let up = floats(&mut random, rows * width);
        for which in Act::ALL {
            let expected: Vec<f64> =
                gate.iter().zip(&up).map(|(g, u)| act(which, f64::from(*g)) * f64::from(*u)).collect();
            let at = 2 * rows * width;
            let mut arena = [gate.clone(), up.clone()].concat();
            arena.resize(at + rows * width + 100, SENTINEL);
            let op = ops::GatedAct { gate: 0, up: (rows * width) as u32, out: at as u32, width: width as u32 };
            let memory = Memory { op: bytemuck::bytes_of(&op), arena: &arena, ..Memory::default() };
            let kernel = Kernel::GatedAct(which);
            let after = done(gpu, kernel, &memory, [rows as u32, width.div_ceil(ROW_WG) as u32]);
            failures.extend(compare(&kernel.name(), &after, at, &expected, FUNCTION));
        }
        failures
    });
}

#[test]
fn norms_of_rows_and_heads() {
    on_every_adapter(&|gpu| {
        let mut failures = vec![];
        for (rows, slices, width) in [(1, 1, 1), (3, 1, 576), (2, 5, 66), (1, 2, 1000)] {
            let mut random = Random::new(width as u64);
            let n = rows * slices * width;
            let (x, weight) = (floats(&mut random, n), floats(&mut random, width));
            let expected: Vec<f64> = x
                .chunks(width)
                .flat_map(|x| {
                    let mean = x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / width as f64;
                    let factor = 1.0 / (mean + 1e-5).sqrt();
                    x.iter()
                        .zip(&weight)
                        .map(move |(v, w)| f64::from(*v) * factor * f64::from(*w) + f64::from(*v))
                        .collect::<Vec<_>>()
                })
                .collect();
            let mut arena = x;
            arena.resize(2 * n + 100, SENTINEL);
            let op = ops::RmsNorm {
                x: 0,
                out: n as u32,
                residual: 0,
                weight: 0,
                width: width as u32,
                slices: slices as u32,
                eps: 1e-5,
            };
            let memory = Memory { op: bytemuck::bytes_of(&op), arena: &arena, vectors: &weight, ..Memory::default() };
            let grid = [rows as u32, slices as u32];
            let after = done(gpu, Kernel::RmsNorm, &memory, grid);
            failures.extend(compare(&format!("rms-norm of {slices} x {width}"), &after, n, &expected, PRODUCT));
            let none = ops::RmsNorm { residual: NONE, ..op };
            let memory = Memory { op: bytemuck::bytes_of(&none), ..memory };
            let plain = done(gpu, Kernel::RmsNorm, &memory, grid);
            let expected: Vec<f64> = expected.iter().zip(&arena).map(|(y, x)| y - f64::from(*x)).collect();
            failures.extend(compare(
                &format!("rms-norm of {slices} x {width}, no residual"),
                &plain,
                n,
                &expected,
                PRODUCT,
            ));
        }
        failures
    });
}
