//! Debian packages, downloaded and unpacked without root.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cmd;
use crate::files;

/// Whether this is a machine with Debian's tools.
pub(crate) fn is_here() -> bool {
    cmd::on_path("apt-get").is_some() && cmd::on_path("dpkg").is_some()
}

/// Downloads packages and unpacks them over each other, all in a folder of its own.
pub(crate) fn unpack(packages: &[&str], dest: &Path) -> Result<()> {
    let parent = dest.parent().context("a package needs a folder to go to")?;
    fs::create_dir_all(parent)?;
    let temp = tempfile::tempdir_in(parent)?;
    let fetch = |own_lists: bool| -> Result<()> {
        let mut apt = Command::new("apt-get");
        apt.current_dir(temp.path());
        if own_lists {
            apt.args(lists_in(temp.path()));
        }
        cmd::output(apt.arg("download").args(packages)).map(drop)
    };
    if fetch(false).is_err() {
        // Without the system's package lists, or with stale ones: fetch them for this one call.
        fs::create_dir_all(temp.path().join("lists/partial"))?;
        fs::create_dir_all(temp.path().join("cache/archives/partial"))?;
        cmd::output(Command::new("apt-get").args(lists_in(temp.path())).arg("update"))?;
        fetch(true)?;
    }
    let unpacked = temp.path().join("unpacked");
    for (name, file) in files::entries(temp.path())? {
        if name.ends_with(".deb") {
            cmd::output(Command::new("dpkg").arg("-x").arg(file).arg(&unpacked))?;
        }
    }
    let names = packages.join(", ");
    fs::rename(&unpacked, dest).with_context(|| format!("cannot move {names} to {}", dest.display()))
}

fn lists_in(dir: &Path) -> [String; 6] {
    let dir = dir.display();
    [
        "-o",
        &format!("Dir::State::lists={dir}/lists"),
        "-o",
        &format!("Dir::Cache={dir}/cache"),
        "-o",
        "APT::Sandbox::User=root",
    ]
    .map(str::to_owned)
}
