//! Streams: tokens to text without cutting characters, and stop strings.

use engine::tokenizer::{Detokenizer, Encode, StopStrings};
use proptest::prelude::*;

use super::{gpt2, llama};

#[test]
fn a_character_comes_when_it_is_whole() {
    let tokenizer = gpt2();
    // "日" is the bytes E6 97 A5; GPT-2 has E6 97 as one token and A5 as another.
    let ids = tokenizer.encode("日", Encode::default());
    let mut stream = Detokenizer::new(tokenizer.clone(), false);
    let parts: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    assert!(ids.len() > 1);
    assert_eq!(parts.concat(), "日");
    assert_eq!(parts[..ids.len() - 1].concat(), "");
    assert_eq!(stream.push(ids[0]), "");
    assert_eq!(stream.finish(), "\u{fffd}");
    assert_eq!(stream.push(u32::MAX), "");
}

#[test]
fn control_tokens_show_only_when_asked_for() {
    let tokenizer = gpt2();
    let end = tokenizer.eos().expect("GPT-2 has one");
    assert_eq!(Detokenizer::new(tokenizer.clone(), false).push(end), "");
    assert_eq!(Detokenizer::new(tokenizer, true).push(end), "<|endoftext|>");
}

#[test]
fn the_first_space_goes_only_at_the_start() {
    let tokenizer = llama();
    let ids = tokenizer.encode("Hello world", Encode::default());
    let text = |mut stream: Detokenizer| ids.iter().map(|&id| stream.push(id)).collect::<String>();
    assert_eq!(text(Detokenizer::new(tokenizer.clone(), false)), " Hello world");
    assert_eq!(text(Detokenizer::new(tokenizer, false).at_start()), "Hello world");
}

#[test]
fn text_before_a_stop_string() {
    let mut stops = StopStrings::new(&["", "\nUser:", "###"]);
    assert_eq!(stops.push("Hi #"), ("Hi ".into(), false));
    assert_eq!(stops.push("#x\nUs"), ("##x".into(), false));
    assert_eq!(stops.push("er"), (String::new(), false));
    assert_eq!(stops.push(": more"), (String::new(), true));
    assert_eq!(stops.push("###"), (String::new(), true));
    assert_eq!((stops.found(), stops.finish()), (Some(1), String::new()));
    let mut stops = StopStrings::new(&["abc"]);
    assert_eq!(stops.push("xab"), ("x".into(), false));
    assert_eq!((stops.finish().as_str(), stops.found()), ("ab", None));
}

#[test]
fn long_streams_take_linear_time() {
    // A quadratic search of this would take minutes.
    let mut stops = StopStrings::new(&[format!("{}b", "a".repeat(50_000))]);
    let mut out = 0;
    for _ in 0..1_000 {
        out += stops.push(&"a".repeat(1_000)).0.len();
    }
    assert_eq!(out + stops.finish().len(), 1_000_000);
}

/// The twin of [`StopStrings`]: looks at the whole text. The stop string that ends first counts, of those the longest.
fn naive_stop(text: &str, stops: &[String]) -> (String, bool) {
    let ends = (0..=text.len()).filter(|&end| text.is_char_boundary(end));
    for end in ends {
        let found = stops.iter().filter(|s| !s.is_empty() && text[..end].ends_with(s.as_str()));
        if let Some(longest) = found.max_by_key(|s| s.len()) {
            return (text[..end - longest.len()].to_owned(), true);
        }
    }
    (text.to_owned(), false)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn stop_strings_as_the_twin(
        stops in prop::collection::vec("[abé]{0,4}", 0..4),
        parts in prop::collection::vec("[abé]{0,5}", 0..12),
    ) {
        let mut streamed = String::new();
        let mut matcher = StopStrings::new(&stops);
        let mut stopped = false;
        for part in &parts {
            let (text, found) = matcher.push(part);
            streamed += &text;
            stopped = found;
        }
        streamed += &matcher.finish();
        prop_assert_eq!((streamed, stopped), naive_stop(&parts.concat(), &stops));
    }

    #[test]
    fn streams_say_what_whole_texts_say(ids in prop::collection::vec(0u32..50_300, 0..40), special: bool) {
        for tokenizer in [gpt2(), llama()] {
            let mut stream = Detokenizer::new(tokenizer.clone(), special).at_start();
            let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
            text += &stream.finish();
            prop_assert_eq!(text, tokenizer.decode(&ids, special));
        }
    }
}
