//! Extensions as they were built for a released contract, from the sources of that time:
//! `target/guests/since-v0.1/`. The tests show that they load on the host of today, with not a byte
//! of theirs changed. They are built once per revision, so a warm build doesn't notice them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::discover;
use crate::cmd::{self, say};
use crate::repo::Repo;
use crate::setup::Setup;

/// The folder of the fixtures, named like the one of their WIT.
const SINCE: &str = "since-v0.1";

/// Whose sources they are built from: the revision that contract 0.1 was settled in.
const REVISION: &str = "4f76d6eaf657a5d1044dae063d7d3dc82b2ff9fa";

/// Those of `tests/guests` that together use all of the contract: calls, streams, logs, settings
/// and state.
const CASES: [&str; 3] = ["counter", "flow", "relay"];

pub(super) fn build(repo: &Repo, setup: &Setup) -> Result<()> {
    let dest = Path::new("guests").join(SINCE);
    let stamp = repo.target.join(&dest).join("revision");
    if fs::read_to_string(&stamp).is_ok_and(|built| built == REVISION) {
        return Ok(());
    }
    say(&format!("build: extensions for contract {SINCE}, from the sources of then"));
    let work = repo.target.join("fixtures").join(SINCE);
    let then = Repo { target: work.join("target"), ..Repo::at(&checkout(repo, &work)?)? };
    super::make(&then, setup, &discover::cases(&then, &CASES, &dest)?, "dev", &repo.target)?;
    // A revision changes so seldom that what it was built with isn't worth its room.
    fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    fs::write(&stamp, REVISION).with_context(|| format!("cannot write {}", stamp.display()))
}

/// The whole repository as it was, beside the real one: the index and working tree of the user stay
/// as they are.
fn checkout(repo: &Repo, work: &Path) -> Result<PathBuf> {
    let git = || {
        let mut git = Command::new("git");
        git.current_dir(&repo.root).env("GIT_INDEX_FILE", work.join("index"));
        git
    };
    let there = || cmd::output(git().args(["cat-file", "-e", &format!("{REVISION}^{{commit}}")]));
    if there().is_err() {
        // A shallow clone can fetch the rest; whether it has, the next look tells.
        let _ = cmd::output(git().args(["fetch", "--quiet", "--unshallow"]));
    }
    there().with_context(|| {
        format!(
            "this clone lacks revision {REVISION}, whose sources the fixtures of {SINCE} are built from: \
             get it with `git fetch`"
        )
    })?;
    let sources = work.join("src");
    if sources.is_dir() {
        fs::remove_dir_all(&sources).with_context(|| format!("cannot remove {}", sources.display()))?;
    }
    fs::create_dir_all(&sources).with_context(|| format!("cannot make {}", sources.display()))?;
    cmd::output(git().args(["read-tree", REVISION]))?;
    // The prefix is put before each path as it is, so it needs its slash.
    let prefix = format!("--prefix={}/", sources.display());
    cmd::output(git().args(["checkout-index", "--all", &prefix]))?;
    Ok(sources)
}
