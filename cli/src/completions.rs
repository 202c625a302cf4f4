use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use serde_json::json;

use crate::args::Cli;
use crate::output::Output;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga completions bash > ~/.local/share/bash-completion/completions/quadriga
  quadriga completions fish > ~/.config/fish/completions/quadriga.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

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
