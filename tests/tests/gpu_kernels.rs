//! Every variant of every shader on every adapter against naive f64 twins: odd sizes, edges of panels, blocks and tiles,
//! and sentinels around what it may write.

use engine::backend::gpu::adapter::Opened;
use engine::backend::gpu::probe::{Memory, run};
use gguf::Format;
use shaders::layout::ALL;
use shaders::{ACT_QUADS, Act, Kernel, NONE, ROW_WG, Reducing, SLICES, SUBGROUPS, TOP, Walk, Way, ops};
use tests::gpu::{
    FUNCTION, HALVES, PRODUCT, SENTINEL, activation, can, compare, done, floats, matrix, on_every_adapter, quantized,
    step,
};
use tests::random::Random;

/// Words of other weights that stand before those of a test.
const BEFORE: usize = 48;

/// Weights behind those of another matrix, which are NaN.
fn behind(weights: &[u32]) -> Vec<u32> {
    [&[u32::MAX; BEFORE], weights].concat()
}

/// The axiom: however many columns a workgroup has, the bits are the same. Gives those that have others than the first.
fn other_bits(results: &[(usize, Vec<f32>)]) -> impl Iterator<Item = usize> {
    let differs = |result: &[f32]| result.iter().zip(&results[0].1).any(|(a, b)| a.to_bits() != b.to_bits());
    results.iter().skip(1).filter(move |(_, result)| differs(result)).map(|(columns, _)| *columns)
}

/// Columns as a way takes them: floats, or codes, and the values that these stand for.
fn columns_for(way: Way, x: &[f32], k: usize) -> (Vec<f32>, Vec<f64>) {
    if way.is_dot() {
        let (words, values) = quantized(x, k);
        return (words.into_iter().map(f32::from_bits).collect(), values);
    }
    (x.to_vec(), x.iter().map(|x| f64::from(*x)).collect())
}

fn product(gpu: &Opened, format: Format, way: Way, tiles: usize, [rows, k, n]: [usize; 3]) -> Vec<String> {
    let way = way.of_row(k);
    let mut random = Random::new((rows * 31 + k * 7 + n) as u64 + u64::from(format.id()));
    let m = matrix(&mut random, format, rows, k);
    let (x, bias) = (floats(&mut random, n * k), floats(&mut random, rows));
    let residual: Vec<f32> = (0..n * rows).map(|i| x[i % x.len()]).collect();
    let (columns, values) = columns_for(way, &x, k);
    let element = |i: usize| {
        let terms = m.values[i % rows * k..][..k].iter().zip(&values[i / rows * k..]);
        let sum: f64 = terms.map(|(w, x)| f64::from(*w) * x).sum();
        0.5 * sum + f64::from(bias[i % rows]) + f64::from(residual[i])
    };
    let expected: Vec<f64> = (0..n * rows).map(element).collect();
    // Columns (or their codes), residuals, output, sentinels.
    let (after_columns, at) = (columns.len(), columns.len() + residual.len());
    let mut arena: Vec<f32> = [columns, residual].concat();
    arena.resize(at + n * rows + 100, SENTINEL);
    let op = ops::MatmulWide {
        x: 0,
        out: at as u32,
        residual: after_columns as u32,
        bias: 0,
        k: k as u32,
        width: rows as u32,
        first: 0,
        panels: m.panels as u32,
        quads: BEFORE as u32 / 4,
        words: (BEFORE + m.words) as u32,
        outputs: 1,
        scale: 0.5,
        ..ops::MatmulWide::default()
    };
    let (tables, weights) = (step(n, &[]), behind(&m.packed));
    let memory = Memory {
        tables: &tables,
        op: bytemuck::bytes_of(&op),
        arena: &arena,
        weights: &weights,
        vectors: &bias,
        ..Memory::default()
    };
    let (mut failures, mut results) = (vec![], vec![]);
    for &columns in way.columns().iter().take(tiles) {
        let kernel = Kernel::MatMul { format, columns, way };
        let Some(kernel) = can(gpu, kernel).then_some(kernel) else { continue };
        let grid = [way.workgroups(columns, m.panels) as u32, n.div_ceil(columns) as u32];
        let name = format!("{} of {rows} x {k}, {n} columns", kernel.name());
        match run(gpu, kernel, &memory, grid) {
            Err(error) => failures.push(format!("{name}: {error}")),
            Ok(after) => {
                let allowed = if kernel.needs_halves() { HALVES } else { PRODUCT };
                failures.extend(compare(&name, &after, at, &expected, allowed));
                results.push((columns, after.arena));
            }
        }
    }
    let of = format!("matmul-{format} {way:?} of {rows} x {k}");
    failures.extend(other_bits(&results).map(|columns| format!("{of}: other bits in tiles of {columns} columns")));
    failures
}

/// Of the formats whose groups a product treats alike (floats; scales of 32 or 16 values, with minimums or without), one
/// each goes every way; the others go the adapter's own way for one column, where they prove that they are unpacked: the
/// large tiles are dear to compile, and whole models of every format run them.
const LEADERS: [Format; 5] = [Format::F32, Format::Q8_0, Format::Q4K, Format::Q6K, Format::Q2K];

#[test]
fn products_of_every_format_and_way() {
    on_every_adapter(&|gpu| {
        let mut failures = vec![];
        for layout in ALL {
            // A row of one block, and one of several that ends inside a tile; rows that end inside a panel.
            let k = layout.format.block_len().max(32);
            let shapes = [[70, 5 * k, 9], [17, k, 3]];
            let leads = LEADERS.contains(&layout.format);
            let tiles = if leads { usize::MAX } else { 1 };
            let ways = Way::ALL.into_iter().filter(|way| leads || *way == gpu.way).chain([Way::Dot]);
            for way in ways.filter(|way| way.takes(layout.format)) {
                let shapes = &shapes[..if leads { 2 } else { 1 }];
                failures.extend(shapes.iter().flat_map(|shape| product(gpu, layout.format, way, tiles, *shape)));
            }
        }
        for way in Way::ALL {
            // Floats may have rows of any length; a long row passes several tiles.
            for shape in [[1, 1, 1], [5, 33, 2], [7, 36, 3], [16, 2500, 8]] {
                failures.extend(product(gpu, Format::F32, way, usize::MAX, shape));
            }
        }
        // Rows of several runs of groups for each slice, and more columns than a tile has.
        for format in [Format::Q8_0, Format::Q4_1] {
            failures.extend(product(gpu, format, Way::Dot, usize::MAX, [16, 32 * 150, 9]));
        }
        for (format, way) in [(Format::F16, Way::Wide), (Format::Q5_1, Way::Wide), (Format::Q6K, Way::Dot)] {
            failures.extend(product(gpu, format, way, usize::MAX, [83, 1024, 70]));
        }
        failures
    });
}

/// The processor's codes, scales and sums to the bit, edges included.
#[test]
fn activations_become_the_codes_of_the_processor() {
    on_every_adapter(&|gpu| {
        let (rows, k) = (3, 32 * 11);
        let mut x: Vec<f32> = floats(&mut Random::new(12), rows * k);
        for (g, group) in x.chunks_mut(32).enumerate() {
            let factor = 7f32.powi(g as i32 % 9 - 4);
            group.iter_mut().for_each(|x| *x *= factor);
        }
        let edges: [&dyn Fn(usize) -> f32; 6] = [
            &|_| 0.0,
            &|_| -0.0,
            // Below what counts, and little above, with a scale that is still a normal number, as some drivers have no others; halves
            // between two codes; nothing but the largest.
            &|i| 7e-37 * (i as f32 / 32.0),
            &|_| 2e-36,
            &|i| if i == 0 { 127.0 } else { i as f32 - 15.5 },
            &|i| if i % 2 == 0 { 3.0e38 } else { -3.0e38 },
        ];
        for (g, edge) in edges.iter().enumerate() {
            (0..32).for_each(|i| x[g * 32 + i] = edge(i));
        }
        let (nan, infinite) = (20, 25);
        (x[nan * 32 + 3], x[infinite * 32 + 31]) = (f32::NAN, f32::NEG_INFINITY);
        let (words, _) = quantized(&x, k);
        let op = ops::Quantize { x: 0, out: x.len() as u32, k: k as u32 };
        let mut arena = x;
        let at = arena.len();
        arena.resize(at + words.len() + 100, SENTINEL);
        let memory = Memory { op: bytemuck::bytes_of(&op), arena: &arena, ..Memory::default() };
        let after = done(gpu, Kernel::Quantize, &memory, [rows as u32, 2]).arena;
        let mut failures = vec![];
        let group = ACT_QUADS * 4;
        // But for the sign of a zero.
        let same = |a: f32, bits: u32| a.to_bits() == bits || (a.to_bits() | bits) << 1 == 0;
        for (g, (found, expected)) in after[at..].chunks(group).zip(words.chunks(group)).enumerate() {
            let good = match g {
                g if g == nan || g == infinite => found[8].is_nan() && f32::from_bits(expected[8]).is_nan(),
                _ => found.iter().zip(expected).all(|(found, expected)| same(*found, *expected)),
            };
            let bits = || found.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            failures.extend((!good).then(|| format!("codes of group {g}: {:x?}, expected {expected:x?}", bits())));
        }
        failures.extend(after[at + words.len()..].iter().any(|&v| v != SENTINEL).then(|| "wrote behind".to_string()));
        failures
    });
}

/// Several matrices in one dispatch and each in one of its own: the results, of `n` columns.
fn together(gpu: &Opened, format: Format, [k, n]: [usize; 2]) -> Vec<String> {
    let rows = [20, 5, 33];
    let mut random = Random::new(11);
    // The panels of one after those of the other: all quads, then all words.
    let each = rows.map(|rows| matrix(&mut random, format, rows, k));
    let quads: Vec<u32> = each.iter().flat_map(|m| m.packed[..m.words].to_vec()).collect();
    let words: Vec<u32> = each.iter().flat_map(|m| m.packed[m.words..].to_vec()).collect();
    let (x, biases) = (floats(&mut random, n * k), floats(&mut random, rows.iter().sum()));
    let [first, second, third] = [x.len(), x.len() + n * rows[0], x.len() + n * (rows[0] + rows[1])];
    let (mut arena, tables) = (x, step(n, &[]));
    arena.resize(third + n * rows[2] + 100, SENTINEL);
    let (packed, panels) = ([&quads[..], &words].concat(), each.iter().map(|m| m.panels).sum::<usize>());
    let op = ops::MatmulWide {
        out: first as u32,
        residual: NONE,
        bias: 0,
        k: k as u32,
        width: rows[0] as u32,
        panels: panels as u32,
        words: quads.len() as u32,
        outputs: 1,
        scale: 0.5,
        second: 32,
        second_out: second as u32,
        second_bias: NONE,
        second_width: rows[1] as u32,
        third: 48,
        third_out: third as u32,
        third_bias: (rows[0] + rows[1]) as u32,
        third_width: rows[2] as u32,
        ..ops::MatmulWide::default()
    };
    let mut failures = vec![];
    let ways = Way::ALL.into_iter().filter(|way| way.takes(format));
    for (way, &columns) in ways.flat_map(|way| way.columns().iter().map(move |columns| (way, columns))) {
        let kernel = Kernel::MatMul { format, columns, way };
        if !can(gpu, kernel) {
            continue;
        }
        let left = |op: &ops::MatmulWide, weights: &[u32]| {
            let op = bytemuck::bytes_of(op);
            let memory = Memory { tables: &tables, op, arena: &arena, weights, vectors: &biases, ..Memory::default() };
            let grid = [way.workgroups(columns, panels) as u32, n.div_ceil(columns) as u32];
            done(gpu, kernel, &memory, grid).arena.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        let all = left(&op, &packed);
        let one = |i: usize, out: usize, bias: u32| {
            let (width, panels, words) = (rows[i] as u32, each[i].panels as u32, each[i].words as u32);
            let alone = ops::MatmulWide { out: out as u32, bias, width, panels, words, second: 0, third: 0, ..op };
            left(&alone, &each[i].packed)[out..out + n * rows[i]].to_vec()
        };
        let expected = [one(0, first, 0), one(1, second, op.second_bias), one(2, third, op.third_bias)].concat();
        let name = kernel.name();
        failures.extend((all[first..first + expected.len()] != expected).then(|| format!("{name}: other bits")));
        let behind = &all[first + expected.len()..];
        failures.extend(behind.iter().any(|&v| v != SENTINEL.to_bits()).then(|| format!("{name}: wrote behind")));
    }
    failures
}

#[test]
fn matrices_in_one_dispatch_are_each_as_alone() {
    on_every_adapter(&|gpu| {
        [(Format::Q8_0, [96, 9]), (Format::F32, [36, 1])]
            .into_iter()
            .flat_map(|(format, shape)| together(gpu, format, shape))
            .collect()
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
                quads: BEFORE as u32 / 4,
                words: (BEFORE + m.words) as u32,
                scale: 1.5,
                lookup: 0,
                add: NONE,
            };
            let (tables, arena) = (step(n, &[(2, ids)]), vec![SENTINEL; n * k + 100]);
            let weights = behind(&m.packed);
            let memory = Memory {
                tables: &tables,
                op: bytemuck::bytes_of(&op),
                arena: &arena,
                weights: &weights,
                ..Memory::default()
            };
            let kernel = Kernel::Embed(layout.format);
            let after = done(gpu, kernel, &memory, [n as u32, k.div_ceil(32).div_ceil(ROW_WG) as u32]);
            failures.extend(compare(&kernel.name(), &after, 0, &expected, PRODUCT));
        }
        failures
    });
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
                gate.iter().zip(&up).map(|(g, u)| activation(which, f64::from(*g)) * f64::from(*u)).collect();
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
        for (rows, slices, width) in [(1, 1, 1), (3, 1, 576), (2, 5, 66), (2, 3, 64), (1, 2, 1000), (2, 1, 5124)] {
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
            let none = ops::RmsNorm { residual: NONE, ..op };
            let alone: Vec<f64> = expected.iter().zip(&arena).map(|(y, x)| y - f64::from(*x)).collect();
            let kernels = SUBGROUPS.map(Kernel::RmsNormNarrow).into_iter().filter(|_| width % 4 == 0);
            // In floats any row can be walked.
            let walks = Walk::ALL.into_iter().filter(|&walk| walk == Walk::Floats || width % 4 == 0);
            let wide = walks.flat_map(|walk| [Kernel::RmsNorm(walk), Kernel::Eights(Reducing::RmsNorm(walk))]);
            let all = kernels.chain(wide);
            for kernel in all.filter(|&kernel| can(gpu, kernel)) {
                for (op, expected) in [(op, &expected), (none, &alone)] {
                    let memory = Memory { op: bytemuck::bytes_of(&op), ..memory };
                    let after = done(gpu, kernel, &memory, [rows as u32, slices as u32]);
                    let name = format!("{} of {slices} x {width}, residual {}", kernel.name(), op.residual != NONE);
                    failures.extend(compare(&name, &after, n, expected, PRODUCT));
                }
            }
        }
        failures
    });
}

/// The largest of rows, by every kernel that finds it.
fn largest(gpu: &Opened, width: usize) -> Vec<String> {
    let slices = SLICES;
    let mut random = Random::new(77);
    let row = |edits: &[(usize, f32)]| {
        let mut row = floats(&mut random, width);
        edits.iter().for_each(|&(at, value)| row[at] = value);
        row
    };
    let low = f32::NEG_INFINITY;
    let (nan, edges) = (f32::NAN, [0, 63, 64, 65, width - 1]);
    let mut row = row;
    let mut rows: Vec<(Vec<f32>, u32)> = edges.map(|at| (row(&[(at, 2.0)]), at as u32)).to_vec();
    rows.push((row(&[(900, 3.0), (20, 3.0), (21, 3.0)]), 20));
    rows.push((row(&[(5, f32::INFINITY), (1000, nan), (700, -nan)]), 700 | 1 << 31));
    rows.push((vec![low; width], u32::MAX));
    let only: Vec<f32> = (0..width).map(|i| if i == 999 { -1e-40 } else { low }).collect();
    rows.push((only, 999));
    // Both zeros are one number.
    let zero = |i: usize| [(3, -0.0), (8, 0.0)].into_iter().find(|z| z.0 == i).map_or(-1.0, |z| z.1);
    rows.push(((0..width).map(zero).collect(), 3));
    let n = rows.len();
    let arena: Vec<f32> = rows.iter().flat_map(|row| row.0.clone()).collect();
    let op = ops::Best { x: 0, width: width as u32, rows: n as u32 };
    let tables = step(n, &[]);
    let plain = |merge| Kernel::Best { merge };
    let eights = |merge| Kernel::Eights(Reducing::Best { merge });
    let ways: [&dyn Fn(bool) -> Kernel; 2] = [&plain, &eights];
    let mut failures = vec![];
    for way in ways.into_iter().filter(|way| can(gpu, way(false))) {
        let mut results = vec![0; n * (1 + 2 * slices) + 1];
        for (merge, others) in [(false, slices as u32), (true, 1)] {
            let memory = Memory {
                tables: &tables,
                op: bytemuck::bytes_of(&op),
                arena: &arena,
                cache: &results,
                ..Memory::default()
            };
            results = done(gpu, way(merge), &memory, [n as u32, others]).cache;
        }
        let wrong = rows.iter().zip(&results).enumerate().filter(|(_, (row, found))| row.1 != **found);
        let name = way(false).name();
        failures.extend(
            wrong.map(|(i, (row, found))| format!("{name} of row {i} of {width}: {found:#x}, expected {:#x}", row.1)),
        );
        failures.extend((results[n * (1 + 2 * slices)] != 0).then(|| format!("{name} wrote behind its output")));
    }
    failures
}

/// Rows of less than a round of reads, and of more than one.
#[test]
fn the_largest_of_rows() {
    on_every_adapter(&|gpu| [1036, 4 * SLICES * 1100 + 20].into_iter().flat_map(|width| largest(gpu, width)).collect());
}

/// The largest few of rows as the sampler takes them: of equals the lowest tokens, numbers that are none first of all, and
/// no more than there are.
#[test]
fn the_largest_few_of_rows() {
    let mut random = Random::new(78);
    let (low, nan) = (f32::NEG_INFINITY, f32::NAN);
    // Rows that end inside a slice, rows of less than what is wanted, and of several thousands, and of more than a round of reads.
    for width in [1037, 30, 5000, 8 * 256 * SLICES + 333] {
        let plain = floats(&mut random, width);
        let with = |edit: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
            plain.iter().enumerate().map(|(i, &x)| edit(i, x)).collect()
        };
        let rows = [
            plain.clone(),
            // All equal; some equal at the edge of what is wanted; most banned.
            vec![1.5; width],
            with(&|_, x| (x * 8.0).round()),
            with(&|i, x| if i % 97 == 5 { x } else { low }),
            vec![low; width],
            with(&|i, x| if i % 7 == 3 { nan } else { x }),
            with(&|i, x| if i == 2 { f32::INFINITY } else { x }),
            with(&|i, _| if i % 2 == 0 { -0.0 } else { 0.0 }),
            with(&|_, x| x * 1e-40),
        ];
        let expected = rows.clone().map(|row| {
            let rank = |x: f32| if x.is_nan() { f64::INFINITY } else { f64::from(x).min(1e300) };
            let mut order: Vec<usize> = (0..width).filter(|&i| row[i] != low).collect();
            order.sort_by(|&a, &b| rank(row[b]).partial_cmp(&rank(row[a])).expect("numbers").then(a.cmp(&b)));
            order.truncate(TOP);
            let mut pairs: Vec<[u32; 2]> = order.into_iter().map(|i| [i as u32, row[i].to_bits()]).collect();
            pairs.sort_unstable();
            pairs
        });
        let (n, arena) = (rows.len(), rows.concat());
        let op = ops::Topk { x: 0, width: width as u32, out: 0, slices: (n * TOP * 2) as u32 };
        on_every_adapter(&|gpu| {
            let (tables, mut results) = (step(n, &[]), vec![0; n * TOP * 2 * (1 + SLICES) + 1]);
            for (merge, others) in [(false, SLICES as u32), (true, 1)] {
                let op = bytemuck::bytes_of(&op);
                let memory = Memory { tables: &tables, op, arena: &arena, cache: &results, ..Memory::default() };
                results = done(gpu, Kernel::Topk { merge }, &memory, [n as u32, others]).cache;
            }
            let found = results.chunks(TOP * 2).map(|row| {
                let mut pairs: Vec<[u32; 2]> = row.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
                pairs.retain(|pair| pair[0] != NONE);
                pairs.sort_unstable();
                pairs
            });
            let wrong = found.zip(&expected).enumerate().filter(|(_, (found, expected))| found != *expected);
            let mut failures: Vec<String> = wrong
                .map(|(i, (found, expected))| format!("row {i} of {width}: {found:x?}, expected {expected:x?}"))
                .collect();
            failures.extend((results[results.len() - 1] != 0).then(|| "topk wrote behind its output".to_string()));
            failures
        });
    }
}
