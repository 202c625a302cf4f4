//! The cargo subcommands that the tasks call: those installed already, else built from source into
//! the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cmd::{self, say};
use crate::repo::{self, Repo};

/// A cargo subcommand that doesn't come with Rust.
#[derive(Clone, Copy)]
pub(crate) enum Tool {
    Nextest,
    Deny,
    Fuzz,
}

impl Tool {
    pub(crate) fn subcommand(self) -> &'static str {
        match self {
            Self::Nextest => "nextest",
            Self::Deny => "deny",
            Self::Fuzz => "fuzz",
        }
    }

    fn program(self) -> String {
        format!("cargo-{}", self.subcommand())
    }

    fn version(self) -> &'static str {
        match self {
            Self::Nextest => "0.9.143",
            Self::Deny => "0.20.2",
            Self::Fuzz => "0.13.2",
        }
    }
}

pub(crate) fn dir(repo: &Repo) -> PathBuf {
    repo.target.join("tools")
}

pub(crate) fn ensure(repo: &Repo, tool: Tool) -> Result<()> {
    let program = tool.program();
    if dir(repo).join("bin").join(&program).is_file() || cmd::on_path(&program).is_some() {
        return Ok(());
    }
    say(&format!(
        "setup: building {program} {} into {} (a few minutes, once)",
        tool.version(),
        dir(repo).display()
    ));
    // Built once and run rarely: a quick build is worth more than quick code.
    let mut install = repo::cargo();
    install
        .args(["install", "--quiet", "--locked", &program, "--version", tool.version(), "--root"])
        .arg(dir(repo))
        .env("CARGO_TARGET_DIR", dir(repo).join("build"))
        .envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
            ("CARGO_PROFILE_RELEASE_DEBUG", "0"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "64"),
        ]);
    cmd::output(&mut install).map(drop).with_context(|| format!("{program} could not be installed"))
}

pub(crate) fn command(tools: &Path, tool: Tool) -> Command {
    let ours = tools.join("bin").join(tool.program());
    if ours.is_file() { Command::new(ours) } else { Command::new(tool.program()) }
}
