//! What the QuickJS backend is built with: a C compiler, CMake and the headers of SIMDe.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{python, tools};
use crate::cmd::{self, say};
use crate::files;
use crate::repo::Repo;

/// Gets what is missing, and returns the environment of the build.
pub(crate) fn ensure(repo: &Repo, python: &Path) -> Result<Vec<(&'static str, OsString)>> {
    for compiler in ["cc", "c++"] {
        if cmd::on_path(compiler).is_none() {
            bail!("QuickJS needs a C and C++ compiler; install one with `apt-get install build-essential`");
        }
    }
    let mut vars = Vec::new();
    if cmd::on_path("cmake").is_none() {
        vars.push(("PATH", cmd::path_with(&cmake(repo, python)?)?));
    }
    // A toolchain file of the user's own says where SIMDe is better than this could.
    if env::var_os("CMAKE_TOOLCHAIN_FILE").is_none()
        && let Some(simde) = simde(repo)?
    {
        vars.push(("CMAKE_TOOLCHAIN_FILE", toolchain_file(repo, &simde)?.into()));
    }
    Ok(vars)
}

/// The folder of a CMake from its Python wheel.
fn cmake(repo: &Repo, python: &Path) -> Result<PathBuf> {
    let lock = repo.root.join("xtask/requirements/cmake.txt");
    let digest = files::short_digest([fs::read(&lock)?]);
    let dest = tools::dir(repo).join(format!("cmake-{digest}"));
    let bin = dest.join("cmake/data/bin");
    if !bin.is_dir() {
        say("setup: getting CMake for QuickJS");
        python::install(python, &lock, &dest)
            .context("CMake could not be got; install it with `apt-get install cmake`")?;
    }
    Ok(bin)
}

/// A folder that holds `simde/`, where a Debian package can give one. Elsewhere the build clones
/// SIMDe by itself.
fn simde(repo: &Repo) -> Result<Option<PathBuf>> {
    let installed = Path::new("/usr/include");
    if installed.join("simde").is_dir() {
        return Ok(Some(installed.to_path_buf()));
    }
    let dest = tools::dir(repo).join("simde");
    let include = dest.join("usr/include");
    if include.join("simde").is_dir() {
        return Ok(Some(include));
    }
    if cmd::on_path("apt-get").is_none() || cmd::on_path("dpkg").is_none() {
        say("setup: no Debian package of SIMDe here: the build of QuickJS clones it");
        return Ok(None);
    }
    say("setup: getting SIMDe for QuickJS");
    unpack_debian("libsimde-dev", &dest).context(
        "SIMDe could not be got; install it with `apt-get update && apt-get install libsimde-dev`",
    )?;
    Ok(Some(include))
}

/// Downloads a Debian package without root and unpacks it, all in a folder of its own.
fn unpack_debian(package: &str, dest: &Path) -> Result<()> {
    let parent = dest.parent().context("a package needs a folder to go to")?;
    fs::create_dir_all(parent)?;
    let temp = tempfile::tempdir_in(parent)?;
    let fetch = |own_lists: bool| -> Result<()> {
        let mut apt = Command::new("apt-get");
        apt.current_dir(temp.path());
        if own_lists {
            apt.args(lists_in(temp.path()));
        }
        cmd::output(apt.args(["download", package])).map(drop)
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
    fs::rename(&unpacked, dest).with_context(|| format!("cannot move {package} to {}", dest.display()))
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

fn toolchain_file(repo: &Repo, simde: &Path) -> Result<PathBuf> {
    let file = tools::dir(repo).join("quickjs-toolchain.cmake");
    let text = format!("set(FETCHCONTENT_SOURCE_DIR_SIMDE \"{}\" CACHE PATH \"\")\n", simde.display());
    files::write_if_changed(&file, &text)?;
    Ok(file)
}
