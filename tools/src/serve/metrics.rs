//! Numbers for Prometheus. Counted by hand: three kinds of numbers and one page of text need no more.
//!
//! Names with `handmill_` are ours. Those with `vllm:` and `llamacpp:` say the same under the names that dashboards
//! and the Kubernetes Gateway API's inference extension look for.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::Timings;

use super::call::Record;
use super::loaded::Running;

/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Durations in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(at) = BUCKETS.iter().position(|b| seconds <= *b) {
            self.buckets[at].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut sum = 0;
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let count = self.count.load(Ordering::Relaxed).max(sum);
        let seconds = self.micros.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}");
    }
}

/// All numbers.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests by route and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Requests that were refused, by reason.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    /// Requests to models that are under way, waiting or running.
    pub pending: AtomicI64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    prompt_nanos: AtomicU64,
    generate_nanos: AtomicU64,
    first: Histogram,
    gap: Histogram,
    queue: Histogram,
    answer: Histogram,
    request: Histogram,
}

impl Metrics {
    /// A request is over.
    pub fn request(&self, record: &Record, took: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((record.route, record.status)).or_default() += 1;
        self.request.add(took);
    }

    /// A request was refused.
    pub fn refuse(&self, reason: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// An answer is complete.
    pub fn answered(&self, timings: &Timings, took: Duration) {
        let add = |counter: &AtomicU64, n: u64| {
            counter.fetch_add(n, Ordering::Relaxed);
        };
        add(&self.prompt_tokens, timings.prompt_tokens as u64);
        add(&self.cached_tokens, timings.cached_tokens as u64);
        add(&self.generated_tokens, timings.generated_tokens as u64);
        add(&self.prompt_nanos, timings.prompt_ns);
        add(&self.generate_nanos, timings.generate_ns);
        self.queue.add(Duration::from_nanos(timings.queue_ns));
        self.answer.add(took);
    }

    /// The first token of an answer is there.
    pub fn first_token(&self, time: Duration) {
        self.first.add(time);
    }

    /// Time between two tokens.
    pub fn gap(&self, time: Duration) {
        self.gap.add(time);
    }

    /// The page that Prometheus reads.
    pub fn page(&self, running: &[Running]) -> String {
        let mut out = String::new();
        self.counters(&mut out);
        let _ = writeln!(
            out,
            "# HELP handmill_requests_pending Requests to models under way\n# TYPE handmill_requests_pending gauge"
        );
        let _ = writeln!(out, "handmill_requests_pending {}", self.pending.load(Ordering::Relaxed));
        models(&mut out, running);
        for (name, histogram, help) in [
            ("handmill_time_to_first_token_seconds", &self.first, "From submission to the first token"),
            ("handmill_token_gap_seconds", &self.gap, "Between two tokens of an answer"),
            ("handmill_queue_seconds", &self.queue, "From submission to the first step"),
            ("handmill_answer_seconds", &self.answer, "From submission to the end of an answer"),
            ("handmill_request_seconds", &self.request, "Whole requests"),
            ("vllm:time_to_first_token_seconds", &self.first, "As handmill_time_to_first_token_seconds"),
            ("vllm:time_per_output_token_seconds", &self.gap, "As handmill_token_gap_seconds"),
            ("vllm:e2e_request_latency_seconds", &self.answer, "As handmill_answer_seconds"),
        ] {
            histogram.write(&mut out, name, help);
        }
        if let Some(bytes) = resident() {
            let _ = writeln!(
                out,
                "# HELP process_resident_memory_bytes Resident memory\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}"
            );
        }
        out
    }

    fn counters(&self, out: &mut String) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(
            out,
            "# HELP handmill_requests_total Requests by route and status\n# TYPE handmill_requests_total counter"
        );
        for ((route, status), n) in requests.iter() {
            let _ = writeln!(out, "handmill_requests_total{{route=\"{route}\",status=\"{status}\"}} {n}");
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(
            out,
            "# HELP handmill_refused_total Requests refused, by reason\n# TYPE handmill_refused_total counter"
        );
        for (reason, n) in refused.iter() {
            let _ = writeln!(out, "handmill_refused_total{{reason=\"{reason}\"}} {n}");
        }
        let load = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let (prompt, cached, generated) =
            (load(&self.prompt_tokens), load(&self.cached_tokens), load(&self.generated_tokens));
        for (name, n, help) in [
            ("handmill_prompt_tokens_total", prompt, "Tokens of prompts"),
            ("handmill_cached_tokens_total", cached, "Tokens of prompts found in the cache"),
            ("handmill_generated_tokens_total", generated, "Tokens of answers"),
            ("llamacpp:prompt_tokens_total", prompt - cached.min(prompt), "Tokens of prompts computed"),
            ("llamacpp:tokens_predicted_total", generated, "As handmill_generated_tokens_total"),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {n}");
        }
        for (name, nanos, help) in [
            ("handmill_prompt_seconds_total", load(&self.prompt_nanos), "Time of prompts"),
            ("handmill_generate_seconds_total", load(&self.generate_nanos), "Time of answers after their first token"),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {}", nanos as f64 / 1e9);
        }
    }
}

/// A number of a model's state.
type Gauge = (&'static str, &'static str, fn(&Running) -> f64);

const fn gauge(name: &'static str, help: &'static str, value: fn(&Running) -> f64) -> Gauge {
    (name, help, value)
}

fn busy(r: &Running) -> engine::Load {
    r.loaded.engine.busy().unwrap_or_default()
}

fn kv_share(r: &Running) -> f64 {
    let load = busy(r);
    (load.pages - load.pages_available.min(load.pages)) as f64 / load.pages.max(1) as f64
}

/// THE list of numbers by model.
const GAUGES: [Gauge; 11] = [
    gauge("handmill_requests_running", "Requests in a slot", |r| busy(r).running as f64),
    gauge("handmill_requests_waiting", "Requests that wait for a slot", |r| busy(r).waiting as f64),
    gauge("handmill_slots", "Slots", |r| r.loaded.engine.sequences() as f64),
    gauge("handmill_kv_pages", "Pages of the KV cache", |r| busy(r).pages as f64),
    gauge("handmill_kv_pages_used", "Pages that running requests hold", |r| {
        let load = busy(r);
        (load.pages - load.pages_available.min(load.pages)) as f64
    }),
    gauge("handmill_steps", "Steps since the model was loaded", |r| busy(r).steps as f64),
    gauge("handmill_model_bytes", "Memory of the model", |r| r.loaded.engine.memory().total() as f64),
    gauge("vllm:num_requests_running", "As handmill_requests_running", |r| busy(r).running as f64),
    gauge("vllm:num_requests_waiting", "As handmill_requests_waiting", |r| busy(r).waiting as f64),
    gauge("vllm:gpu_cache_usage_perc", "Share of the KV cache in use", kv_share),
    gauge("vllm:kv_cache_usage_perc", "Share of the KV cache in use", kv_share),
];

fn models(out: &mut String, running: &[Running]) {
    for (name, help, value) in GAUGES {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
        for r in running {
            // Names of models hold no character that would have to be escaped.
            let _ = writeln!(out, "{name}{{model_name=\"{}\"}} {}", r.loaded.pack.name, value(r));
        }
    }
}

/// Resident memory, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}
