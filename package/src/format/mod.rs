//! The forms that a package can have, each a reader and a writer of one stream of entries.

pub(crate) mod npm;
pub(crate) mod oci;
mod tar;
mod zip;

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::{self, Digest, Digesting};
use crate::error::{Error, Result};
use crate::intake::{Intake, StreamTooLong};

/// The time that all entries have: 1980-01-01, the first that a zip can tell.
const MTIME: u64 = 315_532_800;
/// The mode that all files have.
const MODE: u32 = 0o644;
/// Higher levels take many times as long for a few per cent.
const ZSTD_LEVEL: i32 = 9;

/// A form of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Quadriga's own: a tar file in one zstd frame, with a list of contents.
    Qx,
    /// A tar file without compression.
    Tar,
    /// A zip file.
    Zip,
    /// What `npm pack` writes: a tar file in gzip, below `package/`, with a `package.json` that has
    /// a section `quadriga`.
    Npm,
    /// The folder of an OCI image layout, in which the `.qx` is the one layer.
    Oci,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Qx, Self::Tar, Self::Zip, Self::Npm, Self::Oci];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qx => "qx",
            Self::Tar => "tar",
            Self::Zip => "zip",
            Self::Npm => "npm",
            Self::Oci => "oci",
        }
    }

    /// What the names of its files end with.
    pub fn extension(self) -> &'static str {
        if self == Self::Npm { "tgz" } else { self.as_str() }
    }

    /// The format of a file, by its first bytes.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Qx),
            [0x1f, 0x8b, ..] => Some(Self::Npm),
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Some(Self::Zip),
            _ if start.get(257..262) == Some(b"ustar") => Some(Self::Tar),
            _ => None,
        }
    }

    /// How many bytes of a file [`Format::of`] looks at.
    pub(crate) const MAGIC: usize = 262;
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|format| format.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no format: expected qx, tar, zip, npm or oci"))
    }
}

/// Hands all entries of a package file to the intake. The layer of an OCI layout is a `.qx`.
pub(crate) fn read(format: Format, mut file: &File, intake: &mut Intake<'_>) -> Result<()> {
    file.rewind().map_err(|error| intake.read_failed(error))?;
    let packed = BufReader::with_capacity(64 << 10, file);
    let limit = intake.stream_limit();
    match format {
        Format::Qx | Format::Oci => {
            let mut zstd = zstd::Decoder::with_buffer(packed)
                .and_then(|mut zstd| {
                    zstd.window_log_max(intake.bounds().window_log)?;
                    Ok(zstd.single_frame())
                })
                .map_err(|error| intake.read_failed(error))?;
            tar::read(Limited { inner: &mut zstd, left: limit }, intake)?;
            nothing_after(zstd.finish(), intake)
        }
        Format::Npm => {
            let mut gzip = flate2::bufread::GzDecoder::new(packed);
            tar::read(Limited { inner: &mut gzip, left: limit }, intake)?;
            nothing_after(gzip.into_inner(), intake)
        }
        Format::Tar => tar::read(Limited { inner: packed, left: limit }, intake),
        Format::Zip => {
            let file = file.try_clone().map_err(|error| intake.read_failed(error))?;
            zip::read(file, intake)
        }
    }
}

/// Bytes behind the compressed stream would be something else to another reader.
fn nothing_after(mut packed: impl Read, intake: &Intake<'_>) -> Result<()> {
    match packed.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(intake.malformed("there are bytes behind its end")),
        Err(error) => Err(intake.read_failed(error)),
    }
}

/// A stream that ends with an error instead of going on forever.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(StreamTooLong))?;
        Ok(read)
    }
}

/// One file to pack.
pub(crate) struct Item {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) sha256: Digest,
    pub(crate) content: Content,
}

/// Where the bytes of a file to pack are.
pub(crate) enum Content {
    File(PathBuf),
    Bytes(Vec<u8>),
}

/// What is being written, and where to.
pub(crate) struct Job<'a> {
    pub(crate) items: &'a [Item],
    /// For errors.
    pub(crate) out: &'a Path,
    pub(crate) progress: &'a mut dyn FnMut(u64) -> ControlFlow<()>,
}

impl Job<'_> {
    fn failed(&self, source: io::Error) -> Error {
        Error::Io { path: self.out.to_owned(), source }
    }

    /// Writes the bytes of an item, which are to be those that were listed.
    fn content(&mut self, item: &Item, to: &mut dyn Write) -> Result<()> {
        let mut to = Digesting::new(to);
        match &item.content {
            Content::Bytes(bytes) => to.write_all(bytes).map_err(|error| self.failed(error))?,
            Content::File(path) => {
                let file = File::open(path).map_err(Error::io(path))?;
                // No more than was announced, whatever has happened to the file since.
                let written = digest::copy(&mut file.take(item.size), &mut to);
                written.map_err(|error| self.failed(error))?;
            }
        }
        let (_, sha256, size) = to.finish();
        if (sha256, size) != (item.sha256, item.size) {
            return Err(Error::Changed { path: item.path.clone() });
        }
        if (self.progress)(size).is_break() {
            return Err(Error::Cancelled);
        }
        Ok(())
    }
}

/// Writes a package file of any format but OCI's, which is a folder.
pub(crate) fn write(format: Format, job: &mut Job<'_>, out: &mut dyn Write) -> Result<()> {
    match format {
        Format::Qx | Format::Oci => {
            let mut zstd = zstd::Encoder::new(out, ZSTD_LEVEL)
                .and_then(|mut zstd| {
                    zstd.include_checksum(true)?;
                    Ok(zstd)
                })
                .map_err(|error| job.failed(error))?;
            tar::write(job, "", &mut zstd)?;
            zstd.finish().map(drop).map_err(|error| job.failed(error))
        }
        Format::Tar => tar::write(job, "", out),
        Format::Npm => {
            let mut gzip = flate2::GzBuilder::new().mtime(0).write(out, flate2::Compression::default());
            tar::write(job, npm::FOLDER, &mut gzip)?;
            gzip.finish().map(drop).map_err(|error| job.failed(error))
        }
        Format::Zip => zip::write(job, out),
    }
}
