//! `handmill create` and `handmill cp`: a model made of another one.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};
use crate::make::{self, From, Recipe};
use crate::serve::shelf::Shelf;
use crate::source::catalogue;
use crate::store::{Name, Store};
use crate::ui::Ui;

const EXAMPLES: &str = "\
Examples:
  printf 'FROM smollm2\\nSYSTEM You answer in one word.\\nPARAMETER temperature 0\\n' > Modelfile
  handmill create terse -f Modelfile

Words of a Modelfile: FROM (a model, a GGUF file), PARAMETER, SYSTEM, TEMPLATE (in Go's template language), MESSAGE,
LICENSE, FILE (a text file whose contents follow the system text).";

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The name of the new model
    name: String,
    /// The Modelfile
    #[arg(short = 'f', long, value_name = "FILE", default_value = "Modelfile")]
    file: PathBuf,
}

/// Carries it out.
///
/// # Errors
/// The Modelfile cannot be read or holds what cannot be used, or the store cannot be written.
pub fn run(arguments: &Arguments) -> Result<()> {
    let name: Name = arguments.name.parse()?;
    let text = std::fs::read_to_string(&arguments.file).map_err(Error::io("cannot read", &arguments.file))?;
    let recipe = make::parse(&text, arguments.file.parent().unwrap_or(&PathBuf::new()))?;
    let store = Store::of_user()?;
    let shelf = Shelf::new(store, Vec::new(), Vec::new());
    if let Some(From::Model(parent)) = &recipe.from
        && shelf.find(parent).is_err()
        && catalogue::find(&parent.parse()?)?.is_some()
    {
        super::obtain_into(shelf.store(), parent)?;
    }
    make::make(&shelf, &name, &recipe, Ui::stderr())?;
    Ui::stderr().say(&format!("{name} is in the store now"));
    Ok(())
}

/// Arguments of `cp`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  handmill cp smollm2 mine")]
pub struct CopyArguments {
    /// The model
    source: String,
    /// Its other name
    destination: String,
}

/// Gives a model of the store another name.
///
/// # Errors
/// There is no such model, or the store cannot be written.
pub fn copy(arguments: &CopyArguments) -> Result<()> {
    let name: Name = arguments.destination.parse()?;
    let shelf = Shelf::new(Store::of_user()?, Vec::new(), Vec::new());
    let recipe = Recipe { from: Some(From::Model(arguments.source.clone())), ..Recipe::default() };
    make::make(&shelf, &name, &recipe, Ui::Silent)
}
