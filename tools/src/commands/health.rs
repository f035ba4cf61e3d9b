//! `handmill health`: asks a server whether it takes requests; for health checks in images without other tools.

use std::time::Duration;

use clap::Args;

use crate::error::{Error, Result};

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  handmill health\n  handmill health http://127.0.0.1:8080")]
pub struct Arguments {
    /// The server
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:11434")]
    url: String,
}

/// Carries it out: succeeds where the server is ready.
///
/// # Errors
/// The server cannot be reached or is not ready.
pub fn run(arguments: &Arguments) -> Result<()> {
    let url = format!("{}/health", arguments.url.trim_end_matches('/'));
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(3)));
    let answer = config.proxy(None).build().new_agent().get(&url).call();
    match answer.map(|a| a.status().as_u16()) {
        Ok(200) => Ok(()),
        Ok(status) => Err(Error::Usage(format!("{url} answered {status}"))),
        Err(e) => Err(Error::Usage(format!("{url} does not answer: {e}"))),
    }
}
