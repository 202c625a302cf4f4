//! Python packages: those that are installed in the package, and wheels.

use quadriga_abi::manifest::License;

use super::{Component, Components, add, purl};

/// Classifiers that say which licence it is, and the licence by SPDX:
/// <https://pypi.org/classifiers/>. Others, such as that of the BSD licences, are of several.
pub(super) const CLASSIFIERS: [(&str, &str); 25] = [
    ("Boost Software License 1.0 (BSL-1.0)", "BSL-1.0"),
    ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
    ("European Union Public Licence 1.2 (EUPL 1.2)", "EUPL-1.2"),
    ("GNU Affero General Public License v3", "AGPL-3.0-only"),
    ("GNU Affero General Public License v3 or later (AGPLv3+)", "AGPL-3.0-or-later"),
    ("GNU General Public License v2 (GPLv2)", "GPL-2.0-only"),
    ("GNU General Public License v2 or later (GPLv2+)", "GPL-2.0-or-later"),
    ("GNU General Public License v3 (GPLv3)", "GPL-3.0-only"),
    ("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
    ("GNU Lesser General Public License v2 (LGPLv2)", "LGPL-2.0-only"),
    ("GNU Lesser General Public License v2 or later (LGPLv2+)", "LGPL-2.0-or-later"),
    ("GNU Lesser General Public License v3 (LGPLv3)", "LGPL-3.0-only"),
    ("GNU Lesser General Public License v3 or later (LGPLv3+)", "LGPL-3.0-or-later"),
    ("ISC License (ISCL)", "ISC"),
    ("MIT License", "MIT"),
    ("MIT No Attribution License (MIT-0)", "MIT-0"),
    ("Mozilla Public License 1.0 (MPL)", "MPL-1.0"),
    ("Mozilla Public License 1.1 (MPL 1.1)", "MPL-1.1"),
    ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
    ("PostgreSQL License", "PostgreSQL"),
    ("Python Software Foundation License", "PSF-2.0"),
    ("The Unlicense (Unlicense)", "Unlicense"),
    ("Universal Permissive License (UPL)", "UPL-1.0"),
    ("Zero-Clause BSD (0BSD)", "0BSD"),
    ("zlib/libpng License", "Zlib"),
];

/// Reads the `METADATA` of an installed package: the headers before the first empty line.
pub(super) fn metadata(path: &str, text: &str, found: &mut Components) {
    if !path.rsplit('/').nth(1).is_some_and(|folder| folder.ends_with(".dist-info")) {
        return;
    }
    let all = |name: &'static str| {
        let lines = text.lines().take_while(|line| !line.is_empty());
        let values = lines.filter_map(move |line| line.split_once(':').filter(|(key, _)| *key == name));
        values.map(|(_, value)| value.trim()).filter(|value| !value.is_empty())
    };
    let header = |name| all(name).next().map(str::to_owned);
    if let (Some(name), Some(version)) = (header("Name"), header("Version")) {
        // The older field is any text: an expression, a name, or the beginning of a whole licence.
        let text = header("License");
        let is_expression = |text: &String| License::try_from(text.clone()).is_ok();
        let license = header("License-Expression")
            .or_else(|| text.clone().filter(is_expression))
            .or_else(|| classified(all("Classifier")))
            .or(text);
        put(found, name, version, license);
    }
}

/// The licence of a list of classifiers. Of several, nothing says that one may be chosen.
fn classified<'a>(classifiers: impl Iterator<Item = &'a str>) -> Option<String> {
    let last = |text: &'a str| text.strip_prefix("License ::").map(|rest| rest.rsplit(" :: ").next());
    let named = classifiers.filter_map(|text| last(text)?).map(str::trim);
    // That it is one of those which the OSI approved says nothing.
    let named: Vec<&str> = named.filter(|name| *name != "OSI Approved").collect();
    let known = |name: &&str| CLASSIFIERS.iter().find(|(text, _)| text == name).map(|(_, spdx)| *spdx);
    let all: Option<Vec<&str>> = named.iter().map(known).collect();
    let text = all.unwrap_or(named).join(" AND ");
    (!text.is_empty()).then_some(text)
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
