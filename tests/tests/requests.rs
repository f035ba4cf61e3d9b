//! Requests to one engine that go wrong in the middle: each ends alone, and its neighbours' answers are the same bits.

use engine::sampler::Params;
use engine::{Constraint, Engine, Event, Load, Options, Request};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tests::observe::{digest, observe, submit};
use tests::tiny::Model;

fn engine() -> Engine {
    let options = Options { threads: Some(2), ctx: Some(256), sequences: 4, ..Options::default() };
    Engine::from_bytes(&Model::llama(7).bytes(), &options).expect("a sound model")
}

fn request(seed: u64, tokens: usize) -> Request {
    let sampling = Params { temperature: 1.0, seed: Some(seed), ..Params::default() };
    let mut request = Request::new(vec![1, 5, 9, 4], sampling);
    request.max_tokens = Some(tokens);
    request.ignore_eog = true;
    request
}

/// The tokens of an answer, and its error if it ended with one.
fn hear(events: Receiver<Event>) -> (Vec<u32>, Option<String>) {
    let (mut ids, mut error) = (Vec::new(), None);
    for event in events {
        match event {
            Event::Token { id, .. } => ids.push(id),
            Event::Failed(e) => error = Some(e.to_string()),
            _ => {}
        }
    }
    (ids, error)
}

/// What an engine is busy with once it has come to rest; it says so a moment after the last event of the last answer.
fn at_rest(engine: &Engine) -> Load {
    let start = Instant::now();
    loop {
        let load = engine.busy().expect("the engine lives");
        if (load.waiting, load.running) == (0, 0) || start.elapsed() > Duration::from_secs(10) {
            return load;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A grammar that panics at its third token.
struct Broken {
    tokens: usize,
    all: Vec<u32>,
}

impl Constraint for Broken {
    fn allowed(&mut self) -> Result<&[u32], String> {
        Ok(&self.all)
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        self.tokens += 1;
        assert!(self.tokens < 3, "a panic that a test injects");
        Ok(())
    }
}

#[test]
fn a_panic_in_the_middle_of_an_answer_ends_that_answer_alone() {
    let engine = engine();
    let alone = hear(engine.submit(request(1, 40)));
    assert_eq!((alone.0.len(), &alone.1), (40, &None));
    let neighbour = engine.submit(request(1, 40));
    let mut broken = request(2, 40);
    broken.constraint = Some(Box::new(Broken { tokens: 0, all: vec![u32::MAX; 4096] }));
    let broken = engine.submit(broken);
    let (ids, error) = hear(broken);
    assert_eq!(ids.len(), 2, "tokens before the panic");
    assert!(error.as_deref().is_some_and(|e| e.contains("panicked")), "{error:?}");
    assert_eq!(hear(neighbour), alone, "an answer beside it");
    assert_eq!(hear(engine.submit(request(1, 40))), alone, "an answer after it");
    let load = at_rest(&engine);
    assert_eq!((load.waiting, load.running, load.pages_available), (0, 0, load.pages), "{load:?}");
}

#[test]
fn a_panic_of_whoever_listens_ends_that_answer_alone() {
    let engine = engine();
    let alone = hear(engine.submit(request(3, 20)));
    let (sender, heard) = channel();
    engine.submit_to(
        request(4, 20),
        Box::new(move |event| {
            assert!(!matches!(event, Event::Token { .. } | Event::Failed(_)), "a panic that a test injects");
            sender.send(event).is_ok()
        }),
    );
    assert_eq!(hear(heard).0, Vec::<u32>::new());
    assert_eq!(hear(engine.submit(request(3, 20))), alone);
    let load = at_rest(&engine);
    assert_eq!((load.waiting, load.running, load.pages_available), (0, 0, load.pages), "{load:?}");
}

#[test]
fn prompts_that_arrive_together_compute_what_they_share_once() {
    let options = Options { threads: Some(2), ctx: Some(1024), sequences: 8, batch: 64, ..Options::default() };
    let engine = Engine::from_bytes(&Model::llama(7).bytes(), &options).expect("a sound model");
    let shared: Vec<u32> = (0..320).map(|i| 3 + i % 40).collect();
    let prompt = |own: u32| [&shared[..], &[3 + own, 4 + own, 5]].concat();
    let answers: Vec<_> = (0..8)
        .map(|own| {
            let mut request = request(5, 4);
            request.prompt = prompt(own);
            engine.submit(request)
        })
        .collect();
    let mut cached = 0;
    for events in answers {
        let last = events.into_iter().last();
        let Some(Event::Done { timings, .. }) = last else { panic!("the answer ended with {last:?}") };
        cached += timings.cached_tokens;
    }
    let tokens = engine.busy().expect("the engine lives").tokens;
    assert_eq!(cached, 7 * 320, "all but the first find the prefix");
    // Every token that was computed: the prefix once, eight tails, and what was drawn but for each last one.
    assert_eq!(tokens, 320 + 8 * 3 + 8 * 3, "tokens computed");
}

#[test]
fn scopes_share_no_prefix() {
    let engine = engine();
    let cached = |scope: u32| {
        let mut request = request(1, 1);
        request.prompt = (0..100).map(|i| 3 + i % 40).collect();
        request.scope = scope;
        match engine.submit(request).into_iter().last() {
            Some(Event::Done { timings, .. }) => timings.cached_tokens,
            other => panic!("the answer ended with {other:?}"),
        }
    };
    assert_eq!([cached(1), cached(2), cached(1), cached(2)], [0, 0, 96, 96]);
}

/// Tokens that nobody would guess.
fn tokens(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 37 + seed * 101) % 250 + 3) as u32).collect()
}

#[test]
fn a_prefix_may_end_in_the_middle_of_a_page() {
    let prompts = [[tokens(70, 1)].concat(), [&tokens(45, 1)[..], &tokens(9, 2)].concat()];
    let engine = engine();
    observe(&engine, &prompts[0], 69, 0, digest).expect("an answer");
    let found = observe(&engine, &prompts[1], 45, 6, digest).expect("an answer");
    assert_eq!(found.cached, 45, "a page and 13 tokens of the next");
    let alone = observe(&self::engine(), &prompts[1], 45, 6, digest).expect("an answer");
    assert_eq!((found.rows, found.generated), (alone.rows, alone.generated));
    // What the copy goes on with is its own: the page that it came from is as it was.
    let again = observe(&engine, &prompts[0], 69, 6, digest).expect("an answer");
    let alone = observe(&self::engine(), &prompts[0], 69, 6, digest).expect("an answer");
    assert_eq!((again.rows, again.generated), (alone.rows, alone.generated));
}

#[test]
fn answers_to_prompts_that_begin_alike_are_what_they_are_alone() {
    let prompt = |i: usize| [&tokens(75, 1)[..], &tokens(3 + 5 * i, 2 + i)].concat();
    let alone: Vec<_> = (0..4).map(|i| observe(&engine(), &prompt(i), 75, 60, digest).expect("an answer")).collect();
    let engine = engine();
    observe(&engine, &prompt(9), 75, 0, digest).expect("an answer");
    let together: Vec<_> = (0..4).map(|i| submit(&engine, &prompt(i), 75, 60, digest)).collect();
    for (i, (found, alone)) in together.into_iter().zip(alone).enumerate() {
        let found = found.wait().expect("an answer");
        assert_eq!(found.cached, 75, "answer {i}");
        assert_eq!((found.rows, found.generated), (alone.rows, alone.generated), "answer {i}");
    }
}

#[test]
fn states_come_from_weights_that_are_in_memory() {
    let bytes = Model::llama(7).bytes();
    let options = Options { threads: Some(2), ctx: Some(64), ..Options::default() };
    let open = |options: &Options| Engine::from_bytes(&bytes, options).expect("a sound model");
    let answers = open(&options);
    let states = Options { embeddings: true, ..options };
    let (own, shared) = (open(&states), open(&Options { weights: answers.weights(), ..states.clone() }));
    assert!(own.memory().weights() > 0 && shared.memory().weights() == 0);
    // They stay as long as somebody needs them.
    drop(answers);
    let look = |engine: &Engine| observe(engine, &[1, 5, 9, 4], 0, 0, digest).expect("states");
    assert_eq!(look(&shared), look(&own));
    // Those of another model are none that it needs.
    let other = Engine::from_bytes(&Model::gemma3(7).bytes(), &Options { threads: Some(1), ..Options::default() });
    let refused = open(&Options { weights: other.expect("a sound model").weights(), ..states });
    assert!(refused.memory().weights() > 0);
    assert_eq!(look(&refused), look(&own));
}
