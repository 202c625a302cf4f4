//! OCI image layouts: a folder in which the package file is the one layer of one artifact, so that
//! any OCI registry can carry it. A signature is a second layer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use quadriga_abi::manifest::Manifest;
use serde::{Deserialize, Serialize};

use super::Format;
use crate::digest::Digest;
use crate::error::{Error, Result};

const LAYOUT_FILE: &str = "oci-layout";
const INDEX_FILE: &str = "index.json";
const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

const ARTIFACT: &str = "application/vnd.quadriga.package.v1";
const LAYER: &str = "application/vnd.quadriga.package.v1.tar+zstd";
const SIGNATURE: &str = "application/vnd.quadriga.signature.v1.minisig";
const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Most bytes of an index, a manifest or a signature.
const SMALL: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    digest: String,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// What a layout holds of a package.
pub(crate) struct Layout {
    dir: PathBuf,
    /// The manifest's place among those of the index.
    position: usize,
    index: Index,
    manifest: ImageManifest,
    /// What the layer is said to be.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// Whether a folder is an image layout.
pub(crate) fn is_layout(dir: &Path) -> bool {
    dir.join(LAYOUT_FILE).is_file()
}

impl Layout {
    /// Reads the index and the manifest of a layout.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let index: Index = json(&small(&dir.join(INDEX_FILE), SMALL)?)?;
        let ours = |found: &Descriptor| found.artifact_type.as_deref() == Some(ARTIFACT);
        let position = match index.manifests.iter().position(ours) {
            Some(first) if index.manifests.iter().skip(first + 1).any(ours) => {
                return Err(malformed("it has more than one package"));
            }
            Some(position) => position,
            // Registries and tools may leave the type to the manifest.
            None if index.manifests.len() == 1 => 0,
            None => return Err(malformed("its index names no package")),
        };
        let manifest: ImageManifest = json(&blob(dir, &index.manifests[position])?)?;
        if manifest.artifact_type.as_deref() != Some(ARTIFACT) {
            return Err(malformed("its image is no package"));
        }
        let mut layers = manifest.layers.iter().filter(|layer| layer.media_type == LAYER);
        let (Some(layer), None) = (layers.next(), layers.next()) else {
            return Err(malformed("a package has exactly one layer"));
        };
        let (digest, size) = (layer.digest.parse().map_err(malformed)?, layer.size);
        Ok(Self { dir: dir.to_owned(), position, index, manifest, digest, size })
    }

    /// The package file, not yet compared with what the manifest says of it.
    pub(crate) fn package(&self) -> Result<File> {
        regular(&blob_path(&self.dir, self.digest))
    }

    /// The text of the signature, if there is one.
    pub(crate) fn signature(&self) -> Result<Option<String>> {
        let Some(layer) = self.manifest.layers.iter().find(|layer| layer.media_type == SIGNATURE) else {
            return Ok(None);
        };
        let text = String::from_utf8(blob(&self.dir, layer)?);
        text.map(Some).map_err(|_| malformed("its signature is not UTF-8"))
    }

    /// Adds a signature, or puts it in the place of another.
    pub(crate) fn sign(mut self, signature: &str) -> Result<()> {
        self.manifest.layers.retain(|layer| layer.media_type != SIGNATURE);
        self.manifest.layers.push(put(&self.dir, SIGNATURE, signature.as_bytes())?);
        let manifest = put(&self.dir, IMAGE_MANIFEST, &to_json(&self.manifest)?)?;
        let entry = &mut self.index.manifests[self.position];
        let old = std::mem::replace(&mut entry.digest, manifest.digest);
        entry.size = manifest.size;
        replace(&self.dir.join(INDEX_FILE), &to_json(&self.index)?)?;
        // Nothing names the manifest before it any more.
        if let (Ok(old), true) = (old.parse(), old != self.index.manifests[self.position].digest) {
            let path = blob_path(&self.dir, old);
            fs::remove_file(&path).map_err(Error::io(path))?;
        }
        Ok(())
    }
}

/// Writes a layout into an empty folder. The package file lies at `package` beside or in it, and is
/// moved.
pub(crate) fn write(dir: &Path, package: &Path, digest: Digest, size: u64, about: &Manifest) -> Result<()> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io(&blobs))?;
    let place = blob_path(dir, digest);
    fs::rename(package, &place).map_err(Error::io(place))?;
    let about = &about.extension;
    let title = format!("{}-{}.qx", about.id, about.version);
    let note = |name: &str, text: &str| (format!("org.opencontainers.image.{name}"), text.to_owned());
    let mut annotations =
        BTreeMap::from([note("title", about.id.as_str()), note("version", &about.version.to_string())]);
    if !about.description.is_empty() {
        annotations.extend([note("description", &about.description)]);
    }
    if let Some(license) = &about.license {
        annotations.extend([note("licenses", &license.to_string())]);
    }
    let layer = Descriptor {
        media_type: LAYER.to_owned(),
        artifact_type: None,
        digest: format!("sha256:{digest}"),
        size,
        annotations: BTreeMap::from([note("title", &title)]),
    };
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(IMAGE_MANIFEST.to_owned()),
        artifact_type: Some(ARTIFACT.to_owned()),
        config: put(dir, EMPTY, b"{}")?,
        layers: vec![layer],
        annotations,
    };
    let mut entry = put(dir, IMAGE_MANIFEST, &to_json(&manifest)?)?;
    entry.artifact_type = Some(ARTIFACT.to_owned());
    entry.annotations = BTreeMap::from([note("ref.name", &about.version.to_string())]);
    let index = Index { schema_version: 2, media_type: Some(IMAGE_INDEX.to_owned()), manifests: vec![entry] };
    let files = [(INDEX_FILE, to_json(&index)?), (LAYOUT_FILE, LAYOUT.as_bytes().to_vec())];
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).map_err(Error::io(dir.join(name)))?;
    }
    Ok(())
}

fn malformed(why: impl Into<String>) -> Error {
    Error::Malformed { format: Format::Oci, why: why.into() }
}

fn json<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| malformed(error.to_string()))
}

fn blob_path(dir: &Path, digest: Digest) -> PathBuf {
    dir.join("blobs/sha256").join(digest.to_string())
}

/// A file that is one, so that opening it cannot wait for anybody.
fn regular(path: &Path) -> Result<File> {
    let kind = fs::symlink_metadata(path).map_err(Error::io(path))?;
    if !kind.is_file() {
        return Err(malformed(format!("{} is no file", path.display())));
    }
    File::open(path).map_err(Error::io(path))
}

fn small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    regular(path)?.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(malformed(format!("{} has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// A small blob, which is what its descriptor says.
fn blob(dir: &Path, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let digest: Digest = descriptor.digest.parse().map_err(malformed)?;
    let bytes = small(&blob_path(dir, digest), descriptor.size.min(SMALL))?;
    let actual = Digest::of(&bytes);
    if actual != digest {
        return Err(Error::WrongDigest { expected: digest, actual });
    }
    Ok(bytes)
}

fn put(dir: &Path, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
    let digest = Digest::of(bytes);
    replace(&blob_path(dir, digest), bytes)?;
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        artifact_type: None,
        digest: format!("sha256:{digest}"),
        size: bytes.len() as u64,
        annotations: BTreeMap::new(),
    })
}

/// Writes a file so that nobody sees half of it.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes).map_err(Error::io(&new))?;
    fs::rename(&new, path).map_err(Error::io(path))
}
