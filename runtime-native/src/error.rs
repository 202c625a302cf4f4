//! What is wrong with a library, in the words of this project.

use std::path::Path;

use abi_stable::library::{AbiHeader, LibraryError};
use quadriga_abi::{Error, ErrorCode};

/// Our side of every comparison.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// The file is not what an entry of this kind should be.
pub(crate) fn entry(why: impl Into<String>) -> Error {
    Error::new(ErrorCode::EntryInvalid, why)
}

/// It could not be opened, or has no root module.
pub(crate) fn library(error: LibraryError, path: &Path) -> Error {
    match error {
        LibraryError::OpenError { err, .. } => {
            // The text names our private copy, which means nothing to anyone.
            let copy = format!("{}: ", path.display());
            entry(format!("it cannot be loaded: {}", err.to_string().replace(&copy, "")))
        }
        LibraryError::GetSymbolError { .. } => entry("it is a library, but not an extension")
            .with_hint("write it with quadriga-sdk, which exports what a host looks for"),
        LibraryError::InvalidAbiHeader(theirs) if theirs.magic_string == AbiHeader::VALUE.magic_string => {
            let version = |header: &AbiHeader| format!("{}.{}", header.abi_major, header.abi_minor);
            let (theirs, ours) = (version(&theirs), version(&AbiHeader::VALUE));
            incompatible(format!("it was built with abi_stable {theirs}, and this host with {ours}"))
        }
        LibraryError::InvalidAbiHeader(_) => entry("its root module is not one of abi_stable's"),
        other => layout(other, "unknown"),
    }
}

/// Its root module does not fit ours.
pub(crate) fn layout(error: LibraryError, theirs: &str) -> Error {
    match error {
        LibraryError::IncompatibleVersionNumber { .. } => incompatible(format!(
            "it was built against the native interface of version {theirs}, and this host has {OURS}"
        )),
        LibraryError::AbiInstability(report) => unfit(&report.to_string(), theirs),
        LibraryError::RootModule { err, .. } => {
            Error::new(ErrorCode::LoadFailed, format!("its root module failed: {err}"))
        }
        other => incompatible(tidy(&other.to_string())),
    }
}

/// What it offers or needs is laid out differently.
pub(crate) fn unfit(report: &str, theirs: &str) -> Error {
    incompatible(format!(
        "its native interface (version {theirs}) is laid out differently from this host's (version {OURS})"
    ))
    .with_cause(Error::new(ErrorCode::IncompatibleVersion, tidy(report)))
}

/// It was exported without the description that would be compared.
pub(crate) fn unchecked() -> Error {
    incompatible("it leaves out the layout of its native interface, so it cannot be checked".to_owned())
}

fn incompatible(message: String) -> Error {
    Error::new(ErrorCode::IncompatibleVersion, message)
        .with_hint(format!("rebuild it with quadriga-sdk {OURS}"))
}

/// abi_stable's reports are many lines apart.
fn tidy(report: &str) -> String {
    report.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}
