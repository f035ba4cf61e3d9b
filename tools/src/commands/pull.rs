//! `handmill pull`: brings a model into the store.

use std::path::Path;

use clap::Args;

use crate::error::{Error, Result};
use crate::source::{LocalFile, Outcome, Registry, Source, Url, catalogue};
use crate::store::{Digest, Expected, Name, Store};
use crate::ui::{Ui, print};

const EXAMPLES: &str = "\
Examples:
  handmill pull smollm2
  handmill pull ./model.gguf --name mine
  handmill pull https://example.com/model.gguf --name mine:q4 --sha256 DIGEST
  handmill pull hf.co/USER/REPOSITORY-GGUF:Q4_K_M
  handmill pull localhost:5000/library/mine:latest

A download that breaks off goes on from where it was when the command is repeated.";

/// Arguments of `pull`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the catalogue, the path of a GGUF file, an http(s) address of one, or HOST/NAMESPACE/MODEL[:TAG] of a
    /// registry such as Ollama's (registry.ollama.ai) or Hugging Face's (hf.co)
    #[arg(value_name = "MODEL")]
    model: String,
    /// The name to give it [default: the name in the catalogue, or the file's name]
    #[arg(long)]
    name: Option<String>,
    /// Refuse a file that has not this sha256 (64 hexadecimal digits)
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// Print the path of the model's file on standard output
    #[arg(long)]
    print_path: bool,
}

/// Carries it out.
///
/// # Errors
/// There is no such model, or it cannot be obtained.
pub fn run(arguments: &Arguments) -> Result<()> {
    let ui = Ui::stderr();
    let store = Store::of_user()?;
    let (name, source) = source(arguments, &store, ui)?;
    let (path, outcome) = match source {
        Some(source) => super::obtain(&store, &name, source.as_ref(), ui)?,
        None => (store.model(&name)?.ok_or_else(|| unknown(&arguments.model))?, Outcome::Present),
    };
    match outcome {
        Outcome::Present => ui.say(&format!("{name} is in the store already")),
        Outcome::Obtained => ui.say(&format!("{name} is in the store now")),
    }
    if arguments.print_path {
        print(&format!("{}\n", path.display()))?;
    }
    Ok(())
}

/// The source that the arguments mean, and the name to give; no source for a model that only the store knows.
fn source(arguments: &Arguments, store: &Store, ui: Ui) -> Result<(Name, Option<Box<dyn Source>>)> {
    let model = arguments.model.as_str();
    let digest = arguments.sha256.as_deref().map(|t| Digest::from_hex(&t.to_ascii_lowercase())).transpose()?;
    let given = arguments.name.as_deref().map(str::parse::<Name>).transpose()?;
    if Url::is_one(model) {
        let source = Url::new(model, Expected { digest, size: None })?;
        return Ok((named(given, source.file_name())?, Some(Box::new(source))));
    }
    let path = Path::new(model);
    if super::is_path(model) {
        let source = LocalFile::new(path, digest, ui)?;
        let file = path.file_name().and_then(|n| n.to_str()).unwrap_or(model);
        return Ok((named(given, file)?, Some(Box::new(source))));
    }
    if digest.is_some() {
        return Err(Error::Usage("--sha256 is for files and addresses; the catalogue has its own checksums".into()));
    }
    let name: Name = model.parse()?;
    match catalogue::find(&name)? {
        Some(source) => Ok((given.unwrap_or(name), Some(Box::new(source)))),
        None if path.is_file() => {
            let source = LocalFile::new(path, None, ui)?;
            Ok((given.unwrap_or(name), Some(Box::new(source))))
        }
        None if model.matches('/').count() == 2 => {
            let source = Registry::new(model, false)?;
            Ok((given.unwrap_or(name), Some(Box::new(source))))
        }
        None if store.manifest(&name)?.is_some() && given.is_none() => Ok((name, None)),
        None => Err(unknown(model)),
    }
}

fn unknown(model: &str) -> Error {
    Error::NotFound { name: model.into(), known: catalogue::names() }
}

/// The given name, else one made from a file's name.
fn named(given: Option<Name>, file: &str) -> Result<Name> {
    match given {
        Some(name) => Ok(name),
        None => file.strip_suffix(".gguf").unwrap_or(file).parse().map_err(|_| {
            Error::Usage(format!("no model name can be made from the file name \"{file}\"; give one with --name"))
        }),
    }
}
