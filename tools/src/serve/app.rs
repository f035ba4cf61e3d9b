//! The server's state, which all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::audit::Audit;
use super::config::Config;
use super::duration::KeepAlive;
use super::fault::{Fault, Result};
use super::loaded::{Lease, Manager};
use super::metrics::Metrics;
use super::shelf::Shelf;

/// Everything that lives as long as the server.
pub struct App {
    /// What it was told.
    pub config: Config,
    /// Models in memory.
    pub manager: Arc<Manager>,
    /// Numbers.
    pub metrics: Metrics,
    /// The audit log.
    pub audit: Option<Audit>,
    /// Whether it takes requests.
    ready: AtomicBool,
    /// True once running answers are cut.
    end: watch::Sender<bool>,
}

/// A request to a model that counts against the limit while this lives.
pub struct Pending(Arc<App>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.metrics.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl App {
    /// The state of a server that is not ready yet.
    pub fn new(config: Config, manager: Arc<Manager>, audit: Option<Audit>) -> App {
        let (end, _) = watch::channel(false);
        App { config, manager, metrics: Metrics::default(), audit, ready: AtomicBool::new(false), end }
    }

    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// Says so.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Cuts all running answers.
    pub fn cut(&self) {
        self.end.send_replace(true);
    }

    /// Waits until answers are cut.
    pub async fn ended(&self) {
        let mut end = self.end.subscribe();
        // Fails only where the sender is gone, with the server.
        let _ = end.wait_for(|end| *end).await;
    }

    /// The models that can be loaded.
    pub fn shelf(&self) -> &Arc<Shelf> {
        self.manager.shelf()
    }

    /// Takes one more request to a model.
    ///
    /// # Errors
    /// There are as many as may wait.
    pub fn admit(self: &Arc<Self>) -> Result<Pending> {
        let most = self.config.queue + self.config.loading.parallel.unwrap_or(super::loaded::SEQUENCES);
        let pending = Pending(self.clone());
        if self.metrics.pending.fetch_add(1, Ordering::Relaxed) >= most as i64 {
            self.metrics.refuse("queue");
            drop(pending);
            return Err(Fault::busy("server busy, please try again.  maximum pending requests exceeded"));
        }
        Ok(pending)
    }

    /// The model of a name, loaded.
    ///
    /// # Errors
    /// There is none, or it cannot be loaded.
    pub async fn lease(
        self: &Arc<Self>,
        name: &str,
        states: bool,
        ctx: Option<usize>,
        keep: Option<KeepAlive>,
    ) -> Result<Lease> {
        let (shelf, text) = (self.shelf().clone(), name.to_string());
        let pack = blocking(move || shelf.find(&text)).await?;
        self.manager.lease(pack, states, ctx, keep.unwrap_or(self.config.keep_alive)).await
    }
}

/// Runs what takes time, or reads files, on a thread of its own.
///
/// # Errors
/// What the work gives, or that it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Fault::internal(&format!("a request's work ended early: {e}"))))
}
