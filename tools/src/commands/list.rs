//! `handmill list`: the models of the store.

use clap::Args;
use serde_json::json;

use crate::error::{Error, Result};
use crate::store::{Entry, Store};
use crate::ui::format::{ago, bytes, rfc3339, table};
use crate::ui::{Ui, print};

/// Arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  handmill list\n  handmill ls --json")]
pub struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
///
/// # Errors
/// The store cannot be read, or holds something damaged; the rest is listed all the same.
pub fn run(arguments: &Arguments) -> Result<()> {
    let store = Store::of_user()?;
    let (entries, damaged) = store.list()?;
    if arguments.json {
        let models: Vec<_> = entries.iter().map(|e| describe(&store, e)).collect();
        print(&format!("{:#}\n", json!({ "models": models })))?;
    } else {
        let mut rows = vec![["NAME", "ID", "SIZE", "MODIFIED"].map(String::from).to_vec()];
        rows.extend(entries.iter().map(|e| vec![e.name.to_string(), id(e), bytes(e.manifest.size()), ago(e.modified)]));
        print(&table(&rows, &[]))?;
    }
    let mut damaged = damaged.into_iter();
    let first = damaged.next();
    damaged.for_each(|e| Ui::stderr().say(&format!("error: {e}")));
    first.map_or(Ok(()), Err::<(), Error>)
}

/// The beginning of the model file's digest.
fn id(entry: &Entry) -> String {
    let mut hex = entry.manifest.model().map(|l| l.digest.hex()).unwrap_or_default();
    hex.truncate(12);
    hex
}

fn describe(store: &Store, entry: &Entry) -> serde_json::Value {
    let config = store.config(&entry.manifest);
    let model = entry.manifest.model();
    json!({
        "name": entry.name.to_string(),
        "digest": model.map(|l| l.digest),
        "size": entry.manifest.size(),
        "modified_at": rfc3339(entry.modified),
        "path": model.map(|l| store.blob(&l.digest)),
        "kind": config.kind,
        "source": config.source,
    })
}
