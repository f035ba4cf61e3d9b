//! The server with a tiny model: its dialects, its slots, its safety, its end.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use tests::http::{Server, message, read};

/// A question whose answer is long enough to be watched, and always the same.
fn long(tokens: usize) -> String {
    json!({"model": "tiny", "prompt": "the rain", "stream": true, "options": {"num_predict": tokens, "seed": 5, "temperature": 1.5, "ignore_eos": true}}).to_string()
}

fn text_of(body: &str) -> String {
    let lines = body.lines().map(|l| serde_json::from_str::<Value>(l).unwrap_or_else(|e| panic!("{e}: {l}")));
    lines.map(|l| l["response"].as_str().unwrap_or_default().to_string()).collect()
}

#[test]
fn both_dialects_answer_and_agree() {
    let server = Server::start(&[]);
    let options = json!({"num_predict": 8, "temperature": 0, "ignore_eos": true});
    let messages = json!([{"role": "user", "content": "the rain"}]);
    let chat = json!({"model": "tiny", "messages": messages, "options": options, "stream": false});
    let native = server.post("/api/chat", &chat.to_string());
    let found = native.json();
    assert_eq!((native.status, &found["done"], &found["eval_count"]), (200, &json!(true), &json!(8)), "{found}");
    let compatible =
        json!({"model": "tiny", "messages": messages, "max_tokens": 8, "temperature": 0, "ignore_eos": true});
    let answer = server.post("/v1/chat/completions", &compatible.to_string()).json();
    assert_eq!(answer["choices"][0]["message"]["content"], found["message"]["content"]);
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let mut streamed = compatible.clone();
    streamed["stream"] = json!(true);
    let events = server.post("/v1/chat/completions", &streamed.to_string()).body;
    assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
    let deltas = events.lines().filter_map(|l| serde_json::from_str::<Value>(l.strip_prefix("data: ")?).ok());
    let text: String = deltas.filter_map(|d| d["choices"][0]["delta"]["content"].as_str().map(String::from)).collect();
    assert_eq!(text, answer["choices"][0]["message"]["content"].as_str().unwrap());
    let vectors = server.post("/v1/embeddings", r#"{"model": "tiny", "input": ["a", "b c"]}"#).json();
    assert_eq!(vectors["data"].as_array().unwrap().len(), 2, "{vectors}");
}

#[test]
fn unknown_fields_are_told_and_wrong_ones_refused() {
    let server = Server::start(&[]);
    let body = r#"{"model": "tiny", "prompt": "x", "stream": false, "frobnicate": 1, "options": {"num_predict": 1, "num_gpu": 9}}"#;
    let warnings = server.post("/api/generate", body).json()["warnings"].to_string();
    assert!(warnings.contains("frobnicate") && warnings.contains("num_gpu"), "{warnings}");
    for (path, body, word) in [
        ("/api/generate", r#"{"model": "tiny", "prompt": "x", "options": {"mirostat": 1}}"#, "mirostat"),
        ("/api/generate", r#"{"model": "tiny", "prompt": "x", "images": ["aGk="]}"#, "images"),
        ("/api/generate", r#"{"model": "tiny", "prompt": "x", "suffix": "y"}"#, "insert"),
        ("/api/generate", r#"{"model": "tiny", "prompt": "x", "think": true}"#, "thinking"),
        ("/api/generate", r#"{"model": "tiny", "prompt": "x", "format": {"type": "string", "frob": 1}}"#, "frob"),
        (
            "/v1/chat/completions",
            r#"{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "best_of": 2}"#,
            "best_of",
        ),
        ("/v1/chat/completions", r#"{"model": "tiny", "messages": []}"#, "messages"),
        (
            "/v1/chat/completions",
            r#"{"model": "tiny", "messages": [{"role": "user", "content": "x"}], "n": 1000000}"#,
            "n is",
        ),
        ("/v1/completions", r#"{"model": "tiny", "prompt": [1, 99999999]}"#, "99999999"),
    ] {
        let answer = server.post(path, body);
        assert!(answer.status == 400 && answer.body.contains(word), "{path} {body}: {} {}", answer.status, answer.body);
    }
}

#[test]
fn the_same_bits_alone_and_among_31_others() {
    let server = Server::start(&["--parallel", "8"]);
    let alone = text_of(&server.post("/api/generate", &long(60)).body);
    assert!(alone.len() > 20, "{alone}");
    let bodies: Vec<String> = std::thread::scope(|scope| {
        let ask = |i: usize| {
            let other = json!({"model": "tiny", "prompt": format!("the rain {i} {}", "and so on ".repeat(i)), "options": {"num_predict": 60, "ignore_eos": true}});
            let body = if i == 16 { long(60) } else { other.to_string() };
            let server = &server;
            scope.spawn(move || server.post("/api/generate", &body).body)
        };
        let threads: Vec<_> = (0..32).map(ask).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(text_of(&bodies[16]), alone);
    let again = server.post("/api/generate", &long(60)).body;
    assert_eq!(text_of(&again), alone, "with a cached prefix too");
}

#[test]
fn a_prefix_is_computed_once() {
    let server = Server::start(&["--ctx", "4096"]);
    let body = |tail: &str| {
        let prompt = format!("{}{tail}", "a long text that many requests begin with ".repeat(20));
        json!({"model": "tiny", "prompt": prompt, "raw": true, "stream": false, "options": {"num_predict": 2}})
            .to_string()
    };
    let first = server.post("/api/generate", &body("one")).json();
    let second = server.post("/api/generate", &body("two")).json();
    assert_eq!(first["prompt_eval_cached_count"], 0);
    let (cached, all) =
        (second["prompt_eval_cached_count"].as_u64().unwrap(), second["prompt_eval_count"].as_u64().unwrap());
    assert!(cached > all * 3 / 4, "{cached} of {all}");
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let mut server = Server::start(&["--parallel", "1", "--ctx", "200000"]);
    for stream in [true, false] {
        let mut body: Value = serde_json::from_str(&long(150_000)).unwrap();
        body["stream"] = json!(stream);
        let mut one = server.connect();
        one.write_all(&message("POST", "/api/generate", "", body.to_string().as_bytes())).unwrap();
        // Another one waits in the queue, and leaves from there.
        let mut two = server.connect();
        two.write_all(&message("POST", "/api/generate", "", body.to_string().as_bytes())).unwrap();
        server.until("both are known", |s| s.metric("handmill_requests_pending") == 2.0);
        if stream {
            one.read_exact(&mut [0; 20]).unwrap();
        }
        drop((one, two));
        let start = Instant::now();
        assert_eq!(server.post("/api/generate", &long(1)).status, 200);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        server.until("all slots and pages are free", |s| {
            s.metric("handmill_requests_running")
                + s.metric("handmill_requests_pending")
                + s.metric("handmill_kv_pages_used")
                == 0.0
        });
    }
    assert!(server.metric("handmill_requests_total{route=\"/api/generate\",status=\"499\"}") >= 1.0);
}

#[test]
fn a_full_queue_is_a_503_at_once() {
    let server = Server::start(&["--parallel", "1", "--queue", "2", "--ctx", "200000"]);
    let mut open: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for stream in &mut open {
        stream.write_all(&message("POST", "/api/generate", "", long(150_000).as_bytes())).unwrap();
    }
    let start = Instant::now();
    while server.metric("handmill_requests_pending") < 3.0 {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let start = Instant::now();
    let answer = server.post("/api/generate", &long(1));
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert!(
        answer.status == 503 && answer.head.to_lowercase().contains("retry-after"),
        "{} {}",
        answer.head,
        answer.body
    );
    assert!(answer.body.contains("maximum pending requests exceeded"), "{}", answer.body);
    let compatible = server.post("/v1/completions", r#"{"model": "tiny", "prompt": "x"}"#);
    assert_eq!((compatible.status, &compatible.json()["error"]["code"]), (503, &json!("server_busy")));
}

#[test]
fn sigterm_lets_answers_finish() {
    let mut server = Server::start(&["--ctx", "100000"]);
    let mut stream = server.connect();
    stream.write_all(&message("POST", "/api/generate", "", long(3000).as_bytes())).unwrap();
    let mut first = [0; 10];
    stream.read_exact(&mut first).unwrap();
    server.signal();
    let answer = read(&mut stream);
    let last = answer.body.lines().chain(answer.head.lines()).filter(|l| l.contains("\"done\":true")).count();
    assert_eq!(last, 1, "the answer is whole: {}", &answer.body[answer.body.len().saturating_sub(200)..]);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn sigterm_cuts_answers_after_their_time() {
    let mut server = Server::start(&["--ctx", "4000000", "--drain", "1"]);
    let mut stream = server.connect();
    stream.write_all(&message("POST", "/api/generate", "", long(3_900_000).as_bytes())).unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    let start = Instant::now();
    server.signal();
    let answer = read(&mut stream);
    assert!(answer.body.contains("shutting down"), "{}", &answer.body[answer.body.len().saturating_sub(200)..]);
    assert_eq!(server.terminate(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn keys_and_scopes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys");
    let audit = folder.path().join("audit.jsonl");
    std::fs::write(&file, "ann infer s3cret-a\nops manage,metrics s3cret-b\n").unwrap();
    let arguments = ["--api-key-file", file.to_str().unwrap(), "--audit", audit.to_str().unwrap()];
    let mut server = Server::start(&arguments);
    let ask = |path: &str, key: &str| server.request("GET", path, &format!("Authorization: Bearer {key}\r\n"), b"");
    for path in ["/api/tags", "/v1/models", "/metrics", "/props"] {
        for headers in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic czNjcmV0\r\n"] {
            let answer = server.request("GET", path, headers, b"");
            assert_eq!(answer.status, 401, "{path} {headers}");
            assert!(
                answer.json()["error"].is_string() != path.starts_with("/v1") || path == "/props",
                "{}",
                answer.body
            );
        }
    }
    assert_eq!((ask("/api/tags", "s3cret-a").status, ask("/metrics", "s3cret-a").status), (200, 403));
    assert_eq!((ask("/api/tags", "s3cret-b").status, ask("/metrics", "s3cret-b").status), (403, 200));
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
    let body = br#"{"model": "tiny", "prompt": "the secret words", "stream": false, "options": {"num_predict": 2}}"#;
    assert_eq!(server.request("POST", "/api/generate", "Authorization: Bearer s3cret-a\r\n", body).status, 200);
    let delete = br#"{"model": "x"}"#;
    assert_eq!(server.request("DELETE", "/api/delete", "Authorization: Bearer s3cret-a\r\n", delete).status, 403);
    assert_eq!(server.request("DELETE", "/api/delete", "Authorization: Bearer s3cret-b\r\n", delete).status, 404);
    server.terminate();
    let lines = std::fs::read_to_string(&audit).unwrap() + &server.log();
    assert!(lines.contains("\"key\":\"ann\"") && lines.contains("prompt_sha256"), "{lines}");
    for secret in ["s3cret", "secret words", "Bearer"] {
        assert!(!lines.contains(secret), "{secret} is in a log");
    }
}

#[test]
fn other_machines_need_a_key_or_a_word() {
    let run = |arguments: &[&str]| {
        tests::process::handmill(&[&["serve", "--port", "0"], arguments].concat()).limit(Duration::from_secs(10)).run()
    };
    let refused = run(&["--host", "0.0.0.0"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("--api-key") && refused.stderr.contains("--allow-anonymous"), "{}", refused.stderr);
    let star = run(&["--allow-origin", "*"]);
    assert!(star.code == Some(1) && star.stderr.contains("origin"), "{}", star.stderr);
}

#[test]
fn hosts_and_origins() {
    let server = Server::start(&["--allow-host", "chat.example", "--allow-origin", "https://page.example"]);
    let status = |headers: &str| server.request("GET", "/api/tags", headers, b"").status;
    for host in ["localhost", "127.0.0.1:99", "[::1]:5", "a.localhost", "chat.example", "CHAT.example:80"] {
        assert_eq!(status(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "192.168.0.1", "127.0.0.1.evil.example", ""] {
        let code = status(&format!("Host: {host}\r\n"));
        assert!(code == 403 || code == 400, "{host}: {code}");
    }
    assert_eq!(status("Host: localhost\r\nHost: evil.example\r\n"), 400);
    for origin in ["http://localhost:3000", "https://127.0.0.1", "app://x", "https://page.example"] {
        let answer = server.request("GET", "/api/tags", &format!("Origin: {origin}\r\n"), b"");
        let allowed = format!("access-control-allow-origin: {origin}");
        assert!(answer.status == 200 && answer.head.to_lowercase().contains(&allowed), "{origin}: {}", answer.head);
        assert!(!answer.head.to_lowercase().contains("allow-credentials"));
    }
    for origin in
        ["https://evil.example", "null", "http://localhost.evil.example", "https://page.example.evil.example", "x"]
    {
        assert_eq!(status(&format!("Origin: {origin}\r\n")), 403, "{origin}");
    }
    let ask = |headers: &str| server.request("POST", "/api/show", headers, br#"{"model": "tiny"}"#).status;
    assert_eq!(ask("Content-Type: text/plain\r\n"), 415);
    assert_eq!(ask("Content-Type: application/x-www-form-urlencoded\r\n"), 200, "as curl -d says");
    assert_eq!(
        ask("Content-Type: application/x-www-form-urlencoded\r\nReferer: http://x/\r\n"),
        415,
        "as a browser says"
    );
    assert_eq!(ask("Sec-Fetch-Site: cross-site\r\n"), 403);
    let preflight = server.request(
        "OPTIONS",
        "/api/chat",
        "Origin: http://localhost\r\nAccess-Control-Request-Method: POST\r\n",
        b"",
    );
    assert!(preflight.status == 204 && preflight.head.to_lowercase().contains("x-stainless-os"), "{}", preflight.head);
}

#[test]
fn models_are_made_and_go() {
    let mut server = Server::start(&["--keep-alive", "0"]);
    let create = json!({"model": "made", "from": "tiny", "stream": false, "system": "S", "template": "{{ .System }}|{{ .Prompt }}|", "parameters": {"num_predict": 3, "stop": ["zzz"]}});
    assert_eq!(server.post("/api/create", &create.to_string()).json()["status"], "success");
    let shown = server.post("/api/show", r#"{"model": "made"}"#).json();
    assert!(shown["parameters"].as_str().unwrap().contains("num_predict") && shown["system"] == "S", "{shown}");
    let prompt = json!({"model": "made", "messages": [{"role": "user", "content": "U"}], "_debug_render_only": true})
        .to_string();
    assert!(
        server.post("/api/chat", &prompt).json()["_debug_info"]["rendered_template"]
            .as_str()
            .unwrap()
            .ends_with("S|U|")
    );
    let answer = server.post("/api/generate", r#"{"model": "made", "prompt": "x", "stream": false}"#).json();
    assert!(answer["eval_count"].as_u64().unwrap() <= 3, "{answer}");
    server.until("nothing is loaded", |s| s.get("/api/ps").json()["models"] == json!([]));
    assert_eq!(server.request("DELETE", "/api/delete", "", br#"{"model": "made"}"#).status, 200);
    assert_eq!(server.post("/api/show", r#"{"model": "made"}"#).status, 404);
    for (body, word) in [
        (r#"{"model": "x", "from": "nope"}"#, "not found"),
        (r#"{"model": "x"}"#, "neither"),
        (r#"{"model": "x", "from": "tiny", "adapters": {"a": "sha256:0"}}"#, "adapters"),
        (r#"{"model": "x", "from": "tiny", "template": "{{ frob }}"}"#, "frob"),
        (r#"{"model": "x", "from": "tiny", "parameters": {"mirostat": 1}}"#, "mirostat"),
        (r#"{"model": "../x", "from": "tiny"}"#, "name"),
        (r#"{"model": "x", "from": "/etc/passwd"}"#, ""),
    ] {
        let answer = server.post("/api/create", body);
        assert!(
            (400..500).contains(&answer.status) && answer.body.contains(word),
            "{body}: {} {}",
            answer.status,
            answer.body
        );
    }
}

#[test]
fn blobs_are_checked() {
    let server = Server::start(&[]);
    let bytes = std::fs::read(server.folder().join("tiny.gguf")).unwrap();
    let digest: String = {
        use sha2::Digest;
        sha2::Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect()
    };
    let path = format!("/api/blobs/sha256:{digest}");
    assert_eq!(server.request("HEAD", &path, "", b"").status, 404);
    assert_eq!(server.request("POST", &path, "", b"other bytes").status, 400);
    assert_eq!(server.request("POST", &path, "", &bytes).status, 201);
    assert_eq!(server.request("POST", &path, "", b"").status, 200);
    assert_eq!(server.request("HEAD", &path, "", b"").status, 200);
    let create =
        json!({"model": "uploaded", "files": {"m.gguf": format!("sha256:{digest}")}, "stream": false}).to_string();
    assert_eq!(server.post("/api/create", &create).json()["status"], "success");
    assert_eq!(
        server
            .post(
                "/api/generate",
                r#"{"model": "uploaded", "prompt": "x", "stream": false, "options": {"num_predict": 1}}"#
            )
            .status,
        200
    );
    for bad in ["/api/blobs/sha256:..%2f..%2fetc", "/api/blobs/../../etc/passwd", "/api/blobs/sha256:00"] {
        let status = server.request("POST", bad, "", b"x").status;
        assert!((400..500).contains(&status), "{bad}: {status}");
    }
}
