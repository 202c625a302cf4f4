//! Python packages: those that are installed in the package, and wheels.

use super::{Component, Components, add, purl};

/// Reads the `METADATA` of an installed package: the headers before the first empty line.
pub(super) fn metadata(path: &str, text: &str, found: &mut Components) {
    if !path.rsplit('/').nth(1).is_some_and(|folder| folder.ends_with(".dist-info")) {
        return;
    }
    let header = |name: &str| {
        let lines = text.lines().take_while(|line| !line.is_empty());
        let mut values = lines.filter_map(|line| line.split_once(':').filter(|(key, _)| *key == name));
        values.next().map(|(_, value)| value.trim().to_owned()).filter(|value| !value.is_empty())
    };
    if let (Some(name), Some(version)) = (header("Name"), header("Version")) {
        // The older field may begin a whole licence text.
        let license = header("License-Expression").or_else(|| header("License"));
        put(found, name, version, license);
    }
}

/// Takes name and version from the file name of a wheel.
pub(super) fn wheel(path: &str, found: &mut Components) {
    let file = path.rsplit('/').next().unwrap_or(path);
    let Some(stem) = file.strip_suffix(".whl") else { return };
    if let [name, version, _, ..] = stem.split('-').collect::<Vec<_>>()[..] {
        put(found, name.to_owned(), version.to_owned(), None);
    }
}

fn put(found: &mut Components, name: String, version: String, license: Option<String>) {
    let url = purl("pypi", "", &normal(&name), &version);
    add(found, url, Component { name, version, license, hash: None });
}

/// The form in which two spellings of a name are one.
fn normal(name: &str) -> String {
    let parts: Vec<&str> = name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_lowercase()
}
