//! Crates: those that a `Cargo.lock` names, and those that were brought along.

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

#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    #[serde(rename = "license-file")]
    license_file: Option<String>,
}

/// Reads the manifest of a crate in `vendor`, as `cargo vendor` places it.
pub(super) fn manifest(path: &str, text: &str, found: &mut Components) {
    if !matches!(path.rsplit('/').collect::<Vec<_>>()[..], [_, _, "vendor", ..]) {
        return;
    }
    let Ok(Manifest { package }) = toml::from_str(text) else { return };
    let Package { name, version, license, license_file } = package;
    let license = license.or_else(|| license_file.map(|file| format!("see {file}")));
    add(found, purl("cargo", "", &name, &version), Component { name, version, license, hash: None });
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
