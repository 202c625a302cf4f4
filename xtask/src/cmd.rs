//! Running other programs, and talking to the person at the terminal.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Prints one line. All of xtask's own words come through here.
#[expect(clippy::print_stderr, reason = "a task runner talks to people; stdout belongs to what it runs")]
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}

/// Prints a result that another program may read.
#[expect(clippy::print_stdout, reason = "what was asked for goes to stdout")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}

/// Runs a command with the terminal's own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs a command without a word unless it fails, and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} ended with {}\n{}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed something other than UTF-8", shown(command)))
}

/// Whether a command can be run and succeeds, whatever it prints.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok()
}

/// The file that a shell would run for this name.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

/// `PATH` with `first` in front.
pub(crate) fn path_with(first: &Path) -> Result<std::ffi::OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    env::join_paths(std::iter::once(first.to_path_buf()).chain(env::split_paths(&rest)))
        .context("PATH cannot be extended")
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file() || file.with_extension("exe").is_file()
}

/// A command short enough to read: cargo's lists of packages would fill the screen.
fn shown(command: &Command) -> String {
    const WORDS: usize = 8;
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let all: Vec<_> =
        std::iter::once(program).chain(command.get_args()).map(OsStr::to_string_lossy).collect();
    let rest = if all.len() > WORDS { " …" } else { "" };
    format!("`{}{rest}`", all[..all.len().min(WORDS)].join(" "))
}
