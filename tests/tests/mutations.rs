//! Any bytes as a model: valid files that were changed, cut and spliced go through the whole loader and one step.
//!
//! Whatever comes of them, an error or a token, no thread may panic and no request may go unanswered. The number of
//! cases is 10,000, or HANDMILL_FUZZ_CASES.

use engine::{Engine, Error, KvType, Options};
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::LazyLock;
use tests::observe::observe;
use tests::tiny::{MIN_VOCAB, Model};

/// Sound files to start from, with the length of what precedes their tensor data.
static SOUND: LazyLock<Vec<(Vec<u8>, usize)>> = LazyLock::new(|| {
    let small = |model: Model| Model { n_vocab: MIN_VOCAB, n_embd: 32, n_ff: 32, n_layer: 1, ..model };
    let llama = small(Model::llama(41));
    let rich = Model {
        format: gguf::Format::Q8_0,
        embd_format: gguf::Format::Q4_0,
        biases: true,
        rope_factors: true,
        tied: true,
        template: Some("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}".into()),
        ..small(Model::llama(42))
    };
    let models = [llama, rich, small(Model::gemma3(43))];
    models.map(|model| (model.bytes(), model.draft().head().len())).into()
});

/// Numbers at which sizes, counts and signs go wrong.
const EDGES: [u64; 12] = [0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, 1 << 62, 1 << 63, u64::MAX];

/// One change of a file. Places are shares of the file or, mostly, of what precedes its tensor data.
#[derive(Clone, Debug)]
enum Change {
    Bit { at: Index, bit: u8 },
    Byte { at: Index, value: u8 },
    Number { at: Index, value: u64, wide: bool },
    Cut { at: Index },
    Move { from: Index, to: Index, length: Index },
    Insert { at: Index, bytes: Vec<u8> },
    Splice { other: Index, at: Index },
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    let value = prop_oneof![prop::sample::select(&EDGES[..]), 0u64..4096];
    prop_oneof![
        4 => (at(), 0u8..8).prop_map(|(at, bit)| Change::Bit { at, bit }),
        4 => (at(), any::<u8>()).prop_map(|(at, value)| Change::Byte { at, value }),
        6 => (at(), value, any::<bool>()).prop_map(|(at, value, wide)| Change::Number { at, value, wide }),
        1 => at().prop_map(|at| Change::Cut { at }),
        2 => (at(), at(), at()).prop_map(|(from, to, length)| Change::Move { from, to, length }),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
        1 => (at(), at()).prop_map(|(other, at)| Change::Splice { other, at }),
    ]
}

/// A place in the first `reach` bytes.
fn place(at: Index, bytes: &[u8], reach: usize) -> usize {
    at.index(reach.min(bytes.len()).max(1)).min(bytes.len())
}

fn apply(bytes: &mut Vec<u8>, reach: usize, change: &Change) {
    match change {
        Change::Bit { at, bit } => {
            let at = place(*at, bytes, reach);
            bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << bit);
        }
        Change::Byte { at, value } => {
            let at = place(*at, bytes, reach);
            bytes[at..].iter_mut().take(1).for_each(|byte| *byte = *value);
        }
        Change::Number { at, value, wide } => {
            let at = place(*at, bytes, reach);
            let width = if *wide { 8 } else { 4 };
            bytes[at..].iter_mut().zip(&value.to_le_bytes()[..width]).for_each(|(byte, new)| *byte = *new);
        }
        Change::Cut { at } => bytes.truncate(place(*at, bytes, usize::MAX)),
        Change::Move { from, to, length } => {
            let (from, to) = (place(*from, bytes, reach), place(*to, bytes, reach));
            let length = length.index(200).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
        Change::Insert { at, bytes: new } => {
            let at = place(*at, bytes, reach);
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Splice { other, at } => {
            let other = &SOUND[other.index(SOUND.len())].0;
            let at = place(*at, bytes, usize::MAX).min(other.len());
            bytes.truncate(at);
            bytes.extend(&other[at..]);
        }
    }
}

fn options() -> Options {
    // A changed file may ask for any amount of memory: above this the answer is an error.
    Options { threads: Some(1), ctx: Some(8), kv: KvType::F32, memory: Some(256 << 20), ..Options::default() }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("HANDMILL_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_give_a_token_or_an_error(
        start in any::<Index>(),
        anywhere in prop::bool::weighted(0.2),
        changes in prop::collection::vec(change(), 1..5),
    ) {
        let (sound, head) = &SOUND[start.index(SOUND.len())];
        let mut bytes = sound.clone();
        let reach = if anywhere { usize::MAX } else { *head };
        for change in &changes {
            apply(&mut bytes, reach, change);
        }
        // The error's text is made too, since it quotes the file.
        let outcome = Engine::from_bytes(&bytes, &options()).and_then(|engine| observe(&engine, &[1, 2], 0, 1, |row| row.len()));
        match outcome {
            Ok(observed) => prop_assert_eq!(observed.generated.len(), 1),
            Err(Error::Internal(text)) => prop_assert!(false, "a fault of ours: {}", text),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

/// The files that the changes start from are sound: an error that all of them gave would hide everything else.
#[test]
fn unchanged_files_give_a_token() {
    for (bytes, _) in SOUND.iter() {
        let engine = Engine::from_bytes(bytes, &options()).unwrap();
        assert_eq!(observe(&engine, &[1, 2], 0, 1, |row| row.len()).unwrap().generated.len(), 1);
    }
}
