//! Asking pip. It knows the package index, the proxy and the certificates that this machine is set up with; nothing of
//! that is repeated here.

use std::path::Path;
use std::process::{Command, Stdio};

use super::http::Settings;
use crate::error::{Error, Result};
use crate::ui::Ui;

/// The commands that pip goes by.
const COMMANDS: &[&[&str]] = &[&["pip"], &["pip3"], &["python3", "-m", "pip"], &["python", "-m", "pip"]];

/// A pip that answers.
pub struct Pip {
    command: &'static [&'static str],
}

impl Pip {
    /// Finds pip.
    ///
    /// # Errors
    /// None of its commands works.
    pub fn find() -> Result<Pip> {
        let works = |pip: &Pip| pip.start(&["--version"]).output().is_ok_and(|o| o.status.success());
        COMMANDS.iter().map(|command| Pip { command }).find(works).ok_or_else(|| {
            let names: Vec<String> = COMMANDS.iter().map(|c| c.join(" ")).collect();
            Error::NoPip(names.join(", "))
        })
    }

    fn start(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.command[0]);
        command.args(&self.command[1..]).args(arguments).stdin(Stdio::null());
        command.env("PIP_NO_INPUT", "1").env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PIP_NO_COLOR", "1");
        command
    }

    fn failed(&self, arguments: &[&str], why: impl Into<String>) -> Error {
        Error::Pip { command: format!("{} {}", self.command.join(" "), arguments.join(" ")), why: why.into() }
    }

    /// The address of a package's wheel; none where this pip does not tell.
    ///
    /// pip has no command for that which would not fetch the wheel at the same time; what it logs while it lists
    /// the versions of a package names every file of the index.
    ///
    /// # Errors
    /// pip cannot reach its index, or the index has no such package.
    pub fn link(&self, package: &str, version: &str) -> Result<Option<String>> {
        let arguments = ["-vv", "index", "versions", package];
        let output = self.start(&arguments).output().map_err(|e| self.failed(&arguments, e.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(text.lines().find_map(|line| wheel_link(line, version)));
        }
        if text.contains("unknown command") {
            return Ok(None);
        }
        Err(self.failed(&arguments[1..], complaint(&text)))
    }

    /// Lets pip download one requirement into a folder, its progress going to standard error.
    ///
    /// # Errors
    /// pip fails.
    pub fn download(&self, requirement: &str, folder: &Path, ui: Ui) -> Result<()> {
        let path = folder.to_string_lossy();
        let arguments = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "-d", &path, requirement];
        let mut command = self.start(&arguments);
        // pip unpacks in its temporary folder; the store's disk is the one that was found to have room. Newer pips go on
        // within one run where a connection breaks.
        command.env("TMPDIR", folder).env("PIP_RESUME_RETRIES", "5");
        command.stdout(match ui {
            Ui::Terminal => Stdio::from(std::io::stderr()),
            Ui::Lines | Ui::Silent | Ui::Watched => Stdio::null(),
        });
        let output = command.stderr(Stdio::piped()).output().map_err(|e| self.failed(&arguments, e.to_string()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(self.failed(&["download", requirement], complaint(&String::from_utf8_lossy(&output.stderr)))),
        }
    }

    /// The network settings that pip is configured with, else those of the environment.
    pub fn settings(&self) -> Settings {
        let output = self.start(&["config", "list"]).output().map(|o| o.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&output);
        let mut settings = Settings::of_environment();
        if let Some(path) = configured(&text, "cert").filter(|p| Path::new(p).is_file()) {
            settings.certificates = Some(path.into());
        }
        settings.proxy = configured(&text, "proxy");
        settings
    }
}

/// The value of a setting in what `pip config list` prints, lines such as `global.cert='/etc/ca.pem'`. The environment
/// wins over the section of a command, which wins over the global one.
fn configured(text: &str, key: &str) -> Option<String> {
    let value = |section: &str| {
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(section)?.strip_prefix('.')?.strip_prefix(key)?.strip_prefix('='))?;
        let inner = line.trim().trim_matches(['\'', '"']);
        (!inner.is_empty()).then(|| inner.to_string())
    };
    [":env:", "download", "global"].into_iter().find_map(value)
}

/// The address in a line such as `Found link ADDRESS (from PAGE) (requires-python:>=3.9), version: 0.1.2`, if it is that
/// of a wheel of this version. An address with hidden credentials is of no use.
fn wheel_link(line: &str, version: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("Found link ")?;
    let (url, rest) = rest.split_once(" (from ")?;
    let (_, found) = rest.rsplit_once(", version: ")?;
    let url = url.split('#').next()?;
    let usable = url.starts_with("http") && url.ends_with(".whl") && !url.contains("****");
    (usable && found == version).then(|| url.to_string())
}

/// The lines of pip's output that say what went wrong.
fn complaint(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|l| l.starts_with("ERROR:")).collect();
    let warning = text.lines().map(str::trim).find(|l| l.starts_with("WARNING: Retrying"));
    lines.extend(warning);
    if lines.is_empty() {
        lines.extend(text.lines().rev().map(str::trim).find(|l| !l.is_empty()));
    }
    lines.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let line = "  Found link https://host.example/p/x_y-1.0-py3-none-any.whl#sha256=00 (from https://host.example/x-y/) (requires-python:>=3.9), version: 1.0";
        assert_eq!(wheel_link(line, "1.0").as_deref(), Some("https://host.example/p/x_y-1.0-py3-none-any.whl"));
        assert_eq!(wheel_link(line, "1.0.1"), None);
        for other in [
            "Found link https://host.example/x-1.0.tar.gz (from https://host.example/x/), version: 1.0",
            "Found link https://me:****@host.example/x-1.0-py3-none-any.whl (from page), version: 1.0",
            "Found link file:///wheels/x-1.0-py3-none-any.whl (from page), version: 1.0",
            "Found index url https://host.example/",
            "",
        ] {
            assert_eq!(wheel_link(other, "1.0"), None, "{other}");
        }
    }

    #[test]
    fn settings() {
        let text = ":env:.cert='/a.pem'\nglobal.cert='/b.pem'\nglobal.proxy='http://p:1'\nglobal.certificate='/c'\n";
        assert_eq!(configured(text, "cert").as_deref(), Some("/a.pem"));
        assert_eq!(configured(text, "proxy").as_deref(), Some("http://p:1"));
        assert_eq!(configured(text, "index-url"), None);
    }

    #[test]
    fn complaints() {
        assert_eq!(complaint("Looking in x\nERROR: No matching distribution\n"), "ERROR: No matching distribution");
        assert_eq!(complaint("a\nb\n\n"), "b");
        assert_eq!(complaint(""), "");
    }
}
