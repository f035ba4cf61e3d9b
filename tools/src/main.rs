//! The program `handmill`: what people type, see and keep on disk.
//!
//! `cli` lists the subcommands, `commands` carries them out, `bench` measures speed and `eval` and `quality` quality,
//! `compare` finds where two devices part, `serve` answers over HTTP, `quantize`, `convert` and `synth` write models,
//! `make` makes one of another, `store` keeps them, `source` brings them in, `ui` is what a person sees. Everything about
//! models and time is the engine's; nothing here computes.
#![forbid(unsafe_code)]

mod bench;
mod chat;
mod cli;
mod commands;
mod compare;
mod convert;
mod error;
mod eval;
mod imatrix;
mod make;
mod memory;
mod quality;
mod quantize;
mod serve;
mod source;
mod store;
mod synth;
mod ui;

use std::process::ExitCode;

use clap::Parser;
use error::Error;

fn main() -> ExitCode {
    let cli = cli::Cli::parse_from(bench::respelled(std::env::args_os()));
    let failure = cli.command.failure();
    match cli.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        // What was found stands on standard output already.
        Err(Error::Differs) => ExitCode::FAILURE,
        // Whoever closed the pipe, as `head` does, wants no more and needs no message.
        Err(Error::OutputClosed) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", ui::format::printable(&error.to_string()));
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure)
        }
    }
}
