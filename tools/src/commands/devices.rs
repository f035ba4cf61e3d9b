//! `handmill devices`: what a model can run on.

use clap::Args;
use engine::Isa;
use engine::backend::{Description, adapters};
use serde_json::json;

use crate::error::Result;
use crate::ui::format::table;
use crate::ui::print;

const EXAMPLES: &str = "\
Examples:
  handmill devices
  handmill devices --json
  handmill run --device 0 smollm2 \"Hello\"

The first column is what --device takes; a part of the name will do as well. `--device gpu` takes the first discrete,
integrated, virtual or other GPU, and never an adapter of type cpu, which computes on the processor.";

/// Arguments of `devices`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
///
/// # Errors
/// Standard output is closed.
pub fn run(arguments: &Arguments) -> Result<()> {
    let adapters = adapters();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let isa = Isa::best().name();
    if arguments.json {
        let gpus: Vec<_> = adapters.iter().map(in_full).collect();
        return print(&format!("{:#}\n", json!({ "cpu": { "isa": isa, "threads": threads }, "adapters": gpus })));
    }
    let mut rows =
        vec![["DEVICE", "NAME", "TYPE", "API", "DRIVER", "FEATURES", "BUFFER", "KERNELS"].map(String::from).to_vec()];
    rows.push(
        ["cpu", "the processor", "cpu", "", "", isa, "", &format!("{threads} threads")].map(String::from).to_vec(),
    );
    rows.extend(adapters.iter().map(in_short));
    print(&table(&rows, &[]))
}

fn in_short(a: &Description) -> Vec<String> {
    vec![
        a.index.to_string(),
        a.name.clone(),
        a.kind.into(),
        a.api.clone(),
        a.driver.clone(),
        if a.features.is_empty() { "none".into() } else { a.features.join(" ") },
        format!("{} MiB", a.buffer[1] >> 20),
        a.lacks.as_ref().map_or_else(|| a.kernels.clone(), |lacks| format!("cannot: {lacks}")),
    ]
}

fn in_full(a: &Description) -> serde_json::Value {
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
        "kernels": a.kernels,
        "lacks": a.lacks,
    })
}
