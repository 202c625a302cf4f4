//! Writes packages as no honest tool would.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use quadriga_package::Format;
use rawzip::path::EntryPath;
use rawzip::{CompressionMethod, ZipArchiveWriter};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

pub(crate) const MANIFEST: &str =
    "[extension]\nid = 'acme.hello'\nversion = '1.0.0'\n[runtime]\nkind = 'python'\nentry = 'main.py'\n";
pub(crate) const PACKAGE_JSON: &str = r#"{ "name": "x", "version": "1.0.0", "quadriga": "quadriga.toml" }"#;

/// What an entry claims to be.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    File,
    Folder,
    Symlink,
    HardLink,
    Char,
    Block,
    Fifo,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) data: Vec<u8>,
}

pub(crate) fn file(name: impl AsRef<[u8]>, data: &str) -> Entry {
    Entry { name: name.as_ref().to_vec(), kind: Kind::File, data: data.into() }
}

pub(crate) fn special(name: &str, kind: Kind) -> Entry {
    Entry { name: name.into(), kind, data: Vec::new() }
}

/// A package with nothing wrong about it, in the order in which it is packed.
pub(crate) fn good() -> Vec<Entry> {
    vec![file("main.py", "print('hello')\n"), file("quadriga.toml", MANIFEST)]
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The list that fits the files among some entries.
pub(crate) fn list(entries: &[Entry]) -> Entry {
    let files = entries.iter().filter(|entry| entry.kind == Kind::File).map(|entry| {
        let path = String::from_utf8_lossy(&entry.name).into_owned();
        json!({ "path": path, "kind": "code", "size": entry.data.len(), "sha256": hex(&entry.data) })
    });
    let files: Vec<_> = files.collect();
    let list = json!({ "format": 1, "extension": "acme.hello", "version": "1.0.0", "files": files });
    file(".quadriga/contents.json", &list.to_string())
}

/// Writes a package of these entries, to which the format adds what it cannot be without.
pub(crate) fn package(dir: &Path, format: Format, entries: &[Entry]) -> PathBuf {
    let mut all = entries.to_vec();
    let listed = entries.iter().any(|entry| entry.name == b".quadriga/contents.json");
    if matches!(format, Format::Qx | Format::Oci) && !listed {
        all.insert(0, list(entries));
    }
    if format == Format::Npm {
        all.insert(0, file("package.json", PACKAGE_JSON));
        for entry in all.iter_mut().filter(|entry| !entry.name.starts_with(b"/")) {
            entry.name = [b"package/", &entry.name[..]].concat();
        }
    }
    let path = dir.join(format!("crafted.{}", format.extension()));
    let bytes = match format {
        Format::Oci => {
            layout(&path, &zstd::encode_all(&tar(&all)[..], 1).unwrap());
            return path;
        }
        Format::Qx => zstd::encode_all(&tar(&all)[..], 1).unwrap(),
        Format::Tar => tar(&all),
        Format::Npm => gzip(&tar(&all)),
        Format::Zip => zip(&all),
    };
    fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub(crate) fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let kind = match entry.kind {
            Kind::File => EntryType::Regular,
            Kind::Folder => EntryType::Directory,
            Kind::Symlink => EntryType::Symlink,
            Kind::HardLink => EntryType::Link,
            Kind::Char => EntryType::Char,
            Kind::Block => EntryType::Block,
            Kind::Fifo => EntryType::Fifo,
        };
        if entry.name.len() > 100 {
            block(&mut out, b"././@LongLink", EntryType::GNULongName, &entry.name);
        }
        block(&mut out, &entry.name[..entry.name.len().min(100)], kind, &entry.data);
    }
    out.extend([0; 1024]);
    out
}

/// One header with its bytes, as they are.
pub(crate) fn block(out: &mut Vec<u8>, name: &[u8], kind: EntryType, data: &[u8]) {
    out.extend(header(name, kind, data.len() as u64).as_bytes());
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

pub(crate) fn header(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    if matches!(kind, EntryType::Symlink | EntryType::Link) {
        header.set_link_name("../../outside").unwrap();
    }
    header.set_cksum();
    header
}

pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for entry in entries {
        let kind = match entry.kind {
            Kind::File => 0o100_644,
            Kind::Folder => 0o040_755,
            Kind::Symlink => 0o120_777,
            // A zip has no hard links; the nearest to one is a socket.
            Kind::HardLink => 0o140_644,
            Kind::Char => 0o020_644,
            Kind::Block => 0o060_644,
            Kind::Fifo => 0o010_644,
        };
        let file = archive.new_file(EntryPath::verbatim(&entry.name[..])).unix_permissions(kind);
        let (mut writer, config) = file.compression_method(CompressionMethod::STORE).start().unwrap();
        let mut data = config.wrap(&mut writer);
        data.write_all(&entry.data).unwrap();
        let (_, descriptor) = data.finish().unwrap();
        writer.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

/// An OCI image layout around a package file.
pub(crate) fn layout(dir: &Path, package: &[u8]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        fs::write(blobs.join(hex(bytes)), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", hex(bytes)), "size": bytes.len() })
    };
    let artifact = "application/vnd.quadriga.package.v1";
    let manifest = json!({
        "schemaVersion": 2,
        "artifactType": artifact,
        "config": put("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [put("application/vnd.quadriga.package.v1.tar+zstd", package)],
    });
    let entry = put("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
