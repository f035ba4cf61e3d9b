//! What the server is told: by flags, by a deployment file, by Ollama's variables, in this order.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::deploy::Deployment;
use super::duration::{self, KeepAlive};
use super::keys::Keys;
use super::loaded::Loading;
use crate::cli::EngineFlags;
use crate::error::{Error, Result};
use crate::store::Store;

const EXAMPLES: &str = "\
Examples:
  handmill serve                                   all models of the store, on 127.0.0.1:11434
  handmill serve smollm2 --keep-alive -1           obtain and load a model at once, and keep it
  handmill serve ./model.gguf --port 8080          a file, under its own name
  handmill serve --host 0.0.0.0 --api-key-file keys.txt --tls-cert cert.pem --tls-key key.pem
  curl http://127.0.0.1:11434/api/generate -d '{\"model\": \"smollm2\", \"prompt\": \"Why is the sky blue?\"}'

Clients of Ollama and of OpenAI work without a change: OLLAMA_HOST or base_url=http://127.0.0.1:11434/v1.
Variables that are read, below flags: OLLAMA_HOST OLLAMA_MODELS OLLAMA_ORIGINS OLLAMA_KEEP_ALIVE OLLAMA_NUM_PARALLEL
OLLAMA_MAX_LOADED_MODELS OLLAMA_MAX_QUEUE OLLAMA_CONTEXT_LENGTH OLLAMA_NUM_THREAD OLLAMA_MAX_VRAM FOUNDRY_MODEL
HANDMILL_API_KEY. A key file has lines `NAME SCOPE[,SCOPE] KEY` with the scopes infer, manage and metrics.";

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Models to obtain if need be and load at once: names, GGUF files, or folders with an inference_model.json
    #[arg(value_name = "MODEL")]
    pub models: Vec<String>,
    /// Address to listen on, with or without a port [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 11434]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// A deployment file (JSON)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A key that requests must bring as `Authorization: Bearer KEY`; may be given several times
    #[arg(long = "api-key", value_name = "KEY")]
    keys: Vec<String>,
    /// A file of keys with their scopes
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Listen beyond this machine without keys: whoever reaches the port may do everything
    #[arg(long)]
    allow_anonymous: bool,
    /// A host name that clients may use for this server; may be given several times
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// A web page's origin that may use this server, as in https://chat.example; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Certificates for TLS (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key for TLS (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Folder of the models [default: HANDMILL_HOME]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,
    /// Answers of one model at once [default: 16]
    #[arg(long, value_name = "N")]
    parallel: Option<usize>,
    /// Requests that may wait; more are refused [default: 512]
    #[arg(long, value_name = "N")]
    queue: Option<usize>,
    /// Models in memory at once [default: 3]
    #[arg(long, value_name = "N")]
    max_loaded: Option<usize>,
    /// How long a model stays in memory after its last request, as 10m or in seconds; -1 for ever [default: 5m]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    keep_alive: Option<String>,
    /// Tokens of all answers together that the KV cache of a model holds [default: a quarter of the memory]
    #[arg(long, value_name = "TOKENS")]
    kv_tokens: Option<usize>,
    /// Most tokens of one answer, whatever the request says [default: until the context is full]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Longest body of a request in MiB; blobs are not bound by it
    #[arg(long, value_name = "MIB", default_value_t = 8)]
    max_body: usize,
    /// Connections at once
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_connections: usize,
    /// Seconds that running answers get after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    /// Seconds after which an answer is cut
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    answer_timeout: u64,
    /// Seconds that a client may leave an answer unread before its connection is ended
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    unread_timeout: u64,
    /// Write a line of JSON for every request to this file
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Form of the log on standard error: text or json
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    /// Refuse everything that would use the network, such as pull
    #[arg(long)]
    offline: bool,
    /// Let /api/pull fetch from addresses of private networks and of this machine
    #[arg(long)]
    allow_private_pull: bool,
    #[command(flatten)]
    engine: EngineFlags,
}

/// Bounds on what a client may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Time for a whole body.
    pub body_time: Duration,
    /// Time for a whole answer.
    pub answer: Duration,
    /// Time that a client may leave an answer unread.
    pub unread: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Tokens of an answer.
    pub tokens: Option<usize>,
}

/// What the server is told, whole.
pub struct Config {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may do what.
    pub keys: Keys,
    /// Host names that may be used.
    pub hosts: Vec<String>,
    /// Origins of web pages that may use it.
    pub origins: Vec<String>,
    /// The store.
    pub store: Store,
    /// Folders of Ollama's, only read.
    pub others: Vec<Store>,
    /// How models are loaded.
    pub loading: Loading,
    /// Requests that may wait.
    pub queue: usize,
    /// How long models stay.
    pub keep_alive: KeepAlive,
    /// Bounds.
    pub limits: Limits,
    /// Time that answers get when it ends.
    pub drain: Duration,
    /// Whether it keeps off the network.
    pub offline: bool,
    /// Whether it may pull from private networks.
    pub private_pull: bool,
    /// Models to load at once.
    pub models: Vec<String>,
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|v| v.trim().trim_matches(['"', '\'']).to_string()).filter(|v| !v.is_empty())
}

/// A number of a variable; one that is none is told to the log and ignored, as Ollama does.
fn number(name: &str) -> Option<usize> {
    let text = variable(name)?;
    let number = text.parse().ok().filter(|n| *n > 0);
    if number.is_none() && text != "0" {
        super::log::error(&format!("{name} is \"{text}\", expected a number; it has no effect"));
    }
    number
}

impl Config {
    /// Puts flags, file and variables together.
    ///
    /// # Errors
    /// A value that cannot be used, or a combination that would be dangerous.
    pub fn new(arguments: &Arguments) -> Result<Config> {
        let deployment = arguments.config.as_deref().map(Deployment::read).transpose()?.unwrap_or_default();
        let address = address(arguments, &deployment)?;
        let keys = keys(arguments)?;
        if !address.ip().is_loopback() && keys.is_empty() && !arguments.allow_anonymous {
            return Err(Error::Usage(format!(
                "{address} can be reached from other machines: give keys with --api-key or --api-key-file, or say --allow-anonymous"
            )));
        }
        let mut origins = arguments.allow_origin.clone();
        origins.extend(variable("OLLAMA_ORIGINS").iter().flat_map(|v| v.split(',')).map(|o| o.trim().to_string()));
        if origins.iter().any(|o| o == "*") {
            return Err(Error::Usage("the origin * would let every web page use this server; list the origins".into()));
        }
        let keep = arguments.keep_alive.clone().or_else(|| variable("OLLAMA_KEEP_ALIVE"));
        let keep_alive = match &keep {
            None => duration::DEFAULT,
            Some(text) => KeepAlive::parse(text).ok_or_else(|| {
                Error::Usage(format!("\"{text}\" is no time to keep models; expected such as 10m or -1"))
            })?,
        };
        let mut models = arguments.models.clone();
        models.extend(deployment.model.clone());
        if models.is_empty() {
            models.extend(variable("FOUNDRY_MODEL"));
        }
        Ok(Config {
            address,
            keys,
            hosts: arguments.allow_host.iter().map(|h| h.to_ascii_lowercase()).collect(),
            origins,
            store: arguments.store.clone().map_or_else(Store::of_user, |root| Ok(Store::at(root)))?,
            others: ollama_folder().map(Store::at).into_iter().collect(),
            queue: arguments.queue.or_else(|| number("OLLAMA_MAX_QUEUE")).unwrap_or(512),
            keep_alive,
            limits: Limits {
                body: arguments.max_body.max(1) << 20,
                body_time: Duration::from_secs(60),
                answer: Duration::from_secs(arguments.answer_timeout.max(1)),
                unread: Duration::from_secs(arguments.unread_timeout.max(1)),
                connections: arguments.max_connections.max(1),
                tokens: arguments.max_tokens,
            },
            drain: Duration::from_secs(arguments.drain),
            offline: arguments.offline,
            private_pull: arguments.allow_private_pull,
            loading: loading(arguments, &deployment)?,
            models,
        })
    }
}

fn loading(arguments: &Arguments, deployment: &Deployment) -> Result<Loading> {
    let mut options = arguments.engine.options();
    options.ctx = options.ctx.or(deployment.context).or_else(|| number("OLLAMA_CONTEXT_LENGTH"));
    options.threads = options.threads.or_else(|| number("OLLAMA_NUM_THREAD"));
    if let Some(batch) = deployment.batch {
        options.batch = batch;
    }
    for name in ["OLLAMA_NUM_GPU", "OLLAMA_GPU_LAYERS"] {
        if number(name).is_some() {
            super::log::info(&format!("{name} has no effect: the processor computes everything"));
        }
    }
    let memory = match variable("OLLAMA_MAX_VRAM") {
        None => None,
        Some(text) => Some(
            size(&text)
                .ok_or_else(|| Error::Usage(format!("OLLAMA_MAX_VRAM is \"{text}\", expected a size such as 8G")))?,
        ),
    };
    Ok(Loading {
        options,
        parallel: arguments.parallel.or(deployment.parallel).or_else(|| number("OLLAMA_NUM_PARALLEL")),
        most: arguments.max_loaded.or_else(|| number("OLLAMA_MAX_LOADED_MODELS")).unwrap_or(3).max(1),
        kv_tokens: arguments.kv_tokens,
        memory: memory.or(deployment.memory),
    })
}

/// A number of bytes with a suffix: `8G`, `512MiB`.
pub fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[end..].trim().to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    text[..end].parse::<u64>().ok()?.checked_mul(1 << unit)
}

/// The models of an Ollama on this machine.
fn ollama_folder() -> Option<PathBuf> {
    let named = variable("OLLAMA_MODELS").map(PathBuf::from);
    let usual = || std::env::home_dir().map(|home| home.join(".ollama").join("models"));
    named.or_else(usual).filter(|folder| folder.join("manifests").is_dir())
}

fn keys(arguments: &Arguments) -> Result<Keys> {
    let mut keys = Keys::default();
    for key in arguments.keys.iter().cloned().chain(variable("HANDMILL_API_KEY")) {
        keys.add(&key)?;
    }
    if let Some(path) = &arguments.api_key_file {
        keys.read(path)?;
        if keys.is_empty() {
            return Err(Error::Usage(format!("{} has no keys", path.display())));
        }
    }
    Ok(keys)
}

/// Port of Ollama.
const PORT: u16 = 11434;

/// Where to listen: flags, then the file, then `OLLAMA_HOST` (`[scheme://]host[:port]`).
fn address(arguments: &Arguments, deployment: &Deployment) -> Result<SocketAddr> {
    let text = arguments.host.clone().or_else(|| variable("OLLAMA_HOST")).unwrap_or_default();
    let (host, port) = split(&text);
    let port = arguments.port.or(port).or(deployment.port).unwrap_or(PORT);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let found = (host.as_str(), port).to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| Error::Usage(format!("\"{host}\" is no address of this machine")))
}

/// Host and port of such a text; a port that is none counts as none.
fn split(text: &str) -> (String, Option<u16>) {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split('/').next().unwrap_or_default();
    let (host, port) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        // More than one colon without brackets is an IPv6 address without a port.
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    (host.to_string(), port.and_then(|p| p.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_people_write_them() {
        let rows = [
            ("", "127.0.0.1", None),
            ("0.0.0.0", "0.0.0.0", None),
            ("http://1.2.3.4:80/", "1.2.3.4", Some(80)),
            (":8080", "127.0.0.1", Some(8080)),
            ("[::1]:99", "::1", Some(99)),
            ("::1", "::1", None),
            ("localhost:http", "localhost", None),
        ];
        for (text, host, port) in rows {
            assert_eq!(split(text), (host.to_string(), port), "{text}");
        }
        assert_eq!(
            (size("8G"), size("512 MiB"), size("x"), size("9"), size("8X")),
            (Some(8 << 30), Some(512 << 20), None, Some(9), None)
        );
    }
}
