//! npm packages: those in `node_modules/` and `vendor/`, and those that a lock file names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{Component, Components, add, purl};

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<Json>,
    /// As it was written long ago.
    licenses: Option<Json>,
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    packages: Map<String, Json>,
}

#[derive(Deserialize)]
struct Locked {
    name: Option<String>,
    version: String,
    license: Option<Json>,
    integrity: Option<String>,
    #[serde(default)]
    dev: bool,
}

/// Reads the `package.json` of a package that was brought along.
pub(super) fn package(path: &str, text: &str, found: &mut Components) {
    if !is_package(path) {
        return;
    }
    if let Ok(Package { name, version, license, licenses }) = serde_json::from_str(text) {
        put(found, name, version, license.or(licenses), None);
    }
}

/// Whether a `package.json` stands at the top of a package that somebody else made; those below
/// only say how its files are to be read.
fn is_package(path: &str) -> bool {
    let folders: Vec<&str> = path.split('/').rev().skip(1).collect();
    match folders[..] {
        [name, "node_modules", ..] => !name.starts_with('@'),
        [_, scope, "node_modules", ..] => scope.starts_with('@'),
        _ => folders.contains(&"vendor") && !folders.contains(&"node_modules"),
    }
}

/// Reads the extension's own `package-lock.json`.
pub(super) fn lock(path: &str, text: &str, found: &mut Components) {
    if path.contains('/') {
        return;
    }
    let Ok(Lock { packages }) = serde_json::from_str(text) else { return };
    for (place, locked) in packages {
        let Some((_, place)) = place.rsplit_once("node_modules/") else { continue };
        let Ok(locked) = serde_json::from_value::<Locked>(locked) else { continue };
        if !locked.dev {
            let name = locked.name.unwrap_or_else(|| place.to_owned());
            let hash = locked.integrity.as_deref().and_then(hash);
            put(found, name, locked.version, locked.license, hash);
        }
    }
}

fn put(
    found: &mut Components,
    name: String,
    version: String,
    license: Option<Json>,
    hash: Option<(&'static str, String)>,
) {
    let (scope, short) = name.split_once('/').unwrap_or(("", &name));
    let url = purl("npm", scope, short, &version);
    add(found, url, Component { license: license.as_ref().and_then(licensed), name, version, hash });
}

/// A text, an object with its `type`, or a list of these, of which one may be chosen.
fn licensed(license: &Json) -> Option<String> {
    match license {
        Json::String(text) => Some(text.clone()),
        Json::Object(fields) => fields.get("type")?.as_str().map(str::to_owned),
        Json::Array(list) => {
            let all: Option<Vec<String>> = list.iter().map(licensed).collect();
            all.filter(|all| !all.is_empty()).map(|all| all.join(" OR "))
        }
        _ => None,
    }
}

/// The digest in a subresource integrity text.
fn hash(integrity: &str) -> Option<(&'static str, String)> {
    let (algorithm, base64) = integrity.split_whitespace().next()?.split_once('-')?;
    let algorithm = match algorithm {
        "sha512" => "SHA-512",
        "sha384" => "SHA-384",
        "sha256" => "SHA-256",
        "sha1" => "SHA-1",
        _ => return None,
    };
    let bytes = STANDARD.decode(base64).ok()?;
    Some((algorithm, bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}
