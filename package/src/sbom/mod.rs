//! The software bill of materials: CycloneDX 1.6, of the extension and of what it brings along.
//!
//! It says what the package's own files say: which tool made it, and when, would only make two
//! packages of the same files differ.

mod cargo;
mod npm;
mod python;
mod read;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use quadriga_abi::manifest::{License, Manifest};
pub use read::{ThirdParty, third_party};
use serde_json::{Value as Json, json};

use crate::digest::Digest;
use crate::error::{Error, Result};

/// Files that describe packages are small; what is larger is something else.
const LARGEST: u64 = 16 << 20;

/// One thing that somebody else made.
#[derive(Debug, Default, PartialEq)]
struct Component {
    name: String,
    version: String,
    /// As its own package says.
    license: Option<String>,
    /// CycloneDX's name of an algorithm, and hexadecimal digits.
    hash: Option<(&'static str, String)>,
}

/// By package URL, so that each is there once.
type Components = BTreeMap<String, Component>;

/// Writes the SBOM of an extension whose files are `files`, by path. `digest` is of all of them.
pub(crate) fn write(manifest: &Manifest, files: &[(&str, &Path)], digest: Digest) -> Result<Vec<u8>> {
    let found = find(files)?;
    let mut bom = serde_json::to_vec_pretty(&document(manifest, &found, digest)).unwrap_or_default();
    bom.push(b'\n');
    Ok(bom)
}

/// What the files say that was brought along.
fn find(files: &[(&str, &Path)]) -> Result<Components> {
    let mut found = Components::new();
    for (path, file) in files {
        let Some(read) = reader(path) else { continue };
        let mut text = String::new();
        let opened = File::open(file).map_err(Error::io(*file))?;
        // What is not text describes no package.
        if opened.take(LARGEST).read_to_string(&mut text).is_ok() {
            read(path, &text, &mut found);
        }
    }
    for (path, _) in files {
        python::wheel(path, &mut found);
    }
    Ok(found)
}

type Reader = fn(&str, &str, &mut Components);

/// What reads a file of this name, if it describes packages.
fn reader(path: &str) -> Option<Reader> {
    match path.rsplit('/').next().unwrap_or(path) {
        "package.json" => Some(npm::package),
        "package-lock.json" => Some(npm::lock),
        "METADATA" => Some(python::metadata),
        "Cargo.lock" => Some(cargo::lock),
        "Cargo.toml" => Some(cargo::manifest),
        _ => None,
    }
}

fn document(manifest: &Manifest, found: &Components, digest: Digest) -> Json {
    let about = &manifest.extension;
    let url = purl("generic", "", about.id.as_str(), &about.version.to_string());
    let mut main = json!({
        "type": "application",
        "bom-ref": url,
        "name": about.id,
        "version": about.version,
        "purl": url,
    });
    if !about.description.is_empty() {
        main["description"] = json!(about.description);
    }
    if let Some(license) = &about.license {
        main["licenses"] = json!([{ "expression": license }]);
    }
    let authors: Vec<Json> = about.authors.iter().map(author).collect();
    if !authors.is_empty() {
        main["authors"] = json!(authors);
    }
    let components: Vec<Json> = found.iter().map(|(url, component)| component.to_json(url)).collect();
    let all: Vec<&String> = found.keys().collect();
    let mut relations = vec![json!({ "ref": url, "dependsOn": all })];
    relations.extend(all.iter().map(|url| json!({ "ref": url })));
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(digest)),
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": "quadriga" }] },
            "component": main,
        },
        "components": components,
        "dependencies": relations,
    })
}

impl Component {
    fn to_json(&self, url: &str) -> Json {
        let mut json = json!({
            "type": "library",
            "bom-ref": url,
            "name": self.name,
            "version": self.version,
            "purl": url,
        });
        if let Some(license) = &self.license {
            json["licenses"] = match License::try_from(license.clone()) {
                Ok(expression) => json!([{ "expression": expression }]),
                Err(_) => json!([{ "license": { "name": license } }]),
            };
        }
        if let Some((algorithm, digits)) = &self.hash {
            json["hashes"] = json!([{ "alg": algorithm, "content": digits }]);
        }
        json
    }
}

/// `Name <address>`, as manifests have it.
fn author(text: &str) -> Json {
    match text.split_once('<') {
        Some((name, address)) => {
            json!({ "name": name.trim(), "email": address.trim_end_matches('>').trim() })
        }
        None => json!({ "name": text }),
    }
}

/// Adds a component. What is known of one that is there already is completed.
fn add(found: &mut Components, url: String, component: Component) {
    let known = found.entry(url).or_default();
    *known = Component {
        name: component.name,
        version: component.version,
        license: known.license.take().or(component.license),
        hash: known.hash.take().or(component.hash),
    };
}

/// A package URL: <https://github.com/package-url/purl-spec>.
fn purl(kind: &str, namespace: &str, name: &str, version: &str) -> String {
    let namespace = if namespace.is_empty() { String::new() } else { format!("{}/", encoded(namespace)) };
    format!("pkg:{kind}/{namespace}{}@{}", encoded(name), encoded(version))
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => out.push(byte.into()),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// A UUID of the version that leaves its bits to whoever makes it.
fn uuid(digest: Digest) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.as_bytes()[..16]);
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests;
