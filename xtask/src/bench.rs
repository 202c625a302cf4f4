//! `cargo xtask bench`: each runtime against its bare engine, in the same run.

use anyhow::Result;

use crate::cmd;
use crate::guests::{self, Wanted};
use crate::repo::Repo;
use crate::setup;

pub(crate) fn run(repo: &Repo, rest: &[String]) -> Result<()> {
    let setup = setup::run(repo, None, &[])?;
    guests::build(repo, &setup, Wanted::Bench)?;
    let mut bench = setup.cargo();
    bench
        .args(["run", "--profile", "bench", "--package", "quadriga-bench"])
        .args(setup.engine.cargo_args())
        .arg("--")
        .args(rest)
        .env("QUADRIGA_GUESTS", guests::dest(repo, Wanted::Bench).join("guests"));
    cmd::run(&mut bench)
}
