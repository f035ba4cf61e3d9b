//! The axiom: a logit depends on the weights and on the tokens before it, and on nothing else. The same prompt gives the
//! same bits on every instruction set, with any number of threads, fed whole or in chunks, alone or among others, cold
//! or after a cached prefix.
//!
//! Each value of each axis meets each value of every other axis at least once, in 16 rows; HANDMILL_FULL_MATRIX=1 walks
//! the whole product. With real models smaller chunks, which are slow, get a shorter prompt, and the scalar set the
//! shortest; tiny models get a long one.

use engine::tokenizer::Encode;
use engine::{Engine, Isa, KvType, Options, Precision};
use std::collections::{BTreeMap, BTreeSet};
use tests::golden::read_fixture;
use tests::models;
use tests::observe::{Observed, digest, observe, submit};
use tests::tiny::Model;

/// Tokens generated after each prompt: their logits are those of single-token steps.
const GENERATED: usize = 3;
/// Positions observed at the end of a prompt: few enough that a step may hold all of the prompt before them.
const TAIL: usize = 8;
/// Chunks, and how many tokens of the prompt of a real model are fed in them. All fill a page of the cache before what
/// is observed, which a second request may then share.
const CHUNKS: [(usize, usize); 4] = [(512, 76), (1, 40), (7, 47), (64, 76)];
/// Tokens of the prompts of tiny models, whatever the chunk: over two tiles of attention and into the third.
const LONG: usize = 560;
const THREADS: [usize; 4] = [1, 2, 3, 4];

type Bits = Observed<[u8; 32]>;

/// A model, however it is loaded, and a prompt for it.
struct Subject<'a> {
    name: String,
    load: &'a dyn Fn(&Options) -> Engine,
    prompt: Vec<u32>,
}

/// One way to compute.
#[derive(Clone, Copy, Debug)]
struct Way {
    isa: Isa,
    threads: usize,
    chunk: usize,
    /// Tokens of the prompt.
    length: usize,
}

/// The best instruction set on one thread, all at once.
fn plain(length: usize) -> Way {
    Way { isa: Isa::best(), threads: 1, chunk: 512, length }
}

impl Subject<'_> {
    fn engine(&self, way: Way, precision: Precision) -> Engine {
        // f16 keys and values, the default: what is rounded on the way into the cache must be rounded the same.
        let options = Options {
            isa: Some(way.isa),
            threads: Some(way.threads),
            batch: way.chunk,
            precision,
            kv: KvType::F16,
            ctx: Some(self.prompt.len() + 24),
            sequences: 8,
            ..Options::default()
        };
        (self.load)(&options)
    }

    /// Ways in which the bits of one engine differ from the reference for the same length.
    fn compare(&self, engine: &Engine, way: Way, reference: &Bits) -> Vec<&'static str> {
        let prompt = &self.prompt[..way.length];
        let first = way.length - TAIL;
        let same = |found: &Bits| found.rows == reference.rows && found.generated == reference.generated;
        let ask = || submit(engine, prompt, first, GENERATED, digest);
        let mut different = Vec::new();
        let alone = ask().wait().expect("an answer");
        if alone.cached > 0 || !same(&alone) {
            different.push("alone and cold");
        }
        let warm = ask().wait().expect("an answer");
        if warm.cached == 0 || !same(&warm) {
            different.push("after a cached prefix");
        }
        // A token for each step that the prompt in question takes, then some of their own: they are there to its end.
        let steps = way.length.div_ceil(way.chunk);
        let other = |i: usize| &self.prompt[i..self.prompt.len().min(2 * i + steps)];
        let others = (1..8).map(|i| submit(engine, other(i), other(i).len() - 1, GENERATED + i % 3, digest));
        let others: Vec<_> = others.collect();
        let among = ask().wait().expect("an answer");
        if !same(&among) {
            different.push("among seven others");
        }
        let answered = others.into_iter().filter_map(|other| other.wait().ok()).count();
        assert_eq!(answered, 7, "{}: every other request was answered", self.name);
        different
    }

    /// What all ways are compared with, for each length of the prompt, and the first positions for the scalar set.
    fn references(&self, ways: &[Way], precision: Precision) -> (BTreeMap<usize, Bits>, Bits) {
        let engine = self.engine(plain(self.prompt.len()), precision);
        let ask = |length: usize, from, generated| {
            let bits = observe(&engine, &self.prompt[..length], from, generated, digest).expect("an answer");
            assert_eq!(bits.rows.len(), length - from, "{}: every position was observed", self.name);
            bits
        };
        let lengths: BTreeSet<usize> = ways.iter().map(|way| way.length).collect();
        let references = lengths.into_iter().map(|length| (length, ask(length, length - TAIL, GENERATED))).collect();
        (references, ask(TAIL, 0, 0))
    }

    /// Walks the ways in both precisions; every way that gives other bits is a row.
    fn walk(&self, ways: &[Way], failures: &mut Vec<String>) {
        for precision in Precision::ALL {
            let (references, start) = self.references(ways, precision);
            for &way in ways {
                let different = self.compare(&self.engine(way, precision), way, &references[&way.length]);
                failures.extend(different.iter().map(|how| format!("{} {precision:?} {way:?}, {how}", self.name)));
            }
            let scalar = Way { isa: Isa::Scalar, threads: 2, chunk: 7, length: TAIL };
            let found =
                observe(&self.engine(scalar, precision), &self.prompt[..TAIL], 0, 0, digest).expect("an answer");
            if found.rows != start.rows {
                failures.push(format!("{} {precision:?} {scalar:?}", self.name));
            }
        }
    }
}

/// The ways to walk.
fn ways() -> Vec<Way> {
    let sets: Vec<Isa> = Isa::ALL.into_iter().filter(|&isa| isa != Isa::Scalar && isa.is_available()).collect();
    if std::env::var_os("HANDMILL_FULL_MATRIX").is_some() { product(&sets) } else { pairs(&sets) }
}

/// Every combination.
fn product(sets: &[Isa]) -> Vec<Way> {
    let chunks = |isa, threads| CHUNKS.map(|(chunk, length)| Way { isa, threads, chunk, length });
    sets.iter().flat_map(|&isa| THREADS.map(|threads| chunks(isa, threads))).flatten().collect()
}

/// Every pair of values of two axes, in sixteen rows: a Latin square over threads and chunks.
fn pairs(sets: &[Isa]) -> Vec<Way> {
    let row = |i: usize, j: usize| {
        let (chunk, length) = CHUNKS[j];
        Way { isa: sets[(i + j) % sets.len()], threads: THREADS[i], chunk, length }
    };
    if sets.is_empty() { Vec::new() } else { (0..16).map(|at| row(at / 4, at % 4)).collect() }
}

fn real(model: &str) {
    let Some(path) = models::obtain(model) else { return };
    let load = |options: &Options| Engine::open(&path, options, &mut |_| ()).unwrap_or_else(|error| panic!("{error}"));
    let text = "The old mill stood by the river for three hundred years. Every spring the water rose, turned the wheel and \
        ground the corn of four villages; every winter it froze, and the miller mended his sacks. He wrote down 12,480 of \
        them in a book, one line each, and when the book was full he began another. Nobody ever asked him why.";
    let options = Options { ctx: Some(16), ..Options::default() };
    let tokenizer = load(&options).tokenizer().clone();
    let mut prompt = tokenizer.encode(text, Encode { add_special: true, parse_special: false });
    prompt.truncate(CHUNKS.map(|(_, length)| length).into_iter().max().unwrap_or(0));
    let mut failures = Vec::new();
    Subject { name: model.to_string(), load: &load, prompt }.walk(&ways(), &mut failures);
    assert!(failures.is_empty(), "other bits:\n{}", failures.join("\n"));
}

#[test]
fn smollm2_gives_the_same_bits_however_it_is_computed() {
    real("smollm2");
}

#[test]
fn gemma3_gives_the_same_bits_however_it_is_computed() {
    real("gemma3:270m");
}

#[test]
fn tiny_models_give_the_same_bits_however_they_are_computed() {
    let mut failures = Vec::new();
    let quantized =
        |model: Model, format| Model { format, embd_format: format, n_embd: 256, n_ff: 512, n_layer: 2, ..model };
    let ways: Vec<Way> = ways().into_iter().map(|way| Way { length: LONG, ..way }).collect();
    let models = [
        ("llama f32", Model::llama(51)),
        ("llama q4_k", quantized(Model::llama(52), gguf::Format::Q4K)),
        ("gemma3 q5_0", quantized(Model::gemma3(53), gguf::Format::Q5_0)),
    ];
    // Experts and attention sinks, latent attention, sliding windows and caps, two sets of rotary factors.
    let stored = ["gpt-oss-mxfp4", "deepseek2", "gemma2", "phi4mini-longrope"];
    let stored = stored.map(|name| (name, read_fixture(&format!("tiny/{name}.gguf")), 317));
    let made = models.map(|(name, model)| (name, model.bytes(), model.n_vocab as u32));
    for (name, bytes, n_vocab) in made.into_iter().chain(stored) {
        let load = |options: &Options| Engine::from_bytes(&bytes, options).unwrap_or_else(|error| panic!("{error}"));
        let prompt = (0..LONG as u32).map(|i| (i * 67 + 5) % n_vocab).collect();
        Subject { name: name.to_string(), load: &load, prompt }.walk(&ways, &mut failures);
    }
    assert!(failures.is_empty(), "other bits:\n{}", failures.join("\n"));
}
