//! The axiom: a logit depends on the weights and on the tokens before it, and on nothing else. The same prompt gives the
//! same bits on every instruction set, with any number of threads, fed whole or in chunks, alone or among others, cold
//! or after a cached prefix.
//!
//! Each value of each axis meets each value of every other axis at least once, in 16 rows; HANDMILL_FULL_MATRIX=1 walks
//! the whole product. The scalar set, which is slow, gets a short prompt.

use engine::tokenizer::Encode;
use engine::{Engine, Isa, KvType, Options, Precision};
use tests::models;
use tests::observe::{Observed, digest, observe, submit};
use tests::tiny::Model;

/// Tokens generated after each prompt: their logits are those of single-token steps.
const GENERATED: usize = 3;
/// Positions observed at the end of a prompt: few enough that a step may hold all of the prompt before them.
const TAIL: usize = 8;
const CHUNKS: [usize; 4] = [512, 1, 7, 64];
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

    fn tail(&self) -> usize {
        self.prompt.len() - TAIL
    }

    /// Ways in which the bits of one engine differ from the reference.
    fn compare(&self, engine: &Engine, reference: &Bits) -> Vec<&'static str> {
        let tail = &reference.rows[self.tail()..];
        let same = |found: &Bits| found.rows == tail && found.generated == reference.generated;
        let ask = |prompt: &[u32]| submit(engine, prompt, self.tail(), GENERATED, digest);
        let mut different = Vec::new();
        let alone = ask(&self.prompt).wait().expect("an answer");
        if alone.cached > 0 || !same(&alone) {
            different.push("alone and cold");
        }
        let warm = ask(&self.prompt).wait().expect("an answer");
        if warm.cached == 0 || !same(&warm) {
            different.push("after a cached prefix");
        }
        let others = (1..8).map(|i| {
            let other: Vec<u32> = self.prompt.iter().skip(i).step_by(1 + i % 2).copied().collect();
            submit(engine, &other, other.len() - 1, GENERATED + i, digest)
        });
        let others: Vec<_> = others.collect();
        let among = ask(&self.prompt).wait().expect("an answer");
        if !same(&among) {
            different.push("among seven others");
        }
        let answered = others.into_iter().filter_map(|other| other.wait().ok()).count();
        assert_eq!(answered, 7, "{}: every other request was answered", self.name);
        different
    }

    /// Walks the ways in both precisions; every way that gives other bits is a row.
    fn walk(&self, ways: &[Way], failures: &mut Vec<String>) {
        for precision in Precision::ALL {
            let best = Way { isa: Isa::best(), threads: 1, chunk: 512 };
            let engine = self.engine(best, precision);
            let reference = observe(&engine, &self.prompt, 0, GENERATED, digest).expect("an answer");
            assert_eq!(reference.rows.len(), self.prompt.len(), "{}: every position was observed", self.name);
            drop(engine);
            for &way in ways {
                let different = self.compare(&self.engine(way, precision), &reference);
                failures.extend(different.iter().map(|how| format!("{} {precision:?} {way:?}, {how}", self.name)));
            }
            let scalar = Way { isa: Isa::Scalar, threads: 2, chunk: 7 };
            let short = &self.prompt[..TAIL];
            let found = observe(&self.engine(scalar, precision), short, 0, 0, digest).expect("an answer");
            if found.rows != reference.rows[..TAIL] {
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
    let threads = |isa| THREADS.map(|threads| CHUNKS.map(|chunk| Way { isa, threads, chunk }));
    sets.iter().flat_map(|&isa| threads(isa)).flatten().collect()
}

/// Every pair of values of two axes, in sixteen rows: a Latin square over threads and chunks.
fn pairs(sets: &[Isa]) -> Vec<Way> {
    let row = |i: usize, j: usize| Way { isa: sets[(i + j) % sets.len()], threads: THREADS[i], chunk: CHUNKS[j] };
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
    let prompt = tokenizer.encode(text, Encode { add_special: true, parse_special: false });
    assert!(prompt.len() > 64 + TAIL, "the prompt is longer than the largest chunk: {} tokens", prompt.len());
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
    let models = [
        ("llama f32", Model::llama(51)),
        ("llama q4_k", quantized(Model::llama(52), gguf::Format::Q4K)),
        ("gemma3 q5_0", quantized(Model::gemma3(53), gguf::Format::Q5_0)),
    ];
    for (name, model) in models {
        let bytes = model.bytes();
        let load = |options: &Options| Engine::from_bytes(&bytes, options).unwrap_or_else(|error| panic!("{error}"));
        let prompt = (0..90u32).map(|i| (i * 67 + 5) % model.n_vocab as u32).collect();
        Subject { name: name.to_string(), load: &load, prompt }.walk(&ways(), &mut failures);
    }
    assert!(failures.is_empty(), "other bits:\n{}", failures.join("\n"));
}
