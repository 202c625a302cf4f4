//! What can be typed about what is installed.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use quadriga::abi::manifest::ExtensionType;
use quadriga::abi::{ExtensionId, RuntimeKind};
use serde_json::Value as Json;

use crate::args::setting;
use crate::host::GrantArg;
use crate::package::args::PackageArgs;

/// Which home.
#[derive(Debug, Args)]
pub(crate) struct HomeArgs {
    /// The folder with what is installed; $QUADRIGA_HOME, or quadriga in the user's data folder, if
    /// left out
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) home: Option<PathBuf>,
}

/// What comes in.
#[derive(Debug, Args)]
pub(crate) struct OffersArgs {
    #[command(flatten)]
    pub(crate) package: PackageArgs,

    /// A lock file: nothing that it does not name comes in
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) locked: Option<PathBuf>,

    /// Further packages, in any order; all of them come in or none
    #[arg(value_name = "PACKAGE", value_hint = ValueHint::AnyPath, conflicts_with_all = ["signature", "digest"])]
    pub(crate) more: Vec<PathBuf>,
}

/// Install extensions out of packages
///
/// They are unpacked, verified and put in place, all of them, or nothing is changed. Of several versions
/// of one extension the newest is installed, or the newest that can be enabled with the rest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga install acme.hello-1.0.0.qx --key acme.pub
  quadriga install hello.tgz --grant requested --enable
  quadriga install *.qx --locked quadriga.lock
  quadriga install site.qx words-1.0.0.qx words-1.1.0.qx --enable --with-dependencies
  quadriga install acme.hello-1.0.0.qx --home ./home --json")]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) offers: OffersArgs,

    /// What they may do, of what their manifests ask for
    #[arg(long, value_enum, default_value_t = GrantArg::None)]
    pub(crate) grant: GrantArg,

    /// Enable them too
    #[arg(long)]
    pub(crate) enable: bool,

    #[command(flatten)]
    pub(crate) needs: NeedsArgs,

    #[command(flatten)]
    pub(crate) rehearsal: RehearsalArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Put other versions of extensions in the place of the installed ones
///
/// What they are granted stays. A version that asks for more needs your consent, and so does one that may
/// run less isolated, whose signer is trusted less, or that is older. The version before is kept for `quadriga rollback`. Versions that need each other come together.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga update acme.hello-1.1.0.qx --key acme.pub
  quadriga update acme.hello-2.0.0.qx --consent --dry-run
  quadriga update site-2.0.0.qx words-2.0.0.qx")]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    pub(crate) offers: OffersArgs,

    /// Agree to a version that asks for more, may run less isolated, is trusted less, or is older
    #[arg(long)]
    pub(crate) consent: bool,

    /// Update what is pinned to another version too, and pin it no more
    #[arg(long)]
    pub(crate) unpin: bool,

    #[command(flatten)]
    pub(crate) dependents: DependentsArgs,

    #[command(flatten)]
    pub(crate) needs: NeedsArgs,

    #[command(flatten)]
    pub(crate) rehearsal: RehearsalArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// One that is installed.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// The id of the extension
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// One that is enabled, and what it needs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga enable acme.hello
  quadriga enable acme.site --with-dependencies --dry-run")]
pub(crate) struct EnableArgs {
    #[command(flatten)]
    pub(crate) one: OneArgs,

    #[command(flatten)]
    pub(crate) needs: NeedsArgs,

    #[command(flatten)]
    pub(crate) rehearsal: RehearsalArgs,
}

/// One that is installed, and those that need it.
#[derive(Debug, Args)]
pub(crate) struct GoingArgs {
    #[command(flatten)]
    pub(crate) one: OneArgs,

    #[command(flatten)]
    pub(crate) dependents: DependentsArgs,

    #[command(flatten)]
    pub(crate) rehearsal: RehearsalArgs,
}

/// Take an installed extension away, with all its versions
///
/// What it kept in the key-value store goes with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga uninstall acme.hello
  quadriga uninstall acme.hello --keep-data
  quadriga uninstall acme.words --with-dependents --dry-run")]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    pub(crate) going: GoingArgs,

    /// Leave what it kept in the key-value store there, for when it is installed again
    #[arg(long)]
    pub(crate) keep_data: bool,
}

/// Whether it is done.
#[derive(Debug, Args)]
pub(crate) struct RehearsalArgs {
    /// Say what would change or why it would fail, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What becomes of what it needs.
#[derive(Debug, Args)]
pub(crate) struct NeedsArgs {
    /// Enable what it needs and is installed, too
    #[arg(long)]
    pub(crate) with_dependencies: bool,
}

/// What becomes of those that need it.
#[derive(Debug, Args)]
pub(crate) struct DependentsArgs {
    /// Disable those that need what goes, too
    #[arg(long)]
    pub(crate) with_dependents: bool,
}

/// Show who needs whom, what is missing, and in which order extensions start
///
/// With an ID, only what that needs and who needs it. A lock file holds exactly what is installed, with
/// versions and digests, for another home to be the same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga deps
  quadriga deps acme.site --format svg > site.svg
  quadriga deps --json | jq .order
  quadriga deps --lock quadriga.lock
  quadriga deps --check quadriga.lock")]
pub(crate) struct DepsArgs {
    /// The id of an extension
    #[arg(value_name = "ID", conflicts_with_all = ["lock", "check"])]
    pub(crate) id: Option<String>,

    /// How it is written
    #[arg(long, value_enum, default_value_t = DepsFormat::Text)]
    pub(crate) format: DepsFormat,

    /// Write a lock file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "check")]
    pub(crate) lock: Option<PathBuf>,

    /// Compare what is installed with a lock file, and fail if anything differs
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) check: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DepsFormat {
    /// Lines for people.
    Text,
    /// JSON.
    Json,
    /// For Graphviz.
    Dot,
    /// A drawing.
    Svg,
}

/// List what is installed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga list
  quadriga list --enabled --runtime python
  quadriga list --publisher acme --tag text --json | jq '.[].id'
  quadriga list --health not-ready")]
pub(crate) struct ListArgs {
    /// Only what is enabled
    #[arg(long, conflicts_with = "disabled")]
    pub(crate) enabled: bool,

    /// Only what is disabled
    #[arg(long)]
    pub(crate) disabled: bool,

    /// Only what this runtime runs: javascript, python, webassembly or native
    #[arg(long, value_name = "KIND")]
    pub(crate) runtime: Option<RuntimeKind>,

    /// Only extensions of this type: protocol, service, ui, integration, analytics, security, workflow or custom
    #[arg(long = "type", value_name = "TYPE", value_parser = extension_type)]
    pub(crate) ty: Option<ExtensionType>,

    /// Only extensions of this publisher
    #[arg(long, value_name = "NAME")]
    pub(crate) publisher: Option<String>,

    /// Only what has this tag; may be repeated
    #[arg(long = "tag", value_name = "WORD")]
    pub(crate) tags: Vec<String>,

    /// Show how each does, as the host that runs the home says, and only what does so
    #[cfg(unix)]
    #[arg(long, value_enum, value_name = "HEALTH")]
    pub(crate) health: Option<HealthArg>,

    /// Only what has this text in its id, name or description
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// How an extension does.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HealthArg {
    /// However it does
    Any,
    /// It is alive and takes calls
    Ready,
    /// It should run, and is not ready or did not start
    NotReady,
}

/// Permissions of one that is installed.
#[derive(Debug, Args)]
pub(crate) struct PermissionArgs {
    /// The id of the extension
    #[arg(value_name = "ID")]
    pub(crate) id: ExtensionId,

    /// Permissions as in [permissions] of a manifest, each as KEY=JSON
    #[arg(value_name = "KEY=JSON", value_parser = setting, required = true)]
    pub(crate) permissions: Vec<(String, Json)>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Copy all that is installed, as it is at one moment, to go back to
///
/// Each backup is a folder of its own, named after its moment, with the digest of each of its files.
/// Whoever works with the home is not disturbed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga backup ./backups
  quadriga backup ./backups --keep 7
  quadriga backup ./backups --list")]
pub(crate) struct BackupArgs {
    /// The folder that the backups are in
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) into: PathBuf,

    /// Remove all backups there but for so many of the newest, once this one is made
    #[arg(long, value_name = "COUNT", conflicts_with = "list")]
    pub(crate) keep: Option<std::num::NonZeroUsize>,

    /// Make none, and list those that are there
    #[arg(long)]
    pub(crate) list: bool,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Make a home of a backup, where there is none
///
/// All files are compared with their digests first, and the audit trail with its hashes: all of it comes
/// back, or nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga restore ./backups/2026-01-31T12-00-00.000Z --home ./home")]
pub(crate) struct RestoreArgs {
    /// The backup: a folder
    #[arg(value_name = "BACKUP", value_hint = ValueHint::DirPath)]
    pub(crate) backup: PathBuf,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Show what was done to what is installed, or verify that nobody changed that record
///
/// Each entry is tied to the one before it by a hash. Keep the last one elsewhere, and give it to
/// --head later: it shows that nothing up to there was changed or cut off.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga audit
  quadriga audit --json | jq -c '.[]' > trail.jsonl
  quadriga audit --verify
  quadriga audit --verify --head \"$(cat kept-elsewhere)\"")]
pub(crate) struct AuditArgs {
    /// Verify all entries, and print how many there are and the last hash
    #[arg(long)]
    pub(crate) verify: bool,

    /// A hash that an earlier --verify printed
    #[arg(long, value_name = "HASH", requires = "verify")]
    pub(crate) head: Option<String>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

fn extension_type(text: &str) -> Result<ExtensionType, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}
