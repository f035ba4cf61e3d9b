//! `handmill verify`: reads the whole store and compares checksums.

use clap::Args;

use crate::error::{Error, Result};
use crate::store::{Name, Store};
use crate::ui::{Ui, print};

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  handmill verify\n  handmill verify smollm2")]
pub struct Arguments {
    /// Check only this model
    #[arg(value_name = "MODEL")]
    model: Option<String>,
}

/// Carries it out.
///
/// # Errors
/// The store cannot be read, or something in it is not what it should be.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    let name = arguments.model.as_deref().map(str::parse::<Name>).transpose()?;
    let (checked, problems) = Store::of_user()?.verify(name.as_ref(), ui)?;
    for problem in &problems {
        let name = problem.name.as_ref().map_or("?".into(), Name::to_string);
        ui.say(&format!("{name}: {}", problem.error));
    }
    if !problems.is_empty() {
        return Err(Error::Damaged { problems: problems.len() });
    }
    print(&format!("{checked} checked, every checksum is right\n"))
}
