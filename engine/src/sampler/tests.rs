//! The sampler against its naive twin, by set, by distribution and by hand.

mod naive;

use super::*;
use naive::naive;
use proptest::prelude::*;

/// Ids that the sampler's filters leave, in order.
fn kept_ids(params: &Params, logits: &[f32], history: &[u32]) -> Vec<u32> {
    let mut sampler = Sampler::new(params.clone(), 0).unwrap();
    sampler.sample(logits, history).unwrap();
    // n_probs is None in these tests, so the candidates of the draw are still there.
    let mut ids: Vec<u32> = sampler.candidates.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids
}

fn off() -> Params {
    Params { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..Params::default() }
}

fn draw(params: Params, logits: &[f32]) -> Result<u32, Error> {
    Sampler::new(params, 7).unwrap().sample(logits, &[]).map(|sampled| sampled.id)
}

/// Twelve tokens, two of them equal, in no order.
const ROW: [f32; 12] = [0.5, 2.0, -1.0, 3.0, 1.5, -4.0, 2.5, 0.0, 2.0, -0.5, 1.0, -2.0];

/// Pearson's statistic of 20,000 draws against the twin's probabilities stays under the 99.99 % quantile of chi-square
/// (Wilson-Hilferty approximation), for each filter alone and for the default chains. The seed is fixed: no flakes.
#[test]
fn draws_follow_the_naive_distribution() {
    let history = [3, 3, 6, 1, 5];
    let cases = [
        off(),
        Params { temperature: 0.5, ..off() },
        Params { temperature: 3.0, ..off() },
        Params { top_k: 4, ..off() },
        Params { top_p: 0.8, ..off() },
        Params { min_p: 0.2, ..off() },
        Params { typical_p: 0.7, ..off() },
        Params { repeat_penalty: 1.5, presence_penalty: 0.3, frequency_penalty: 0.2, ..off() },
        Params { logit_bias: vec![(3, -2.0), (11, 4.0), (1, f32::NEG_INFINITY)], ..off() },
        Params::default(),
        Params::ollama(),
    ];
    for params in cases {
        let expected = naive(&params, &ROW, &history);
        let mut counts = [0u32; ROW.len()];
        let mut sampler = Sampler::new(params.clone(), 12345).unwrap();
        const DRAWS: u32 = 20_000;
        for _ in 0..DRAWS {
            counts[sampler.sample(&ROW, &history).unwrap().id as usize] += 1;
        }
        let drawn: u32 = expected.iter().map(|&(id, _)| counts[id as usize]).sum();
        assert_eq!(drawn, DRAWS, "a token outside the kept set was drawn with {params:?}");
        let term = |&(id, p): &(u32, f64)| {
            (f64::from(counts[id as usize]) - p * f64::from(DRAWS)).powi(2) / (p * f64::from(DRAWS))
        };
        let statistic: f64 = expected.iter().map(term).sum();
        let freedom = expected.len() as f64 - 1.0;
        let spread = 2.0 / (9.0 * freedom);
        let quantile = freedom * (1.0 - spread + 3.719 * spread.sqrt()).powi(3);
        assert!(statistic < quantile, "chi-square {statistic} over {quantile} with {params:?}");
    }
}

fn any_params() -> impl Strategy<Value = Params> {
    let share = || prop_oneof![Just(1.0f32), 0.0f32..1.0];
    let filters =
        (prop_oneof![Just(0u32), 1u32..300], share(), prop_oneof![Just(0.0f32), 0.0f32..1.0], share(), 0u32..6);
    let penalties = (prop_oneof![Just(1.0f32), 0.5f32..2.0], -1.0f32..1.0, -1.0f32..1.0, -1i32..40);
    (filters, penalties, 0.1f32..3.0).prop_map(|(filters, penalties, temperature)| {
        let (top_k, top_p, min_p, typical_p, min_keep) = filters;
        let (repeat_penalty, presence_penalty, frequency_penalty, repeat_last_n) = penalties;
        Params {
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p,
            repeat_penalty,
            presence_penalty,
            frequency_penalty,
            repeat_last_n,
            min_keep,
            ..Params::default()
        }
    })
}

/// Rows with ties (quantized values) and without, bans, and a spread from flat to peaked.
fn any_row() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![8 => -10.0f32..10.0, 4 => (-6i32..6).prop_map(|x| x as f32), 1 => Just(f32::NEG_INFINITY)];
    prop::collection::vec(logit, 1..700).prop_filter("a token to draw", |row| row.iter().any(|l| l.is_finite()))
}

/// Whether the twin's choice hangs on a rounding: with any limit moved by 1e-6 of itself it keeps another set.
fn on_an_edge(params: &Params, row: &[f32], history: &[u32], ids: &[u32]) -> bool {
    [1.0 - 1e-6, 1.0 + 1e-6].iter().any(|&nudge| {
        let scale = |value: f32| {
            if value == 1.0 { value } else { (value * nudge).min(1.0 - f32::EPSILON) }
        };
        [(nudge, 1.0, 1.0), (1.0, nudge, 1.0), (1.0, 1.0, nudge)].iter().any(|&(a, b, c)| {
            let pick = |on: f32, value: f32| if on == 1.0 { value } else { scale(value) };
            let (top_p, min_p, typical_p) = (pick(a, params.top_p), pick(b, params.min_p), pick(c, params.typical_p));
            let moved = Params { top_p, min_p, typical_p, ..params.clone() };
            naive(&moved, row, history).iter().map(|t| t.0).ne(ids.iter().copied())
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn keeps_the_naive_set(params in any_params(), row in any_row(), history in prop::collection::vec(0u32..700, 0..80)) {
        let expected: Vec<u32> = naive(&params, &row, &history).iter().map(|t| t.0).collect();
        let found = kept_ids(&params, &row, &history);
        // Typicality ties (two tokens on the two sides of the entropy) and sums that end on the limit are the twin's
        // rounding against ours.
        let edge = found != expected && on_an_edge(&params, &row, &history, &expected);
        prop_assert!(edge || found == expected, "found {found:?}, expected {expected:?}");
    }

    #[test]
    fn any_bits_give_a_token_or_an_error(bits in prop::collection::vec(any::<u32>(), 0..200), params in any_params(), greedy: bool) {
        let row: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
        let temperature = if greedy { 0.0 } else { params.temperature };
        let params = Params { temperature, n_probs: Some(3), ..params };
        let mut sampler = Sampler::new(params, 1).unwrap();
        match sampler.sample(&row, &[0, 1, 2, 1]) {
            Ok(sampled) => {
                prop_assert!(row[sampled.id as usize] > f32::NEG_INFINITY);
                prop_assert!(sampled.logprob.unwrap() <= 0.0);
            }
            Err(Error::NotANumber { id }) => prop_assert!(row[id].is_nan()),
            Err(error) => prop_assert_eq!(error, Error::NoCandidate { vocabulary: row.len() }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whoever has the largest logits alone draws what the row would give, and uses up the same random numbers.
    #[test]
    fn the_largest_logits_draw_what_the_row_does(params in any_params(), row in any_row(), greedy: bool) {
        let temperature = if greedy { 0.0 } else { params.temperature };
        let params = Params { temperature, repeat_last_n: 0, top_k: params.top_k % 70, ..params };
        let mut order: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        order.truncate(MOST_CANDIDATES);
        order.resize(MOST_CANDIDATES, (u32::MAX, f32::NEG_INFINITY));
        order.reverse();
        let [mut whole, mut few] = [(); 2].map(|()| Sampler::new(params.clone(), 5).unwrap());
        let enough = greedy || params.top_k > 0 && params.top_k <= 64;
        prop_assert_eq!(whole.wants() != Wants::Row, enough);
        for _ in 0..if enough { 5 } else { 0 } {
            prop_assert_eq!(few.sample_top(&order, row.len()), whole.sample(&row, &[]));
        }
    }
}

#[test]
fn what_a_draw_needs_depends_on_the_chain() {
    let wants = |params: Params| Sampler::new(params, 0).unwrap().wants();
    assert_eq!(wants(Params::greedy()), Wants::Best);
    assert_eq!(wants(Params::default()), Wants::Top);
    assert_eq!(wants(Params { top_k: 65, ..Params::default() }), Wants::Row);
    assert_eq!(wants(Params { min_keep: 65, ..Params::default() }), Wants::Row);
    assert_eq!(wants(off()), Wants::Row);
    for params in [Params::default(), Params::greedy()] {
        assert_eq!(wants(Params { n_probs: Some(1), ..params.clone() }), Wants::Row);
        assert_eq!(wants(Params { repeat_penalty: 1.1, ..params.clone() }), Wants::Row);
        assert_eq!(wants(Params { logit_bias: vec![(1, 2.0)], ..params }), Wants::Row);
    }
    let mut sampler = Sampler::new(Params::default(), 0).unwrap();
    let top = [(7, 1.0), (3, f32::NAN), (9, f32::NAN)];
    assert_eq!(sampler.sample_top(&top, 20), Err(Error::NotANumber { id: 3 }));
    assert_eq!(sampler.sample_top(&[(7, f32::NEG_INFINITY)], 20), Err(Error::NoCandidate { vocabulary: 20 }));
}

#[test]
fn greedy_takes_the_lowest_id_of_a_tie() {
    assert_eq!(draw(Params::greedy(), &[1.0, 5.0, 5.0, 4.0]), Ok(1));
    assert_eq!(draw(Params::greedy(), &[-0.0, 0.0]), Ok(0));
    let far_apart: Vec<f32> = (0..5000).map(|id| if id == 70 || id == 4999 { 2.0 } else { 1.0 }).collect();
    assert_eq!(draw(Params::greedy(), &far_apart), Ok(70));
    // Filters do not touch a greedy choice: the most typical token is another one here.
    assert_eq!(draw(Params { typical_p: 0.1, ..Params::greedy() }, &[2.0, 1.9, 1.9, 1.9]), Ok(0));
}

/// By hand: window [2, 1, 1, 9], repeat 2, frequency 0.25, presence 0.5.
#[test]
fn penalties_follow_the_documented_arithmetic() {
    let params = Params {
        repeat_penalty: 2.0,
        frequency_penalty: 0.25,
        presence_penalty: 0.5,
        repeat_last_n: 4,
        ..Params::greedy()
    };
    let (mut window, mut row) = (Vec::new(), Vec::new());
    let history = [0, 0, 2, 1, 1, 9];
    edit::apply(&params, &history, &[1.0, 4.0, -3.0, 0.0], &mut window, &mut row).unwrap();
    // 0 lies outside the window; 1: 4 / 2 - (2 * 0.25 + 0.5); 2: -3 * 2 - (0.25 + 0.5); 9 is no token of the model.
    assert_eq!(row, [1.0, 1.0, -6.75, 0.0]);
    let whole = Params { repeat_last_n: -1, ..params.clone() };
    edit::apply(&whole, &history, &[1.0, 4.0, -3.0, 0.0], &mut window, &mut row).unwrap();
    assert_eq!(row, [1.0 / 2.0 - 1.0, 1.0, -6.75, 0.0]);
    assert!(!edit::needed(&Params { repeat_last_n: 0, ..params }));
}

#[test]
fn bias_bans_and_forces() {
    let ban = |ids: &[u32]| ids.iter().map(|&id| (id, f32::NEG_INFINITY)).collect::<Vec<_>>();
    let row = [1.0, 9.0, f32::INFINITY, 3.0];
    assert_eq!(draw(Params { logit_bias: ban(&[1, 2]), ..Params::greedy() }, &row), Ok(3));
    assert_eq!(draw(Params { logit_bias: vec![(0, 20.0)], ..Params::greedy() }, &row[..2]), Ok(0));
    let all = Params { logit_bias: ban(&[0, 1, 2, 3]), ..Params::default() };
    assert_eq!(draw(all, &row), Err(Error::NoCandidate { vocabulary: 4 }));
    let outside = Params { logit_bias: vec![(4, 1.0)], ..Params::default() };
    assert_eq!(draw(outside, &row), Err(Error::BiasOutOfVocabulary { id: 4, vocabulary: 4 }));
}

#[test]
fn extreme_rows() {
    let inf = f32::INFINITY;
    assert_eq!(draw(Params::default(), &[0.0, f32::NAN, 1.0]), Err(Error::NotANumber { id: 1 }));
    assert_eq!(draw(Params::default(), &[-inf; 3]), Err(Error::NoCandidate { vocabulary: 3 }));
    assert_eq!(draw(Params::default(), &[]), Err(Error::NoCandidate { vocabulary: 0 }));
    assert_eq!(draw(Params::default(), &[3.4e38, inf, -3.4e38]), Ok(1));
    assert_eq!(draw(Params { typical_p: 0.5, ..off() }, &[-3.4e38, 3.4e38, -inf]), Ok(1));
    // A temperature too small to divide by leaves the largest; one too large levels every token.
    assert_eq!(draw(Params { temperature: f32::MIN_POSITIVE, ..off() }, &ROW), Ok(3));
    let flat = Params { temperature: f32::MAX, ..off() };
    assert!(naive(&flat, &ROW, &[]).iter().all(|t| (t.1 - 1.0 / 12.0).abs() < 1e-12));
    assert!(draw(flat, &ROW).is_ok());
    assert_eq!(kept_ids(&Params { min_keep: 3, top_p: 0.0, min_p: 1.0, top_k: 1, ..off() }, &ROW, &[]), [1, 3, 6]);
}

#[test]
fn each_parameter_outside_its_range_is_named() {
    let cases = [
        (Params { temperature: -0.1, ..off() }, "temperature is -0.1; allowed is a finite number of at least 0"),
        (Params { temperature: f32::INFINITY, ..off() }, "temperature is inf"),
        (Params { top_p: 1.5, ..off() }, "top_p is 1.5; allowed is 0 to 1"),
        (Params { min_p: f32::NAN, ..off() }, "min_p is NaN; allowed is 0 to 1"),
        (Params { typical_p: -1.0, ..off() }, "typical_p is -1"),
        (Params { repeat_penalty: 0.0, ..off() }, "repeat_penalty is 0; allowed is a finite number above 0"),
        (Params { presence_penalty: f32::INFINITY, ..off() }, "presence_penalty is inf"),
        (Params { frequency_penalty: f32::NAN, ..off() }, "frequency_penalty is NaN"),
        (Params { repeat_last_n: -2, ..off() }, "repeat_last_n is -2; allowed is -1"),
        (Params { logit_bias: vec![(5, f32::NAN)], ..off() }, "logit_bias is NaN for token 5"),
    ];
    for (params, expected) in cases {
        let error = Sampler::new(params, 0).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

#[test]
fn logprobs_are_those_of_the_model() {
    let params =
        Params { n_probs: Some(3), temperature: 0.3, logit_bias: vec![(3, f32::NEG_INFINITY)], ..Params::default() };
    let mut sampler = Sampler::new(params, 0).unwrap();
    let sampled = sampler.sample(&ROW, &[]).unwrap();
    let model: Vec<f64> = naive(&off(), &ROW, &[]).iter().map(|t| t.1.ln()).collect();
    assert_ne!(sampled.id, 3, "the ban holds");
    // f32 rounding of a value below 8.
    assert!((f64::from(sampled.logprob.unwrap()) - model[sampled.id as usize]).abs() < 5e-7);
    let ids: Vec<u32> = sampler.top_logprobs().iter().map(|t| t.0).collect();
    assert_eq!(ids, [3, 6, 1], "the banned token is still the model's first");
    for &(id, logprob) in sampler.top_logprobs() {
        assert!((f64::from(logprob) - model[id as usize]).abs() < 5e-7);
    }
    let mut silent = Sampler::new(Params::default(), 0).unwrap();
    assert_eq!(silent.sample(&ROW, &[]).unwrap().logprob, None);
    assert!(silent.top_logprobs().is_empty());
}

/// The first uniform numbers of seed 42 are fixed by SplitMix64; with four equally likely tokens the drawn id is their
/// quarter, so the list can be checked by hand. The second list is the default chain on `ROW`.
#[test]
fn a_seed_fixes_the_tokens_on_every_machine() {
    let mut random = Random::new(42);
    let quarters: Vec<u32> = (0..16).map(|_| (random.uniform() * 4.0) as u32).collect();
    let tokens = |params: Params, row: &[f32]| -> Vec<u32> {
        let mut sampler = Sampler::new(Params { seed: Some(42), ..params }, 1).unwrap();
        (0..16).map(|_| sampler.sample(row, &[]).unwrap().id).collect()
    };
    assert_eq!(tokens(off(), &[1.25; 4]), quarters);
    assert_eq!(quarters, [2, 0, 0, 0, 3, 0, 1, 0, 3, 0, 3, 3, 3, 0, 0, 3]);
    assert_eq!(tokens(Params::default(), &ROW), [6, 3, 3, 3, 10, 3, 3, 3, 1, 3, 8, 4, 4, 3, 3, 8]);
    let other = Sampler::new(Params::default(), 42).unwrap().sample(&ROW, &[]).unwrap().id;
    assert_eq!(other, tokens(Params::default(), &ROW)[0], "without a seed the caller's entropy is the seed");
}

/// After the first token no buffer grows.
#[test]
fn buffers_are_kept() {
    let params = Params { repeat_penalty: 1.1, n_probs: Some(5), ..Params::default() };
    let mut sampler = Sampler::new(params, 3).unwrap();
    let row: Vec<f32> = (0..5000).map(|id| ((id * 7919) % 1000) as f32 / 100.0).collect();
    let history: Vec<u32> = (0..200).collect();
    sampler.sample(&row, &history).unwrap();
    let sizes = |s: &Sampler| {
        (s.row.capacity(), s.window.capacity(), s.candidates.capacity(), s.weights.capacity(), s.top.capacity())
    };
    let first = sizes(&sampler);
    for _ in 0..50 {
        sampler.sample(&row, &history).unwrap();
    }
    assert_eq!(sizes(&sampler), first);
}
