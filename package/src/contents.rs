//! What is in a package: the list that it carries, and the same list made of what was found.

use std::collections::BTreeMap;

use quadriga_abi::ExtensionId;
use quadriga_abi::manifest::{EntryPath, FILE_NAME, Manifest, Version};
use serde::{Deserialize, Serialize};

use crate::SBOM_FILE;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// The version of the contents list's format.
const FORMAT: u32 = 1;

/// What is in a package: each file with its size and digest, in the order of their paths. The
/// contents list itself is not among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// The version of this list's own format.
    format: u32,
    /// The extension in the package.
    pub extension: ExtensionId,
    /// Its version.
    pub version: Version,
    /// The files.
    pub files: Vec<PackagedFile>,
}

/// One file of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedFile {
    /// Its path inside of the package, with forward slashes.
    pub path: String,
    /// What it is for.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256 digest.
    pub sha256: Digest,
}

/// What a file is for, told by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// `quadriga.toml`.
    Manifest,
    /// The entry and other code.
    Code,
    /// Dependencies in `vendor/` and `node_modules/`.
    Vendored,
    /// Documentation and licences.
    Docs,
    /// Tests.
    Tests,
    /// The software bill of materials.
    Sbom,
    /// Anything else that the extension brings.
    Resource,
}

/// A path that a manifest gives, as files in a package are named.
pub(crate) fn in_package(path: &EntryPath) -> String {
    let parts = path.as_path().components().map(|part| part.as_os_str().to_string_lossy());
    parts.collect::<Vec<_>>().join("/")
}

/// The length and digest of a file as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) size: u64,
    pub(crate) sha256: Digest,
}

const CODE: [&str; 16] = [
    "js", "mjs", "cjs", "jsx", "ts", "mts", "cts", "tsx", "py", "pyi", "pyx", "rs", "wasm", "wit", "so",
    "dylib",
];
const DOCS: [&str; 8] =
    ["readme", "changelog", "changes", "license", "licence", "copying", "notice", "authors"];

impl FileKind {
    /// The kind of the file at a path. `entry` is the manifest's.
    pub(crate) fn of(path: &str, entry: &str) -> Self {
        let lower = path.to_lowercase();
        let (folders, file) = lower.rsplit_once('/').unwrap_or(("", &lower));
        let in_folder = |names: &[&str]| folders.split('/').any(|folder| names.contains(&folder));
        let (stem, extension) = file.rsplit_once('.').unwrap_or((file, ""));
        if path == FILE_NAME {
            Self::Manifest
        } else if path == SBOM_FILE {
            Self::Sbom
        } else if path == entry {
            Self::Code
        } else if in_folder(&["vendor", "node_modules"]) {
            Self::Vendored
        } else if in_folder(&["test", "tests", "__tests__"])
            || (CODE.contains(&extension)
                && (stem.starts_with("test_")
                    || stem.ends_with("_test")
                    || stem.ends_with(".test")
                    || stem.ends_with(".spec")))
        {
            Self::Tests
        } else if in_folder(&["doc", "docs"])
            || ["md", "rst", "adoc"].contains(&extension)
            || DOCS.contains(&file.split(['.', '-']).next().unwrap_or_default())
        {
            Self::Docs
        } else if CODE.contains(&extension) || file == "package.json" {
            Self::Code
        } else {
            Self::Resource
        }
    }
}

impl Contents {
    /// The list of what was found.
    pub(crate) fn new(manifest: &Manifest, found: &BTreeMap<String, Found>) -> Self {
        let entry = in_package(&manifest.runtime.entry);
        let files = found.iter().map(|(path, Found { size, sha256 })| PackagedFile {
            kind: FileKind::of(path, &entry),
            path: path.clone(),
            size: *size,
            sha256: *sha256,
        });
        Self {
            format: FORMAT,
            extension: manifest.extension.id.clone(),
            version: manifest.extension.version.clone(),
            files: files.collect(),
        }
    }

    /// Reads a list.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |error: serde_json::Error| Error::BadContents(error.to_string());
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let Head { format } = serde_json::from_slice(bytes).map_err(bad)?;
        if format != FORMAT {
            return Err(Error::BadContents(format!("its format is {format}, and this knows {FORMAT}")));
        }
        serde_json::from_slice(bytes).map_err(bad)
    }

    /// The list as it is packed.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // A struct of texts and numbers always has a JSON.
        let mut json = serde_json::to_vec_pretty(self).unwrap_or_default();
        json.push(b'\n');
        json
    }

    /// Compares the list with what was found; the first difference is the error.
    pub(crate) fn compare(&self, found: &BTreeMap<String, Found>) -> Result<()> {
        let mut listed = BTreeMap::new();
        for file in &self.files {
            if listed.insert(file.path.as_str(), file).is_some() {
                return Err(Error::BadContents(format!("{:?} is in it twice", file.path)));
            }
        }
        for (path, Found { size, sha256 }) in found {
            let path = path.clone();
            let Some(file) = listed.remove(path.as_str()) else {
                return Err(Error::NotListed { path });
            };
            if file.size != *size {
                return Err(Error::WrongFileSize { path, listed: file.size, actual: *size });
            }
            if file.sha256 != *sha256 {
                return Err(Error::WrongFileDigest { path, listed: file.sha256, actual: *sha256 });
            }
        }
        match listed.into_keys().next() {
            Some(path) => Err(Error::Missing { path: path.to_owned() }),
            None => Ok(()),
        }
    }

    /// The bytes of all files together.
    pub fn unpacked_size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&PackagedFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

#[cfg(test)]
mod tests {
    use super::FileKind::{self, Code, Docs, Manifest, Resource, Sbom, Tests, Vendored};

    #[test]
    fn a_name_tells_the_kind() {
        for (path, kind) in [
            ("quadriga.toml", Manifest),
            ("sub/quadriga.toml", Resource),
            (".quadriga/sbom.cdx.json", Sbom),
            ("docs/main.bin", Code),
            ("main.py", Code),
            ("lib/x.mjs", Code),
            ("package.json", Code),
            ("vendor/numpy/tests/test_a.py", Vendored),
            ("node_modules/marked/README.md", Vendored),
            ("tests/data.bin", Tests),
            ("src/__tests__/a.js", Tests),
            ("test_main.py", Tests),
            ("main.test.ts", Tests),
            ("contest.py", Code),
            ("README.md", Docs),
            ("LICENSE-MIT", Docs),
            ("docs/logo.png", Docs),
            ("guide.rst", Docs),
            ("logo.png", Resource),
            ("contracts/acme.tokenizer.json", Resource),
        ] {
            assert_eq!(FileKind::of(path, "docs/main.bin"), kind, "{path}");
        }
    }
}
