//! `cargo xtask agents`: the example host plays a scenario with its extensions.

use std::process::Command;

use anyhow::Result;

use crate::cmd;
use crate::guests::{self, Wanted};
use crate::repo::{EXAMPLE_HOST, Repo};
use crate::setup::Setup;
use crate::test;

pub(crate) fn run(repo: &Repo, setup: &Setup, rest: &[String]) -> Result<()> {
    guests::build(repo, setup, Wanted::Agents)?;
    let mut platform = Command::new(test::build_program(repo, setup, "agent-platform")?);
    platform.arg("--extensions").arg(repo.target.join("examples/agents")).args(rest);
    // A scenario of one's own is named last, and takes the place of the recorded one.
    if !rest.iter().any(|argument| argument.ends_with(".jsonl")) {
        platform.arg(repo.root.join(EXAMPLE_HOST).join("scenario.jsonl"));
    }
    cmd::run(&mut platform)
}
