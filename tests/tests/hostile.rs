//! The server and requests that mean it no good: each gets an error of its own, and the next request is answered.

use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};
use tests::http::{Server, message, read};

const HELLO: &str = r#"{"model": "tiny", "prompt": "x", "stream": false, "options": {"num_predict": 1}}"#;

/// Fails unless a plain request is answered.
fn lives(server: &Server, after: &str) {
    let start = Instant::now();
    let answer = server.post("/api/generate", HELLO);
    assert_eq!(answer.status, 200, "after {after}: {} {}", answer.status, answer.body);
    assert!(start.elapsed() < Duration::from_secs(5), "after {after}: {:?}", start.elapsed());
}

/// Resident kilobytes.
fn resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// The error of a body in its dialect.
fn error(path: &str, body: &str) -> Option<String> {
    let json: Value = serde_json::from_str(body).ok()?;
    let error = if path.starts_with("/v1") { &json["error"]["message"] } else { &json["error"] };
    error.as_str().map(String::from)
}

const PATHS: [&str; 6] =
    ["/api/generate", "/api/chat", "/api/embed", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

#[test]
fn bodies_that_are_wrong() {
    let server = Server::start(&[]);
    let deep = |open: &str, close: &str| {
        format!("{{\"model\": \"tiny\", \"x\": {}{}}}", open.repeat(100_000), close.repeat(100_000))
    };
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("blanks", b"  \n ".to_vec()),
        ("no JSON", b"hello".to_vec()),
        ("half", br#"{"model": "tiny", "prompt": "#.to_vec()),
        ("trailing", br#"{"model": "tiny"} x"#.to_vec()),
        ("an array", b"[1, 2]".to_vec()),
        ("a number", b"7".to_vec()),
        ("null", b"null".to_vec()),
        ("NaN", br#"{"model": "tiny", "prompt": "x", "options": {"temperature": NaN}}"#.to_vec()),
        ("huge number", br#"{"model": "tiny", "prompt": "x", "options": {"temperature": 1e999}}"#.to_vec()),
        ("not UTF-8", b"{\"model\": \"tiny\", \"prompt\": \"\xff\xfe\"}".to_vec()),
        ("half a surrogate", br#"{"model": "tiny", "prompt": "\ud800"}"#.to_vec()),
        ("NUL", b"{\"model\": \"ti\0ny\"}".to_vec()),
        ("deep arrays", deep("[", "]").into_bytes()),
        ("deep objects", deep("{\"a\":", "}").replace("}}", "1}}").into_bytes()),
        ("no model", br#"{"prompt": "x", "messages": [{"role": "user", "content": "x"}], "input": "x"}"#.to_vec()),
        ("model of a wrong type", br#"{"model": 7, "prompt": "x"}"#.to_vec()),
        ("unknown model", br#"{"model": "nope", "prompt": "x", "messages": [{"role": "user", "content": "x"}], "input": "x"}"#.to_vec()),
        ("traversal", br#"{"model": "../../../etc/passwd", "prompt": "x", "messages": [{"role": "user", "content": "x"}], "input": "x"}"#.to_vec()),
        ("absolute path", br#"{"model": "/etc/passwd", "prompt": "x", "messages": [{"role": "user", "content": "x"}], "input": "x"}"#.to_vec()),
        ("escapes in a name", br#"{"model": "\u001b[2Jx\r\ny", "prompt": "x", "messages": [{"role": "user", "content": "x"}], "input": "x"}"#.to_vec()),
    ];
    let mut failures = Vec::new();
    for path in PATHS {
        for (name, body) in &bodies {
            let answer = server.request("POST", path, "Content-Type: application/json\r\n", body);
            let told = error(path, &answer.body);
            if !(400..500).contains(&answer.status) || told.is_none() {
                failures.push(format!(
                    "{path}, {name}: {} {}",
                    answer.status,
                    answer.body.chars().take(200).collect::<String>()
                ));
            }
            if answer.body.contains("/etc/") && *name != "absolute path" && *name != "traversal"
                || answer.body.contains(".rs")
                || answer.body.contains('\u{1b}')
            {
                failures.push(format!("{path}, {name}: the answer shows too much: {}", answer.body));
            }
        }
    }
    lives(&server, "wrong bodies");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(!server.log().contains('\u{1b}'), "the log has a control character");
}

#[test]
fn options_that_are_wrong() {
    let server = Server::start(&[]);
    let values =
        [json!("x"), json!(-1e300), json!(1e300), json!([]), json!({}), json!(true), json!(-999_999_999_999i64)];
    let names =
        ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "repeat_last_n", "num_predict", "num_ctx", "stop"];
    let mut failures = Vec::new();
    for name in names {
        for value in &values {
            let legal = (name == "stop" && (value.is_string() || *value == json!([])))
                || (name == "temperature" && value == &json!(0));
            let body =
                json!({"model": "tiny", "prompt": "x", "stream": false, "options": {name: value, "num_thread": 1}});
            let answer = server.post("/api/generate", &body.to_string());
            let right = if legal { answer.status == 200 } else { answer.status == 400 && answer.body.contains(name) };
            if !right {
                failures.push(format!("{name} = {value}: {} {}", answer.status, answer.body));
            }
        }
    }
    let huge = json!({"model": "tiny", "prompt": "x", "options": {"num_ctx": 16_000_000}}).to_string();
    let status = server.post("/api/generate", &huge).status;
    assert!(status == 200 || status == 503, "a context beyond memory: {status}");
    for (name, value) in [
        ("n", json!(-1)),
        ("top_logprobs", json!(21)),
        ("logit_bias", json!({"x": 1})),
        ("logit_bias", json!({"4294967295": 1})),
        ("tool_choice", json!("required")),
        ("stop", json!(vec!["a"; 65])),
    ] {
        let body =
            json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}], "logprobs": true, name: value});
        let answer = server.post("/v1/chat/completions", &body.to_string());
        if answer.status != 400 || !answer.body.contains(name) {
            failures.push(format!("{name} = {value}: {} {}", answer.status, answer.body));
        }
    }
    lives(&server, "wrong options");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn sizes_that_are_too_large() {
    let server = Server::start(&["--max-body", "1"]);
    let huge = vec![b' '; 3 << 20];
    assert_eq!(server.request("POST", "/api/generate", "", &huge).status, 413);
    let lie = server.raw(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{");
    assert_eq!(lie.status, 413, "a length is believed before a byte is read");
    let mut chunks = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..32 {
        chunks.extend(b"10000\r\n");
        chunks.extend(vec![b' '; 0x10000]);
        chunks.extend(b"\r\n");
    }
    assert_eq!(server.raw(&chunks).status, 413);
    assert_eq!(server.request("POST", "/api/show", "Content-Encoding: gzip\r\n", b"\x1f\x8b").status, 415);
    let flood: String = (0..500).map(|i| format!("X-{i}: y\r\n")).collect();
    assert_eq!(server.request("GET", "/", &flood, b"").status, 431);
    // The connection may be reset while the head is still being sent.
    let long = server.request("GET", "/", &format!("X: {}\r\n", "y".repeat(100_000)), b"").status;
    assert!(long == 431 || long == 0, "{long}");
    let long = server.get(&format!("/{}", "x".repeat(100_000))).status;
    assert!(long == 414 || long == 431, "{long}");
    let prompt = json!({"model": "tiny", "prompt": "word ".repeat(100_000), "raw": true});
    let answer = server.post("/api/generate", &prompt.to_string());
    assert!(answer.status == 400 && answer.body.contains("tokens, the context"), "{} {}", answer.status, answer.body);
    assert_eq!(server.raw(b"\x16\x03\x01\x02\x00garbage\r\n\r\n").status, 400);
    assert_eq!(server.raw(b"GET / HTTP/1.1\r\n\r\n").status, 400, "no host");
    lives(&server, "large sizes");
}

#[test]
fn grammars_that_are_wrong() {
    let server = Server::start(&[]);
    let mut deep = json!({"type": "string"});
    for _ in 0..100 {
        deep = json!({"type": "object", "properties": {"a": deep}, "required": ["a"]});
    }
    let formats = [
        deep,
        json!({"$ref": "#/nowhere"}),
        json!({"$ref": "https://example.com/schema"}),
        json!({"type": "frob"}),
        json!({"type": "string", "pattern": "("}),
        json!({"type": "string", "pattern": "(a{1,1000}){1,1000}"}),
        json!({"type": "array", "minItems": 5, "maxItems": 2}),
        json!({"enum": []}),
        json!("yaml"),
        json!(7),
    ];
    for format in formats {
        let start = Instant::now();
        let body =
            json!({"model": "tiny", "prompt": "x", "stream": false, "format": format, "options": {"num_predict": 4}});
        let answer = server.post("/api/generate", &body.to_string());
        let what: String = format.to_string().chars().take(80).collect();
        assert!(answer.status == 200 || answer.status == 400, "{what}: {} {}", answer.status, answer.body);
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
    }
    lives(&server, "wrong grammars");
}

#[test]
fn slow_and_silent_clients_hold_nobody_up() {
    let server = Server::start(&[]);
    let mut slow: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for (i, stream) in slow.iter_mut().enumerate() {
        let part: &[u8] = match i % 3 {
            0 => b"",
            1 => b"POST /api/generate HTTP/1.1\r\nHost: local",
            _ => b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{\"model\": ",
        };
        stream.write_all(part).unwrap();
    }
    let start = Instant::now();
    lives(&server, "200 silent connections");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    // Both kinds end within their time: the head's, and the body's, which is an error of its own.
    let start = Instant::now();
    let answer = read(&mut slow[2]);
    assert_eq!(answer.status, 408, "{}", answer.head);
    read(&mut slow[1]);
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
}

#[test]
fn memory_returns_and_nothing_leaks() {
    let mut server = Server::start(&["--parallel", "4", "--max-body", "1"]);
    let round = |server: &Server, n: u64| {
        std::thread::scope(|scope| {
            for t in 0..4 {
                scope.spawn(move || {
                    for i in 0..n {
                        let stream = (i + t) % 3 != 0;
                        let body = json!({"model": "tiny", "prompt": format!("the rain {t} {i}"), "stream": stream, "options": {"num_predict": 40, "ignore_eos": true}});
                        let bytes = message("POST", "/api/generate", "", body.to_string().as_bytes());
                        match i % 4 {
                            0 => drop(server.connect().write_all(&bytes)),
                            1 => drop(server.post("/v1/chat/completions", "{")),
                            2 => drop(server.request("POST", "/api/chat", "", &vec![b'x'; 2 << 20])),
                            _ => drop(server.raw(&bytes)),
                        }
                    }
                });
            }
        });
    };
    round(&server, 100);
    let settle = |server: &mut Server| {
        server.until("all is free", |s| {
            s.metric("handmill_requests_running")
                + s.metric("handmill_requests_pending")
                + s.metric("handmill_kv_pages_used")
                == 0.0
        });
    };
    settle(&mut server);
    let before = resident(&server);
    round(&server, 100);
    settle(&mut server);
    let after = resident(&server);
    assert!(after < before + before / 10 + 4096, "resident memory went from {before} to {after} kB");
    lives(&server, "all of it");
}
