//! A server of the program's, started as a user does, and a client that can say anything to it.

use crate::process::binary;
use crate::tiny::Model;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Takes tools, so that both kinds of requests can be made.
const TEMPLATE: &str = "{% if tools %}[{{ tools | tojson }}]{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<a>";

/// A running server; it ends when this is dropped.
pub struct Server {
    child: Child,
    /// Its port on loopback.
    pub port: u16,
    /// What it has written to standard error.
    pub log: Arc<Mutex<String>>,
    folder: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status; 0 where the connection ended without one.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body, without chunks.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.head, self.body))
    }
}

impl Server {
    /// Starts a server with a tiny model, `tiny`, and more arguments, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(arguments: &[&str]) -> Server {
        Server::start_with(arguments, &[])
    }

    /// As [`Server::start`], with variables of the environment.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let model = folder.path().join("tiny.gguf");
        let tiny = Model { template: Some(TEMPLATE.into()), ..Model::llama(7) };
        std::fs::write(&model, tiny.bytes()).expect("the tiny model");
        let mut command = Command::new(binary());
        command.args(["serve", "--port", "0"]).arg(&model).args(arguments);
        command.env("HANDMILL_HOME", folder.path().join("store")).env("HOME", folder.path());
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, copy) = (BufReader::new(child.stderr.take().expect("a pipe")), log.clone());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut log = copy.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut server = Server { child, port: 0, log, folder };
        server
            .until("it is ready", |s| s.log().contains("info: ready") || s.child.try_wait().is_ok_and(|e| e.is_some()));
        let log = server.log();
        let after = log.split("listening on ").nth(1).unwrap_or_else(|| panic!("the server did not start: {log}"));
        let address = after.lines().next().unwrap_or_default();
        server.port = address.rsplit(':').next().and_then(|p| p.parse().ok()).expect("a port");
        server
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A folder of its own, which goes with it.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something is true.
    ///
    /// # Panics
    /// If it does not become so.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Server) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < LIMIT, "waited too long until {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection.
    ///
    /// # Panics
    /// If there is none.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
        stream
    }

    /// Sends bytes as they are and reads to the end.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // A server that refuses early closes before it has read all.
        let _ = stream.write_all(bytes);
        read(&mut stream)
    }

    /// A request with a body and more header lines (each with `\r\n`).
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.raw(&message(method, path, headers, body))
    }

    /// A POST of JSON.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, "Content-Type: application/json\r\n", body.as_bytes())
    }

    /// A GET.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", b"")
    }

    /// A number of the page of metrics: the sum over all lines that begin so.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").body;
        let lines = page.lines().filter(|l| l.starts_with(name) && !l.starts_with('#'));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Asks it to end, and gives its exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(&mut self) -> Option<i32> {
        self.signal();
        let mut code = None;
        self.until("it has ended", |s| match s.child.try_wait() {
            Ok(Some(status)) => {
                code = status.code();
                true
            }
            _ => false,
        });
        code
    }

    /// Sends SIGTERM.
    pub fn signal(&self) {
        let status = Command::new("kill").args(["-TERM", &self.id().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "the signal was sent");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bytes of a request.
pub fn message(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let named = headers.lines().any(|l| l.to_ascii_lowercase().starts_with("host:"));
    let host = if named { "" } else { "Host: localhost\r\n" };
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// Reads an answer to the end of the connection.
pub fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer leaves what has come.
    let _ = stream.read_to_end(&mut bytes);
    let split = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let body = bytes.get(split + 4..).unwrap_or_default();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_vec() };
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let Some(size) = size.filter(|s| *s > 0) else { break };
        let data = &rest[end + 2..];
        out.extend_from_slice(&data[..size.min(data.len())]);
        rest = data.get(size + 2..).unwrap_or_default();
    }
    out
}
