//! Crates that a `Cargo.lock` names.

use serde::Deserialize;

use super::{Component, Components, add, purl};

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    /// The extension's own crates have none.
    source: Option<String>,
    checksum: Option<String>,
}

/// Reads the extension's own `Cargo.lock`.
pub(super) fn lock(path: &str, text: &str, found: &mut Components) {
    if path.contains('/') {
        return;
    }
    let Ok(Lock { package }) = toml::from_str(text) else { return };
    for Locked { name, version, source, checksum } in package {
        if source.is_some() {
            let url = purl("cargo", "", &name, &version);
            let hash = checksum.map(|digits| ("SHA-256", digits));
            add(found, url, Component { name, version, license: None, hash });
        }
    }
}
