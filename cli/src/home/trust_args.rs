//! What can be typed about trust.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueHint};
use quadriga::abi::Isolation;
use quadriga::abi::limits::Span;
use quadriga::home::TrustLevel;
use serde::{Deserialize, Serialize};

use super::args::HomeArgs;

/// Trust publishers by their keys, and say what that means
///
/// A key signs the extensions of one publisher. How far it is trusted decides what holds for what it signed:
/// the policy has terms for each level, from untrusted over low, medium and high to verified.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga trust add acme.pub --publisher acme --level verified
  quadriga trust list
  quadriga trust remove 0123456789ABCDEF
  quadriga trust policy untrusted --signature true --isolation process
  quadriga trust policy medium --minimum-release-age 72h")]
pub(crate) struct TrustArgs {
    #[command(subcommand)]
    pub(crate) what: TrustCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TrustCommand {
    Add(AddArgs),
    List(ListKeysArgs),
    Remove(RemoveArgs),
    Policy(PolicyArgs),
}

/// Trust the owner of a key as a publisher; once more, to another level
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga trust add acme.pub --publisher acme --level verified
  quadriga trust add RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3 --publisher acme --level low")]
pub(crate) struct AddArgs {
    /// The public key, or a file that holds it, of `quadriga keygen` or minisign
    #[arg(value_name = "KEY", value_hint = ValueHint::FilePath)]
    pub(crate) key: String,

    /// Whose extensions it signs: what their ids begin with
    #[arg(long, value_name = "NAME")]
    pub(crate) publisher: String,

    /// How far it is trusted: low, medium, high or verified
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: TrustLevel,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// List the keys that are trusted
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga trust list
  quadriga trust list --json | jq -r '.[].key'")]
pub(crate) struct ListKeysArgs {
    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Trust a key no more
///
/// What it signed is untrusted from now on, and the terms of that level hold for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga trust remove 0123456789ABCDEF
  quadriga trust remove acme.pub")]
pub(crate) struct RemoveArgs {
    /// The key, its name, or a file that holds it
    #[arg(value_name = "KEY", value_hint = ValueHint::FilePath)]
    pub(crate) key: String,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Show what holds for each level of trust, or change it for one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga trust policy
  quadriga trust policy untrusted --signature true
  quadriga trust policy low --isolation process --permissions call,net,kv
  quadriga trust policy medium --permissions all --minimum-release-age 72h
  quadriga trust policy medium --minimum-release-age none")]
pub(crate) struct PolicyArgs {
    /// The level to change: untrusted, low, medium, high or verified
    #[arg(value_name = "LEVEL")]
    pub(crate) level: Option<TrustLevel>,

    /// The weakest isolation: none, in-process, process, container or vm
    #[arg(long, value_name = "LEVEL", requires = "level")]
    pub(crate) isolation: Option<Isolation>,

    /// The permissions that may be granted at all, by their names in [permissions] and with commas between
    /// them; `all`, or `none`
    #[arg(long, value_name = "NAMES", requires = "level")]
    pub(crate) permissions: Option<String>,

    /// Whether only what is signed may be installed and run
    #[arg(long, value_name = "BOOL", requires = "level")]
    pub(crate) signature: Option<bool>,

    /// How long ago a version has to have been signed to be installed, such as 72h; `none` for no matter
    #[arg(long, value_name = "TIME", requires = "level")]
    pub(crate) minimum_release_age: Option<Age>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// A time, or none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Age(pub(crate) Option<Span>);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => Span::try_from(text.to_owned()).map(|span| Self(Some(span))),
        }
    }
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Age> for String {
    fn from(Age(age): Age) -> Self {
        age.map_or_else(|| "none".to_owned(), |age| age.to_string())
    }
}

/// Keep an installed extension at a version
///
/// An update to another version is refused, and so is a roll-back, until `quadriga unpin` or
/// `quadriga update --unpin`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga pin acme.hello
  quadriga pin acme.hello 1.2.0")]
pub(crate) struct PinArgs {
    /// The id of the extension
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// The version; the one that is in use, if left out
    #[arg(value_name = "VERSION")]
    pub(crate) at: Option<semver::Version>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}
