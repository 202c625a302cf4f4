//! What the integration tests share: where guests are, and a host to load them into.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use quadriga::abi::Isolation;
use quadriga::{Dispatcher, Grant, LoadOptions, Policy};
use tempfile::TempDir;

/// The folder of a built guest: `guests/<case>/<language>`.
///
/// # Panics
/// If it has not been built.
pub fn guest(case: &str, language: &str) -> PathBuf {
    let dir = built("QUADRIGA_GUESTS", "guests").join(case).join(language);
    assert!(dir.is_dir(), "{} is missing: run `cargo xtask guests`", dir.display());
    dir
}

/// The folder of a built example: `examples/<case>/<name>`.
///
/// # Panics
/// If it has not been built.
pub fn example(case: &str, name: &str) -> PathBuf {
    let dir = built("QUADRIGA_EXAMPLES", "examples").join(case).join(name);
    assert!(dir.is_dir(), "{} is missing: run `cargo xtask guests`", dir.display());
    dir
}

/// The repository's top folder.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default()
}

/// A host that trusts what it loads, so that every runtime can load in its process.
///
/// # Panics
/// If no dispatcher can be built.
pub fn host() -> Dispatcher {
    let policy = Policy { minimum_isolation: Isolation::None, ..policy() };
    quadriga::builder().policy(policy).build().expect("a host with every runtime")
}

/// The default policy, or on a slow machine the same with the seconds that a load may take: those that
/// `QUADRIGA_TEST_LOAD_TIMEOUT` says.
///
/// # Panics
/// If it says something else.
pub fn policy() -> Policy {
    let mut policy = Policy::default();
    if let Some(seconds) = std::env::var_os("QUADRIGA_TEST_LOAD_TIMEOUT") {
        let seconds = seconds.to_str().and_then(|text| text.parse().ok()).expect("a number of seconds");
        policy.load_timeout = Duration::from_secs(seconds);
    }
    policy
}

/// Grants what the manifest asks for.
pub fn granted() -> LoadOptions {
    LoadOptions { grant: Grant::Requested, ..LoadOptions::default() }
}

/// A copy of a package, with more lines at the end of its manifest.
///
/// # Panics
/// If it cannot be copied.
pub fn with(package: &Path, more: &str) -> TempDir {
    let copied = tempfile::tempdir().expect("a temporary folder");
    copy(package, copied.path()).expect("a copy");
    let manifest = copied.path().join("quadriga.toml");
    let text = fs::read_to_string(&manifest).expect("a manifest");
    fs::write(&manifest, format!("{text}\n{more}\n")).expect("a manifest");
    copied
}

/// Copies a folder over another.
///
/// # Errors
/// If the file system refuses.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn built(variable: &str, folder: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| repository().join("target").join(folder), PathBuf::from)
}
