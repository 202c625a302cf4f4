use std::io;
use std::path::PathBuf;

use quadriga_abi::manifest::ManifestError;

use crate::digest::Digest;
use crate::format::Format;
use crate::sign::SignatureError;

/// What the fallible functions here return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a package cannot be built or is not accepted. Names from inside of a package are shown with
/// their control characters escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("{} cannot be read or written", path.display())]
    Io { path: PathBuf, source: io::Error },

    #[error("it was ended by its caller")]
    Cancelled,

    // What a package is made from.
    #[error("{} is no extension: it has no quadriga.toml", .0.display())]
    NoExtension(PathBuf),
    #[error("{} is a folder, and no OCI image layout", .0.display())]
    Folder(PathBuf),
    #[error("{file:?}, which the manifest names, is not in the package")]
    NotPacked { file: String },
    #[error("{path:?} looks like a secret: {why}")]
    Secret { path: String, why: &'static str },
    #[error("the ignore rules cannot be read: {0}")]
    Ignore(String),
    #[error("{path:?} changed while it was packed")]
    Changed { path: String },
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),

    // What a package's bytes are.
    #[error("this is no package: its first bytes are those of no known format")]
    UnknownFormat,
    #[error("the {format} is malformed: {why}")]
    Malformed { format: Format, why: String },
    #[error("the {format} has {what}, which packages do not have")]
    Unsupported { format: Format, what: String },
    #[error("the package is larger than {limit} bytes")]
    PackageTooLarge { limit: u64 },
    #[error("the package needs a zstd window of more than 2^{limit} bytes")]
    WindowTooLarge { limit: u32 },
    #[error("the package's digest is {actual}, and not {expected}")]
    WrongDigest { expected: Digest, actual: Digest },

    // What a package's names are.
    #[error("{path:?} is no name for a file in a package: {why}")]
    BadName { path: String, why: &'static str },
    #[error("{path:?} leads out of the package")]
    Escapes { path: String },
    #[error("a path of {length} bytes is longer than {limit}: {start:?}…")]
    PathTooLong { start: String, length: usize, limit: usize },
    #[error("{path:?} is more than {limit} folders deep")]
    TooDeep { path: String, limit: usize },
    #[error("{path:?} is there twice")]
    Duplicate { path: String },
    #[error("{path:?} and {other:?} are one name where case or the form of accents does not count")]
    Collides { path: String, other: String },
    #[error("{path:?} is both a file and a folder")]
    FileAndFolder { path: String },
    #[error("{path:?} is a {what}: packages have files and folders")]
    NotAFile { path: String, what: &'static str },
    #[error("{path:?} is in the folder that packing itself fills")]
    Reserved { path: String },

    // How much a package holds.
    #[error("the package has more than {limit} files and folders")]
    TooManyEntries { limit: u64 },
    #[error("the names in the package come to more than {limit} bytes")]
    NamesTooLong { limit: u64 },
    #[error("{path:?} is larger than {limit} bytes")]
    FileTooLarge { path: String, limit: u64 },
    #[error("the package unpacks to more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the package unpacks to more than {limit} bytes, {ratio} times its size")]
    Bomb { limit: u64, ratio: u64 },
    #[error("{path:?} is not as long as the package says: {declared} bytes")]
    WrongLength { path: String, declared: u64 },

    // What a package says of itself.
    #[error("the package has no {0}")]
    Lacks(&'static str),
    #[error("the package's list of contents is of no use: {0}")]
    BadContents(String),
    #[error("{path:?} is not in the package's list of contents")]
    NotListed { path: String },
    #[error("{path:?} is in the package's list of contents and not in the package")]
    Missing { path: String },
    #[error("{path:?} is not what the list of contents says: its digest is {actual}, and not {listed}")]
    WrongFileDigest { path: String, listed: Digest, actual: Digest },
    #[error("{path:?} is not what the list of contents says: it has {actual} bytes, and not {listed}")]
    WrongFileSize { path: String, listed: u64, actual: u64 },
    #[error("the manifest is invalid: {0}")]
    Manifest(ManifestError),
    #[error("package.json is of no use: {0}")]
    PackageJson(String),
    #[error("the package's SBOM is of no use: {0}")]
    Sbom(String),

    // Who vouches for it.
    #[error("the package is not signed")]
    NotSigned,
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Cancelled => "cancelled",
            Self::NoExtension(_) => "no_extension",
            Self::Folder(_) => "folder",
            Self::NotPacked { .. } => "not_packed",
            Self::Secret { .. } => "secret",
            Self::Ignore(_) => "ignore_rules",
            Self::Changed { .. } => "changed",
            Self::Exists(_) => "exists",
            Self::UnknownFormat => "unknown_format",
            Self::Malformed { .. } => "malformed",
            Self::Unsupported { .. } => "unsupported",
            Self::PackageTooLarge { .. } => "package_too_large",
            Self::WindowTooLarge { .. } => "window_too_large",
            Self::WrongDigest { .. } => "wrong_digest",
            Self::BadName { .. } => "bad_name",
            Self::Escapes { .. } => "escapes",
            Self::PathTooLong { .. } => "path_too_long",
            Self::TooDeep { .. } => "too_deep",
            Self::Duplicate { .. } => "duplicate",
            Self::Collides { .. } => "collides",
            Self::FileAndFolder { .. } => "file_and_folder",
            Self::NotAFile { .. } => "not_a_file",
            Self::Reserved { .. } => "reserved",
            Self::TooManyEntries { .. } => "too_many_entries",
            Self::NamesTooLong { .. } => "names_too_long",
            Self::FileTooLarge { .. } => "file_too_large",
            Self::TooLarge { .. } => "too_large",
            Self::Bomb { .. } => "bomb",
            Self::WrongLength { .. } => "wrong_length",
            Self::Lacks(_) => "lacks",
            Self::BadContents(_) => "bad_contents",
            Self::NotListed { .. } => "not_listed",
            Self::Missing { .. } => "missing",
            Self::WrongFileDigest { .. } => "wrong_file_digest",
            Self::WrongFileSize { .. } => "wrong_file_size",
            Self::Manifest(_) => "invalid_manifest",
            Self::PackageJson(_) => "package_json",
            Self::Sbom(_) => "sbom",
            Self::NotSigned => "not_signed",
            Self::Signature(error) => error.code(),
        }
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoExtension(_) => "name the folder that holds the extension's quadriga.toml",
            Self::Folder(_) => "name a package file; `quadriga pack` makes one of an extension's folder",
            Self::NotPacked { .. } => "build it first, or take it out of .quadrigaignore",
            Self::Secret { .. } => {
                "list it in .quadrigaignore, or pack with --allow-secrets if everybody may read it"
            }
            Self::Exists(_) => "remove it first, or choose another name",
            Self::UnknownFormat => "packages are .qx, .zip, .tar, npm's .tgz and OCI image layouts",
            Self::NotAFile { what: "symbolic link", .. } => {
                "replace it by a copy of what it leads to, or list it in .quadrigaignore"
            }
            Self::Collides { .. } => "rename one of them",
            Self::BadName { .. } | Self::PathTooLong { .. } | Self::TooDeep { .. } => "rename it",
            Self::WrongDigest { .. }
            | Self::WrongFileDigest { .. }
            | Self::WrongFileSize { .. }
            | Self::Missing { .. }
            | Self::NotListed { .. } => "the package was damaged or changed: get it again",
            Self::NotSigned => "get the signature, a file with .minisig at the end of its name",
            Self::Signature(error) => return error.hint(),
            _ => return None,
        })
    }
}
