//! Models on their way into the store: broken connections, wrong bytes, processes that meet and processes that die.

mod common;

use common::{Home, Run, Server, Site, model, until};
use std::time::Duration;

/// Bytes of the models here: several buffers of whatever copies them.
const LEN: usize = 3_000_000;

fn stored(home: &Home, name: &str) -> Vec<u8> {
    let path = home.run(&["pull", name, "--print-path"]).success();
    std::fs::read(path.trim_end()).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn from_a_file() {
    let home = Home::new();
    let bytes = model(1, LEN);
    let path = home.file("tiny-model.gguf", &bytes);
    let text = home.run(&["pull", path.to_str().unwrap(), "--print-path"]).success();
    assert!(text.trim_end().ends_with(&format!("blobs/sha256-{}", sha256(&bytes))), "{text}");
    home.run(&["pull", path.to_str().unwrap(), "--name", "Other:Q4"]).success();
    let list = home.run(&["list"]).success();
    assert!(list.lines().next().unwrap().starts_with("NAME"), "{list}");
    assert!(list.contains("tiny-model:latest") && list.contains("other:q4") && list.contains("3.0 MB"), "{list}");
    home.verify();
    // The store's copy is its own.
    std::fs::write(&path, b"GGUF else").unwrap();
    home.verify();
    assert_eq!(stored(&home, "tiny-model"), bytes);
    home.run(&["pull", path.to_str().unwrap()]).success();
    assert_eq!(stored(&home, "tiny-model"), b"GGUF else", "the name still means the old file");
    home.run(&["rm", "tiny-model", "other:q4"]).success();
    assert!(home.files().is_empty(), "{:?}", home.files());
}

#[test]
fn from_an_address() {
    let home = Home::new();
    let bytes = model(2, LEN);
    let server = Server::start(Site::new(bytes.clone()));
    let url = server.url("some/Model-Q4.gguf?token=secret");
    let run = home.run(&["pull", &url, "--sha256", &sha256(&bytes)]);
    assert!(!run.stderr.contains("secret"), "{}", run.stderr);
    run.success();
    assert_eq!(stored(&home, "model-q4"), bytes);
    assert_eq!(server.starts(), [0]);
    // Known already: not asked for again.
    home.run(&["pull", &url, "--sha256", &sha256(&bytes)]).success();
    assert_eq!(server.starts(), [0]);
    let json: serde_json::Value = serde_json::from_str(&home.run(&["list", "--json"]).success()).unwrap();
    let entry = &json["models"][0];
    assert_eq!(entry["name"], "model-q4:latest");
    assert_eq!(entry["digest"], format!("sha256:{}", sha256(&bytes)));
    assert_eq!(entry["source"], server.url("some/Model-Q4.gguf"));
    home.verify();
}

#[test]
fn a_cut_connection_goes_on_from_where_it_was() {
    let home = Home::new();
    let bytes = model(3, LEN);
    let mut site = Site::new(bytes.clone());
    site.cuts = vec![1_000_000, 500_000];
    let server = Server::start(site);
    home.run(&["pull", &server.url("x.gguf")]).success();
    let starts = server.starts();
    assert_eq!(starts.len(), 3, "{starts:?}");
    assert!(starts[0] == 0 && starts[1] > 0 && starts[2] > starts[1] && starts[2] <= 1_500_000, "{starts:?}");
    assert_eq!(stored(&home, "x"), bytes);
    home.verify();
}

#[test]
fn a_killed_download_goes_on_from_where_it_was() {
    let home = Home::new();
    let bytes = model(4, LEN);
    let mut site = Site::new(bytes.clone());
    site.silent_after = Some(2_000_000);
    let server = Server::start(site);
    let url = server.url("x.gguf");
    let mut child = home.start(&["pull", &url]);
    let partial = || {
        let found = home.files().into_iter().find(|f| f.ends_with(".partial"));
        found.and_then(|f| std::fs::metadata(home.store().join(f)).ok()).map_or(0, |m| m.len())
    };
    until("most of it has arrived", || partial() >= 1_900_000);
    child.kill().unwrap();
    child.wait().unwrap();
    home.verify();
    assert!(home.run(&["list"]).success().lines().count() == 1, "a model is listed that is not whole");
    server.change(|site| site.silent_after = None);
    home.run(&["pull", &url]).success();
    let starts = server.starts();
    assert!(starts.len() == 2 && starts[1] >= 1_900_000, "{starts:?}");
    assert_eq!(stored(&home, "x"), bytes);
    home.verify();
    assert!(
        home.files().iter().all(|f| f.starts_with("blobs/sha256-") || f.starts_with("manifests/")),
        "{:?}",
        home.files()
    );
}

#[test]
fn a_server_without_ranges_is_asked_from_the_start() {
    let home = Home::new();
    let bytes = model(5, LEN);
    let mut site = Site::new(bytes.clone());
    site.ranges = false;
    site.cuts = vec![1_000_000];
    let server = Server::start(site);
    home.run(&["pull", &server.url("x.gguf")]).success();
    assert_eq!(stored(&home, "x"), bytes);
}

#[test]
fn parts_of_two_versions_are_never_mixed() {
    // With a tag that changes, and without any tag.
    for etag in [Some("\"one\""), None] {
        let home = Home::new();
        let (old, new) = (model(6, LEN), model(7, LEN));
        let mut site = Site::new(old);
        (site.etag, site.silent_after) = (etag, Some(1_000_000));
        let server = Server::start(site);
        let mut child = home.start(&["pull", &server.url("x.gguf")]);
        until("some of it has arrived", || home.files().iter().any(|f| f.ends_with(".json")));
        child.kill().unwrap();
        child.wait().unwrap();
        server.change(|site| {
            site.body = new.clone();
            (site.etag, site.silent_after) = (etag.map(|_| "\"two\""), None);
        });
        home.run(&["pull", &server.url("x.gguf")]).success();
        assert!(stored(&home, "x") == new, "{etag:?}");
    }
}

#[test]
fn wrong_bytes_leave_nothing() {
    let bytes = model(8, LEN);
    let wrong = sha256(b"something else");
    let page = b"<html>Sign in to the network</html>".to_vec();
    let cases: [(Vec<u8>, &str, &[&str], &str); 4] = [
        (bytes.clone(), "", &["--sha256", &wrong], "checksum"),
        (page, "", &[], "is no GGUF file: it begins with \"<htm\""),
        (Vec::new(), "", &[], "is no GGUF file"),
        (bytes, "Content-Encoding: gzip\r\n", &[], "encoding gzip"),
    ];
    for (body, headers, flags, message) in cases {
        let home = Home::new();
        let server = Server::start(Site { headers, ..Site::new(body) });
        let url = server.url("x.gguf");
        let arguments = [&["pull", &url][..], flags].concat();
        let text = home.run(&arguments).failure();
        assert!(text.contains(message) && text.contains("\nhint: "), "{message}: {text}");
        assert!(home.files().is_empty(), "{message}: {:?}", home.files());
        home.verify();
    }
}

#[test]
fn errors_of_servers() {
    let home = Home::new();
    let server = Server::start(Site { status: "404 Not Found", ..Site::new(b"no".to_vec()) });
    let text = home.run(&["pull", &server.url("x.gguf")]).failure();
    assert!(text.contains("the server answered 404"), "{text}");
    assert_eq!(server.starts().len(), 1, "a definite answer was asked for again");
    server.change(|site| site.status = "503 Service Unavailable");
    let text = home.run(&["pull", &server.url("x.gguf")]).failure();
    assert!(text.contains("the server answered 503") && server.starts().len() > 2, "{text}");
    // A port that nobody listens on.
    let text = home.run(&["pull", "http://127.0.0.1:1/x.gguf"]).failure();
    assert!(
        text.contains("cannot download http://127.0.0.1:1/x.gguf") && text.contains("hint: check the network"),
        "{text}"
    );
    assert!(home.files().iter().all(|f| f.starts_with("downloads/")), "{:?}", home.files());
}

#[test]
fn two_processes_that_want_the_same_fetch_it_once() {
    let home = Home::new();
    let bytes = model(9, LEN);
    let mut site = Site::new(bytes.clone());
    site.silent_after = Some(1_000_000);
    let server = Server::start(site);
    let url = server.url("x.gguf");
    let first = home.start(&["pull", &url]);
    until("the first has begun", || server.starts().len() == 1);
    let second = home.start(&["pull", &url, "--print-path"]);
    // Time for the second to meet the lock; then the silent connection breaks, and the first goes on.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.starts().len(), 1, "the second fetches too");
    server.change(|site| site.silent_after = None);
    server.drop_silent();
    let first = Run::from(first.wait_with_output().unwrap());
    first.success();
    let second = Run::from(second.wait_with_output().unwrap());
    assert!(second.stderr.contains("another handmill is obtaining"), "{}", second.stderr);
    let path = second.success();
    assert_eq!(std::fs::read(path.trim_end()).unwrap(), bytes);
    assert_eq!(server.starts().len(), 2, "fetched more than once: {:?}", server.starts());
    home.verify();
}

#[test]
fn processes_that_want_different_things_do_not_wait() {
    let home = Home::new();
    let servers: Vec<Server> = (0..4).map(|i| Server::start(Site::new(model(20 + i, LEN)))).collect();
    let stalled = Server::start(Site { silent_after: Some(1_000_000), ..Site::new(model(30, LEN)) });
    let mut waiting = home.start(&["pull", &stalled.url("stalled.gguf")]);
    until("the stalled one has begun", || stalled.starts().len() == 1);
    let children: Vec<_> =
        servers.iter().enumerate().map(|(i, s)| home.start(&["pull", &s.url(&format!("m{i}.gguf"))])).collect();
    for child in children {
        Run::from(child.wait_with_output().unwrap()).success();
    }
    // Removing while somebody writes removes the name at once and the blobs later.
    home.run(&["rm", "m3"]).success();
    assert_eq!(home.run(&["list"]).success().lines().count(), 4);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    home.run(&["rm", "m2"]).success();
    assert_eq!(home.files().iter().filter(|f| f.starts_with("blobs/")).count(), 4, "{:?}", home.files());
    for (i, server) in servers.iter().enumerate().take(2) {
        assert_eq!(stored(&home, &format!("m{i}")), server.body());
    }
    home.verify();
}

#[test]
fn killed_at_any_moment_the_store_is_sound() {
    let home = Home::new();
    let bytes = model(40, 4 * LEN);
    let path = home.file("killed.gguf", &bytes);
    let server = Server::start(Site::new(bytes.clone()));
    let url = server.url("killed-too.gguf");
    for moment in 0..20 {
        for source in [path.to_str().unwrap(), &url] {
            let mut child = home.start(&["pull", source]);
            std::thread::sleep(Duration::from_millis(moment * 4));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        home.verify();
        // Removed again where it came so far, so that every moment is one of a whole pull.
        for name in ["killed", "killed-too"] {
            let code = home.run(&["rm", name]).code;
            assert!(matches!(code, Some(0 | 1)), "{code:?}");
        }
    }
    for source in [path.to_str().unwrap(), &url] {
        home.run(&["pull", source]).success();
    }
    assert_eq!(stored(&home, "killed"), bytes);
    assert_eq!(stored(&home, "killed-too"), bytes);
    home.verify();
    let sound = |f: &String| f.starts_with("blobs/sha256-") || f.starts_with("manifests/local/library/killed");
    assert!(home.files().iter().all(sound), "{:?}", home.files());
}
