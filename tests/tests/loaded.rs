//! Models in memory, and models that are not ours: which stay, which go, and what is read in place.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tests::http::Server;
use tests::tiny::Model;

fn ask(server: &Server, model: &str, more: &[(&str, Value)]) -> Value {
    let mut body = json!({"model": model, "prompt": "the rain", "stream": false, "options": {"num_predict": 1}});
    for (name, value) in more {
        body[*name] = value.clone();
    }
    let answer = server.post("/api/generate", &body.to_string());
    assert_eq!(answer.status, 200, "{model}: {}", answer.body);
    answer.json()
}

/// The names in memory, in order.
fn in_memory(server: &Server) -> Vec<String> {
    let running = server.get("/api/ps").json();
    let models = running["models"].as_array().expect("a list of models");
    let mut names: Vec<String> = models.iter().map(|m| m["name"].as_str().expect("a name").to_string()).collect();
    names.sort();
    names
}

#[test]
fn the_least_recently_used_model_leaves() {
    let mut server = Server::start_with(&[], &[("OLLAMA_MAX_LOADED_MODELS", "2"), ("OLLAMA_KEEP_ALIVE", "10m")]);
    for name in ["a", "b", "c"] {
        let create = json!({"model": name, "from": "tiny", "stream": false, "system": name});
        assert_eq!(server.post("/api/create", &create.to_string()).status, 200);
    }
    // The model of the command line is in memory already, and the first to go.
    ask(&server, "a", &[]);
    ask(&server, "b", &[]);
    assert_eq!(in_memory(&server), ["a:latest", "b:latest"]);
    ask(&server, "a", &[]);
    ask(&server, "c", &[]);
    server.until("b has left", |s| in_memory(s) == ["a:latest", "c:latest"]);
    // All at once: they take turns, and none fails.
    std::thread::scope(|scope| {
        for i in 0..9 {
            let server = &server;
            scope.spawn(move || ask(server, ["a", "b", "c"][i % 3], &[]));
        }
    });
    assert_eq!(in_memory(&server).len(), 2);
}

#[test]
fn models_stay_as_long_as_they_are_told() {
    let mut server = Server::start(&["--keep-alive", "1h"]);
    ask(&server, "tiny", &[("keep_alive", json!("1s"))]);
    assert_eq!(in_memory(&server), ["tiny:latest"]);
    let start = Instant::now();
    server.until("a second is over", |s| in_memory(s).is_empty());
    assert!((0.5..4.0).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    // For ever, and then not at all.
    ask(&server, "tiny", &[("keep_alive", json!(-1))]);
    let expires = server.get("/api/ps").json()["models"][0]["expires_at"].as_str().expect("a time").to_string();
    assert!(expires.as_str() > "2100", "{expires}");
    let unload = server.post("/api/generate", r#"{"model": "tiny", "keep_alive": 0}"#).json();
    assert_eq!(unload["done_reason"], "unload");
    server.until("it is unloaded", |s| in_memory(s).is_empty());
    // The usual time again where nothing is said.
    assert!(ask(&server, "tiny", &[])["load_duration"].as_u64().is_some_and(|ns| ns > 0));
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(in_memory(&server), ["tiny:latest"]);
}

/// Writes a blob of Ollama's folder, and gives its layer.
fn blob(folder: &Path, kind: &str, bytes: &[u8]) -> Value {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    std::fs::write(folder.join("blobs").join(format!("sha256-{hex}")), bytes).expect("a writable folder");
    json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": format!("sha256:{hex}"), "size": bytes.len()})
}

/// Every file below a folder, with its size and when it was changed.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in folder.read_dir().expect("a folder").flatten() {
        let data = entry.metadata().expect("a file of ours");
        match data.is_dir() {
            true => all.extend(files(&entry.path())),
            false => drop(all.insert(entry.path(), (data.len(), data.modified().expect("a time")))),
        }
    }
    all
}

#[test]
fn a_folder_of_ollama_is_read_in_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("manifests/registry.ollama.ai/library/theirs");
    std::fs::create_dir_all(&library).expect("a folder");
    std::fs::create_dir_all(folder.path().join("blobs")).expect("a folder");
    let layers = [
        blob(folder.path(), "model", &Model::llama(9).bytes()),
        blob(folder.path(), "template", b"{{ .System }}|{{ .Prompt }}|"),
        blob(folder.path(), "system", b"Be brief."),
        blob(folder.path(), "params", br#"{"num_predict": 3, "stop": ["zzz"]}"#),
        blob(folder.path(), "license", b"free"),
    ];
    let mut config = blob(folder.path(), "config", br#"{"model_format": "gguf", "model_family": "llama"}"#);
    config["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "config": config, "layers": layers});
    std::fs::write(library.join("7b"), manifest.to_string()).expect("a writable folder");
    let before = files(folder.path());
    let place = folder.path().to_str().expect("a path of letters");
    let server = Server::start_with(&[], &[("OLLAMA_MODELS", place)]);
    let tags = server.get("/api/tags").json();
    let names: Vec<&str> =
        tags["models"].as_array().expect("models").iter().filter_map(|m| m["name"].as_str()).collect();
    assert!(names.contains(&"theirs:7b"), "{names:?}");
    let chat =
        json!({"model": "theirs:7b", "messages": [{"role": "user", "content": "U"}], "_debug_render_only": true});
    let rendered = server.post("/api/chat", &chat.to_string()).json();
    let text = rendered["_debug_info"]["rendered_template"].as_str().expect("a text");
    assert!(text.ends_with("Be brief.|U|"), "{text}");
    let answer = server.post("/api/generate", r#"{"model": "theirs:7b", "prompt": "x", "stream": false}"#).json();
    assert!(answer["eval_count"].as_u64().is_some_and(|n| n <= 3), "{answer}");
    let shown = server.post("/api/show", r#"{"model": "theirs:7b"}"#).json();
    assert_eq!((&shown["system"], &shown["license"]), (&json!("Be brief."), &json!("free")), "{shown}");
    // It is theirs: nothing of it is changed, whatever is asked.
    let delete = server.request("DELETE", "/api/delete", "", br#"{"model": "theirs:7b"}"#);
    assert!((400..500).contains(&delete.status), "{} {}", delete.status, delete.body);
    assert_eq!(files(folder.path()), before, "the folder is as it was");
}
