//! `cargo xtask tidy`: what the compiler doesn't check.

mod edges;
mod members;
mod rust_items;
mod sources;
mod spec_map;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cmd::{self, say};
use crate::repo::Repo;

/// One thing to mend.
#[derive(Debug, PartialEq, Serialize)]
struct Finding {
    file: PathBuf,
    line: usize,
    what: String,
    fix: String,
}

pub(crate) fn run(repo: &Repo, json: bool) -> Result<()> {
    let mut found = Vec::new();
    edges::check(repo, &mut found)?;
    members::check(repo, &mut found)?;
    sources::check(repo, &mut found)?;
    spec_map::check(repo, &mut found)?;
    found.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    if json {
        cmd::print(&serde_json::to_string_pretty(&found)?);
    } else {
        for finding in &found {
            say(&format!("{}:{}: {}: {}", finding.file.display(), finding.line, finding.what, finding.fix));
        }
    }
    match found.len() {
        0 => Ok(()),
        1 => bail!("tidy: 1 finding"),
        n => bail!("tidy: {n} findings"),
    }
}

/// A finding at the first line of a text that holds `needle`, which names it well enough.
fn at(file: &Path, text: &str, needle: &str, what: String, fix: String) -> Finding {
    let line = text.lines().position(|line| line.contains(needle)).map_or(1, |index| index + 1);
    Finding { file: file.to_path_buf(), line, what, fix }
}
