//! `handmill serve`: models over HTTP, in the dialects of Ollama, of OpenAI and of llama.cpp's server.
//!
//! | module | what it knows |
//! | --- | --- |
//! | `config`, `deploy` | what the server is told |
//! | `http`, `routes`, `guard`, `keys` | connections, THE table of routes, whom they are for |
//! | `call`, `fields`, `fault`, `reply`, `audit`, `metrics` | a request, its fields, its errors, its answer, its record |
//! | `shelf`, `facts`, `described`, `loaded` | the models there are, and those in memory |
//! | `prompt`, `go`, `options`, `guide`, `reader` | from messages to tokens, and from tokens to messages |
//! | `ask`, `answers`, `voice`, `embed` | what dialects have in common: requests to an engine, their events, streams |
//! | `ollama`, `openai`, `llama`, `health`, `ui` | the routes |
//!
//! Each loaded model has the engine's thread; a request reaches it over a channel and hears its events over another
//! one. A client that leaves drops its answer, and with it, before the engine's next step, its slot.

mod answers;
mod app;
mod ask;
mod audit;
mod call;
mod chats;
mod config;
mod deploy;
mod described;
mod duration;
mod embed;
mod facts;
mod fault;
mod fields;
pub mod go;
mod guard;
mod guide;
mod health;
mod http;
mod keys;
mod llama;
mod loaded;
mod log;
mod metrics;
mod ollama;
mod openai;
pub mod options;
mod prompt;
mod reader;
mod reply;
mod routes;
pub mod shelf;
mod ui;
mod voice;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::commands;
use crate::error::{Error, Result};
use app::App;
use audit::Audit;
pub use config::Arguments;
use config::Config;
use loaded::Manager;
use shelf::{Pack, Shelf};

/// How often models that nobody needs any more are looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// Carries it out: serves until a signal comes.
///
/// # Errors
/// The server cannot start: a flag, a file or the address cannot be used.
pub fn run(arguments: &Arguments) -> Result<()> {
    log::use_json(arguments.log_format == "json");
    let config = Config::new(arguments)?;
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificates), Some(key)) => Some(http::tls(certificates, key)?),
        _ => None,
    };
    let audit = arguments.audit.as_deref().map(Audit::open).transpose()?;
    // The engine's workers need the cores; requests need little.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(|e| Error::Usage(format!("threads cannot be started: {e}")))?;
    let result = runtime.block_on(serve(config, tls, audit));
    // Threads that wait for a client or a download do not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve(config: Config, tls: Option<tokio_rustls::TlsAcceptor>, audit: Option<Audit>) -> Result<()> {
    let signals = http::Signals::new()?;
    let address = config.address;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| Error::Usage(format!("cannot listen on {address}: {e}; is another server running?")))?;
    let bound = listener.local_addr().unwrap_or(address);
    let files = files(&config.models)?;
    let shelf = Arc::new(Shelf::new(config.store.clone(), config.others.clone(), files));
    let manager = Arc::new(Manager::new(shelf, config.loading.clone()));
    let app = Arc::new(App::new(config, manager.clone(), audit));
    let scheme = if tls.is_some() { "https" } else { "http" };
    log::info(&format!("listening on {scheme}://{bound}"));
    let sweeper = manager.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(SWEEP).await;
            sweeper.sweep();
        }
    });
    tokio::spawn(preload(app.clone()));
    http::serve(app.clone(), routes::router(app), listener, tls, signals).await;
    manager.clear();
    log::info("ended");
    Ok(())
}

/// The models of the command line that are files or folders.
fn files(models: &[String]) -> Result<Vec<Pack>> {
    let paths = models.iter().filter(|m| commands::is_path(m) || Path::new(m.as_str()).is_dir());
    paths.map(|m| shelf::file(Path::new(m))).collect()
}

/// Obtains and loads the models of the command line; then the server is ready.
async fn preload(app: Arc<App>) {
    for text in app.config.models.clone() {
        let offline = app.config.offline;
        let shelf = app.shelf().clone();
        let name = app::blocking(move || {
            if commands::is_path(&text) || Path::new(&text).is_dir() {
                return Ok(shelf::file(Path::new(&text))?.name);
            }
            if shelf.find(&text).is_err() && !offline {
                commands::obtain_into(shelf.store(), &text)?;
            }
            Ok(shelf.find(&text)?.name)
        });
        let leased = match name.await {
            Ok(name) => app.lease(&name, false, None, None).await,
            Err(fault) => Err(fault),
        };
        match leased {
            Ok(lease) => lease.warm().await,
            Err(fault) => log::error(&format!("a model cannot be loaded: {}", fault.message)),
        }
    }
    app.set_ready(true);
    log::info("ready");
}
