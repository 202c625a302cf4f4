//! Every member of the workspace takes the workspace's lints.

use std::fs;

use anyhow::Result;

use super::Finding;
use crate::repo::Repo;

pub(super) fn check(repo: &Repo, found: &mut Vec<Finding>) -> Result<()> {
    for package in &repo.packages {
        let manifest: toml::Table = toml::from_str(&fs::read_to_string(&package.manifest_path)?)?;
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        if lints != Some(true) {
            found.push(Finding {
                file: repo.relative(&package.manifest_path).to_path_buf(),
                line: 1,
                what: "the workspace's lints are not on".to_owned(),
                fix: "add `[lints] workspace = true`".to_owned(),
            });
        }
    }
    Ok(())
}
