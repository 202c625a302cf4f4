//! The package file: one extension in one file, with what is in it and who signed it.
//!
//! A package is built from an extension's folder with [`pack()`] and read with [`Package`], which
//! refuses whatever is not a package before anything of it is in place. `.qx`, zip, tar, npm's
//! tgz and an OCI image layout are five forms of one stream of entries with one set of rules, so
//! what is refused in one is refused in all. `docs/packages.md` writes the formats down.

mod bounds;
mod contents;
mod digest;
mod error;
mod format;
mod intake;
mod name;
mod pack;
mod package;
mod sbom;
mod sign;
mod source;

use std::ops::ControlFlow;

pub use bounds::Bounds;
pub use contents::{Contents, FileKind, PackagedFile};
pub use digest::Digest;
pub use error::{Error, Result};
pub use format::Format;
pub use pack::{Built, PackOptions, pack};
pub use package::{Package, Unpacked};
pub use sbom::{ThirdParty, third_party};
pub use sign::{PublicKey, SecretKey, Signature, SignatureError};

/// What a hearer of progress returns so that the work goes on.
pub const GO_ON: ControlFlow<()> = ControlFlow::Continue(());
/// The folder inside of a package that holds what packing adds: the contents list and the SBOM.
pub const META_DIR: &str = ".quadriga";
/// The contents list, inside of the package.
pub const CONTENTS_FILE: &str = ".quadriga/contents.json";
/// The software bill of materials, inside of the package.
pub const SBOM_FILE: &str = ".quadriga/sbom.cdx.json";
/// What a signature's file is named: the package's file name and this.
pub const SIGNATURE_SUFFIX: &str = ".minisig";
