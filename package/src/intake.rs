//! The one way in: what every format's reader hands its entries to. It checks names, kinds and
//! sizes, digests, and writes to the staging folder if there is one.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use quadriga_abi::manifest::{FILE_NAME, Manifest};

use crate::bounds::Bounds;
use crate::contents::{Contents, Found, in_package};
use crate::digest::{Digest, Digesting};
use crate::error::{Error, Result};
use crate::format::{Format, npm};
use crate::name::{self, Names};
use crate::{CONTENTS_FILE, META_DIR, SBOM_FILE};

/// Most bytes of a file that is read into memory: a manifest, a package.json.
pub(crate) const SMALL: u64 = 1 << 20;
/// The same for the contents list.
const LIST: u64 = 24 << 20;

/// What an entry is, before anything of it is believed.
pub(crate) struct Head<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: EntryKind,
    pub(crate) size: u64,
}

/// What sort of thing an entry wants to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Folder,
    /// Something that packages do not have, by its name.
    Other(&'static str),
}

/// Why an entry's bytes could not be read: what the readers between the file and the intake say
/// through [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("the stream has more bytes than its files account for")]
pub(crate) struct StreamTooLong;

/// What all entries together come to.
pub(crate) struct Intake<'a> {
    format: Format,
    bounds: &'a Bounds,
    /// Where files go; nowhere if they are only looked at.
    dest: Option<&'a Path>,
    allowance: u64,
    entries: u64,
    total: u64,
    names: Names,
    found: BTreeMap<String, Found>,
    /// What the package says of itself, by path.
    kept: BTreeMap<&'static str, Vec<u8>>,
    progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    /// Whether only the list of contents is wanted.
    list_only: bool,
}

impl<'a> Intake<'a> {
    /// `packed` is the size of the package file.
    pub(crate) fn new(
        format: Format,
        packed: u64,
        bounds: &'a Bounds,
        dest: Option<&'a Path>,
        progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Self {
        Self {
            format,
            bounds,
            dest,
            allowance: bounds.allowance(packed),
            entries: 0,
            total: 0,
            names: Names::default(),
            found: BTreeMap::new(),
            kept: BTreeMap::new(),
            progress,
            list_only: false,
        }
    }

    /// Ends the reading once it has come past the place where a list of contents stands: it is the first
    /// entry.
    pub(crate) fn stop_at_list(&mut self) {
        self.list_only = true;
    }

    /// What the list of contents says, if there is one that can be read.
    pub(crate) fn listed(&self) -> Option<Contents> {
        Contents::parse(self.kept.get(CONTENTS_FILE)?).ok()
    }

    pub(crate) fn bounds(&self) -> &'a Bounds {
        self.bounds
    }

    /// What a stream of all entries may come to, with a header and padding for each.
    pub(crate) fn stream_limit(&self) -> u64 {
        self.allowance.saturating_add(self.bounds.entries * 2048).saturating_add(1 << 20)
    }

    /// Takes one entry.
    pub(crate) fn entry(&mut self, head: &Head<'_>, body: &mut dyn Read) -> Result<()> {
        if self.list_only && self.entries > 0 {
            return Err(Error::Cancelled);
        }
        self.entries += 1;
        if self.entries > self.bounds.entries {
            return Err(Error::TooManyEntries { limit: self.bounds.entries });
        }
        let name = name::check(head.name, self.bounds)?;
        let folder = match head.kind {
            EntryKind::File if head.name.ends_with(b"/") => true,
            EntryKind::File => false,
            EntryKind::Folder => true,
            EntryKind::Other(what) => return Err(Error::NotAFile { path: name.to_owned(), what }),
        };
        let name = match self.format {
            Format::Npm => match npm::inside(name, folder)? {
                Some(name) => name,
                None => return Ok(()),
            },
            _ => name,
        };
        self.names.add(name, folder, self.bounds)?;
        if folder {
            if head.size > 0 {
                return Err(self.malformed(format!("the folder {name:?} has bytes")));
            }
            return self.reserved(name, true).map(drop);
        }
        let kept = self.reserved(name, false)?;
        self.fits(name, head.size, kept)?;
        let found = match kept {
            Some(path) => {
                let mut bytes = Vec::new();
                let found = self.copy(name, head.size, body, &mut bytes)?;
                if npm::is_wrapping(self.format, path) {
                    self.kept.insert(path, bytes);
                    return Ok(());
                }
                self.write(name, &bytes)?;
                self.kept.insert(path, bytes);
                found
            }
            None => match self.dest {
                Some(dest) => {
                    let mut file = create(dest, name)?;
                    self.copy(name, head.size, body, &mut file)?
                }
                None => self.copy(name, head.size, body, &mut io::sink())?,
            },
        };
        if name != CONTENTS_FILE {
            self.found.insert(name.to_owned(), found);
        }
        Ok(())
    }

    /// The files that say what the package is; those in the folder of packing are no others.
    fn reserved(&self, name: &str, folder: bool) -> Result<Option<&'static str>> {
        let inside = name.strip_prefix(META_DIR).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let kept = match name {
            FILE_NAME => Some(FILE_NAME),
            CONTENTS_FILE => Some(CONTENTS_FILE),
            npm::PACKAGE_JSON if self.format == Format::Npm => Some(npm::PACKAGE_JSON),
            npm::ORIGINAL if self.format == Format::Npm => Some(npm::ORIGINAL),
            _ => None,
        };
        let known = kept.is_some() || name == SBOM_FILE || (folder && name == META_DIR);
        if inside && !known { Err(Error::Reserved { path: name.to_owned() }) } else { Ok(kept) }
    }

    /// Whether a file of the size that is declared is small enough, before anything of it is read.
    fn fits(&self, name: &str, size: u64, kept: Option<&str>) -> Result<()> {
        let limit = match kept {
            Some(CONTENTS_FILE) => LIST,
            Some(_) => SMALL,
            None => self.bounds.file,
        };
        if size > limit {
            return Err(Error::FileTooLarge { path: name.to_owned(), limit });
        }
        self.within(self.total.saturating_add(size))
    }

    fn within(&self, total: u64) -> Result<()> {
        if total <= self.allowance {
            Ok(())
        } else if self.allowance == self.bounds.total {
            Err(Error::TooLarge { limit: self.allowance })
        } else {
            Err(Error::Bomb { limit: self.allowance, ratio: self.bounds.ratio })
        }
    }

    /// Copies exactly as many bytes as were declared.
    fn copy(&mut self, name: &str, size: u64, body: &mut dyn Read, to: &mut dyn Write) -> Result<Found> {
        let wrong_length = || Error::WrongLength { path: name.to_owned(), declared: size };
        let mut to = Digesting::new(to);
        let mut buffer = [0; 16 << 10];
        let mut left = size;
        loop {
            let read = match body.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.read_failed(error)),
            };
            if read == 0 {
                break;
            }
            left = left.checked_sub(read as u64).ok_or_else(wrong_length)?;
            to.write_all(&buffer[..read])
                .map_err(Error::io(self.dest.unwrap_or(Path::new("")).join(name)))?;
            self.total += read as u64;
            if (self.progress)(self.total).is_break() {
                return Err(Error::Cancelled);
            }
        }
        if left > 0 {
            return Err(wrong_length());
        }
        let (_, sha256, size) = to.finish();
        Ok(Found { size, sha256 })
    }

    /// Puts a file that is in memory in its place.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let Some(dest) = self.dest else { return Ok(()) };
        create(dest, name)?.write_all(bytes).map_err(Error::io(dest.join(name)))
    }

    fn put(&mut self, name: &'static str, bytes: Vec<u8>) -> Result<()> {
        self.write(name, &bytes)?;
        let found = Found { size: bytes.len() as u64, sha256: Digest::of(&bytes) };
        self.found.insert(name.to_owned(), found);
        self.kept.insert(name, bytes);
        Ok(())
    }

    /// Looks at the package as a whole, when all entries were taken.
    pub(crate) fn finish(mut self) -> Result<(Manifest, Contents)> {
        if self.format == Format::Npm {
            self.unwrap_npm()?;
        }
        let listed = self.kept.get(CONTENTS_FILE).map(|bytes| Contents::parse(bytes)).transpose()?;
        if let Some(listed) = &listed {
            listed.compare(&self.found)?;
        } else if matches!(self.format, Format::Qx | Format::Oci) {
            return Err(Error::Lacks("list of contents"));
        }
        let manifest = parse_manifest(self.kept.get(FILE_NAME).ok_or(Error::Lacks(FILE_NAME))?)?;
        require(&manifest, &self.found)?;
        let contents = match listed {
            Some(listed) => {
                let about = &manifest.extension;
                if (&listed.extension, &listed.version) != (&about.id, &about.version) {
                    let why = format!("it is of {} {}", listed.extension, listed.version);
                    return Err(Error::BadContents(why));
                }
                listed
            }
            None => Contents::new(&manifest, &self.found),
        };
        Ok((manifest, contents))
    }

    /// Takes off what npm needs around a package.
    fn unwrap_npm(&mut self) -> Result<()> {
        let outer = self.kept.remove(npm::PACKAGE_JSON).ok_or(Error::Lacks(npm::PACKAGE_JSON))?;
        let original = self.kept.remove(npm::ORIGINAL);
        let section = npm::section(&outer)?;
        if self.kept.contains_key(CONTENTS_FILE) {
            return original.map_or(Ok(()), |bytes| self.put(npm::PACKAGE_JSON, bytes));
        }
        if original.is_some() {
            return Err(Error::Reserved { path: npm::ORIGINAL.to_owned() });
        }
        self.put(npm::PACKAGE_JSON, outer)?;
        match (section, self.kept.contains_key(FILE_NAME)) {
            (npm::Section::File, _) => Ok(()),
            (npm::Section::Manifest(toml), false) => {
                self.names.add(FILE_NAME, false, self.bounds)?;
                self.put(FILE_NAME, toml.into_bytes())
            }
            (npm::Section::Manifest(_), true) => {
                let why = format!("its section `quadriga` is a manifest, and there is a {FILE_NAME} too");
                Err(Error::PackageJson(why))
            }
        }
    }

    pub(crate) fn malformed(&self, why: impl Into<String>) -> Error {
        Error::Malformed { format: self.format, why: why.into() }
    }

    pub(crate) fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::Unsupported { format: self.format, what: what.into() }
    }

    /// What it means that the package's bytes could not be read on.
    pub(crate) fn read_failed(&self, error: io::Error) -> Error {
        if error.get_ref().is_some_and(|inner| inner.is::<StreamTooLong>()) {
            return Error::Bomb { limit: self.stream_limit(), ratio: self.bounds.ratio };
        }
        let why = error.to_string();
        if why.contains("requires too much memory") {
            return Error::WindowTooLarge { limit: self.bounds.window_log };
        }
        self.malformed(why)
    }
}

/// Reads the manifest of a package.
pub(crate) fn parse_manifest(bytes: &[u8]) -> Result<Manifest> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Lacks("manifest in UTF-8"))?;
    Manifest::parse(text, FILE_NAME).map_err(Error::Manifest)
}

/// The files that a manifest names have to be there.
pub(crate) fn require<T>(manifest: &Manifest, found: &BTreeMap<String, T>) -> Result<()> {
    let dependencies = manifest.dependencies.values().chain(manifest.optional_dependencies.values());
    let contracts = dependencies.filter_map(|dependency| dependency.contract.as_ref());
    let named = [&manifest.runtime.entry].into_iter().chain(contracts);
    for path in named.chain(manifest.capabilities.contracts.values()) {
        let file = in_package(path);
        if !found.contains_key(&file) {
            return Err(Error::NotPacked { file });
        }
    }
    Ok(())
}

/// A new file below a folder that nobody else writes to, and that has no links.
fn create(dest: &Path, name: &str) -> Result<std::fs::File> {
    let path = dest.join(name);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    }
    OpenOptions::new().write(true).create_new(true).open(&path).map_err(Error::io(path))
}
