//! The kernels beside matrix products on every adapter against naive f64 twins: norms, activations, copies, adapters,
//! experts.

use engine::backend::gpu::adapter::Opened;
use engine::backend::gpu::probe::Memory;
use gguf::Format;
use shaders::layout::ALL;
use shaders::{Act, Kernel, NONE, ROW_WG, Reducing, Walk, ops};
use tests::gpu::{
    FUNCTION, Matrix, PRODUCT, SENTINEL, activation, can, compare, done, floats, matrices, on_every_adapter, quantized,
    step,
};
use tests::random::Random;

/// One run of a kernel and what it must leave.
#[derive(Clone)]
struct Case {
    name: String,
    kernel: Kernel,
    op: Vec<u8>,
    tables: Vec<u32>,
    /// What steps compute, up to the output; in place where `at` is 0.
    arena: Vec<f32>,
    at: usize,
    vectors: Vec<f32>,
    cache: Vec<u32>,
    grid: [usize; 2],
    expected: Vec<f64>,
    allowed: f64,
}

impl Case {
    fn new(name: String, kernel: Kernel, op: &impl bytemuck::Pod) -> Case {
        Case {
            name,
            kernel,
            op: bytemuck::bytes_of(op).to_vec(),
            tables: vec![],
            arena: vec![],
            at: 0,
            vectors: vec![],
            cache: vec![],
            grid: [1, 1],
            expected: vec![],
            allowed: PRODUCT,
        }
    }

    /// The same with the variant of a kernel that adds up in eights of lanes beside it.
    fn with_eights(self, kernel: Reducing) -> [Case; 2] {
        let name = format!("{} in eights", self.name);
        [self.clone(), Case { kernel: Kernel::Eights(kernel), name, ..self }]
    }

    /// What is wrong with what it leaves, on an adapter that has what it needs.
    fn run(&self, gpu: &Opened) -> Option<String> {
        if !can(gpu, self.kernel) {
            return None;
        }
        let mut arena = self.arena.clone();
        arena.resize(self.at + self.expected.len() + 100, SENTINEL);
        let memory = Memory {
            tables: &self.tables,
            op: &self.op,
            arena: &arena,
            vectors: &self.vectors,
            cache: &self.cache,
            ..Memory::default()
        };
        let after = done(gpu, self.kernel, &memory, self.grid.map(|n| n as u32));
        compare(&self.name, &after, self.at, &self.expected, self.allowed)
    }
}

fn as_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// An element an invocation.
fn elements(rows: usize, width: usize) -> [usize; 2] {
    [rows, width.div_ceil(ROW_WG)]
}

#[test]
fn layer_norms_of_rows_and_heads() {
    let mut cases = vec![];
    for (rows, heads, width, own, bias) in [
        (1, 1, 1, false, true),
        (3, 1, 576, false, true),
        (2, 5, 66, true, true),
        (2, 3, 132, true, false),
        (2, 1, 4500, false, true),
    ] {
        let mut random = Random::new(width as u64);
        // Far from 0, where a variance by squares alone would lose its digits.
        let x: Vec<f32> = floats(&mut random, rows * heads * width).iter().map(|x| x + 30.0).collect();
        let n = if own { heads * width } else { width };
        let vectors = floats(&mut random, 2 * n);
        let expected = x.chunks(width).enumerate().flat_map(|(slice, x)| {
            let x = as_f64(x);
            let mean = x.iter().sum::<f64>() / width as f64;
            let factor = 1.0 / (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64 + 1e-5).sqrt();
            let at = if own { slice % heads * width } else { 0 };
            let (weight, biases) = (as_f64(&vectors[at..]), as_f64(&vectors[n + at..]));
            let scale = if bias { 1.0 } else { 0.0 };
            (0..width).map(|i| (x[i] - mean) * factor * weight[i] + scale * biases[i]).collect::<Vec<_>>()
        });
        let op = ops::LayerNorm {
            x: 0,
            out: x.len() as u32,
            weight: 0,
            bias: if bias { n as u32 } else { NONE },
            width: width as u32,
            slices: heads as u32,
            weights: u32::from(own),
            biases: u32::from(own),
            eps: 1e-5,
        };
        let case = Case {
            expected: expected.collect(),
            at: x.len(),
            arena: x,
            vectors,
            grid: [rows, heads],
            // The mean of values around 30 is known to their last bit.
            allowed: FUNCTION,
            ..Case::new(String::new(), Kernel::LayerNorm(Walk::Floats), &op)
        };
        // In floats any row can be walked.
        for walk in Walk::ALL.into_iter().filter(|&walk| walk == Walk::Floats || width % 4 == 0) {
            let name = format!("layer norm of {heads} x {width}, {walk:?}");
            let case = Case { name, kernel: Kernel::LayerNorm(walk), ..case.clone() };
            cases.extend(case.with_eights(Reducing::LayerNorm(walk)));
        }
    }
    on_every_adapter(&|gpu| cases.iter().filter_map(|case| case.run(gpu)).collect());
}

#[test]
fn what_computes_each_element_by_itself() {
    let (rows, width) = (3, 150);
    let mut random = Random::new(4);
    let mut x: Vec<f32> = floats(&mut random, rows * width).iter().map(|x| x * 9.0).collect();
    x[..8].copy_from_slice(&[0.0, -0.0, 100.0, -100.0, 7.0, -7.0, 30.0, -30.0]);
    let up: Vec<f32> = floats(&mut random, rows * width).iter().map(|x| x * 9.0).collect();
    let n = width as u32;
    let mut cases: Vec<Case> = Act::ALL
        .map(|act| Case {
            expected: x.iter().map(|&x| activation(act, f64::from(x))).collect(),
            ..Case::new(format!("{act:?}"), Kernel::Act(act), &ops::Act { x: 0, width: n })
        })
        .into();
    let cap = ops::Softcap { x: 0, width: n, cap: 5.0 };
    cases.push(Case {
        expected: x.iter().map(|&x| 5.0 * (f64::from(x) / 5.0).tanh()).collect(),
        ..Case::new("soft cap".into(), Kernel::Softcap, &cap)
    });
    let strengths: Vec<f32> = floats(&mut random, rows * 2);
    for outputs in [0, 1] {
        // The second of two adapters; wanted rows are the tokens 2, 1, 0.
        let op = ops::Adapt { x: 0, width: n, adapter: 1, adapters: 2, outputs };
        let token = |row: usize| if outputs == 1 { rows - 1 - row } else { row };
        let strength = |i: usize| f64::from(strengths[token(i / width) * 2 + 1]);
        let bits = strengths.iter().map(|s| s.to_bits()).collect();
        cases.push(Case {
            expected: x.iter().enumerate().map(|(i, &x)| f64::from(x) * strength(i)).collect(),
            tables: step(rows, &[(5, vec![2, 1, 0]), (8, bits)]),
            ..Case::new(format!("strength of an adapter, outputs {outputs}"), Kernel::Adapt, &op)
        });
    }
    for case in &mut cases {
        case.arena = x.clone();
    }
    let glu = ops::GatedAct { gate: 0, up: (rows * width) as u32, out: 2 * (rows * width) as u32, width: n };
    let gate = |g: f64, u: f64| g.min(7.0) * activation(Act::Sigmoid, 1.702 * g.min(7.0)) * (u.clamp(-7.0, 7.0) + 1.0);
    cases.push(Case {
        expected: x.iter().zip(&up).map(|(&g, &u)| gate(g.into(), u.into())).collect(),
        at: 2 * rows * width,
        arena: [x, up].concat(),
        ..Case::new("clamped gate".into(), Kernel::ClampedGlu, &glu)
    });
    for case in &mut cases {
        (case.grid, case.allowed) = (elements(rows, width), FUNCTION);
    }
    on_every_adapter(&|gpu| cases.iter().filter_map(|case| case.run(gpu)).collect());
}

#[test]
fn columns_are_copied() {
    let (rows, width, width_out) = (2, 100, 90);
    let x = floats(&mut Random::new(3), rows * (width + width_out));
    let op = ops::Copy {
        x: 0,
        out: (rows * width) as u32,
        width: width as u32,
        width_out: width_out as u32,
        heads: 4,
        run: 17,
        source: 5,
        source_next: 23,
        target_at: 2,
        target_next: 20,
    };
    let mut expected = as_f64(&x[rows * width..]);
    for row in 0..rows {
        for (head, i) in (0..4).flat_map(|head| (0..17).map(move |i| (head, i))) {
            expected[row * width_out + 2 + head * 20 + i] = f64::from(x[row * width + 5 + head * 23 + i]);
        }
    }
    let case = Case {
        expected,
        at: rows * width,
        arena: x,
        grid: elements(rows, 4 * 17),
        ..Case::new("copy".into(), Kernel::Copy, &op)
    };
    on_every_adapter(&|gpu| case.run(gpu).into_iter().collect());
}

#[test]
fn the_best_experts_are_chosen() {
    let mut cases = vec![];
    for (experts, used, normalize) in [(4, 2, true), (130, 8, false), (512, 3, true), (3, 3, false)] {
        let (rows, mut random) = (3, Random::new(experts as u64));
        let mut scores: Vec<f32> = floats(&mut random, rows * experts).iter().map(|x| x * 4.0).collect();
        // Of equals the first.
        (scores[1], scores[2]) = (5.0, 5.0);
        let op = ops::Route {
            scores: 0,
            out: scores.len() as u32,
            experts: experts as u32,
            used: used as u32,
            normalize: u32::from(normalize),
            scale: 1.5,
        };
        let expected = scores.chunks(experts).flat_map(|row| {
            let all: f64 = row.iter().map(|&s| f64::from(s).exp()).sum();
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            let p = |i: usize| f64::from(row[i]).exp() / all;
            let whole = if normalize { order[..used].iter().map(|&i| p(i)).sum() } else { 1.0 };
            let numbers: Vec<f64> = order[..used].iter().map(|&i| i as f64).collect();
            let weights: Vec<f64> = order[..used].iter().map(|&i| 1.5 * p(i) / whole).collect();
            numbers.into_iter().chain(weights)
        });
        cases.push(Case {
            expected: expected.collect(),
            at: scores.len(),
            arena: scores,
            grid: [rows, 1],
            allowed: FUNCTION,
            ..Case::new(format!("{used} of {experts} experts"), Kernel::Route, &op)
        });
    }
    on_every_adapter(&|gpu| cases.iter().filter_map(|case| case.run(gpu)).collect());
}

#[test]
fn experts_are_added_up() {
    let mut cases = vec![];
    for residual in [true, false] {
        let (rows, slots, width, mut random) = (2, 3, 70, Random::new(8));
        let all = floats(&mut random, rows * (slots * width + 2 * slots + width));
        let (x, rest) = all.split_at(rows * slots * width);
        let (routes, add) = rest.split_at(rows * 2 * slots);
        let op = ops::Combine {
            x: 0,
            routes: x.len() as u32,
            slots: slots as u32,
            residual: if residual { (x.len() + routes.len()) as u32 } else { NONE },
            out: all.len() as u32,
            width: width as u32,
        };
        let expected = (0..rows * width).map(|i| {
            let (row, i) = (i / width, i % width);
            let term = |slot: usize| {
                f64::from(routes[row * 2 * slots + slots + slot]) * f64::from(x[(row * slots + slot) * width + i])
            };
            let start = if residual { f64::from(add[row * width + i]) } else { 0.0 };
            start + (0..slots).map(term).sum::<f64>()
        });
        cases.push(Case {
            expected: expected.collect(),
            at: all.len(),
            arena: all,
            grid: elements(rows, width),
            ..Case::new(format!("sum of experts, residual {residual}"), Kernel::Combine, &op)
        });
    }
    on_every_adapter(&|gpu| cases.iter().filter_map(|case| case.run(gpu)).collect());
}

/// Products of two rows with experts of `rows` rows, the tensor cut in two parts as where a binding is too small.
fn experts(gpu: &Opened, kernel: Kernel, [n, rows, k]: [usize; 3], routed: bool) -> Option<String> {
    let Kernel::Experts { format, dot } = kernel else { return None };
    let mut random = Random::new(u64::from(format.id()) + k as u64);
    let m: Matrix = matrices(&mut random, format, [n, rows, k]);
    let (slots, tokens) = (if routed { 2 } else { n }, 2);
    let routes: Vec<f32> = if routed { vec![2.0, 0.0, 0.5, 0.5, 1.0, 2.0, 0.5, 0.5] } else { vec![] };
    let x = floats(&mut random, tokens * k * if routed { 1 } else { slots });
    let values = if dot { quantized(&x, k).1 } else { as_f64(&x) };
    let bias = floats(&mut random, n * rows);
    let expert = |token: usize, slot: usize| if routed { routes[token * 2 * slots + slot] as usize } else { slot };
    let expected: Vec<f64> = (0..tokens * slots * rows)
        .map(|i| {
            let (token, slot, row) = (i / rows / slots, i / rows % slots, i % rows);
            let matrix = expert(token, slot) * rows + row;
            let part = if routed { token } else { token * slots + slot };
            let terms = m.values[matrix * k..][..k].iter().zip(&values[part * k..]);
            f64::from(bias[matrix]) + terms.map(|(w, x)| f64::from(*w) * x).sum::<f64>()
        })
        .collect();
    let at = x.len() + routes.len();
    let mut arena = [x.clone(), routes].concat();
    arena.resize(at + expected.len() + 100, SENTINEL);
    let (each, quads, words) = (rows.div_ceil(16), m.words / m.panels, m.packed.len() / m.panels - m.words / m.panels);
    let mut after = None;
    for (first, panels) in [(0, m.panels / 2), (m.panels / 2, m.panels - m.panels / 2)] {
        let op = ops::Experts {
            x: 0,
            out: at as u32,
            routes: if routed { x.len() as u32 } else { NONE },
            routed: 2 * slots as u32,
            bias: 0,
            k: k as u32,
            width: rows as u32,
            each: each as u32,
            slots: slots as u32,
            parts: u32::from(!routed),
            first: first as u32,
            panels: panels as u32,
            quads: 4,
            words: (16 + panels * quads) as u32,
        };
        let weights = [
            &[u32::MAX; 16][..],
            &m.packed[first * quads..(first + panels) * quads],
            &m.packed[m.words + first * words..m.words + (first + panels) * words],
        ];
        let memory = Memory {
            op: bytemuck::bytes_of(&op),
            arena: &arena,
            weights: &weights.concat(),
            vectors: &bias,
            ..Memory::default()
        };
        let left = done(gpu, kernel, &memory, [tokens as u32, (slots * each) as u32]);
        arena.clone_from(&left.arena);
        after = Some(left);
    }
    compare(&format!("{} of {rows} x {k}, routed {routed}", kernel.name()), &after?, at, &expected, PRODUCT)
}

#[test]
fn each_row_meets_its_own_experts() {
    on_every_adapter(&|gpu| {
        let mut failures = vec![];
        for layout in ALL {
            let k = layout.format.block_len().max(32);
            let format = layout.format;
            failures.extend(experts(gpu, Kernel::Experts { format, dot: false }, [3, 21, 3 * k], true));
            let dot = layout.sub.map(|_| Kernel::Experts { format, dot: true });
            failures.extend(dot.and_then(|kernel| experts(gpu, kernel, [3, 21, 3 * k], true)));
        }
        let of = |format, dot| Kernel::Experts { format, dot };
        failures.extend(experts(gpu, of(Format::F32, false), [3, 5, 2501], true));
        failures.extend(experts(gpu, of(Format::F32, false), [3, 33, 33], false));
        failures.extend(experts(gpu, of(Format::Q4_1, true), [3, 33, 32 * 67], false));
        failures
    });
}
