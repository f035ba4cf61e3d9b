//! Attention on every adapter against a naive f64 twin: every form of it, which must give the same bits, and the kernel for
//! adapters that are CPUs.

use engine::backend::gpu::adapter::Opened;
use engine::backend::gpu::probe::{After, Memory, run_in};
use shaders::{ATTEND_WG, BLOCKS, Kernel, NONE, PAGE, POSITIONS, QUERIES, ROW_WG, SHARED_HEAD, SUBGROUPS, ops};
use tests::gpu::{FUNCTION, SENTINEL, can, compare, floats, on_every_adapter, step};
use tests::random::Random;

/// Attention over a cache that the test fills.
#[derive(Clone, Copy, Debug)]
struct Attend {
    half: bool,
    d_k: usize,
    d_v: usize,
    heads: [usize; 2],
    /// Position of the first of three tokens, and of all.
    start: usize,
    length: usize,
    window: Option<usize>,
    causal: bool,
    cap: Option<f32>,
    alibi: bool,
    sinks: bool,
}

impl Attend {
    const TOKENS: usize = 3;
    const PLAIN: Attend = Attend {
        half: false,
        d_k: 12,
        d_v: 12,
        heads: [4, 2],
        start: 197,
        length: 200,
        window: None,
        causal: true,
        cap: None,
        alibi: false,
        sinks: false,
    };

    /// Keys and values, rounded as the cache has them, and the cache's words: pages from the last to the first.
    fn cache(&self, random: &mut Random) -> (Vec<f32>, Vec<f32>, Vec<u32>) {
        let round = |x: f32| if self.half { half::f16::from_f32(x).to_f32() } else { x };
        let (pages, heads, per) = (self.length.div_ceil(PAGE), self.heads[1], if self.half { 2 } else { 1 });
        let mut make =
            |d: usize| -> Vec<f32> { floats(random, self.length * heads * d).into_iter().map(round).collect() };
        let (keys, values) = (make(self.d_k), make(self.d_v));
        let (of_key, of_value) = (self.d_k.div_ceil(per), self.d_v.div_ceil(per));
        let mut words = vec![0u32; pages * heads * PAGE * (of_key + of_value)];
        for (position, head) in (0..self.length).flat_map(|p| (0..heads).map(move |h| (p, h))) {
            let (page, slot) = (pages - 1 - position / PAGE, position % PAGE);
            let block = (page * heads + head) * PAGE * (of_key + of_value);
            let word = |x: &[f32]| match x {
                [x] if !self.half => x.to_bits(),
                x => x.iter().rev().fold(0, |w, x| w << 16 | u32::from(half::f16::from_f32(*x).to_bits())),
            };
            let key = keys[(position * heads + head) * self.d_k..][..self.d_k].chunks(per);
            key.enumerate().for_each(|(i, x)| words[block + i * PAGE + slot] = word(x));
            let value = values[(position * heads + head) * self.d_v..][..self.d_v].chunks(per);
            let at = block + PAGE * of_key + slot * of_value;
            value.enumerate().for_each(|(i, x)| words[at + i] = word(x));
        }
        // Behind the cache of another layer, which is NaN.
        (keys, values, [vec![u32::MAX; PAGE], words].concat())
    }

    fn visible(&self, position: usize) -> std::ops::Range<usize> {
        let window = self.window.unwrap_or(usize::MAX);
        let end = if self.causal { position + 1 } else { self.length.min(position.saturating_add(window)) };
        (position + 1).saturating_sub(window)..end
    }

    /// What the tokens' queries must give, and what a kernel needs for it.
    fn case(self) -> Case {
        let mut random = Random::new((self.d_k * 7 + self.length) as u64);
        let (keys, values, cache) = self.cache(&mut random);
        let [heads, heads_kv] = self.heads;
        let q = floats(&mut random, Self::TOKENS * heads * self.d_k);
        // Slopes, then sinks.
        let vectors: Vec<f32> = floats(&mut random, 2 * heads).iter().map(|x| x.abs()).collect();
        let scale = 2.0 / (self.d_k as f32).sqrt();
        let expected = (0..Self::TOKENS * heads).flat_map(|row| {
            let (position, head) = (self.start + row / heads, row % heads);
            let kv_head = head / (heads / heads_kv);
            let q = &q[row * self.d_k..][..self.d_k];
            let seen = self.visible(position);
            let scores: Vec<f64> = seen
                .clone()
                .map(|at| {
                    let key = &keys[(at * heads_kv + kv_head) * self.d_k..];
                    let dot: f64 = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    let score = dot * f64::from(scale);
                    let score = self.cap.map_or(score, |c| f64::from(c) * (score / f64::from(c)).tanh());
                    let slope = if self.alibi { f64::from(vectors[head]) } else { 0.0 };
                    score - slope * (at as f64 - position as f64).abs()
                })
                .collect();
            let sink = if self.sinks { f64::from(vectors[heads + head]).exp() } else { 0.0 };
            let total = sink + scores.iter().map(|s| s.exp()).sum::<f64>();
            let value = |at: usize, i: usize| f64::from(values[(at * heads_kv + kv_head) * self.d_v + i]);
            let element = |i| seen.clone().zip(&scores).map(|(at, s)| s.exp() / total * value(at, i)).sum();
            (0..self.d_v).map(element).collect::<Vec<f64>>()
        });
        let expected = expected.collect();
        Case { own: self, q, vectors, cache, scale, expected }
    }
}

/// Attention and what must come out of it.
struct Case {
    own: Attend,
    q: Vec<f32>,
    vectors: Vec<f32>,
    cache: Vec<u32>,
    scale: f32,
    expected: Vec<f64>,
}

/// A way to compute a case.
#[derive(Clone, Copy, Debug)]
struct Form {
    kernel: Kernel,
    /// Whether tokens are blocks of their own, or all one.
    single: bool,
}

impl Form {
    /// Those for GPUs that a case can be computed in.
    fn all(own: Attend) -> Vec<Form> {
        let of = |queries: usize, single| {
            [false, true].map(|split| Form { kernel: Kernel::Attention { half: own.half, queries, split }, single })
        };
        let several = [of(QUERIES, true), of(QUERIES, false)].into_iter().filter(|_| own.d_k <= SHARED_HEAD);
        of(1, false).into_iter().chain(several.flatten()).collect()
    }

    /// The kernel that is one subgroup.
    fn narrow(own: Attend, subgroup: usize, single: bool) -> Form {
        let words = own.d_v / if own.half { 2 } else { 1 };
        let blocks = BLOCKS.into_iter().find(|n| n * subgroup * 4 >= words).expect("heads that it has room for");
        Form { kernel: Kernel::AttentionNarrow { half: own.half, subgroup, blocks }, single }
    }

    fn split(self) -> bool {
        matches!(self.kernel, Kernel::Attention { split: true, .. })
    }
}

impl Case {
    /// Results of tiles that a token has room for, as many as a block of tokens sees with a window.
    fn tiles(&self) -> usize {
        let own = self.own;
        let seen = own.window.map(|w| if own.causal { w } else { 2 * w } + QUERIES - 1);
        let all = own.length.div_ceil(POSITIONS);
        seen.map_or(all, |seen| all.min((seen - 1) / POSITIONS + 2))
    }

    fn op(&self, scratch: usize) -> ops::Attention {
        let own = self.own;
        let [heads, heads_kv] = own.heads.map(|n| n as u32);
        let words = own.d_v.div_ceil(if own.half { 2 } else { 1 });
        let slices = [8, 4, 2].into_iter().find(|n| n * words <= ATTEND_WG).unwrap_or(1usize);
        ops::Attention {
            q: 0,
            out: self.q.len() as u32,
            heads,
            heads_kv,
            d_k: own.d_k as u32,
            d_v: own.d_v as u32,
            scale: self.scale,
            cap: own.cap.unwrap_or(0.0),
            window: own.window.map_or(u32::MAX, |w| w as u32),
            causal: u32::from(own.causal),
            slopes: if own.alibi { 0 } else { NONE },
            sinks: if own.sinks { heads } else { NONE },
            cache: PAGE as u32,
            slices: slices as u32,
            rounds: words.div_ceil(ATTEND_WG) as u32,
            tiles: self.tiles() as u32,
            scratch: scratch as u32,
        }
    }

    fn tables(&self, single: bool) -> Vec<u32> {
        let own = self.own;
        let positions = (0..Attend::TOKENS).map(|i| (own.start + i) as u32).collect();
        let pages = (0..own.length.div_ceil(PAGE) as u32).rev().collect();
        let lengths = vec![own.length as u32; Attend::TOKENS];
        let blocks = if single { vec![0, 1, 1, 1, 2, 1] } else { vec![0, Attend::TOKENS as u32] };
        let starts = vec![0; Attend::TOKENS];
        let mut tables = step(Attend::TOKENS, &[(3, positions), (4, starts), (6, pages), (7, lengths), (9, blocks)]);
        (tables[10], tables[11]) = (u32::from(single), own.length.div_ceil(POSITIONS) as u32);
        tables
    }

    fn grid(&self, form: Form, rounds: u32) -> [u32; 3] {
        let [heads, heads_kv] = self.own.heads;
        let of_one = heads_kv * (heads / heads_kv).div_ceil(QUERIES);
        let one = matches!(form.kernel, Kernel::Attention { queries: 1, .. });
        let [x, y] = match (one, form.single) {
            (true, _) => [Attend::TOKENS, heads],
            (false, true) => [Attend::TOKENS, of_one],
            (false, false) => [1, heads],
        };
        [x as u32, y as u32 * rounds, if form.split() { self.tiles() as u32 } else { 1 }]
    }

    /// What a form gives, or what is wrong with it.
    fn run(&self, gpu: &Opened, form: Form) -> Result<Vec<f32>, String> {
        let name = format!("{form:?} of {:?}", self.own);
        let at = self.q.len();
        let scratch = at + self.expected.len() + 100;
        let mut arena = self.q.clone();
        arena.resize(scratch, SENTINEL);
        let room = Attend::TOKENS * self.own.heads[0] * self.tiles() * (self.own.d_v + 2);
        // Nothing is read that was not written.
        arena.resize(scratch + room, f32::NAN);
        arena.resize(scratch + room + 100, SENTINEL);
        let (op, tables) = (self.op(scratch), self.tables(form.single));
        let narrow = matches!(form.kernel, Kernel::AttentionNarrow { .. });
        let run = |kernel, arena: &[f32], grid| {
            let memory = Memory {
                tables: &tables,
                op: bytemuck::bytes_of(&op),
                arena,
                vectors: &self.vectors,
                cache: &self.cache,
                ..Memory::default()
            };
            run_in(gpu, kernel, &memory, grid).map_err(|error| format!("{name}: {error}"))
        };
        let mut after = run(form.kernel, &arena, self.grid(form, if narrow { 1 } else { op.rounds }))?;
        if form.split() {
            let others = self.own.heads[0] * self.own.d_v.div_ceil(ROW_WG);
            after = run(Kernel::AttentionMerge, &after.arena, [Attend::TOKENS as u32, others as u32, 1])?;
        }
        if after.arena[scratch + room..].iter().any(|&v| v != SENTINEL) {
            return Err(format!("{name}: wrote behind the results of tiles"));
        }
        after.arena.truncate(scratch);
        let After { arena, cache } = after;
        let found = After { arena, cache };
        compare(&name, &found, at, &self.expected, FUNCTION).map_or(Ok(found.arena[at..].to_vec()), Err)
    }
}

#[test]
fn every_form_of_attention_of_every_kind() {
    let plain = Attend::PLAIN;
    let half = Attend { half: true, ..plain };
    let rows = [
        plain,
        Attend { d_k: 33, d_v: 7, ..half },
        Attend { start: 0, length: 3, sinks: true, ..plain },
        Attend { sinks: true, window: Some(70), ..half },
        Attend { window: Some(1), cap: Some(3.0), ..plain },
        Attend { causal: false, start: 50, ..plain },
        Attend { causal: false, start: 50, window: Some(9), ..half },
        Attend { causal: false, start: 20, length: 23, window: Some(64), ..plain },
        Attend { causal: false, start: 100, alibi: true, ..plain },
        Attend { alibi: true, cap: Some(2.0), heads: [3, 3], ..plain },
        Attend { d_k: 576, d_v: 512, heads: [2, 1], ..plain },
        Attend { d_k: 576, d_v: 512, heads: [2, 1], ..half },
        // Tiles that end with a token, before it and behind it; windows that begin inside a tile.
        Attend { start: POSITIONS - 3, length: POSITIONS, d_k: 64, d_v: 64, ..half },
        Attend { start: POSITIONS - 1, length: POSITIONS + 2, d_k: 65, d_v: 129, heads: [9, 3], ..half },
        Attend { start: 1100, length: 1103, d_k: 128, d_v: 80, sinks: true, heads: [6, 1], ..half },
        Attend { start: 1100, length: 1103, window: Some(100), cap: Some(5.0), alibi: true, ..plain },
        Attend { start: 320, length: 323, d_k: 256, d_v: 256, heads: [5, 1], ..plain },
        Attend { start: 127, length: 130, window: Some(64), d_k: 96, d_v: 40, ..half },
        Attend { causal: false, start: 290, length: 400, window: Some(33), d_k: 40, d_v: 17, ..plain },
        Attend { d_k: 1024, d_v: 1024, heads: [1, 1], start: 70, length: 73, ..plain },
    ];
    let cases = rows.map(Attend::case);
    on_every_adapter(&|gpu| {
        let mut failures = vec![];
        for case in &cases {
            let mut bits: Option<Vec<f32>> = None;
            for form in Form::all(case.own) {
                match case.run(gpu, form) {
                    Err(failure) => failures.push(failure),
                    Ok(found) => {
                        let first = bits.get_or_insert_with(|| found.clone());
                        if first.iter().zip(&found).any(|(a, b)| a.to_bits() != b.to_bits()) {
                            failures.push(format!("{form:?} of {:?}: other bits than the first", case.own));
                        }
                    }
                }
            }
        }
        failures
    });
}

/// Queries are tokens of one block, or heads of a group where each token is a block of its own.
#[test]
fn attention_in_one_subgroup() {
    let plain = Attend { d_v: 20, ..Attend::PLAIN };
    let half = Attend { half: true, d_k: 32, d_v: 40, ..plain };
    let rows = [
        plain,
        half,
        Attend { start: 0, length: 3, ..plain },
        Attend { window: Some(70), heads: [9, 3], ..half },
        Attend { window: Some(1), cap: Some(3.0), ..plain },
        Attend { heads: [6, 1], cap: Some(2.0), ..half },
        Attend { start: 30, length: 33, d_k: 256, d_v: 256, ..half },
        Attend { start: 62, length: 65, d_k: 128, d_v: 64, heads: [3, 3], ..plain },
    ];
    let cases = rows.map(Attend::case);
    let kinds: Vec<(usize, bool)> =
        SUBGROUPS.into_iter().flat_map(|n| [true, false].map(|single| (n, single))).collect();
    on_every_adapter(&|gpu| {
        let all = kinds.iter().flat_map(|&(n, single)| cases.iter().map(move |case| (case, n, single)));
        let forms = all.map(|(case, n, single)| (case, Form::narrow(case.own, n, single)));
        forms.filter(|(_, form)| can(gpu, form.kernel)).filter_map(|(case, form)| case.run(gpu, form).err()).collect()
    });
}
