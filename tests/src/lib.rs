//! What the integration tests share: where guests are, and a host to load them into.

use std::path::PathBuf;

use quadriga::abi::Isolation;
use quadriga::{Dispatcher, Grant, LoadOptions, Policy};

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
    let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
    quadriga::builder().policy(policy).build().expect("a host with every runtime")
}

/// Grants what the manifest asks for.
pub fn granted() -> LoadOptions {
    LoadOptions { grant: Grant::Requested, ..LoadOptions::default() }
}

fn built(variable: &str, folder: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| repository().join("target").join(folder), PathBuf::from)
}
