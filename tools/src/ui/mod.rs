//! What a person sees: messages and progress on standard error, sizes and times in words. Standard output stays free
//! for answers.

pub mod format;
pub mod page;
mod progress;

use std::io::{Write, stdout};

use crate::error::{Error, Result};
pub use progress::{Bar, News, Ui, watched};

/// Writes to standard output at once.
///
/// # Errors
/// [`Error::OutputClosed`] where nobody reads any more, or whatever the operating system says.
pub fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::stdout)
}
