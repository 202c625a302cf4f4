//! `quadriga man`: the manual, by command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _, ValueHint};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use serde_json::json;

use crate::args::Cli;
use crate::output::{Output, harmless};

/// Write the manual, with a page for each command
///
/// Without DIR, the page of `quadriga` itself goes to the standard output.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga man | man -l -
  quadriga man ~/.local/share/man/man1 && man quadriga-install")]
pub(crate) struct ManArgs {
    /// The folder that the pages go to
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// Writes the manual.
pub(crate) fn run(args: &ManArgs, output: Output) -> Result<ExitCode> {
    // There is no page for `help`, which shows the same.
    let mut all = Cli::command().disable_help_subcommand(true);
    all.build();
    let Some(dir) = &args.dir else {
        let page = page(&all)?;
        match output.json {
            true => output.value(&json!({ "page": page }))?,
            false => output.text(&page)?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let pages = write(&all, dir)?;
    match output.json {
        true => output.value(&json!({ "pages": pages }))?,
        false => output.text(&harmless(&format!("{} pages are in {}", pages.len(), dir.display())))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages of a command and of those below it, and gives their names.
fn write(command: &Command, dir: &Path) -> Result<Vec<String>> {
    let name = Man::new(command.clone()).get_filename();
    let file = dir.join(&name);
    std::fs::write(&file, page(command)?).with_context(|| format!("{} cannot be written", file.display()))?;
    let mut pages = vec![name];
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        pages.extend(write(below, dir)?);
    }
    Ok(pages)
}

/// The page of a command in roff: <https://man7.org/linux/man-pages/man7/man.7.html>.
fn page(command: &Command) -> Result<String> {
    let man = Man::new(command.clone()).source(concat!("quadriga ", env!("CARGO_PKG_VERSION")));
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().any(|it| !it.is_hide_set()) {
        man.render_options_section(&mut out)?;
    }
    if command.get_subcommands().any(|it| !it.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    if let Some(text) = command.get_after_help() {
        let text = text.to_string();
        let (title, text) = match text.strip_prefix("Examples:\n") {
            Some(examples) => ("EXAMPLES", examples),
            None => ("NOTES", &*text),
        };
        let mut section = Roff::new();
        section.control("SH", [title]);
        // Line by line, as it was written.
        section.control("nf", []);
        for line in text.lines() {
            section.text([roman(line)]);
        }
        section.control("fi", []);
        section.to_writer(&mut out)?;
    }
    man.render_version_section(&mut out)?;
    Ok(String::from_utf8(out)?)
}
