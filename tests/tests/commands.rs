//! The program on tiny models as a person or a script uses it: what it prints where, and what its flags change.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use tests::process::{Outcome, handmill};
use tests::tiny::Model;

/// A model file in a folder that goes when this does.
struct File {
    folder: tempfile::TempDir,
}

impl File {
    fn new(model: &Model) -> File {
        let folder = tempfile::tempdir().expect("a folder for files");
        std::fs::write(folder.path().join("m.gguf"), model.bytes()).expect("a writable folder");
        File { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("m.gguf")
    }

    /// The program with the model's path as first argument of a subcommand.
    fn start(&self, command: &str, rest: &[&str]) -> tests::process::Run {
        let path = self.path();
        handmill(&[&[command, path.to_str().expect("a path of ASCII")], rest].concat())
    }

    fn run(&self, command: &str, rest: &[&str]) -> Outcome {
        self.start(command, rest).run()
    }
}

fn base() -> File {
    File::new(&Model::llama(7))
}

/// A model whose template writes every message.
fn chat() -> File {
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<a>{% endif %}";
    File::new(&Model { template: Some(template.into()), ..Model::llama(7) })
}

const GREEDY: [&str; 4] = ["--temp", "0", "-n", "8"];

fn answer(file: &File, prompt: &str, flags: &[&str]) -> String {
    let outcome = file.run("run", &[&[prompt][..], &GREEDY, flags].concat());
    let text = outcome.success();
    text.strip_suffix('\n').expect("a line's end after the answer").to_string()
}

#[test]
fn the_answer_is_on_stdout_and_all_else_on_stderr() {
    let outcome = base().run("run", &[&["the rain"][..], &GREEDY].concat());
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines[0].contains("no chat template"), "{lines:?}");
    let last = lines.last().expect("a line of rates");
    assert!(
        last.starts_with("prompt ") && last.contains("generated 8 tokens, ") && last.ends_with("tokens/s"),
        "{last}"
    );
    assert!(!outcome.success().trim().is_empty());
}

#[test]
fn verbose_prints_the_timings_of_ollama() {
    let outcome = chat().run("run", &[&["the rain", "--verbose"][..], &GREEDY].concat());
    // Before it stands what the model runs on.
    assert!(outcome.stderr.contains("runs on   cpu"), "{}", outcome.stderr);
    let timings = outcome.stderr.lines().skip_while(|line| !line.starts_with("total duration"));
    let keys: Vec<&str> = timings.filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let expected = [
        "total duration",
        "load duration",
        "prompt eval count",
        "prompt eval duration",
        "prompt eval rate",
        "eval count",
        "eval duration",
        "eval rate",
    ];
    assert_eq!(keys, expected, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("eval count:           8 token(s)"), "{}", outcome.stderr);
}

#[test]
fn the_prompt_is_the_argument_then_standard_input() {
    let file = base();
    let whole = answer(&file, "one two\nthree", &[]);
    let flags = GREEDY;
    let piped = |words: &[&str], stdin: &str| {
        file.start("run", &[words, &flags].concat())
            .stdin(stdin.as_bytes())
            .run()
            .success()
            .trim_end_matches('\n')
            .to_string()
    };
    assert_eq!(piped(&["one", "two"], "three"), whole);
    assert_eq!(piped(&[], "one two\nthree"), whole);
    let outcome = file.start("run", &flags).stdin(b"\xff\xfe").run();
    assert!(outcome.code == Some(1) && outcome.stderr.contains("standard input is no UTF-8: byte 0"), "{outcome:?}");
}

#[test]
fn raw_and_system_change_the_prompt_of_a_chat_model() {
    let file = chat();
    let plain = answer(&file, "the rain", &[]);
    assert_eq!(answer(&file, "<user>the rain\n<a>", &["--raw"]), plain);
    let system = answer(&file, "the rain", &["--system", "x"]);
    assert_eq!(answer(&file, "<system>x\n<user>the rain\n<a>", &["--raw"]), system);
    let outcome = base().run("run", &["the rain", "--system", "x"]);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("--system needs a chat template"), "{outcome:?}");
}

#[test]
fn a_seed_gives_the_same_answer_and_no_seed_another() {
    let file = base();
    let run = |flags: &[&str]| file.run("run", &[&["the rain", "-n", "30"][..], flags].concat()).success();
    assert_eq!(run(&["--seed", "5"]), run(&["--seed", "5"]));
    assert_ne!(run(&["--seed", "5"]), run(&["--seed", "6"]));
    assert_ne!(run(&[]), run(&[]));
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let file = base();
    let whole = answer(&file, "the rain", &[]);
    let middle: String = whole.chars().skip(3).take(2).collect();
    let cut = answer(&file, "the rain", &["--stop", &middle]);
    assert_eq!(Some(cut.as_str()), whole.split(&middle).next());
}

#[test]
fn a_full_context_ends_the_answer_and_says_so() {
    let outcome = base().run("run", &["the rain", "--ctx", "16", "--temp", "0", "--seed", "1"]);
    let full = outcome.stderr.contains("the context of 16 tokens is full");
    // The model may have ended the text before.
    assert!(outcome.code == Some(0) && (full || !outcome.stderr.contains("generated 1")), "{outcome:?}");
}

#[test]
fn what_cannot_fit_is_refused_before_any_work() {
    let file = base();
    let cases: [(&[&str], &str); 4] = [
        (&["run", "--ctx", "4", "a prompt of more than four tokens"], "context 4"),
        (&["run", "--ctx", "0", "x"], "--ctx is 0; expected 1 to"),
        (&["run", "--ctx", "16000000", "x"], "MiB are available"),
        (&["run", "--batch", "0", "x"], "--batch is 0; expected 1 to"),
    ];
    for (line, message) in cases {
        let start = Instant::now();
        // Below the gigabytes of keys and values that the third case asks for.
        let outcome = file.start(line[0], &line[1..]).address_space_kib(1 << 20).run();
        assert!(outcome.code == Some(1) && outcome.stderr.contains(message), "{line:?}: {outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{line:?}");
    }
}

#[test]
fn show_lists_what_is_inside() {
    let file = chat();
    let text = file.run("show", &["--ctx", "128"]).success();
    for part in ["general.architecture", "llama", "token_embd.weight", "64 x 299", "Formats", "total", "128 tokens"] {
        assert!(text.contains(part), "{part} is missing: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&file.run("show", &["--json"]).success()).expect("JSON");
    let sum =
        |key: &str| json["tensors"].as_array().expect("a list").iter().filter_map(|t| t[key].as_u64()).sum::<u64>();
    let formats =
        json["formats"].as_object().expect("an object").values().filter_map(|f| f["bytes"].as_u64()).sum::<u64>();
    assert_eq!(sum("bytes"), formats);
    let memory = &json["memory"];
    let parts = ["weights", "kv", "activations"].iter().filter_map(|k| memory[k].as_u64()).sum::<u64>();
    assert_eq!(memory["total"].as_u64(), Some(parts));
    assert_eq!(json["metadata"]["tokenizer.ggml.tokens"]["length"], 299);
    // Keys and values of twice the context take twice the memory.
    let kv = |ctx: &str| {
        let json: serde_json::Value =
            serde_json::from_str(&file.run("show", &["--json", "--ctx", ctx]).success()).expect("JSON");
        json["memory"]["kv"].as_u64().expect("a number")
    };
    assert_eq!(kv("512"), 2 * kv("256"));
}

#[test]
fn tokenize_and_score_agree() {
    let file = base();
    let ids: Vec<u32> = serde_json::from_str(&file.run("tokenize", &["the rain"]).success()).expect("JSON");
    let pieces = file.run("tokenize", &["the rain", "--pieces", "--plain"]).success();
    let text: String = pieces
        .lines()
        .map(|line| serde_json::from_str::<String>(line.split_once('\t').expect("a tab").1).expect("a JSON string"))
        .collect();
    assert_eq!(text, "the rain");
    let lines = "{\"prompt\": \"the rain\"}\n{\"prompt\": \"in the spring\"}\n{\"tokens\": [5, 6, 7, 8]}\n";
    let score = |flags: &[&str]| {
        let flags = [&["--input", "-", "--top", "3", "--greedy", "4"], flags].concat();
        file.start("score", &flags).stdin(lines.as_bytes()).run().success()
    };
    let alone = score(&[]);
    let first: serde_json::Value = serde_json::from_str(alone.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["tokens"], serde_json::json!(ids));
    assert_eq!((first["top"].as_array().map(Vec::len), first["greedy"].as_array().map(Vec::len)), (Some(3), Some(4)));
    assert_eq!(alone.lines().count(), 3);
    assert_eq!(score(&["--parallel", "3"]), alone, "neighbours change a result");
    assert_eq!(score(&["--batch", "1", "--threads", "1"]), alone, "chunks change a result");
}

/// Weights are looked at once after a pull, and at every load where that is asked for.
#[test]
fn weights_that_are_no_numbers_are_found() {
    let mut draft = Model::llama(7).draft();
    draft.tensor("blk.1.ffn_up.weight").data[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
    let folder = tempfile::tempdir().expect("a folder for files");
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, draft.bytes()).expect("a writable folder");
    let path = path.to_str().expect("a path of ASCII");
    let outcome = handmill(&["run", path, "x", "-n", "1", "--check-tensors"]).run();
    let message = "tensor blk.1.ffn_up.weight holds a value that is not finite at element 100";
    assert!(outcome.code == Some(1) && outcome.stderr.contains(message), "{outcome:?}");
    let store = folder.path().join("store");
    let outcome = handmill(&["pull", path, "--name", "damaged"]).environment("HANDMILL_HOME", &store).run();
    assert!(outcome.code == Some(1) && outcome.stderr.contains(message), "{outcome:?}");
    assert!(outcome.stderr.contains("handmill rm damaged:latest"), "{outcome:?}");
    assert!(base().run("run", &[&["x", "--check-tensors"][..], &GREEDY].concat()).code == Some(0));
}
