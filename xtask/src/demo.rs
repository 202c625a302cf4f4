//! `cargo xtask demo`: the extensions of `examples/site` make a site out of a folder of Markdown.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::cmd;
use crate::guests::{self, Wanted};
use crate::repo::Repo;
use crate::setup::Setup;
use crate::test;

pub(crate) fn run(repo: &Repo, setup: &Setup, dir: &Path, out: Option<&Path>, rest: &[String]) -> Result<()> {
    guests::build(repo, setup, Wanted::Demo)?;
    let cli = test::build_cli(repo, setup)?;
    let mut demo = Command::new(cli);
    demo.arg("demo")
        .arg(if dir == Path::new("docs") { repo.root.join(dir) } else { dir.to_path_buf() })
        .arg("--extensions")
        .arg(repo.target.join("examples/site"))
        .arg("--out")
        .arg(out.map_or_else(|| repo.target.join("demo-site"), Path::to_path_buf))
        .args(rest);
    cmd::run(&mut demo)
}
