//! What can be typed for packages.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use quadriga::package::{Digest, Format};
use serde::{Deserialize, Serialize};

/// Make a package of an extension's folder
///
/// The same files make the same package, to the last bit, whatever their times and modes. What git,
/// editors and build tools keep in the folder stays out, and so does what .quadrigaignore names,
/// with the syntax of .gitignore.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga pack ./hello                         writes acme.hello-1.0.0.qx
  quadriga pack ./hello --out dist --sign acme.key
  quadriga pack ./hello --format npm            for `npm publish`
  quadriga pack ./hello --format oci            a layout for any OCI registry
  quadriga pack ./hello --json | jq -r .digest")]
pub(crate) struct PackArgs {
    /// The extension's folder, with its quadriga.toml
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// The package to write, or an existing folder to write it to
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) out: Option<PathBuf>,

    /// The form of the package: qx, tar, zip, npm or oci
    #[arg(long, default_value_t = Format::Qx)]
    pub(crate) format: Format,

    /// Pack files that look like secrets too
    #[arg(long)]
    pub(crate) allow_secrets: bool,

    /// Sign the package with the secret key in this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign: Option<PathBuf>,

    /// The file with the password of the secret key; the terminal is asked if left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "sign")]
    pub(crate) password_file: Option<PathBuf>,
}

/// Unpack a package into a folder that `inspect` and `call` can use
///
/// Nothing is written before the package was verified, and nothing is left of one that is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga unpack acme.hello-1.0.0.qx           into ./acme.hello-1.0.0
  quadriga unpack acme.hello-1.0.0.qx --key acme.pub --out ./hello
  quadriga unpack hello.tgz --digest sha256:0123…")]
pub(crate) struct UnpackArgs {
    #[command(flatten)]
    pub(crate) package: PackageArgs,

    /// The folder to make
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) out: Option<PathBuf>,
}

/// Verify who signed a package, and that everything in it is what it says
///
/// Reads all of the package, and writes nothing. A package that is signed needs the key of who
/// should have signed it; for one that is not, the list of contents is compared.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga verify acme.hello-1.0.0.qx --key acme.pub
  quadriga verify acme.hello-1.0.0.qx --key RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3
  quadriga verify hello.zip --digest sha256:0123…
  quadriga verify ./hello.oci --key acme.pub --json")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) package: PackageArgs,
}

/// Which package, and what it has to be.
#[derive(Debug, Clone, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackageArgs {
    /// The package: a .qx, .zip, .tar or npm's .tgz, or the folder of an OCI image layout
    #[arg(value_name = "PACKAGE", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,

    /// The public key of who has to have signed it: the key, or a file that holds it
    #[arg(long, value_name = "KEY", value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<String>,

    /// The signature, if it is not PACKAGE.minisig
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "key")]
    pub(crate) signature: Option<PathBuf>,

    /// The SHA-256 digest that it has to have
    #[arg(long, value_name = "DIGEST")]
    pub(crate) digest: Option<Digest>,
}

/// Sign a package, as minisign does
///
/// Writes the signature to PACKAGE.minisig, or into an OCI image layout. `minisign -V` verifies it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga sign acme.hello-1.0.0.qx --key acme.key
  quadriga sign acme.hello-1.0.0.qx --key acme.key --password-file password.txt
  quadriga sign ./hello.oci --key acme.key --comment 'release 1.0.0'
  minisign -V -p acme.pub -m acme.hello-1.0.0.qx")]
pub(crate) struct SignArgs {
    /// The package: a .qx, .zip, .tar or npm's .tgz, or the folder of an OCI image layout
    #[arg(value_name = "PACKAGE", value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,

    /// The file with the secret key, of `quadriga keygen` or minisign
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key: PathBuf,

    /// The file with the password of the secret key; the terminal is asked if left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,

    /// A line that is signed too; time and file name if left out
    #[arg(long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,

    /// Take the place of an earlier signature
    #[arg(long)]
    pub(crate) force: bool,
}

/// Make a pair of keys, in the format of minisign
///
/// Writes NAME.key, which signs and is for nobody else, and NAME.pub, which verifies and is for
/// everybody.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga keygen acme                          asks for a password
  quadriga keygen acme --password-file password.txt
  quadriga keygen ci --no-password              whoever can read ci.key can sign")]
pub(crate) struct KeygenArgs {
    /// The path of both files, without what their names end with
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) name: PathBuf,

    /// The file with the password for the secret key; the terminal is asked if left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) password_file: Option<PathBuf>,

    /// Do not protect the secret key by a password
    #[arg(long, conflicts_with = "password_file")]
    pub(crate) no_password: bool,
}
