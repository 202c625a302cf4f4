//! What the QuickJS backend is built with: a C compiler, CMake and the headers of SIMDe.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{debian, python, tools};
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
    if !debian::is_here() {
        say("setup: no Debian package of SIMDe here: the build of QuickJS clones it");
        return Ok(None);
    }
    say("setup: getting SIMDe for QuickJS");
    debian::unpack(&["libsimde-dev"], &dest).context(
        "SIMDe could not be got; install it with `apt-get update && apt-get install libsimde-dev`",
    )?;
    Ok(Some(include))
}

fn toolchain_file(repo: &Repo, simde: &Path) -> Result<PathBuf> {
    let file = tools::dir(repo).join("quickjs-toolchain.cmake");
    let text = format!("set(FETCHCONTENT_SOURCE_DIR_SIMDE \"{}\" CACHE PATH \"\")\n", simde.display());
    files::write_if_changed(&file, &text)?;
    Ok(file)
}
