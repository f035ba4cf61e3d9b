//! The program in a store of its own, and a web server of this machine that can misbehave.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A store in a folder that goes when this does.
pub struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Home {
        Home { folder: tempfile::tempdir().unwrap() }
    }

    /// A file beside the store.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// The program with these arguments, with no network but this machine's own.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_handmill"));
        command.args(arguments).env("HANDMILL_HOME", self.store()).stdin(Stdio::null());
        for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        Run::from(self.command(arguments).output().unwrap())
    }

    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Fails unless every checksum of the store is right.
    pub fn verify(&self) {
        self.run(&["verify"]).success();
    }

    /// The files of the store, without locks, relative to it.
    pub fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => walk(&entry.path(), found),
                    false => found.push(entry.path()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.store(), &mut found);
        let name = |p: &PathBuf| p.strip_prefix(self.store()).unwrap().to_str().unwrap().to_string();
        let mut names: Vec<String> = found.iter().map(name).filter(|n| !n.ends_with("lock")).collect();
        names.sort();
        names
    }
}

/// How the program ended.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Run {
    /// The standard output of a run that succeeded.
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// The standard error of a run that failed in the way that programs should.
    pub fn failure(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.stdout, self.stderr);
        let errors = self.stderr.lines().filter(|l| l.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{}", self.stderr);
        self.stderr
    }
}

/// Bytes that pass for a model file where only the store looks at them.
pub fn model(seed: u64, len: usize) -> Vec<u8> {
    let mut state = 2 * seed + 1;
    let mut bytes = b"GGUF".to_vec();
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state >> 24).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What the server sends, and how.
#[derive(Clone)]
pub struct Site {
    pub body: Vec<u8>,
    pub status: &'static str,
    /// Entity tag; without one, nothing tells whether the file has changed.
    pub etag: Option<&'static str>,
    /// Whether ranges are honoured.
    pub ranges: bool,
    /// The connection is closed after this many bytes of a body, once for each entry.
    pub cuts: Vec<usize>,
    /// The connection falls silent after this many bytes of a body, until the client leaves.
    pub silent_after: Option<usize>,
    /// More header lines.
    pub headers: &'static str,
}

impl Site {
    pub fn new(body: Vec<u8>) -> Site {
        let (status, headers) = ("200 OK", "");
        Site { body, status, etag: Some("\"one\""), ranges: true, cuts: vec![], silent_after: None, headers }
    }
}

/// A web server on loopback. It ends with the test's process.
pub struct Server {
    port: u16,
    site: Arc<Mutex<Site>>,
    /// The first byte that each request asked for.
    starts: Arc<Mutex<Vec<usize>>>,
    silent: Arc<Mutex<Vec<TcpStream>>>,
}

impl Server {
    pub fn start(site: Site) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server { port, site: Arc::new(Mutex::new(site)), starts: Arc::default(), silent: Arc::default() };
        let shared = (server.site.clone(), server.starts.clone(), server.silent.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (site, starts, silent) = shared.clone();
                // A client that leaves is what several tests are about.
                std::thread::spawn(move || drop(serve(stream, &site, &starts, &silent)));
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub fn change(&self, change: impl FnOnce(&mut Site)) {
        change(&mut self.site.lock().unwrap());
    }

    pub fn body(&self) -> Vec<u8> {
        self.site.lock().unwrap().body.clone()
    }

    /// Closes the connections that have fallen silent.
    pub fn drop_silent(&self) {
        for stream in self.silent.lock().unwrap().drain(..) {
            // Fails where the client has left by itself.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    pub fn starts(&self) -> Vec<usize> {
        self.starts.lock().unwrap().clone()
    }
}

/// The first byte that a request asks for, and the tag that the file must have for that.
fn request(stream: &TcpStream) -> std::io::Result<(Option<usize>, Option<String>)> {
    let (mut range, mut tag) = (None, None);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "" => break,
            "range" => range = value.strip_prefix("bytes=").and_then(|v| v.strip_suffix('-')?.parse().ok()),
            "if-range" => tag = Some(value.to_string()),
            _ => {}
        }
    }
    Ok((range, tag))
}

fn serve(
    mut stream: TcpStream,
    site: &Mutex<Site>,
    starts: &Mutex<Vec<usize>>,
    silent: &Mutex<Vec<TcpStream>>,
) -> std::io::Result<()> {
    let (range, tag) = request(&stream)?;
    let (site, cut) = {
        let mut site = site.lock().unwrap();
        let cut = if site.cuts.is_empty() { None } else { Some(site.cuts.remove(0)) };
        (site.clone(), cut)
    };
    let fresh = tag.is_none_or(|v| Some(v.as_str()) == site.etag);
    let total = site.body.len();
    let start = range.filter(|r| site.ranges && fresh && *r < total).unwrap_or(0);
    let mut head = match start {
        0 => format!("HTTP/1.1 {}\r\n", site.status),
        _ => format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{total}\r\n", total - 1),
    };
    head += &format!("Content-Length: {}\r\nConnection: close\r\n{}", total - start, site.headers);
    if let Some(etag) = site.etag {
        head += &format!("ETag: {etag}\r\n");
    }
    let body = &site.body[start..];
    let end = cut.or(site.silent_after).unwrap_or(body.len()).min(body.len());
    if site.silent_after.is_some() && end < body.len() {
        // Kept open by this copy.
        silent.lock().unwrap().push(stream.try_clone()?);
    }
    starts.lock().unwrap().push(range.unwrap_or(0));
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&body[..end])
}

/// Waits until something is true.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
