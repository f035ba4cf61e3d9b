//! Starts the program as a user does, under a time limit and, where wanted, a limit of address space.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How a run of the program ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit code; none where a signal ended the program.
    pub code: Option<i32>,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// The standard output of a run that succeeded.
    ///
    /// # Panics
    /// If it did not, with what it said.
    pub fn success(self) -> String {
        assert!(self.code == Some(0), "the program failed: {self:?}");
        self.stdout
    }
}

/// A run of the program that is being described.
#[derive(Clone, Debug)]
pub struct Run {
    arguments: Vec<String>,
    stdin: Vec<u8>,
    limit: Duration,
    address_space_kib: Option<u64>,
    environment: Vec<(String, PathBuf)>,
}

/// A run with these arguments and a limit of ten minutes.
pub fn handmill(arguments: &[&str]) -> Run {
    let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
    let limit = Duration::from_secs(600);
    Run { arguments, stdin: Vec::new(), limit, address_space_kib: None, environment: Vec::new() }
}

impl Run {
    /// Bytes for standard input, which is empty otherwise.
    pub fn stdin(self, bytes: &[u8]) -> Run {
        Run { stdin: bytes.to_vec(), ..self }
    }

    /// Ends the program after this time.
    pub fn limit(self, limit: Duration) -> Run {
        Run { limit, ..self }
    }

    /// Refuses the program more address space than this: what asks for more sees its allocation fail.
    pub fn address_space_kib(self, kib: u64) -> Run {
        Run { address_space_kib: Some(kib), ..self }
    }

    /// Sets a variable of its environment to a path.
    pub fn environment(mut self, name: &str, path: &Path) -> Run {
        self.environment.push((name.to_string(), path.to_path_buf()));
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn run(self) -> Outcome {
        let mut command = match self.address_space_kib {
            None => Command::new(binary()),
            Some(kib) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -v {kib} && exec \"$0\" \"$@\"")]).arg(binary());
                shell
            }
        };
        command.envs(self.environment.iter().map(|(name, path)| (name, path)));
        command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{} cannot be started: {error}", binary().display()));
        let mut stdin = child.stdin.take().expect("a pipe");
        // Fails where the program ends without reading all: its business.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&self.stdin)));
        let stdout = collect(child.stdout.take().expect("a pipe"));
        let stderr = collect(child.stderr.take().expect("a pipe"));
        let status = wait(&mut child, self.limit);
        let text =
            |thread: JoinHandle<Vec<u8>>| String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned();
        let (stdout, stderr) = (text(stdout), text(stderr));
        drop(writer.join());
        Outcome { code: status.and_then(|status| status.code()), timed_out: status.is_none(), stdout, stderr }
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A read error ends the output here; the status tells the rest.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// The status of a child that ends within the limit; others are ended.
fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return Some(status);
        }
        if start.elapsed() > limit {
            // Fails only where it ended just now.
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The program, built from the sources as they are.
///
/// `cargo test --workspace` builds it beside the tests. A run of this crate's tests alone may find none, or one older
/// than the sources: it is then built here, in the same profile and folder.
///
/// # Panics
/// If it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("the path of the running test");
        // target/PROFILE/deps/TEST
        let folder = test.ancestors().nth(2).expect("a test stands in deps").to_path_buf();
        let binary = folder.join(format!("handmill{}", std::env::consts::EXE_SUFFIX));
        let built = modified(&binary);
        if built.is_none_or(|built| newest_source().is_some_and(|source| source > built)) {
            build(&folder);
        }
        binary
    })
}

fn build(folder: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let target = folder.parent().expect("a profile's folder stands in the target folder");
    let mut command = Command::new(cargo);
    command.current_dir(workspace()).args(["build", "--quiet", "-p", "handmill", "--profile", profile]);
    let status = command.arg("--target-dir").arg(target).status().expect("cargo can be started");
    assert!(status.success(), "the program cannot be built: run cargo build -p handmill --profile {profile}");
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace")
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|data| data.modified()).ok()
}

/// When a source of the program changed last.
fn newest_source() -> Option<SystemTime> {
    fn newest(path: &Path) -> Option<SystemTime> {
        let Ok(entries) = path.read_dir() else { return modified(path) };
        entries.flatten().filter_map(|entry| newest(&entry.path())).max()
    }
    ["gguf", "kernels", "engine", "tools"].iter().filter_map(|name| newest(&workspace().join(name).join("src"))).max()
}
