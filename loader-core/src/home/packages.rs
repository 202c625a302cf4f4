//! Packages come in: staged, verified, put in place, and then recorded.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use quadriga_abi::manifest::Manifest;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use quadriga_package::{Package, PublicKey, Signature};
use serde::Serialize;
use serde_json::json;
use sqlx::{Sqlite, Transaction};
use tokio::sync::OwnedMutexGuard;

use super::audit::{self, Act};
use super::graph::settle;
use super::manage::{because, write};
use super::{
    Dependents, Home, Installed, InstalledState, InstalledVersion, commit, failed, fault, find, remove, store,
};

/// What is said about a package that comes in.
#[derive(Debug, Clone, Default)]
pub struct InstallOptions {
    /// Who does it, for the audit trail.
    pub actor: String,
    /// A signature, and the key whose owner has to have made it.
    pub signed: Option<(Signature, PublicKey)>,
    /// What it may do, of what its manifest asks for; `None` for nothing at first, and for what it may
    /// do already at an update.
    pub grant: Option<Permissions>,
    /// Whether an update may ask for more than the version before it, or be an older one.
    pub consent: bool,
    /// What becomes of those that need a version which an update replaces.
    pub dependents: Dependents,
}

/// What an update or a roll-back changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Updated {
    /// The version that was in use.
    pub from: semver::Version,
    /// What the present one asks for, and that one did not.
    pub wider: Vec<String>,
    /// How it is now.
    pub installed: Installed,
    /// Those that could not go on with it and were disabled, those that need others first.
    pub disabled: Vec<Installed>,
}

/// A version whose files are in place, and that no row names yet. Dropped, it removes them.
struct Placed {
    id: ExtensionId,
    version: InstalledVersion,
    /// Under `packages`.
    folder: String,
    recorded: bool,
    /// Nobody takes it for what a killed process left.
    _files: OwnedMutexGuard<()>,
}

impl Home {
    /// Installs an extension, which is then there and disabled.
    ///
    /// # Errors
    /// `already_installed`; `invalid_package`, if it is damaged or unsafe, or not signed as it should
    /// be; `permission_denied`, if more is granted than it asks for; `store_failed`. Nothing of it is
    /// left then.
    pub async fn install(&self, package: Package, options: InstallOptions) -> Result<Installed, Error> {
        let placed = self.place(package, &options).await?;
        let (transaction, all) = self.begin().await?;
        if let Some(there) = all.iter().find(|it| it.id == placed.id) {
            let message = format!("{} {} is installed already", there.id, there.current.version);
            return Err(Error::new(ErrorCode::AlreadyInstalled, message).with_hint("update it instead"));
        }
        let grant = options.grant.clone().unwrap_or_default();
        requested(&placed.id, &grant, &placed.version.manifest)?;
        let installed = Installed {
            id: placed.id.clone(),
            state: InstalledState::Disabled,
            grant,
            current: placed.version.clone(),
            previous: None,
        };
        record(transaction, placed, &installed, &options.actor, "install").await?;
        Ok(installed)
    }

    /// Puts another version of an extension in the place of the present one, which is kept for a
    /// roll-back. What it is granted and whether it is enabled stays.
    ///
    /// # Errors
    /// `not_installed`; `already_installed`, if it is this very version or the one that is kept;
    /// `consent_required`, if it asks for more than the one before it or is older, with what that is; if
    /// it is enabled, `missing_dependency` or `dependency_cycle`, if it could not start, and `needed`, if
    /// others that are enabled need the version before; as for [`Home::install`]. Nothing has changed
    /// then.
    pub async fn update(&self, package: Package, options: InstallOptions) -> Result<Updated, Error> {
        let placed = self.place(package, &options).await?;
        let (mut transaction, all) = self.begin().await?;
        let before = find(&all, placed.id.as_str())?;
        let (old, new) = (&before.current, &placed.version);
        let wider = new.manifest.permissions.beyond(&old.manifest.permissions);
        let why = match (wider.is_empty(), new.version < old.version) {
            (true, false) => None,
            (false, _) => Some(format!("asks for more than {}: {}", old.version, wider.join(", "))),
            (true, true) => Some(format!("is older than {}", old.version)),
        };
        if let Some(why) = why.filter(|_| !options.consent) {
            let message = format!("{} {} {why}", before.id, new.version);
            return Err(Error::new(ErrorCode::ConsentRequired, message)
                .with_hint("agree to it, or keep what is there"));
        }
        if let Some(grant) = &options.grant {
            requested(&placed.id, grant, &new.manifest)?;
        }
        let (from, current) = (old.version.clone(), new.clone());
        let grant = options.grant.clone().unwrap_or(before.grant);
        // What the new one does not ask for it is not granted either.
        let grant = grant.intersect(&current.manifest.permissions);
        let installed = Installed { grant, current, previous: Some(before.current), ..before };
        let disabled = settle(&all, std::slice::from_ref(&installed), options.dependents)?;
        let (id, actor) = (installed.id.as_str(), &*options.actor);
        write(&mut transaction, &disabled, actor, "disable", |it| because(it, id)).await?;
        let _files = record(transaction, placed, &installed, actor, "update").await?;
        self.clear().await?;
        Ok(Updated { from, wider, installed, disabled })
    }

    /// Unpacks and verifies a package, and moves it to its place.
    async fn place(&self, package: Package, options: &InstallOptions) -> Result<Placed, Error> {
        let files = Arc::clone(&self.files).lock_owned().await;
        let (home, signed, there) = (self.path.clone(), options.signed.clone(), self.list().await?);
        let placing =
            tokio::task::spawn_blocking(move || place(&home, &package, signed.as_ref(), &there, files));
        placing.await.unwrap_or_else(|error| Err(Error::new(ErrorCode::Internal, error.to_string())))
    }
}

/// Adds a version and its row, and has that take effect. Nobody else touches files until the result is
/// dropped.
async fn record(
    mut transaction: Transaction<'_, Sqlite>,
    mut placed: Placed,
    installed: &Installed,
    actor: &str,
    action: &str,
) -> Result<Placed, Error> {
    fault::point("in place");
    let version = &placed.version;
    let detail = json!({
        "version": version.version,
        "digest": version.digest,
        "signer": version.signer,
        "previous": installed.previous.as_ref().map(|previous| &previous.version),
        "grant": installed.grant,
    });
    let act = Act { actor, action, extension: installed.id.as_str(), detail };
    store::add(&mut transaction, &placed.id, version, &placed.folder).await?;
    fault::point("with its version");
    store::put(&mut transaction, installed).await?;
    store::prune(&mut transaction, &placed.id).await?;
    fault::point("with its row");
    audit::write(&mut transaction, act).await?;
    commit(transaction).await?;
    placed.recorded = true;
    Ok(placed)
}

fn place(
    home: &Path,
    package: &Package,
    signed: Option<&(Signature, PublicKey)>,
    there: &[Installed],
    files: OwnedMutexGuard<()>,
) -> Result<Placed, Error> {
    if let Some((signature, key)) = signed {
        package.verify(signature, key).map_err(invalid)?;
    }
    let staging = home.join("staging");
    let unpacked = package.unpack(&staging, &mut |_| quadriga_package::GO_ON).map_err(invalid)?;
    fault::point("unpacked");
    sync(unpacked.dir())?;
    let manifest = unpacked.manifest.clone();
    let (id, version) = (manifest.extension.id.clone(), manifest.extension.version.0.clone());
    let digest = package.digest().to_string();
    if let Some(there) = there.iter().find(|it| it.id == id) {
        is_new(there, &version, &digest)?;
    }
    let size = unpacked.contents.unpacked_size();
    let folder = format!("{id}/{version}-{}", &digest[..12]);
    let dest = home.join("packages").join(&folder);
    let parent = home.join("packages").join(id.as_str());
    fs::create_dir_all(&parent).map_err(failed(&parent))?;
    fault::point("with a folder");
    // No row names it, so it is left of something that could not be removed.
    remove(&dest)?;
    unpacked.keep(&dest).map_err(invalid)?;
    let signer = signed.map(|(signature, _)| signature.key_id());
    let folder_of = dest.clone();
    let version = InstalledVersion {
        version,
        digest,
        size,
        signer,
        installed_at: store::time(store::millis(SystemTime::now())),
        folder: dest,
        manifest,
    };
    let placed = Placed { id, version, folder, recorded: false, _files: files };
    for folder in [folder_of.as_path(), &parent, &home.join("packages")] {
        sync_one(folder)?;
    }
    Ok(placed)
}

/// A version is installed once.
fn is_new(there: &Installed, version: &semver::Version, digest: &str) -> Result<(), Error> {
    let (current, previous) = (&there.current, there.previous.as_ref());
    let (same, how) = if current.version == *version {
        (current, "installed already".to_owned())
    } else if let Some(previous) = previous.filter(|it| it.version == *version) {
        (previous, format!("kept as the version before {}", current.version))
    } else {
        return Ok(());
    };
    let id = &there.id;
    let mut error = Error::new(ErrorCode::AlreadyInstalled, format!("{id} {version} is {how}"));
    if same.digest != digest {
        error.message +=
            &format!(", from another package: {}, and not {}", &same.digest[..12], &digest[..12]);
        error = error.with_hint("give what has changed another version");
    } else if current.version != *version {
        error = error.with_hint(format!("go back to it: quadriga rollback {id}"));
    }
    Err(error)
}

impl Drop for Placed {
    fn drop(&mut self) {
        if !self.recorded {
            // What stays is removed when the home is next opened.
            let _ = remove(&self.version.folder);
            let parent: Option<PathBuf> = self.version.folder.parent().map(Path::to_owned);
            // Another version may be in it.
            let _ = parent.map(fs::remove_dir);
        }
    }
}

/// Nobody is granted what it does not ask for.
pub(super) fn requested(id: &ExtensionId, grant: &Permissions, manifest: &Manifest) -> Result<(), Error> {
    let beyond = grant.beyond(&manifest.permissions);
    if beyond.is_empty() {
        return Ok(());
    }
    let message = format!("{id} cannot be granted {}: its manifest does not ask for that", beyond.join(", "));
    let hint = "grant what [permissions] asks for, or less";
    Err(Error::new(ErrorCode::PermissionDenied, message).with_hint(hint))
}

fn invalid(error: quadriga_package::Error) -> Error {
    let hint = error.hint().map(str::to_owned);
    let refused = Error::new(ErrorCode::InvalidPackage, error.to_string());
    match hint {
        Some(hint) => refused.with_hint(hint),
        None => refused,
    }
}

/// Has all files of a folder written to the disk before a row names them.
fn sync(folder: &Path) -> Result<(), Error> {
    for entry in super::entries(folder)? {
        if entry.is_dir() && !entry.is_symlink() {
            sync(&entry)?;
        } else {
            sync_one(&entry)?;
        }
    }
    sync_one(folder)
}

fn sync_one(path: &Path) -> Result<(), Error> {
    if !fault::SYNC {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(failed(path))
}
