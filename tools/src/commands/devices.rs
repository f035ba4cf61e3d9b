//! `handmill devices`: what a model can run on.

use clap::Args;
use engine::backend::{Check, Description, Device, Measured, adapters, measure, tested};
use engine::{Isa, Variant};
use serde_json::json;

use crate::error::Result;
use crate::store::Store;
use crate::ui::format::table;
use crate::ui::{Ui, print};

const EXAMPLES: &str = "\
Examples:
  handmill devices
  handmill devices --json
  handmill devices --quick           what there is, without measuring it
  handmill run --device 0 smollm2 \"Hello\"

The first column is what --device takes; a part of the name will do as well. `--device gpu` takes the first discrete,
integrated, virtual or other GPU, and never an adapter of type cpu, which computes on the processor. READ and F32 are
what small kernels of our own reach on it, and every kernel that it would get for Q4_K, Q8_0 and F16 is tested against
the processor first; a variant that is off is not used. KERNELS is the variant that it gets and why; --variant of other
commands asks for another, and --json says which it cannot have and lists the kernels one by one.";

/// Arguments of `devices`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Neither test kernels nor measure speed
    #[arg(long)]
    quick: bool,
}

/// An adapter, and what was measured or why it could not be.
struct Seen {
    adapter: Description,
    measured: Option<Result<Measured, String>>,
}

/// Carries it out.
///
/// # Errors
/// Standard output is closed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let all: Vec<Seen> = adapters().into_iter().map(|adapter| see(adapter, arguments.quick)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let isa = Isa::best().name();
    if arguments.json {
        let gpus: Vec<_> = all.iter().map(in_full).collect();
        return print(&format!("{:#}\n", json!({ "cpu": { "isa": isa, "threads": threads }, "adapters": gpus })));
    }
    let head = ["DEVICE", "NAME", "TYPE", "API", "DRIVER", "FEATURES", "BUFFER", "READ", "F32", "KERNELS"];
    let processor = ["cpu", "the processor", "cpu", "", "", isa, "", "", "", &format!("{threads} threads")];
    let mut rows = vec![head.map(String::from).to_vec(), processor.map(String::from).to_vec()];
    rows.extend(all.iter().map(in_short));
    print(&table(&rows, &[]))
}

/// Measures an adapter that kernels can run on.
fn see(adapter: Description, quick: bool) -> Seen {
    let measured = match Store::checks_of_user() {
        Some(folder) if !quick && adapter.lacks.is_none() => {
            Ui::stderr().say(&format!("measuring {} ({})", adapter.name, adapter.api));
            Some(measure(&Device::Index(adapter.index), &folder).map_err(|e| e.to_string()))
        }
        _ => None,
    };
    Seen { adapter, measured }
}

fn in_short(seen: &Seen) -> Vec<String> {
    let a = &seen.adapter;
    let (read, float, kernels) = match &seen.measured {
        None => (String::new(), String::new(), variant((a.variant, &a.why))),
        Some(Err(why)) => (String::new(), String::new(), format!("cannot: {why}")),
        Some(Ok(m)) => (
            format!("{:.1} GB/s", m.reach.read / 1e9),
            format!("{:.1} GFLOP/s", m.reach.float / 1e9),
            format!("{}; {}", variant((m.variant.0, &m.variant.1)), tested(&m.checks)),
        ),
    };
    vec![
        a.index.to_string(),
        a.name.clone(),
        a.kind.into(),
        a.api.clone(),
        a.driver.clone(),
        if a.features.is_empty() { "none".into() } else { a.features.join(" ") },
        format!("{} MiB", a.buffer[1] >> 20),
        read,
        float,
        a.lacks.as_ref().map_or(kernels, |lacks| format!("cannot: {lacks}")),
    ]
}

/// A variant and why it is taken.
fn variant((variant, why): (Variant, &str)) -> String {
    format!("{variant}, as {why}")
}

fn in_full(seen: &Seen) -> serde_json::Value {
    let a = &seen.adapter;
    let measured = seen.measured.as_ref().and_then(|m| m.as_ref().ok());
    let checks = measured.map(|m| {
        let row = |c: &Check| json!({ "kernel": c.kernel, "nmse": c.error, "used": c.good, "tested_now": c.fresh });
        m.checks.iter().map(row).collect::<Vec<_>>()
    });
    let lacked = |v: Variant| a.without.iter().find(|w| w.0 == v).map(|w| &w.1);
    let variants: Vec<_> = Variant::ALL
        .iter()
        .map(|&v| json!({ "name": v.name(), "can": lacked(v).is_none(), "lacks": lacked(v) }))
        .collect();
    json!({
        "index": a.index,
        "name": a.name,
        "type": a.kind,
        "api": a.api,
        "driver": a.driver,
        "features": a.features,
        "subgroup_min": a.subgroup[0],
        "subgroup_max": a.subgroup[1],
        "max_buffer_bytes": a.buffer[0],
        "max_binding_bytes": a.buffer[1],
        "workgroup_memory_bytes": a.workgroup_memory,
        "variant": measured.map_or(a.variant, |m| m.variant.0).name(),
        "why": measured.map_or(&a.why, |m| &m.variant.1),
        "variants": variants,
        "lacks": a.lacks,
        "read_bytes_per_second": measured.map(|m| m.reach.read),
        "f32_flops_per_second": measured.map(|m| m.reach.float),
        "int8_ops_per_second": measured.map(|m| m.reach.int8),
        "tests": checks,
        "fault": seen.measured.as_ref().and_then(|m| m.as_ref().err()),
    })
}
