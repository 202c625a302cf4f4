use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use blake2::{Blake2b512, Digest as _};
use quadriga_abi::manifest::Manifest;
use tempfile::TempDir;

use crate::bounds::Bounds;
use crate::contents::Contents;
use crate::digest::{Digest, Digesting};
use crate::error::{Error, Result};
use crate::format::oci::{self, Layout};
use crate::format::{self, Format};
use crate::intake::Intake;
use crate::sign::{PublicKey, SecretKey, Signature};

/// A package that is about to be read.
///
/// Its bytes were copied to a file that has no name, and digested on the way: what is verified is
/// what is unpacked, whatever happens to the file that it came from.
#[derive(Debug)]
pub struct Package {
    file: File,
    format: Format,
    size: u64,
    digest: Digest,
    /// What minisign signs: BLAKE2b of the file.
    prehash: [u8; 64],
    signature: Option<Signature>,
    bounds: Bounds,
}

/// An unpacked package in a staging folder, which is removed unless it is kept.
#[derive(Debug)]
pub struct Unpacked {
    staging: TempDir,
    /// What the extension is.
    pub manifest: Manifest,
    /// What is in the package; each digest was compared.
    pub contents: Contents,
}

impl Package {
    /// Opens a package file, or the folder of an OCI image layout.
    ///
    /// # Errors
    /// If it cannot be read, is too large or is of no known format.
    pub fn open(path: &Path, bounds: &Bounds) -> Result<Self> {
        if path.is_dir() {
            if !oci::is_layout(path) {
                return Err(Error::Folder(path.to_owned()));
            }
            let layout = Layout::open(path)?;
            let mut package = Self::spool(layout.package()?, path, bounds)?;
            package.expect(&layout.digest)?;
            if (package.size, package.format) != (layout.size, Format::Qx) {
                let why = "its layer is not what its manifest says".to_owned();
                return Err(Error::Malformed { format: Format::Oci, why });
            }
            package.format = Format::Oci;
            package.signature = layout.signature()?.map(|text| text.parse()).transpose()?;
            return Ok(package);
        }
        Self::spool(File::open(path).map_err(Error::io(path))?, path, bounds)
    }

    /// Takes a package from a stream, such as a download.
    ///
    /// # Errors
    /// As [`Package::open`].
    pub fn read(stream: impl Read, bounds: &Bounds) -> Result<Self> {
        Self::spool(stream, Path::new("the stream"), bounds)
    }

    fn spool(stream: impl Read, name: &Path, bounds: &Bounds) -> Result<Self> {
        let mut copy = Digesting::new(tempfile::tempfile().map_err(Error::io(std::env::temp_dir()))?);
        let mut prehash = Blake2b512::new();
        let mut start = Vec::new();
        let mut stream = stream.take(bounds.packed.saturating_add(1));
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io(name)(error)),
            };
            prehash.update(read);
            start.extend(read.iter().take(Format::MAGIC.saturating_sub(start.len())));
            copy.write_all(read).map_err(Error::io(std::env::temp_dir()))?;
        }
        let (file, digest, size) = copy.finish();
        if size > bounds.packed {
            return Err(Error::PackageTooLarge { limit: bounds.packed });
        }
        let format = Format::of(&start).ok_or(Error::UnknownFormat)?;
        let prehash = prehash.finalize().into();
        Ok(Self { file, format, size, digest, prehash, signature: None, bounds: bounds.clone() })
    }

    /// Its format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The SHA-256 digest of the package file; in an OCI layout, of its layer.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The length of the package file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes its files come to, as its list of contents says; `None` if there is no list that can be
    /// read. Nothing else is read, and nothing is compared.
    pub fn unpacked_size(&self) -> Option<u64> {
        (&self.file).rewind().ok()?;
        let go_on = &mut |_| crate::GO_ON;
        let mut intake = Intake::new(self.format, self.size, &self.bounds, None, go_on);
        intake.stop_at_list();
        // It ends with an error if anything follows.
        let _ = format::read(self.format, &self.file, &mut intake);
        intake.listed().map(|contents| contents.unpacked_size())
    }

    /// The signature that came with it, as only an OCI layout has one inside.
    pub fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    /// Makes sure that it is the package that somebody named.
    ///
    /// # Errors
    /// [`Error::WrongDigest`].
    pub fn expect(&self, digest: &Digest) -> Result<()> {
        if self.digest == *digest {
            Ok(())
        } else {
            Err(Error::WrongDigest { expected: *digest, actual: self.digest })
        }
    }

    /// Makes sure that the owner of a key signed exactly these bytes.
    ///
    /// # Errors
    /// If the signature is of another key, of other bytes, or its comment was changed.
    pub fn verify(&self, signature: &Signature, key: &PublicKey) -> Result<()> {
        Ok(key.verify(signature, &self.prehash)?)
    }

    /// Signs it. The trusted comment is a line that is signed too.
    ///
    /// # Errors
    /// If the comment is more than a line.
    pub fn sign(&self, key: &SecretKey, trusted_comment: &str) -> Result<Signature> {
        Ok(key.sign(&self.prehash, trusted_comment)?)
    }

    /// Puts a signature into the OCI layout that the package was opened from.
    ///
    /// # Errors
    /// If it is no layout, now holds another package, or cannot be written.
    pub fn add_signature(&self, layout: &Path, signature: &Signature) -> Result<()> {
        let found = Layout::open(layout)?;
        if found.digest != self.digest {
            return Err(Error::WrongDigest { expected: self.digest, actual: found.digest });
        }
        found.sign(&signature.to_string())
    }

    /// Looks at all of it, as [`Package::unpack`] does, and writes nothing.
    ///
    /// # Errors
    /// If anything in it is not as it should be.
    pub fn inspect(&self, progress: &mut dyn FnMut(u64) -> ControlFlow<()>) -> Result<(Manifest, Contents)> {
        self.take_in(None, progress)
    }

    /// Unpacks it into a new folder inside of `parent`, which is gone again if anything in the
    /// package is not as it should be. `progress` hears how many bytes were unpacked,
    /// and can end it.
    ///
    /// # Errors
    /// If the package is refused, or the folder cannot be written.
    pub fn unpack(
        &self,
        parent: &Path,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Unpacked> {
        let staging = tempfile::Builder::new().prefix(".quadriga-unpack-").tempdir_in(parent);
        let staging = staging.map_err(Error::io(parent))?;
        let (manifest, contents) = self.take_in(Some(staging.path()), progress)?;
        Ok(Unpacked { staging, manifest, contents })
    }

    fn take_in(
        &self,
        dest: Option<&Path>,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(Manifest, Contents)> {
        (&self.file).rewind().map_err(Error::io(std::env::temp_dir()))?;
        let mut intake = Intake::new(self.format, self.size, &self.bounds, dest, progress);
        format::read(self.format, &self.file, &mut intake)?;
        intake.finish()
    }
}

impl Unpacked {
    /// Where it lies for now.
    pub fn dir(&self) -> &Path {
        self.staging.path()
    }

    /// Moves it to its place, on the same file system, where nothing may be yet.
    ///
    /// # Errors
    /// If something is there, or it cannot be moved; it is removed then.
    pub fn keep(self, dest: &Path) -> Result<PathBuf> {
        if fs::symlink_metadata(dest).is_ok() {
            return Err(Error::Exists(dest.to_owned()));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // Temporary folders are their user's alone.
            fs::set_permissions(self.dir(), fs::Permissions::from_mode(0o755))
                .map_err(Error::io(self.dir()))?;
        }
        fs::rename(self.dir(), dest).map_err(Error::io(dest))?;
        // What it would remove is no longer there.
        let _ = self.staging.keep();
        Ok(dest.to_owned())
    }
}
