//! What the server promises beyond single requests: work in proportion, limits that can be seen, keys that share
//! nothing, an end when it is told twice.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tests::http::{Server, message};

fn generate(tokens: usize) -> String {
    json!({"model": "tiny", "prompt": "the rain", "options": {"num_predict": tokens, "seed": 1, "ignore_eos": true}})
        .to_string()
}

#[test]
fn long_runs_of_one_character_take_time_in_proportion() {
    let server = Server::start(&["--max-body", "8"]);
    for text in ["a", " ", "\n", "7", "ß", "日", "'", "\u{0301}", "aB", "<|x|>"] {
        let content = text.repeat((1 << 20) / text.len());
        let start = Instant::now();
        let answer = server.post("/tokenize", &json!({"content": content}).to_string());
        assert_eq!(answer.status, 200, "{text:?}: {}", answer.body.chars().take(200).collect::<String>());
        assert!(start.elapsed() < Duration::from_secs(3), "{text:?}: {:?}", start.elapsed());
    }
}

#[test]
fn refusals_are_counted_by_reason() {
    let server = Server::start(&["--parallel", "1", "--queue", "1", "--ctx", "200000"]);
    assert_eq!(server.request("GET", "/api/tags", "Host: evil.example\r\n", b"").status, 403);
    let mut open: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut open {
        stream.write_all(&message("POST", "/api/generate", "", generate(150_000).as_bytes())).expect("a request");
    }
    let start = Instant::now();
    while server.metric("handmill_requests_pending") < 2.0 {
        assert!(start.elapsed() < Duration::from_secs(10), "both are known");
    }
    assert_eq!(server.post("/api/generate", &generate(1)).status, 503);
    let page = server.get("/metrics").body;
    for line in [
        "handmill_refused_total{reason=\"queue\"} 1",
        "handmill_refused_total{reason=\"head, host or origin\"} 1",
        "handmill_requests_total{route=\"/api/generate\",status=\"503\"} 1",
    ] {
        assert!(page.contains(line), "{line} is missing in {page}");
    }
}

#[test]
fn who_does_not_read_on_is_let_go() {
    let mut server = Server::start(&["--parallel", "1", "--ctx", "400000", "--unread-timeout", "1"]);
    let options = json!({"num_predict": 390_000, "seed": 1, "ignore_eos": true});
    let body = json!({"model": "tiny", "prompt": "the rain", "logprobs": true, "top_logprobs": 20, "options": options});
    let mut stream = server.connect();
    stream.write_all(&message("POST", "/api/generate", "", body.to_string().as_bytes())).expect("a request");
    stream.read_exact(&mut [0; 10]).expect("the answer begins");
    // Some megabytes go into the sockets' memory; from then on nothing moves, and a second later it is over.
    server.until("its slot is free", |s| {
        s.metric("handmill_requests_running") + s.metric("handmill_requests_pending") == 0.0
    });
    let page = server.get("/metrics").body;
    let line = "handmill_requests_total{route=\"/api/generate\",status=\"499\"} 1";
    assert!(page.contains(line), "{line} is missing in {page}");
    assert_eq!(server.post("/api/generate", &generate(3)).status, 200, "the next one has it");
    server.until("all is free", |s| s.metric("handmill_kv_pages_used") == 0.0);
    drop(stream);
}

#[test]
fn keys_do_not_share_prefixes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys");
    std::fs::write(&file, "ann infer key-of-ann\nbob infer key-of-bob\n").expect("a file");
    let server = Server::start(&["--api-key-file", file.to_str().expect("a path of letters"), "--ctx", "4096"]);
    let prompt = "a long text that somebody else must not learn of ".repeat(10);
    let body = json!({"model": "tiny", "prompt": prompt, "raw": true, "stream": false, "options": {"num_predict": 1}});
    let cached = |key: &str| {
        let headers = format!("Authorization: Bearer {key}\r\nContent-Type: application/json\r\n");
        let answer = server.request("POST", "/api/generate", &headers, body.to_string().as_bytes());
        answer.json()["prompt_eval_cached_count"].as_u64()
    };
    assert_eq!(cached("key-of-ann"), Some(0));
    assert_eq!(cached("key-of-bob"), Some(0), "what ann has asked is no news for bob");
    assert!(cached("key-of-ann") > Some(64) && cached("key-of-bob") > Some(64), "each finds its own");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::start(&["--ctx", "4000000", "--drain", "600"]);
    let mut stream = server.connect();
    stream.write_all(&message("POST", "/api/generate", "", generate(3_900_000).as_bytes())).expect("a request");
    stream.read_exact(&mut [0; 10]).expect("the answer begins");
    let start = Instant::now();
    server.signal();
    server.until("it drains", |s| s.log().contains("shutting down"));
    server.signal();
    assert_eq!(server.terminate(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// Resident kilobytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("the server's process");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

#[test]
fn memory_does_not_grow_while_an_answer_does() {
    let mut server = Server::start(&["--ctx", "30000", "--parallel", "1"]);
    let long = |server: &Server| {
        let answer: Vec<Value> = server
            .post("/api/generate", &generate(20_000))
            .body
            .lines()
            .map(|l| serde_json::from_str(l).expect("a line of JSON"))
            .collect();
        assert_eq!(answer.last().map(|l| l["eval_count"].clone()), Some(json!(20_000)));
    };
    // The first one takes the pages of the cache from the system.
    long(&server);
    let before = resident(&server);
    for _ in 0..2 {
        long(&server);
    }
    let after = resident(&server);
    assert!(after < before + 8192, "resident memory went from {before} to {after} kB over 40,000 tokens");
    server.until("all is free", |s| s.metric("handmill_kv_pages_used") == 0.0);
}
