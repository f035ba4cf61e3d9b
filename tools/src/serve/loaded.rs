//! The models in memory: loaded when they are first asked for, kept for a while, the least recently used one first to go.
//!
//! A request holds a [`Lease`]; a model that anybody leases stays. Loading happens beside the requests to other models.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use engine::file::ModelFile;
use engine::sampler::Params;
use engine::spec::Spec;
use engine::{Adapter, Engine, Options, Request};
use tokio::sync::{Notify, OnceCell};

use super::app::blocking;
use super::duration::KeepAlive;
use super::fault::{Fault, Result};
use super::guide::Guides;
use super::prompt::Template;
use super::shelf::{Pack, Shelf};
use crate::memory;

/// How models are loaded.
#[derive(Clone, Debug)]
pub struct Loading {
    /// Of every model; memory and sequences are set for each.
    pub options: Options,
    /// Sequences at once; none leaves it to the memory.
    pub parallel: Option<usize>,
    /// Models in memory at once.
    pub most: usize,
    /// Positions of the KV cache, where somebody has said so.
    pub kv_tokens: Option<usize>,
    /// Bytes that models may take, where somebody has said so.
    pub memory: Option<u64>,
}

/// Sequences where nobody says how many.
pub const SEQUENCES: usize = 16;
/// The KV cache takes at most this share of the memory, beyond what one sequence needs, and at most so many whole
/// sequences: few answers fill their context.
const KV_SHARE: u64 = 4;
const KV_SEQUENCES: usize = 8;
/// Tokens of the prompt that a model of 256 MiB starts with; larger ones take fewer, so that none takes long.
const WARM: u64 = 512;

/// A model in memory.
pub struct Loaded {
    /// Where it came from.
    pub pack: Pack,
    /// What computes.
    pub engine: Engine,
    /// Its template.
    pub template: Option<Template>,
    /// Grammars over its vocabulary.
    pub guides: Guides,
    /// Names of its adapters' files, and how strong they are for requests that do not say.
    adapters: Mutex<Vec<(String, f32)>>,
    warmed: AtomicBool,
}

impl Loaded {
    /// Names of its adapters' files, and how strong they are.
    pub fn adapters(&self) -> Vec<(String, f32)> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How strong each adapter is for a request: as it says, else as is usual.
    ///
    /// # Errors
    /// It names an adapter that the model has not.
    pub fn strengths(&self, wanted: Option<&[(usize, f32)]>) -> Result<Vec<f32>> {
        let adapters = self.adapters();
        let Some(wanted) = wanted else { return Ok(adapters.iter().map(|a| a.1).collect()) };
        let mut strengths = vec![0.0; adapters.len()];
        for &(id, scale) in wanted {
            let n = adapters.len();
            let known = strengths.get_mut(id).ok_or_else(|| {
                Fault::field("lora", format!("there is no adapter {id}: {} has {n}, counted from 0", self.pack.name))
            })?;
            *known = scale;
        }
        Ok(strengths)
    }

    /// Says how strong adapters are for requests that do not say.
    ///
    /// # Errors
    /// As for [`Loaded::strengths`].
    pub fn set_strengths(&self, wanted: &[(usize, f32)]) -> Result<()> {
        let strengths = self.strengths(Some(wanted))?;
        let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        adapters.iter_mut().zip(strengths).for_each(|(adapter, strength)| adapter.1 = strength);
        Ok(())
    }

    /// Computes a prompt that nobody asked for, once: the first step of an engine takes its memory from the system, which
    /// may take longer than the step itself.
    pub async fn warm(&self) {
        if self.warmed.swap(true, Ordering::Relaxed) {
            return;
        }
        let engine = &self.engine;
        let tokens = (WARM << 28).checked_div(engine.memory().weights()).unwrap_or(WARM).clamp(16, WARM) as usize;
        let mut request = Request::new(vec![0; tokens.min(engine.ctx())], Params::default());
        request.max_tokens = Some(0);
        // Of nobody's scope: no other prompt shares its pages.
        request.scope = u32::MAX;
        let events = engine.submit(request);
        // How it goes is not this prompt's business: where the engine is gone, the next request will hear of it.
        let heard = blocking(move || {
            events.into_iter().for_each(drop);
            Ok(())
        });
        drop(heard.await);
    }
}

/// Where a model will be once it is loaded.
type Cell = Arc<OnceCell<Arc<Loaded>>>;

struct Entry {
    name: String,
    digest: String,
    states: bool,
    cell: Cell,
    users: usize,
    keep: KeepAlive,
    /// When the last lease ended.
    since: Instant,
    last: SystemTime,
}

/// All models in memory.
pub struct Manager {
    shelf: Arc<Shelf>,
    loading: Loading,
    entries: Mutex<Vec<Entry>>,
    freed: Notify,
}

/// A model that stays in memory while this lives.
pub struct Lease {
    manager: Arc<Manager>,
    loaded: Option<Arc<Loaded>>,
    cell: Cell,
    /// How long this request waited for it to load.
    pub load: Duration,
}

impl Lease {
    /// Warms a model up that was loaded for later, while nobody waits. Where somebody does, who loads it on demand, this
    /// would only make him wait for more.
    pub fn warm_beside(&self) {
        if let Some(model) = self.loaded.clone() {
            tokio::spawn(async move { model.warm().await });
        }
    }
}

impl std::ops::Deref for Lease {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        self.loaded.as_ref().expect("a lease is given out with its model")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut entries = self.manager.lock();
        if let Some(entry) = entries.iter_mut().find(|e| Arc::ptr_eq(&e.cell, &self.cell)) {
            entry.users -= 1;
            entry.since = Instant::now();
            entry.last = SystemTime::now();
        }
        let gone = take_expired(&mut entries);
        drop(entries);
        drop((self.loaded.take(), std::mem::take(&mut self.cell)));
        discard(gone);
        self.manager.freed.notify_waiters();
    }
}

/// A model in memory, for lists.
pub struct Running {
    /// The model.
    pub loaded: Arc<Loaded>,
    /// When it will go; none for never.
    pub expires: Option<SystemTime>,
}

impl Manager {
    /// Nothing is loaded yet.
    pub fn new(shelf: Arc<Shelf>, loading: Loading) -> Manager {
        Manager { shelf, loading, entries: Mutex::default(), freed: Notify::new() }
    }

    /// The models that can be loaded.
    pub fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, loaded. With `states`, the engine that computes states in place of logits. `ctx` is a context that the
    /// request needs; a model that was loaded with less is loaded anew once nobody uses it.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub async fn lease(
        self: &Arc<Self>,
        pack: Pack,
        states: bool,
        ctx: Option<usize>,
        keep: KeepAlive,
    ) -> Result<Lease> {
        let start = Instant::now();
        let cell = self.claim(&pack, states, ctx, keep).await;
        // From here on the lease gives the claim back, however this ends.
        let mut lease = Lease { manager: self.clone(), loaded: None, cell: cell.clone(), load: Duration::ZERO };
        let manager = self.clone();
        let loaded = cell.get_or_try_init(|| async move {
            let work = tokio::task::spawn_blocking(move || manager.load(pack, states, ctx));
            work.await.unwrap_or_else(|e| Err(Fault::internal(&format!("loading a model ended early: {e}"))))
        });
        match loaded.await {
            Ok(loaded) => lease.loaded = Some(loaded.clone()),
            Err(fault) => {
                self.lock().retain(|e| !Arc::ptr_eq(&e.cell, &cell));
                return Err(fault);
            }
        }
        lease.load = start.elapsed();
        Ok(lease)
    }

    /// The cell that the model is or will be in, with one more user; waits for room.
    async fn claim(&self, pack: &Pack, states: bool, ctx: Option<usize>, keep: KeepAlive) -> Cell {
        loop {
            let freed = self.freed.notified();
            let (cell, gone) = self.try_claim(pack, states, ctx, keep);
            discard(gone);
            match cell {
                Some(cell) => return cell,
                // Whoever frees something between the attempt and here has woken this already.
                None => drop(tokio::time::timeout(Duration::from_millis(200), freed).await),
            }
        }
    }

    fn try_claim(&self, pack: &Pack, states: bool, ctx: Option<usize>, keep: KeepAlive) -> (Option<Cell>, Vec<Entry>) {
        let mut entries = self.lock();
        let at = entries.iter().position(|e| e.name == pack.name && e.states == states);
        if let Some(at) = at {
            let entry = &mut entries[at];
            let fits = entry.cell.get().is_none_or(|l| ctx.is_none_or(|ctx| ctx <= l.engine.ctx()));
            let alive = entry.cell.get().is_none_or(|l| l.engine.busy().is_some());
            if entry.digest == pack.digest && fits && alive {
                entry.users += 1;
                entry.keep = keep;
                return (Some(entry.cell.clone()), Vec::new());
            }
            if entry.users > 0 && alive {
                return (None, Vec::new());
            }
            return (None, vec![entries.swap_remove(at)]);
        }
        if entries.len() >= self.loading.most {
            let idle = entries.iter().enumerate().filter(|(_, e)| e.users == 0).min_by_key(|(_, e)| e.since);
            let gone = idle.map(|(at, _)| at).map(|at| entries.swap_remove(at));
            return (None, gone.into_iter().collect());
        }
        let cell = Arc::new(OnceCell::new());
        entries.push(Entry {
            name: pack.name.clone(),
            digest: pack.digest.clone(),
            states,
            cell: cell.clone(),
            users: 1,
            keep,
            since: Instant::now(),
            last: SystemTime::now(),
        });
        (Some(cell), Vec::new())
    }

    /// Reads and loads a model; idle ones go while there is too little memory.
    fn load(&self, pack: Pack, states: bool, ctx: Option<usize>) -> Result<Arc<Loaded>> {
        let start = Instant::now();
        let (engine, adapters) = loop {
            match self.open(&pack, states, ctx) {
                Ok(opened) => break opened,
                Err(engine::Error::Memory { .. } | engine::Error::Allocation { .. }) if self.evict_one() => {}
                Err(e) => return Err(e.into()),
            }
        };
        let template = Template::of(&pack, &engine)?;
        let took = start.elapsed();
        super::log::info(&format!(
            "loaded {} in {:.2} s: context {}, {} sequences, {} MiB, {}",
            pack.name,
            took.as_secs_f64(),
            engine.ctx(),
            engine.sequences(),
            engine.memory().total() >> 20,
            engine.info().device
        ));
        let name = |a: Adapter| (a.path.file_name().unwrap_or_default().to_string_lossy().into_owned(), a.scale);
        let adapters = Mutex::new(adapters.into_iter().map(name).collect());
        let warmed = AtomicBool::new(false);
        Ok(Arc::new(Loaded { pack, engine, template, guides: Guides::default(), adapters, warmed }))
    }

    /// The engine of the same model that gives states in place of logits, or the other way round, if it is in memory.
    fn sibling(&self, pack: &Pack, states: bool) -> Option<Arc<Loaded>> {
        let entries = self.lock();
        let same = |e: &&Entry| e.name == pack.name && e.digest == pack.digest && e.states != states;
        entries.iter().find(same).and_then(|e| e.cell.get().cloned())
    }

    fn open(&self, pack: &Pack, states: bool, ctx: Option<usize>) -> engine::Result<(Engine, Vec<Adapter>)> {
        let mut options = self.loading.options.clone();
        let available = [memory::available(), self.loading.memory].into_iter().flatten().min();
        let file = ModelFile::open(&pack.path)?;
        let gguf = file.parse()?;
        let spec = Spec::from_meta(gguf.meta())?;
        let named = pack.parameters.get("num_ctx").and_then(serde_json::Value::as_u64).map(|n| n as usize);
        let wanted = options.ctx.or(named);
        let usual = wanted.unwrap_or_else(|| spec.n_ctx_train.min(engine::DEFAULT_CTX));
        let ctx = usual.max(ctx.unwrap_or(0));
        let sequences = self.loading.parallel.unwrap_or(SEQUENCES);
        let per_token = spec.kv_bytes_per_token(options.kv.bytes()).max(1) as u64;
        let budget = available.map_or(usize::MAX, |bytes| (bytes / KV_SHARE / per_token) as usize);
        options.ctx = Some(ctx);
        options.adapters.extend(pack.adapters.iter().map(|(_, path)| Adapter { path: path.clone(), scale: 1.0 }));
        options.embeddings = states;
        options.memory = available;
        options.weights = self.sibling(pack, states).and_then(|sibling| sibling.engine.weights());
        // States are read at once and need no memory of others.
        options.sequences = if states { 1 } else { sequences };
        options.kv_tokens = Some(self.loading.kv_tokens.unwrap_or(budget.min(KV_SEQUENCES * ctx)).max(ctx));
        drop(gguf);
        drop(file);
        Ok((Engine::open(&pack.path, &options, &mut |_| ())?, options.adapters))
    }

    fn evict_one(&self) -> bool {
        let mut entries = self.lock();
        let idle = |e: &&Entry| e.users == 0;
        let Some(oldest) = entries.iter().filter(idle).map(|e| e.since).min() else { return false };
        let Some(at) = entries.iter().position(|e| e.users == 0 && e.since == oldest) else { return false };
        let gone = entries.swap_remove(at);
        drop(entries);
        // Here and now: its memory is needed.
        drop(gone);
        true
    }

    /// Unloads a model as soon as nobody uses it. Whether it was loaded at all.
    pub fn unload(&self, name: &str) -> bool {
        let mut entries = self.lock();
        let mut found = false;
        for entry in entries.iter_mut().filter(|e| e.name == name) {
            entry.keep = KeepAlive::For(Duration::ZERO);
            found = true;
        }
        let gone = take_expired(&mut entries);
        drop(entries);
        discard(gone);
        found
    }

    /// Unloads what has not been used for as long as it should be kept.
    pub fn sweep(&self) {
        let gone = take_expired(&mut self.lock());
        if !gone.is_empty() {
            discard(gone);
            self.freed.notify_waiters();
        }
    }

    /// What is in memory, longest-lived first.
    pub fn running(&self) -> Vec<Running> {
        let now = Instant::now();
        let expires = |e: &Entry| match e.keep {
            KeepAlive::Forever => None,
            KeepAlive::For(time) => {
                let left = if e.users > 0 { time } else { time.saturating_sub(now - e.since) };
                Some(SystemTime::now() + left)
            }
        };
        let entries = self.lock();
        let loaded =
            entries.iter().filter_map(|e| Some(Running { loaded: e.cell.get()?.clone(), expires: expires(e) }));
        let mut running: Vec<Running> = loaded.collect();
        running
            .sort_by_key(|r| std::cmp::Reverse(r.expires.unwrap_or(SystemTime::now() + Duration::from_secs(1 << 32))));
        running
    }

    /// Unloads everything that nobody uses.
    pub fn clear(&self) {
        let mut entries = self.lock();
        let gone: Vec<Entry> = entries.extract_if(.., |e| e.users == 0).collect();
        drop(entries);
        drop(gone);
    }
}

fn take_expired(entries: &mut Vec<Entry>) -> Vec<Entry> {
    let now = Instant::now();
    let expired = |e: &mut Entry| match e.keep {
        KeepAlive::Forever => false,
        KeepAlive::For(time) => e.users == 0 && now.saturating_duration_since(e.since) >= time,
    };
    entries.extract_if(.., expired).collect()
}

/// Frees models on a thread of its own: joining an engine and giving back memory take time.
fn discard(gone: Vec<Entry>) {
    if gone.is_empty() {
        return;
    }
    for entry in &gone {
        super::log::info(&format!("unloading {}", entry.name));
    }
    std::thread::spawn(move || drop(gone));
}
