//! `handmill rm`: removes models.

use clap::Args;

use crate::error::Result;
use crate::store::{Name, Store};
use crate::ui::Ui;

/// Arguments of `rm`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  handmill rm smollm2\n  handmill rm mine:q4 mine:q8")]
pub struct Arguments {
    /// Names of the store
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
}

/// Carries it out.
///
/// # Errors
/// The store has no such model; those named before it are gone.
pub fn run(arguments: &Arguments) -> Result<()> {
    let store = Store::of_user()?;
    // No name is acted upon before all of them have been read.
    let names = arguments.models.iter().map(|m| m.parse()).collect::<Result<Vec<Name>>>()?;
    for name in names {
        store.remove(&name)?;
        Ui::stderr().say(&format!("{name} is removed"));
    }
    Ok(())
}
