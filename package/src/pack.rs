use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use quadriga_abi::manifest::{FILE_NAME, Manifest};

use crate::bounds::Bounds;
use crate::contents::{Contents, Found};
use crate::digest::{self, Digest, Digesting};
use crate::error::{Error, Result};
use crate::format::{self, Content, Format, Item, Job, npm, oci};
use crate::intake;
use crate::package::Package;
use crate::{CONTENTS_FILE, GO_ON, SBOM_FILE, sbom, source};

/// How to pack.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// The form of the package.
    pub format: Format,
    /// Pack files that look like secrets.
    pub allow_secrets: bool,
    /// What the package may come to: what it could not be read with is not written.
    pub bounds: Bounds,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { format: Format::Qx, allow_secrets: false, bounds: Bounds::default() }
    }
}

/// A package that was built.
#[derive(Debug)]
pub struct Built {
    /// Where it is.
    pub path: PathBuf,
    /// Its form.
    pub format: Format,
    /// The SHA-256 digest of the package file; of an OCI layout, of its layer.
    pub digest: Digest,
    /// The length of that file in bytes.
    pub size: u64,
    /// What the extension is.
    pub manifest: Manifest,
    /// What was packed.
    pub contents: Contents,
}

/// Packs an extension's folder. `out` gives the file to write for an extension; nothing may be
/// there yet. `progress` hears how many of how many bytes were packed, and can end it.
///
/// The same files make the same package, whatever their times, modes and order on the disk.
///
/// # Errors
/// If the folder is no extension, or holds what a package cannot or should not hold. Nothing is
/// written then.
pub fn pack(
    dir: &Path,
    out: impl FnOnce(&Manifest) -> PathBuf,
    options: &PackOptions,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Built> {
    let manifest_file = dir.join(FILE_NAME);
    if !manifest_file.is_file() {
        return Err(Error::NoExtension(dir.to_owned()));
    }
    let manifest = intake::parse_manifest(&fs::read(&manifest_file).map_err(Error::io(&manifest_file))?)?;
    let out = out(&manifest);
    if fs::symlink_metadata(&out).is_ok() {
        return Err(Error::Exists(out));
    }
    let mut items = items(dir, options)?;
    let (contents, list) = describe(&manifest, &mut items)?;
    if options.format == Format::Npm {
        wrap_npm(&manifest, &mut items)?;
    }
    // The list comes first, so that a reader knows early what there should be.
    items.insert(0, item(CONTENTS_FILE, list));
    let total: u64 = items.iter().map(|item| item.size).sum();
    check(&items, total, &options.bounds)?;

    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut done = 0;
    let mut count = |bytes| {
        done += bytes;
        progress(done, total)
    };
    let mut job = Job { items: &items, out: &out, progress: &mut count };
    let temp = tempfile::Builder::new().prefix(".quadriga-pack-").tempdir_in(parent);
    let temp = temp.map_err(Error::io(parent))?;
    let file = temp.path().join("package");
    let (digest, size) = write(options.format, &mut job, &file)?;
    // What is not read back would not be read by anybody else.
    Package::open(&file, &options.bounds)?.inspect(&mut |_| GO_ON)?;
    match options.format {
        Format::Oci => {
            let layout = temp.path().join("layout");
            fs::create_dir(&layout).map_err(Error::io(&layout))?;
            oci::write(&layout, &file, digest, size, &manifest)?;
            fs::rename(&layout, &out).map_err(Error::io(&out))?;
        }
        // A link fails where somebody was quicker, and a renaming would not.
        _ => place(&file, &out)?,
    }
    Ok(Built { path: out, format: options.format, digest, size, manifest, contents })
}

/// The extension's own files, digested.
fn items(dir: &Path, options: &PackOptions) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for source in source::list(dir, &options.bounds, options.allow_secrets)? {
        let mut file = File::open(&source.file).map_err(Error::io(&source.file))?;
        let (sha256, size) = digest::of_reader(&mut file).map_err(Error::io(&source.file))?;
        items.push(Item { path: source.path, size, sha256, content: Content::File(source.file) });
    }
    Ok(items)
}

fn item(path: &str, bytes: Vec<u8>) -> Item {
    let (size, sha256) = (bytes.len() as u64, Digest::of(&bytes));
    Item { path: path.to_owned(), size, sha256, content: Content::Bytes(bytes) }
}

/// Adds the SBOM to the items, and lists them.
fn describe(manifest: &Manifest, items: &mut Vec<Item>) -> Result<(Contents, Vec<u8>)> {
    let found = |items: &[Item]| -> BTreeMap<String, Found> {
        let found = |item: &Item| (item.path.clone(), Found { size: item.size, sha256: item.sha256 });
        items.iter().map(found).collect()
    };
    let before = Contents::new(manifest, &found(items));
    intake::require(manifest, &found(items))?;
    let files: Vec<_> = items
        .iter()
        .filter_map(|item| match &item.content {
            Content::File(file) => Some((item.path.as_str(), file.as_path())),
            Content::Bytes(_) => None,
        })
        .collect();
    let sbom = sbom::write(manifest, &files, Digest::of(&before.to_json()))?;
    items.insert(0, item(SBOM_FILE, sbom));
    let contents = Contents::new(manifest, &found(items));
    let list = contents.to_json();
    Ok((contents, list))
}

/// Puts npm's `package.json` in the place of the extension's own, which goes along.
fn wrap_npm(manifest: &Manifest, items: &mut Vec<Item>) -> Result<()> {
    let mut own = None;
    if let Some(at) = items.iter().position(|item| item.path == npm::PACKAGE_JSON) {
        let Item { path, sha256, content, .. } = items.remove(at);
        let bytes = match content {
            Content::File(file) => fs::read(&file).map_err(Error::io(file))?,
            Content::Bytes(bytes) => bytes,
        };
        if Digest::of(&bytes) != sha256 {
            return Err(Error::Changed { path });
        }
        own = Some(bytes);
    }
    items.push(item(npm::PACKAGE_JSON, npm::wrapper(manifest, own.as_deref())?));
    items.extend(own.map(|own| item(npm::ORIGINAL, own)));
    items.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(())
}

/// Gives a file its name, unless something has it.
fn place(file: &Path, out: &Path) -> Result<()> {
    // A link fails where somebody was quicker, and a renaming would not. Some file systems have none.
    match fs::hard_link(file, out) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(file, out),
        other => other,
    }
    .map_err(Error::io(out))
}

fn check(items: &[Item], total: u64, bounds: &Bounds) -> Result<()> {
    if let Some(item) = items.iter().find(|item| item.size > bounds.file) {
        return Err(Error::FileTooLarge { path: item.path.clone(), limit: bounds.file });
    }
    if total > bounds.total {
        return Err(Error::TooLarge { limit: bounds.total });
    }
    if items.len() as u64 > bounds.entries {
        return Err(Error::TooManyEntries { limit: bounds.entries });
    }
    Ok(())
}

fn write(format: Format, job: &mut Job<'_>, file: &Path) -> Result<(Digest, u64)> {
    let out = File::create_new(file).map_err(Error::io(file))?;
    let mut out = Digesting::new(BufWriter::with_capacity(64 << 10, out));
    format::write(format, job, &mut out)?;
    let (mut out, digest, size) = out.finish();
    out.flush().map_err(Error::io(file))?;
    out.get_ref().sync_all().map_err(Error::io(file))?;
    Ok((digest, size))
}
