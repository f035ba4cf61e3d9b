//! Downloads over http and https that resume: inside one run when a connection breaks, and in the next run from what
//! the last one left.
//!
//! `TARGET.partial` holds the bytes so far, `TARGET.json` what the server said of the file they belong to. Only a whole
//! file is renamed to `TARGET`. Checking its content is the caller's work.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;

use super::Job;
use super::reach::{Gate, Reach};
use crate::error::{Error, Result};
use crate::ui::format::bytes;

/// Attempts in a row that bring no new byte before a download is given up.
const TRIES: u32 = 4;
/// Attempts at all: a server that gives a byte at a time is not waited for for ever.
const MOST_ATTEMPTS: u32 = 100;
/// Pause before the second attempt; doubled with each one that brings nothing.
const PAUSE: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_secs(30);
/// Longest silence of a server that is connected.
const SILENCE: Duration = Duration::from_secs(60);

/// How the network is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A file of certificates (PEM) to trust in place of the usual ones.
    pub certificates: Option<PathBuf>,
    /// A proxy; none takes that of the environment's variables.
    pub proxy: Option<String>,
    /// Whom it may lead to.
    pub reach: Reach,
}

impl Settings {
    /// The certificates that the environment's variables name, else those of the system.
    pub fn of_environment() -> Settings {
        let named =
            ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].map(|v| std::env::var_os(v).map(PathBuf::from));
        let system = [
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/ca-bundle.pem",
            "/etc/ssl/cert.pem",
        ];
        let certificates = named.into_iter().flatten().chain(system.map(PathBuf::from)).find(|p| p.is_file());
        Settings { certificates, ..Settings::default() }
    }
}

/// What to fetch, and where to.
pub struct Request<'a> {
    /// The address.
    pub url: &'a str,
    /// The file that is there when the download is whole.
    pub target: &'a Path,
    /// The file's size where it is known; anything else is refused.
    pub size: Option<u64>,
    /// Whether the content is checked afterwards: then resuming is safe with servers that do not say whether the file
    /// has changed.
    pub checked: bool,
}

/// What the server said about a file that was fetched in part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    url: String,
    /// A strong entity tag or a date of change.
    validator: Option<String>,
    total: Option<u64>,
}

/// Why an attempt ended early.
enum Stop {
    /// Another attempt may go on from here.
    Broken(String),
    /// No other attempt will help.
    Fatal(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Fatal(e)
    }
}

/// Fetches files.
pub struct Client {
    agent: Agent,
}

impl Client {
    /// A client for these settings.
    ///
    /// # Errors
    /// The certificates or the proxy cannot be used.
    pub fn new(settings: &Settings) -> Result<Client> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(8)
            .user_agent(concat!("handmill/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE));
        if let Some(path) = &settings.certificates {
            config = config.tls_config(TlsConfig::builder().root_certs(certificates(path)?).build());
        }
        if let Some(proxy) = &settings.proxy {
            let proxy = ureq::Proxy::new(proxy)
                .map_err(|_| Error::Usage("the proxy that pip is configured with is no proxy address".into()))?;
            config = config.proxy(Some(proxy));
        }
        let gate = Gate::new(settings.reach);
        Ok(Client { agent: Agent::with_parts(config.build(), DefaultConnector::default(), gate) })
    }

    /// A small text.
    ///
    /// # Errors
    /// The server cannot be reached or refuses, or the text is longer than `limit`.
    pub fn get(&self, url: &str, accept: &str, limit: u64) -> Result<Vec<u8>> {
        let broken = |why: String| Error::Network { url: shown(url), why };
        let get = self.agent.get(url).header(header::ACCEPT, accept).header(header::ACCEPT_ENCODING, "identity");
        let mut response = get.call().map_err(|e| match stop(url, e) {
            Stop::Fatal(e) => e,
            Stop::Broken(why) => broken(why),
        })?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(Error::Status { url: shown(url), status });
        }
        let mut text = Vec::new();
        let read = response.body_mut().as_reader().take(limit + 1).read_to_end(&mut text);
        read.map_err(|e| broken(format!("the connection broke ({e})")))?;
        match text.len() as u64 > limit {
            true => Err(broken(format!("the answer has more than {limit} bytes"))),
            false => Ok(text),
        }
    }

    /// Fetches a file, going on from what is there.
    ///
    /// # Errors
    /// The server cannot be reached, refuses or breaks off too often; the file has not the expected size; the disk is
    /// full. What was fetched stays.
    pub fn download(&self, request: &Request, job: &Job) -> Result<()> {
        self.download_as(request, job, "downloading")
    }

    /// As [`Client::download`], with these words beside the progress.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub fn download_as(&self, request: &Request, job: &Job, words: &str) -> Result<()> {
        if request.target.is_file() {
            return Ok(());
        }
        let partial = partial(request.target);
        let mut fruitless = 0;
        for _ in 0..MOST_ATTEMPTS {
            let before = len(&partial);
            let why = match self.attempt(request, &partial, job, words) {
                Ok(()) => return finish(request.target, &partial),
                Err(Stop::Fatal(e)) => return Err(e),
                Err(Stop::Broken(why)) => why,
            };
            fruitless = if len(&partial) > before { 0 } else { fruitless + 1 };
            if fruitless == TRIES {
                return Err(Error::Network { url: shown(request.url), why });
            }
            job.ui.say(&format!("{why}; trying again from {}", bytes(len(&partial))));
            std::thread::sleep(PAUSE * 2u32.pow(fruitless));
        }
        Err(Error::Network { url: shown(request.url), why: format!("the connection broke {MOST_ATTEMPTS} times") })
    }

    fn attempt(&self, request: &Request, partial: &Path, job: &Job, words: &str) -> Result<(), Stop> {
        let state = State::load(request);
        let known = len(partial);
        if known > 0 && state.total == Some(known) {
            return Ok(());
        }
        let resume = known > 0 && (request.checked || state.validator.is_some());
        let mut get = self.agent.get(request.url).header(header::ACCEPT_ENCODING, "identity");
        if resume {
            get = get.header(header::RANGE, format!("bytes={known}-"));
            if let Some(validator) = &state.validator {
                get = get.header(header::IF_RANGE, validator);
            }
        }
        let mut response = get.call().map_err(|e| stop(request.url, e))?;
        let (start, total) = accept(&response, request, if resume { known } else { 0 }, partial)?;
        State { url: request.url.into(), validator: validator(response.headers()), total }.save(request)?;
        job.room(&shown(request.url), total.unwrap_or(0).saturating_sub(start))?;
        let mut file = open_at(partial, start).map_err(Error::io("cannot write", partial))?;
        let bar = job.ui.bar(words, total, start);
        let limit = total.or(request.size).unwrap_or(u64::MAX);
        let mut reader = response.body_mut().as_reader();
        let mut have = start;
        let mut buffer = vec![0; 1 << 17];
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Stop::Broken(format!("the connection broke ({e})"))),
            };
            have += n as u64;
            if have > limit {
                return Err(Error::Size {
                    what: shown(request.url),
                    found: format!("more than {limit}"),
                    expected: limit,
                }
                .into());
            }
            file.write_all(&buffer[..n]).map_err(Error::io("cannot write", partial))?;
            bar.inc(n as u64);
        }
        match total {
            Some(total) if have < total => {
                Err(Stop::Broken(format!("the connection was closed at {have} of {total} bytes")))
            }
            _ => Ok(()),
        }
    }
}

/// Judges a response to a request for everything from `known` on: where its body begins, and the file's size.
fn accept<B>(
    response: &Response<B>,
    request: &Request,
    known: u64,
    partial: &Path,
) -> Result<(u64, Option<u64>), Stop> {
    let text = |name| response.headers().get(name).and_then(|v| v.to_str().ok());
    let length = || text(header::CONTENT_LENGTH).and_then(|t| t.parse().ok());
    let (start, total) = match response.status().as_u16() {
        200 => (0, length()),
        206 if known > 0 => match text(header::CONTENT_RANGE).and_then(content_range) {
            Some((start, total)) if start == known => (start, total),
            _ => return Err(restart(partial, "the server sent another part than was asked for")),
        },
        // What is here is not a beginning of what the server has.
        416 => return Err(restart(partial, "the file has changed")),
        status @ (408 | 429 | 500..=599) => return Err(Stop::Broken(format!("the server answered {status}"))),
        status => return Err(Error::Status { url: shown(request.url), status }.into()),
    };
    if let Some(encoding) = text(header::CONTENT_ENCODING).filter(|e| *e != "identity") {
        let why = format!("the server sent the encoding {encoding}, which was not asked for");
        return Err(Error::Network { url: shown(request.url), why }.into());
    }
    match (request.size, total) {
        (Some(expected), Some(found)) if found != expected => {
            Err(Error::Size { what: shown(request.url), found: found.to_string(), expected }.into())
        }
        _ => Ok((start, total)),
    }
}

fn restart(partial: &Path, why: &str) -> Stop {
    match fs::write(partial, b"") {
        Ok(()) => Stop::Broken(why.into()),
        Err(e) => Stop::Fatal(Error::io("cannot write", partial)(e)),
    }
}

/// The first byte and the whole size of a header such as `bytes 100-199/200`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}

/// A header that changes whenever the file does.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(String::from);
    text(header::ETAG).filter(|t| !t.starts_with("W/")).or_else(|| text(header::LAST_MODIFIED))
}

fn stop(url: &str, error: ureq::Error) -> Stop {
    match error {
        ureq::Error::Io(e) => Stop::Broken(format!("no connection ({e})")),
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
            Stop::Broken(format!("no connection ({error})"))
        }
        ureq::Error::HostNotFound => Stop::Fatal(Error::Network {
            url: shown(url),
            why: "the host is not known; is this machine offline?".into(),
        }),
        other => Stop::Fatal(Error::Network { url: shown(url), why: other.to_string() }),
    }
}

impl State {
    fn path(request: &Request) -> PathBuf {
        suffixed(request.target, ".json")
    }

    /// The state of an unfinished download of the same address. Anything else, or anything damaged, starts afresh.
    fn load(request: &Request) -> State {
        let text = fs::read(State::path(request)).unwrap_or_default();
        serde_json::from_slice(&text).ok().filter(|s: &State| s.url == shown(request.url)).unwrap_or_default()
    }

    /// Credentials and queries, which may be secrets, stay out of the file.
    fn save(mut self, request: &Request) -> Result<()> {
        self.url = shown(request.url);
        let path = State::path(request);
        let text = serde_json::to_vec(&self).expect("a state is plain data");
        fs::write(&path, text).map_err(Error::io("cannot write", &path))
    }
}

fn certificates(path: &Path) -> Result<RootCerts> {
    let pem = fs::read(path).map_err(Error::io("cannot read the certificates", path))?;
    let found: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(c)) => Some(c),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        return Err(Error::Usage(format!("{} holds no certificates", path.display())));
    }
    Ok(RootCerts::from(found))
}

/// An address without credentials, query and fragment, for messages.
pub fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    match plain.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        None => plain.into(),
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn partial(target: &Path) -> PathBuf {
    suffixed(target, ".partial")
}

fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |m| m.len())
}

/// Opens a file for writing from `start` on, and drops whatever it holds beyond.
fn open_at(path: &Path, start: u64) -> io::Result<File> {
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.set_len(start)?;
    file.seek(io::SeekFrom::Start(start))?;
    Ok(file)
}

fn finish(target: &Path, partial: &Path) -> Result<()> {
    File::open(partial).and_then(|f| f.sync_all()).map_err(Error::io("cannot sync", partial))?;
    fs::rename(partial, target).map_err(Error::io("cannot rename to", target))?;
    let _ = fs::remove_file(suffixed(target, ".json"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_messages_hold_no_secrets() {
        for (url, text) in [
            ("https://me:secret@host.example/a/b?token=1#x", "https://host.example/a/b"),
            ("http://127.0.0.1:80/x@y", "http://127.0.0.1:80/x@y"),
            ("http://host", "http://host"),
        ] {
            assert_eq!(shown(url), text);
        }
    }

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 100-199/200"), Some((100, Some(200))));
        assert_eq!(content_range("bytes 100-199/*"), Some((100, None)));
        assert_eq!(content_range("bytes */200"), None);
        assert_eq!(content_range("lines 1-2/3"), None);
    }
}
