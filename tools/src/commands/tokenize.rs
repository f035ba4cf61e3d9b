//! `handmill tokenize`: text to token ids.

use std::io::{Read, stdin};
use std::path::Path;

use clap::Args;
use engine::file::ModelFile;
use engine::tokenizer::{Encode, Tokenizer};

use crate::error::{Error, Result};
use crate::ui::{Ui, print};

const EXAMPLES: &str = "\
Examples:
  handmill tokenize smollm2 \"Hello, world\"
  handmill tokenize smollm2 --pieces < text.txt";

/// Arguments of `tokenize`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A name of the store or the catalogue, or the path of a GGUF file
    model: String,
    /// The text [default: standard input]
    text: Option<String>,
    /// Special tokens written in the text become those tokens
    #[arg(long)]
    special: bool,
    /// Do not add the tokens that the model wants at the beginning and the end
    #[arg(long)]
    plain: bool,
    /// Print a line for each token: id, tab, its text as a JSON string
    #[arg(long)]
    pieces: bool,
}

/// Carries it out.
///
/// # Errors
/// The model cannot be found, or has no tokenizer that is known.
pub fn run(arguments: &Arguments) -> Result<()> {
    let text = match &arguments.text {
        Some(text) => text.clone(),
        None => {
            let mut text = String::new();
            stdin().lock().read_to_string(&mut text).map_err(Error::io("cannot read", Path::new("standard input")))?;
            text
        }
    };
    let file = ModelFile::open(&super::find(&arguments.model, Ui::stderr())?)?;
    let tokenizer = Tokenizer::from_meta(file.parse()?.meta()).map_err(engine::Error::from)?;
    let how = Encode { add_special: !arguments.plain, parse_special: arguments.special };
    let ids = tokenizer.encode(&text, how);
    if !arguments.pieces {
        return print(&format!("{}\n", serde_json::json!(ids)));
    }
    let line = |id: &u32| {
        let text = String::from_utf8_lossy(&tokenizer.bytes(*id)).into_owned();
        format!("{id}\t{}\n", serde_json::json!(text))
    };
    print(&ids.iter().map(line).collect::<String>())
}
