//! `cargo xtask`: set-up, guests, tests, checks, benches and the demo of this repository.

mod agents;
mod bench;
mod ci;
mod cli;
mod cmd;
mod codegen;
mod demo;
mod files;
mod fuzz;
mod guests;
mod repo;
mod setup;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cmd::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
