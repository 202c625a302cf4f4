use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use serde_json::json;

use crate::args::{Cli, CompletionsArgs};
use crate::output::Output;

/// Prints a completion script.
pub(crate) fn run(args: &CompletionsArgs, output: Output) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quadriga", &mut script);
    let script = String::from_utf8(script)?;
    if output.json {
        output.value(&json!({ "shell": args.shell.to_string(), "script": script }))?;
    } else {
        output.text(&script)?;
    }
    Ok(ExitCode::SUCCESS)
}
