//! Connections: from a listening socket to requests, with bounds on their number, their size and their time; and the end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::app::App;
use crate::error::{Error, Result};

/// Time for a request's head, and between two requests of a connection.
const HEAD: Duration = Duration::from_secs(10);
/// Bytes and number of headers.
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 100;
/// How long an end after the drain may take.
const LAST: Duration = Duration::from_secs(3);

/// What speaks TLS with these files.
///
/// # Errors
/// A file cannot be read, or holds no certificate or key.
pub fn tls(certificates: &Path, key: &Path) -> Result<TlsAcceptor> {
    let wrong = |path: &Path, what: &str| Error::Usage(format!("{}: {what}", path.display()));
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect)
        .map_err(|e| wrong(certificates, &format!("cannot be read as certificates (PEM): {e}")))?;
    if chain.is_empty() {
        return Err(wrong(certificates, "holds no certificate"));
    }
    let key_der =
        PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, &format!("cannot be read as a key (PEM): {e}")))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(|e| wrong(certificates, &format!("does not fit the key: {e}")))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The signals that end the server.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Listens for them from now on.
    ///
    /// # Errors
    /// The system does not let it.
    pub fn new() -> Result<Signals> {
        let listen = |kind| signal(kind).map_err(|e| Error::Usage(format!("signals cannot be received: {e}")));
        Ok(Signals { term: listen(SignalKind::terminate())?, int: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// Serves until a signal comes and all answers are done or have had their time. A second signal ends it at once.
pub async fn serve(
    app: Arc<App>,
    router: Router,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    mut signals: Signals,
) {
    let connections = Arc::new(Semaphore::new(app.config.limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Too many open files, as a rule: others must end first.
                    super::log::error(&format!("a connection cannot be taken: {e}"));
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = signals.next() => break,
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            app.metrics.refuse("connections");
            continue;
        };
        let (router, tls, watcher) = (router.clone(), tls.clone(), graceful.watcher());
        let unread = app.config.limits.unread;
        tokio::spawn(async move {
            // Without it small pieces of a stream wait for each other.
            let _ = stream.set_nodelay(true);
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(unread));
            connection(stream, router, tls, watcher).await;
            drop(permit);
        });
    }
    app.set_ready(false);
    drop(listener);
    super::log::info("shutting down: running answers may finish");
    let done = async {
        let drained = tokio::time::timeout(app.config.drain, graceful.shutdown()).await;
        if drained.is_err() {
            app.cut();
            tokio::time::sleep(LAST).await;
        }
    };
    tokio::select! {
        () = done => {}
        () = signals.next() => super::log::info("a second signal: ending at once"),
    }
}

async fn connection(
    stream: TimeoutStream<TcpStream>,
    router: Router,
    tls: Option<TlsAcceptor>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let stream = Box::pin(stream);
    match tls {
        None => speak(stream, router, watcher).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD, tls.accept(stream)).await {
                speak(stream, router, watcher).await;
            }
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // Ends with an error where the client breaks off, which is its right.
    let _ = watcher.watch(connection).await;
}
