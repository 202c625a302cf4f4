//! The Python interpreter that the host links: 3.11 or newer, with a shared library.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, say};
use crate::files;
use crate::repo::Repo;

/// The interpreter to build and install with.
pub(crate) struct Python {
    pub(crate) exe: PathBuf,
    /// What `PYO3_PYTHON` must be in the build; nothing where the plain `python3` will do, so that
    /// a `cargo build` by hand and one by xtask share their work.
    pub(crate) pyo3: Option<PathBuf>,
}

/// Prints why this interpreter won't do, or nothing.
const CHECK: &str = "
import os, sys, sysconfig
v = sysconfig.get_config_vars()
lib = os.path.join(v.get('LIBDIR') or '', v.get('LDLIBRARY') or '')
if sys.version_info < (3, 11):
    print('is version %d.%d, older than 3.11' % sys.version_info[:2])
elif not v.get('Py_ENABLE_SHARED') or not os.path.exists(lib):
    print('has no shared library (%s)' % os.path.basename(lib))
";

pub(crate) fn find() -> Result<Python> {
    // `python3` comes from `.cargo/config.toml`; anything else is a person's choice.
    let chosen = env::var_os("PYO3_PYTHON").filter(|exe| exe != "python3" && !exe.is_empty());
    if let Some(exe) = chosen.map(PathBuf::from) {
        return match problem(&exe) {
            None => Ok(Python { exe: exe.clone(), pyo3: Some(exe) }),
            Some(why) => bail!("PYO3_PYTHON names {}, which {why}", exe.display()),
        };
    }
    let mut tried = Vec::new();
    for exe in ["python3", "/usr/bin/python3", "/usr/local/bin/python3"].map(PathBuf::from) {
        match problem(&exe) {
            None => {
                return Ok(Python { pyo3: (exe.as_os_str() != "python3").then(|| exe.clone()), exe });
            }
            Some(why) => tried.push(format!("{} {why}", exe.display())),
        }
    }
    bail!(
        "no Python to link: {}. Install one with `apt-get install python3 libpython3-dev`, or name one in PYO3_PYTHON",
        tried.join("; ")
    )
}

fn problem(exe: &PathBuf) -> Option<String> {
    match cmd::output(Command::new(exe).args(["-c", CHECK])) {
        Ok(text) if text.is_empty() => None,
        Ok(text) => Some(text.trim().to_owned()),
        Err(_) => Some("does not run".to_owned()),
    }
}

/// Installs exactly what a requirements file with digests lists, into a folder that appears whole
/// or not at all.
pub(crate) fn install(python: &Path, requirements: &Path, dest: &Path) -> Result<()> {
    let parent = dest.parent().context("packages need a folder to go to")?;
    fs::create_dir_all(parent)?;
    let temp = tempfile::tempdir_in(parent)?;
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-compile",
    ])
    .args(["--require-hashes", "--no-deps", "--only-binary", ":all:", "--target"])
    .arg(temp.path().join("site"))
    .arg("--requirement")
    .arg(requirements);
    cmd::output(&mut pip).with_context(|| {
        format!(
            "{} could not be installed (without pip: `apt-get install python3-pip`)",
            requirements.display()
        )
    })?;
    fs::rename(temp.path().join("site"), dest).with_context(|| format!("cannot make {}", dest.display()))
}

/// The folder with what an extension's lock file lists, installed once per lock file and
/// interpreter.
pub(crate) fn packages(repo: &Repo, python: &Path, lock: &Path) -> Result<PathBuf> {
    let version =
        cmd::output(Command::new(python).args(["-c", "import sys; print(sys.implementation.cache_tag)"]))?;
    let digest = files::short_digest([fs::read(lock)?, version.into_bytes()]);
    let dest = repo.target.join("deps/pypi").join(digest);
    if !dest.is_dir() {
        let package = lock.parent().unwrap_or(lock);
        say(&format!("setup: getting the Python packages of {}", repo.relative(package).display()));
        install(python, lock, &dest)?;
    }
    Ok(dest)
}
