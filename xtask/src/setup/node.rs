//! The npm packages that an extension's lock file names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, say};
use crate::files;
use crate::repo::Repo;

/// The folder with `node_modules` for this extension, installed once per lock file.
pub(crate) fn install(repo: &Repo, package: &Path) -> Result<PathBuf> {
    let inputs = ["package.json", "package-lock.json"].map(|name| package.join(name));
    let texts = inputs.iter().map(|file| {
        fs::read(file).with_context(|| {
            format!("cannot read {}: npm packages come by lock file", repo.relative(file).display())
        })
    });
    let digest = files::short_digest(texts.collect::<Result<Vec<_>>>()?);
    let parent = repo.target.join("deps/npm");
    let dest = parent.join(digest);
    if dest.is_dir() {
        return Ok(dest);
    }
    if cmd::on_path("npm").is_none() {
        bail!(
            "{} needs npm packages; install npm with `apt-get install npm`",
            repo.relative(package).display()
        );
    }
    say(&format!("setup: getting the npm packages of {}", repo.relative(package).display()));
    fs::create_dir_all(&parent)?;
    let temp = tempfile::tempdir_in(&parent)?;
    let build = temp.path().join("build");
    fs::create_dir(&build)?;
    for file in &inputs {
        fs::copy(file, build.join(file.file_name().context("a file has a name")?))?;
    }
    let quiet = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    cmd::output(Command::new("npm").args(quiet).current_dir(&build))?;
    fs::rename(&build, &dest).with_context(|| format!("cannot make {}", dest.display()))?;
    Ok(dest)
}
