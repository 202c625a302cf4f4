//! What makes an npm package of a package: the folder `package/` around it, and a `package.json`
//! with a section `quadriga`.

use quadriga_abi::manifest::{FILE_NAME, Manifest};
use serde_json::{Map, Value as Json, json};

use super::Format;
use crate::error::{Error, Result};

/// The folder around everything.
pub(super) const FOLDER: &str = "package/";
/// npm's own manifest.
pub(crate) const PACKAGE_JSON: &str = "package.json";
/// The extension's own `package.json`, where ours had to take its place.
pub(crate) const ORIGINAL: &str = ".quadriga/package.json";

/// What the section `quadriga` of a `package.json` says.
pub(crate) enum Section {
    /// The manifest is `quadriga.toml`.
    File,
    /// The manifest itself, as TOML.
    Manifest(String),
}

/// The path inside of `package/`; none for that folder itself.
pub(crate) fn inside(name: &str, folder: bool) -> Result<Option<&str>> {
    match name.strip_prefix(FOLDER) {
        Some(inside) => Ok(Some(inside)),
        None if folder && FOLDER.strip_suffix('/') == Some(name) => Ok(None),
        None => Err(Error::Malformed {
            format: Format::Npm,
            why: format!("{name:?} is outside of the folder package"),
        }),
    }
}

/// Whether a file is npm's and not the extension's.
pub(crate) fn is_wrapping(format: Format, path: &str) -> bool {
    format == Format::Npm && matches!(path, PACKAGE_JSON | ORIGINAL)
}

/// The `package.json` to pack for an extension that may have one of its own.
pub(crate) fn wrapper(manifest: &Manifest, own: Option<&[u8]>) -> Result<Vec<u8>> {
    let mut fields = own.map(object).transpose()?.unwrap_or_default();
    let about = &manifest.extension;
    let name = about.id.as_str().replacen('.', "/", 1);
    fields.entry("name").or_insert_with(|| json!(format!("@{name}")));
    fields.insert("version".to_owned(), json!(about.version.to_string()));
    if !about.description.is_empty() {
        fields.entry("description").or_insert_with(|| json!(about.description));
    }
    if let Some(license) = &about.license {
        fields.entry("license").or_insert_with(|| json!(license.to_string()));
    }
    fields.insert("quadriga".to_owned(), json!(FILE_NAME));
    let mut text =
        serde_json::to_vec_pretty(&fields).map_err(|error| Error::PackageJson(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// Reads the section `quadriga` of a `package.json`: the name of the manifest, or the manifest
/// itself, to which `package.json` adds what it says better.
pub(crate) fn section(package_json: &[u8]) -> Result<Section> {
    let fields = object(package_json)?;
    let mut manifest = match fields.get("quadriga") {
        Some(Json::String(file)) if file == FILE_NAME => return Ok(Section::File),
        Some(Json::Object(manifest)) => manifest.clone(),
        Some(_) => {
            let why = format!("its section `quadriga` is neither {FILE_NAME:?} nor a manifest");
            return Err(Error::PackageJson(why));
        }
        None => return Err(Error::PackageJson("it has no section `quadriga`".to_owned())),
    };
    let extension = manifest.entry("extension").or_insert_with(|| json!({}));
    if let Json::Object(extension) = extension {
        for field in ["version", "description", "license", "homepage"] {
            if let (None, Some(Json::String(text))) = (extension.get(field), fields.get(field)) {
                extension.insert(field.to_owned(), json!(text));
            }
        }
    }
    let toml = toml::to_string(&manifest).map_err(|error| {
        Error::PackageJson(format!("its section `quadriga` is no manifest: {}", error.to_string().trim()))
    })?;
    Ok(Section::Manifest(toml))
}

fn object(bytes: &[u8]) -> Result<Map<String, Json>> {
    serde_json::from_slice(bytes).map_err(|error| Error::PackageJson(error.to_string()))
}
