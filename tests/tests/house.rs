//! The rules of the house, read from the sources themselves: which crate may lean on which, how long a file or a
//! function may be, where unsafe code may stand. Each test lists every row that breaks its rule, not the first.

use std::path::{Path, PathBuf};

/// Crates and the crates of this workspace that each may depend on, for building, testing or anything else.
/// `tests` and `bench` stand above the libraries; the program is started, never linked.
const ARROWS: [(&str, &[&str]); 7] = [
    ("gguf", &[]),
    ("kernels", &["gguf"]),
    ("shaders", &["gguf"]),
    ("engine", &["gguf", "kernels", "shaders"]),
    ("handmill", &["engine", "gguf"]),
    ("tests", &["gguf", "kernels", "shaders", "engine"]),
    ("bench", &["gguf", "kernels", "shaders", "engine", "tests"]),
];

/// What this project exists to do by itself.
const FOREIGN: [&str; 9] = ["candle-core", "ndarray", "nalgebra", "faer", "burn", "tch", "ort", "cblas", "tokenizers"];

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 60;
const MAX_DATA_BYTES: u64 = 8_000_000;

/// Files and folders that may hold unsafe code.
const UNSAFE_HOMES: [&str; 5] = [
    "kernels/src/isa/",
    "kernels/src/lib.rs",
    "engine/src/backend/pool.rs",
    // A driver trusts what it is given back of the kernels that it compiled.
    "engine/src/backend/gpu/cache.rs",
    // An allocator that counts what a test asks for is a trait that only such code can implement.
    "gguf/tests/file/alloc.rs",
];

/// Crate roots that must forbid unsafe code.
const FORBID: [&str; 4] = ["gguf/src/lib.rs", "shaders/src/lib.rs", "tools/src/main.rs", "bench/src/lib.rs"];

/// Marks of unfinished work, spelled so that this file does not hold them.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
    concat!("_", "v2"),
    concat!("dbg", "!("),
];

/// A file of the repository: its path from the root, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace")
}

/// Every file below `folder` but build output and hidden ones.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn sources(extension: &str) -> Vec<Source> {
    let of_kind = files().into_iter().filter(|path| path.extension().is_some_and(|found| found == extension));
    of_kind.map(|path| Source { path: relative(&path), text: std::fs::read_to_string(&path).expect("UTF-8") }).collect()
}

fn report(rule: &str, rows: Vec<String>) {
    assert!(rows.is_empty(), "{rule}:\n  {}", rows.join("\n  "));
}

/// Dependencies of a manifest with the section that lists them, whichever of TOML's forms is used.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut section = String::new();
    for line in manifest.lines().map(|line| line.split('#').next().unwrap_or("").trim()) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_string();
            if let Some((table, name)) = section.rsplit_once("dependencies.") {
                found.push((format!("{table}dependencies"), name.trim_matches('"').to_string()));
            }
        } else if section.ends_with("dependencies") && section != "workspace.dependencies" && !line.is_empty() {
            // A renamed dependency keeps its own name in `package = "..."`.
            let renamed = line.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
            let name = line.split(['.', '=', ' ']).next().unwrap_or("").trim_matches('"');
            found.push((section.clone(), renamed.unwrap_or(name).to_string()));
        }
    }
    found
}

/// Rows of a manifest's dependencies that its crate may not have.
fn forbidden_arrows(path: &str, manifest: &str) -> Vec<String> {
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")).and_then(|rest| rest.split('"').next());
    let Some(name) = name else { return Vec::new() };
    let Some((_, allowed)) = ARROWS.iter().find(|row| row.0 == name) else {
        return vec![format!("{path}: crate {name} is not in the table of arrows")];
    };
    let ours = |name: &str| ARROWS.iter().any(|row| row.0 == name);
    let bad = |(section, to): (String, String)| {
        let banned = FOREIGN.contains(&to.as_str()) || ours(&to) && !allowed.contains(&to.as_str());
        banned.then(|| format!("{path}: {name} -> {to} in [{section}]"))
    };
    dependencies(manifest).into_iter().filter_map(bad).collect()
}

/// Functions longer than allowed: name, first line, length. The sources are formatted, so a function ends at the first
/// line that is a brace at its own indentation.
fn long_functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", concat!("un", "safe "), "extern \"C\" "];
        let bare = words.iter().fold(code, |code, word| code.strip_prefix(word).unwrap_or(code));
        let Some(rest) = bare.strip_prefix("fn ") else { continue };
        let indent = &line[..line.len() - code.len()];
        let last = lines[first..].iter().position(|line| {
            let own = line.strip_prefix(indent).filter(|own| !own.starts_with(' '));
            own.is_some_and(|own| own == "}" || own.ends_with(';') || own.starts_with("fn ") && own.ends_with('}'))
        });
        let length = last.map_or(1, |last| last + 1);
        if length > MAX_FUNCTION_LINES {
            let name = rest.split(['(', '<']).next().unwrap_or("").to_string();
            found.push((name, first + 1, length));
        }
    }
    found
}

/// Lines of code that hold a word by itself; comments do not count.
fn lines_with_word<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let is_word = move |code: &str| {
        let inner = |c: char| c.is_alphanumeric() || c == '_';
        code.match_indices(word)
            .any(|(at, _)| !code[..at].ends_with(inner) && !code[at + word.len()..].starts_with(inner))
    };
    let numbered = text.lines().enumerate();
    numbered.filter(move |(_, line)| is_word(line.split("//").next().unwrap_or(""))).map(|(at, line)| (at + 1, line))
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let manifests = sources("toml").into_iter().filter(|source| source.path.ends_with("Cargo.toml"));
    let rows: Vec<String> = manifests.flat_map(|source| forbidden_arrows(&source.path, &source.text)).collect();
    report("dependencies that the design does not allow", rows);
}

#[test]
fn files_and_functions_are_short() {
    let mut rows = Vec::new();
    for source in sources("rs") {
        let lines = source.text.lines().count();
        if lines > MAX_FILE_LINES {
            rows.push(format!("{}: {lines} lines, at most {MAX_FILE_LINES}", source.path));
        }
        for (name, line, length) in long_functions(&source.text) {
            rows.push(format!("{}:{line}: fn {name} has {length} lines, at most {MAX_FUNCTION_LINES}", source.path));
        }
    }
    report("too long to be read whole", rows);
}

#[test]
fn nothing_is_unfinished() {
    let mut rows = Vec::new();
    for source in sources("rs").into_iter().chain(sources("wgsl")) {
        for (at, line) in source.text.lines().enumerate() {
            if UNFINISHED.iter().any(|mark| line.contains(mark)) {
                rows.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
        }
    }
    report("marks of unfinished work", rows);
}

#[test]
fn unsafe_code_stays_in_its_homes() {
    let mut rows = Vec::new();
    // Spelled in two parts, or this line would be one of the rows.
    let word = concat!("un", "safe");
    for source in sources("rs") {
        if !UNSAFE_HOMES.iter().any(|home| source.path.starts_with(home)) {
            let lines = lines_with_word(&source.text, word);
            rows.extend(lines.map(|(at, line)| format!("{}:{at}: {}", source.path, line.trim())));
        }
        if FORBID.contains(&source.path.as_str()) && !source.text.contains("#![forbid(unsafe_code)]") {
            rows.push(format!("{}: does not forbid it", source.path));
        }
    }
    report("code of that kind outside its homes", rows);
}

#[test]
fn modules_say_where_they_sit() {
    let silent = sources("rs").into_iter().filter(|source| !source.text.starts_with("//!"));
    report("files that do not start with a module doc", silent.map(|source| source.path).collect());
}

#[test]
fn the_environment_is_read_by_the_program_alone() {
    let below = |source: &Source| {
        ["gguf/src/", "kernels/src/", "shaders/src/", "engine/src/"].iter().any(|root| source.path.starts_with(root))
    };
    let mut rows = Vec::new();
    for source in sources("rs").into_iter().filter(below) {
        for (at, line) in source.text.lines().enumerate().filter(|(_, line)| line.contains("env::var")) {
            rows.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
        }
    }
    report("reads of the environment below the program", rows);
}

#[test]
fn data_in_the_repository_stays_small() {
    let text = ["rs", "toml", "lock", "md", "wgsl"];
    let is_data = |path: &PathBuf| !path.extension().is_some_and(|found| text.iter().any(|text| found == *text));
    let total: u64 =
        files().iter().filter(|path| is_data(path)).map(|path| path.metadata().map_or(0, |data| data.len())).sum();
    assert!(total < MAX_DATA_BYTES, "fixtures and other data take {total} bytes, at most {MAX_DATA_BYTES}");
}

/// The rules above, on samples that break them.
#[test]
fn the_rules_see_what_breaks_them() {
    let manifest = "name = \"gguf\"\n[dependencies]\nkernels.workspace = true # so that\n[dev-dependencies]\nproptest = \"1\"\n\
        math = { package = \"ndarray\" }\n[target.'cfg(unix)'.dependencies.engine]\npath = \"../engine\"\n";
    let rows = forbidden_arrows("gguf/Cargo.toml", manifest);
    let expected = [
        "gguf/Cargo.toml: gguf -> kernels in [dependencies]",
        "gguf/Cargo.toml: gguf -> ndarray in [dev-dependencies]",
        "gguf/Cargo.toml: gguf -> engine in [target.'cfg(unix)'.dependencies]",
    ];
    assert_eq!(rows, expected);
    assert_eq!(forbidden_arrows("x/Cargo.toml", "name = \"x\"\n").len(), 1, "a crate that the table does not know");

    let body = |lines: usize| {
        format!(
            "impl X {{\n    pub fn long<T>(\n        x: T,\n    ) {{\n{}    }}\n}}\n",
            "        x();\n".repeat(lines)
        )
    };
    assert_eq!(long_functions(&body(56)), []);
    assert_eq!(long_functions(&body(57)), [("long".to_string(), 2, 61)]);
    let short = format!("fn declared();\nfn one() {{}}\n{}", "\n".repeat(70));
    assert_eq!(long_functions(&short), []);

    let text = "let a = un_safe; // not \nlet b = safely;\n// safe\nsafe {\n";
    assert_eq!(lines_with_word(text, "safe").map(|row| row.0).collect::<Vec<_>>(), [4]);
}
