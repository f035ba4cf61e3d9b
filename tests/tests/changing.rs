//! Model files that are cut or rewritten while they are opened, loaded or answer: an error or an untouched answer, and
//! never a signal.

use engine::file::ModelFile;
use engine::{Engine, Error, Options, Progress};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::process::binary;
use tests::tiny::Model;

/// A model of about 10 MB, of which 3 MB are header: it takes some milliseconds to parse and to load.
fn large() -> Model {
    Model { n_vocab: 100_000, n_embd: 16, n_ff: 32, tied: true, format: gguf::Format::F16, ..Model::llama(71) }
}

/// A file in a folder that goes when this does.
struct Copy {
    folder: tempfile::TempDir,
}

impl Copy {
    fn of(bytes: &[u8]) -> Copy {
        let copy = Copy { folder: tempfile::tempdir().expect("a folder for files") };
        std::fs::write(copy.path(), bytes).expect("a writable folder");
        copy
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("model.gguf")
    }
}

fn cut(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(length)).expect("a writable file");
}

/// Writes over the first weights and dates the file later, however coarse the clock of the file system is.
fn rewrite(path: &Path, at: u64) {
    let mut file = OpenOptions::new().write(true).open(path).expect("a writable file");
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(at)).expect("a place in the file");
    file.write_all(&[0; 64]).expect("a writable file");
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(10)).expect("a file of ours");
}

fn options() -> Options {
    Options { threads: Some(2), ctx: Some(64), ..Options::default() }
}

#[test]
fn a_file_cut_before_its_header_is_parsed_is_an_error() {
    let bytes = large().bytes();
    // Below, at and above what is read at first, and almost nothing.
    for length in [0, 10, 1000, 1 << 20, 2 << 20, 3 << 20, bytes.len() as u64 - 1] {
        let copy = Copy::of(&bytes);
        let file = ModelFile::open(&copy.path()).expect("a readable file");
        cut(&copy.path(), length);
        match file.parse() {
            Err(Error::Changed { .. }) => (),
            Err(error) => panic!("cut to {length}: {error}"),
            // The header was whole; the load finds out.
            Ok(gguf) => {
                assert!(length > 2 << 20, "cut to {length}: parsed");
                assert!(
                    matches!(file.check_unchanged(), Err(Error::Changed { .. })),
                    "{} tensors",
                    gguf.tensors().len()
                );
            }
        }
    }
}

#[test]
fn a_file_cut_or_rewritten_while_its_weights_are_read_is_an_error() {
    // More than is read between two reports of progress.
    let bytes = Model { n_embd: 256, embd_format: gguf::Format::F16, ..large() }.bytes();
    let length = bytes.len() as u64;
    type Change<'a> = (&'a str, &'a dyn Fn(&Path));
    let changes: [Change; 4] = [
        ("cut to nothing", &|path| cut(path, 0)),
        ("cut by a byte", &|path| cut(path, length - 1)),
        ("made longer", &|path| cut(path, length + 1)),
        ("rewritten", &|path| rewrite(path, length / 2)),
    ];
    for (name, change) in changes {
        let copy = Copy::of(&bytes);
        let mut changed = false;
        let opened = Engine::open(&copy.path(), &options(), &mut |Progress::Weights { done, total }| {
            if !std::mem::replace(&mut changed, true) {
                assert!(done < total, "{name}: everything was read before the change");
                change(&copy.path());
            }
        });
        match opened.map(drop) {
            Err(error @ Error::Changed { .. }) => assert!(error.to_string().contains("model.gguf changed"), "{error}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Whatever moment the cut hits, the program ends with an answer or an error.
#[test]
fn the_program_survives_a_cut_at_any_moment_of_the_load() {
    let bytes = large().bytes();
    let mut refused = 0;
    for delay in (0..40).map(|step| Duration::from_micros(step * 1000)) {
        let copy = Copy::of(&bytes);
        let mut program = Command::new(binary());
        program.arg("run").arg(copy.path()).args(["x", "-n", "1", "--ctx", "64", "--threads", "2"]);
        let child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let child = child.expect("the program starts");
        std::thread::sleep(delay);
        cut(&copy.path(), 5000);
        let output = child.wait_with_output().expect("the program ends");
        let text = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => (),
            Some(1) => {
                refused += 1;
                assert!(text.contains("error: "), "after {delay:?}: {text}");
            }
            other => panic!("after {delay:?}: ended with {other:?}, {:?}: {text}", output.status),
        }
    }
    assert!(refused > 0, "no cut came in time");
}

/// What was loaded does not lean on the file any more.
#[test]
fn a_file_cut_while_the_program_answers_changes_nothing() {
    let model = Model { n_ctx: 4096, ..Model::llama(72) };
    let start = |path: &Path| {
        let mut program = Command::new(binary());
        program.arg("run").arg(path).args(["the rain", "-n", "2000", "--temp", "0", "--ctx", "2048"]);
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    };
    let copy = Copy::of(&model.bytes());
    let untouched = start(&copy.path()).wait_with_output().expect("the program ends");
    assert!(untouched.status.success(), "{untouched:?}");
    let mut child = start(&copy.path());
    let mut first = [0];
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut first).expect("an answer");
    cut(&copy.path(), 0);
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("an answer");
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success(), "{output:?}");
    assert_eq!([&first[..], &rest].concat(), untouched.stdout);
}
