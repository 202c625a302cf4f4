//! Packages come in: staged, verified, put in place, and then recorded.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use quadriga_abi::manifest::Manifest;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use quadriga_package::{Package, PublicKey, Signature};
use serde_json::{Value as Json, json};
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::OwnedMutexGuard;

use super::audit::{self, Act};
use super::change::{Came, Changes, Dependents, Needs, choose, ids, in_order, settle, write};
use super::licenses::{accepted, denied};
use super::manage::takes;
use super::trust::Trust;
use super::{
    Differences, Home, Installed, InstalledState, InstalledVersion, Lock, Progress, TrustLevel, failed,
    fault, find, remove, store,
};
use crate::config::Settings;

/// A package that is to come in, and what is said about it alone.
#[derive(Debug)]
pub struct Offer {
    /// The package.
    pub package: Package,
    /// A signature, if there is one.
    pub signature: Option<Signature>,
    /// The key whose owner has to have made it; one of those that the home trusts, if this is `None`.
    pub key: Option<PublicKey>,
    /// What it may do, of what its manifest asks for; `None` for nothing at first, and for what it may
    /// do already at an update.
    pub grant: Option<Permissions>,
}

/// What is said about packages that come in together.
#[derive(Debug, Clone, Default)]
pub struct InstallOptions {
    /// Who does it, for the audit trail.
    pub actor: String,
    /// Whether an update may be worse than the version before it: ask for more, be trusted less or be older,
    /// say.
    pub consent: bool,
    /// Whether what is pinned to another version is updated, and pinned no more.
    pub unpin: bool,
    /// What becomes of those that need a version which an update replaces.
    pub dependents: Dependents,
    /// Whether what is installed is enabled too; at an update that stays as it was.
    pub enable: bool,
    /// What becomes of what it needs when it is enabled.
    pub needs: Needs,
    /// A lock file, if nothing that it does not name may come in.
    pub lock: Option<Lock>,
    /// Is told how far the unpacking of each package is.
    pub progress: Progress,
}

/// A version whose files are in place, and that no row names yet. Dropped, it removes them.
struct Placed {
    id: ExtensionId,
    version: InstalledVersion,
    /// Under `packages`.
    folder: String,
    grant: Option<Permissions>,
    recorded: bool,
    /// Nobody takes it for what a killed process left.
    _files: Arc<OwnedMutexGuard<()>>,
}

impl From<Package> for Offer {
    fn from(package: Package) -> Self {
        Self { package, signature: None, key: None, grant: None }
    }
}

impl Home {
    /// Installs extensions: all of them or none. They are then there and, unless the options say so, not
    /// enabled. Of several versions of one extension it takes the newest, or the newest that can be
    /// enabled.
    ///
    /// # Errors
    /// `already_installed`; `invalid_package`, if one is damaged or unsafe, or not signed as it should
    /// be; `not_trusted`, if the policy of the home wants another signature, or the key is that of another
    /// publisher; `release_too_new`, if it wants an older one; `license_denied`, if its policy on licences
    /// denies a part of one; `lock_mismatch`, if one is not in the lock file; `permission_denied`, if more is
    /// granted than it asks for, or than its level of trust lets it have; as for [`Home::enable`], if they are
    /// to be enabled; `store_failed`. Nothing of them is left then.
    pub async fn install(
        &self,
        offers: impl IntoIterator<Item = Offer>,
        options: InstallOptions,
    ) -> Result<Changes, Error> {
        let state = if options.enable { InstalledState::Enabled } else { InstalledState::Disabled };
        let new = |placed: &Placed, all: &[Installed]| {
            if let Some(there) = all.iter().find(|it| it.id == placed.id) {
                let message = format!("{} {} is installed already", there.id, there.current.version);
                return Err(Error::new(ErrorCode::AlreadyInstalled, message).with_hint("update it instead"));
            }
            let grant = placed.grant.clone().unwrap_or_default();
            requested(&placed.id, &grant, &placed.version.manifest)?;
            placed.version.grantable(&placed.id, &grant)?;
            let (id, current) = (placed.id.clone(), placed.version.clone());
            Ok(Came {
                from: None,
                wider: Vec::new(),
                differs: Differences::default(),
                installed: Installed {
                    id,
                    state,
                    grant,
                    config: Settings::new(),
                    pinned: None,
                    current,
                    previous: None,
                },
            })
        };
        self.take(offers, options, new).await
    }

    /// Puts other versions of extensions in the place of the present ones, which are kept for a roll-back:
    /// all of them or none. What they are granted and whether they are enabled stays. Of several versions
    /// of one extension it takes the newest, or the newest that can run.
    ///
    /// # Errors
    /// `not_installed`; `already_installed`, if it is this very version or the one that is kept;
    /// `consent_required`, if it asks for more than the one before it, may run less isolated, is trusted less
    /// or is older, with what that is; `pinned`, if it is pinned to another version; if it is enabled,
    /// `missing_dependency` or `dependency_cycle`, if it could not start, and `needed`, if others that are
    /// enabled need the version before; as for [`Home::install`]. Nothing has changed then.
    pub async fn update(
        &self,
        offers: impl IntoIterator<Item = Offer>,
        options: InstallOptions,
    ) -> Result<Changes, Error> {
        let new = |placed: &Placed, all: &[Installed]| {
            let before = find(all, placed.id.as_str())?;
            let (old, new) = (&before.current, &placed.version);
            if let Some(grant) = &placed.grant {
                requested(&placed.id, grant, &new.manifest)?;
                new.grantable(&placed.id, grant)?;
            }
            let differs = Differences::between(old, new);
            let (from, current) = (Some(old.version.clone()), new.clone());
            let wider = new.manifest.permissions.beyond(&old.manifest.permissions);
            let grant = placed.grant.clone().unwrap_or(before.grant);
            // What the new one does not ask for, or may not be granted, it is not granted either.
            let grant = current.terms.cut(&grant.intersect(&current.manifest.permissions));
            let installed = Installed { grant, current, previous: Some(before.current), ..before };
            Ok(Came { from, wider, differs, installed })
        };
        self.take(offers, options, new).await
    }

    /// Puts files in place, and has the rows that `new` makes of them take effect.
    async fn take(
        &self,
        offers: impl IntoIterator<Item = Offer>,
        options: InstallOptions,
        new: impl Fn(&Placed, &[Installed]) -> Result<Came, Error>,
    ) -> Result<Changes, Error> {
        let mut placed = self.place(offers, &options).await?;
        let (mut transaction, all) = self.begin().await?;
        judge(&mut placed, &store::trust(&mut transaction).await?)?;
        let came = placed.iter().map(|it| new(it, &all)).collect::<Result<_, Error>>()?;
        self.bring(transaction, &all, placed, came, &options).await
    }

    /// Chooses among versions whose files are in place, and has those that are chosen take effect, with
    /// all that follows from it.
    async fn bring(
        &self,
        mut transaction: Transaction<'static, Sqlite>,
        all: &[Installed],
        mut placed: Vec<Placed>,
        mut came: Vec<Came>,
        options: &InstallOptions,
    ) -> Result<Changes, Error> {
        let rows: Vec<Installed> = came.iter().map(|it| it.installed.clone()).collect();
        // What is enabled already goes on.
        let off = all.iter().filter(|it| it.state == InstalledState::Disabled);
        let denied = denied(&mut transaction, rows.iter().chain(off)).await?;
        let (chosen, more) = choose(all, &rows, &denied, options.needs, options.dependents)?;
        let mut at = 0..;
        placed.retain(|_| at.next().is_some_and(|at| chosen.contains(&at)));
        let mut at = 0..;
        came.retain(|_| at.next().is_some_and(|at| chosen.contains(&at)));
        for it in &mut came {
            let id = &it.installed.id;
            it.installed.current.admitted(id)?;
            it.installed.current.is_ripe(id, SystemTime::now())?;
            it.installed.may_become(&it.installed.current.version, options.unpin)?;
            if options.unpin {
                it.installed.pinned = None;
            }
            agreed(it, options.consent)?;
            takes(&it.installed.current.manifest, &it.installed.config)?;
        }
        let (actor, id) = (&*options.actor, came.first().map(|it| it.installed.id.to_string()));
        let with = |_: &Installed| json!({ "with": id });
        let changed: Vec<Installed> =
            came.iter().map(|it| it.installed.clone()).chain(more.iter().cloned()).collect();
        let disabled = settle(all, &changed, options.dependents)?;
        accepted(&mut transaction, changed.clone()).await?;
        write(&mut transaction, &disabled, actor, "disable", with).await?;
        fault::point("in place");
        for (placed, it) in placed.iter().zip(&came) {
            let action = if it.from.is_some() { "update" } else { "install" };
            record(&mut transaction, placed, &it.installed, actor, action).await?;
        }
        let fresh = came.iter().filter(|it| it.from.is_none()).map(|it| &it.installed);
        let enabled: Vec<Installed> =
            fresh.chain(&more).filter(|it| it.state == InstalledState::Enabled).cloned().collect();
        let enabled = in_order(all, &changed, enabled);
        let is_new = |it: &Installed| came.iter().any(|new| new.installed.id == it.id);
        let detail = |it: &Installed| if is_new(it) { Json::Null } else { with(it) };
        write(&mut transaction, &enabled, actor, "enable", detail).await?;
        for it in came.iter().filter(|it| it.from.is_none() && !self.rehearsal) {
            // A process that was killed while it took one of this id away may have left them.
            self.events.forget(&it.installed.id).await?;
        }
        // Whoever goes away in the middle of the commit takes no files away that a row names.
        placed.iter_mut().for_each(|it| it.recorded = !self.rehearsal);
        if let Err(error) = self.commit(transaction, all).await {
            placed.iter_mut().for_each(|it| it.recorded = false);
            return Err(error);
        }
        if !self.rehearsal {
            self.clear().await?;
        }
        Ok(Changes { came, enabled: ids(&enabled), disabled: ids(&disabled), ..Changes::default() })
    }

    /// Unpacks and verifies packages, and moves them to their places.
    async fn place(
        &self,
        offers: impl IntoIterator<Item = Offer>,
        options: &InstallOptions,
    ) -> Result<Vec<Placed>, Error> {
        let options = options.clone();
        let offers: Vec<Offer> = offers.into_iter().collect();
        let files = Arc::new(Arc::clone(&self.files).lock_owned().await);
        let (home, there) = (self.path.clone(), self.list().await?);
        let trust = store::trust(&mut *self.connection().await?).await?;
        let placing = tokio::task::spawn_blocking(move || {
            let mut placed: Vec<Placed> = Vec::new();
            for offer in offers {
                let next = place(&home, offer, &trust, &options, &there, &placed, &files)?;
                placed.push(next);
            }
            Ok(placed)
        });
        placing.await.unwrap_or_else(|error| Err(Error::new(ErrorCode::Internal, error.to_string())))
    }
}

/// Whether somebody agreed to what a version brings.
fn agreed(came: &Came, consent: bool) -> Result<(), Error> {
    let (new, Some(old)) = (&came.installed.current.version, &came.from) else { return Ok(()) };
    let mut why = Vec::new();
    if !came.wider.is_empty() {
        why.push(format!("asks for more than {old}: {}", came.wider.join(", ")));
    }
    why.extend(came.differs.worse(came.installed.current.trust));
    if new < old {
        why.push(format!("is older than {old}"));
    }
    if consent || why.is_empty() {
        return Ok(());
    }
    let message = format!("{} {new} {}", came.installed.id, why.join("; it "));
    Err(Error::new(ErrorCode::ConsentRequired, message).with_hint("agree to it, or keep what is there"))
}

/// Says how far who signed them is trusted, as of the present transaction.
fn judge(placed: &mut [Placed], trust: &Trust) -> Result<(), Error> {
    for it in placed {
        trust.binds(&it.id, &it.version.signed)?;
        it.version.trust = trust.level(&it.id, &it.version.signed);
        it.version.terms = trust.policy.terms(it.version.trust);
    }
    Ok(())
}

/// Adds a version and its row.
async fn record(
    connection: &mut SqliteConnection,
    placed: &Placed,
    installed: &Installed,
    actor: &str,
    action: &str,
) -> Result<(), Error> {
    let version = &placed.version;
    let detail = json!({
        "version": version.version,
        "digest": version.digest,
        "signer": version.signer,
        "trust": version.trust,
        "previous": installed.previous.as_ref().map(|previous| &previous.version),
        "grant": installed.grant,
    });
    let act = Act { actor, action, extension: installed.id.as_str(), detail };
    store::add(&mut *connection, &placed.id, version, &placed.folder).await?;
    fault::point("with its version");
    store::put(&mut *connection, installed).await?;
    store::prune(&mut *connection, &placed.id).await?;
    fault::point("with its row");
    audit::write(&mut *connection, act).await
}

fn place(
    home: &Path,
    offer: Offer,
    trust: &Trust,
    options: &InstallOptions,
    there: &[Installed],
    placed: &[Placed],
    files: &Arc<OwnedMutexGuard<()>>,
) -> Result<Placed, Error> {
    let Offer { package, signature, key, grant } = offer;
    let signed = trust.verify(&package, signature.as_ref(), key.as_ref())?;
    let staging = home.join("staging");
    let size = package.unpacked_size();
    let mut tell = |done| {
        options.progress.tell("unpacking", done, size);
        quadriga_package::GO_ON
    };
    let unpacked = package.unpack(&staging, &mut tell).map_err(invalid)?;
    fault::point("unpacked");
    sync(unpacked.dir())?;
    let manifest = unpacked.manifest.clone();
    let (id, version) = (manifest.extension.id.clone(), manifest.extension.version.0.clone());
    let digest = package.digest().to_string();
    if let Some(lock) = &options.lock {
        lock.admits(&id, &version, &digest)?;
    }
    if let Some(there) = there.iter().find(|it| it.id == id) {
        is_new(there, &version, &digest)?;
    }
    if placed.iter().any(|it| it.id == id && it.version.version == version) {
        let message = format!("{id} {version} is among the packages twice");
        return Err(Error::new(ErrorCode::InvalidArguments, message));
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
    let signer = signature.filter(|_| signed.key.is_some()).map(|signature| signature.key_id());
    let (level, terms) = (TrustLevel::Untrusted, trust.policy.terms(TrustLevel::Untrusted));
    let folder_of = dest.clone();
    let version = InstalledVersion {
        version,
        digest,
        size,
        signer,
        signed,
        trust: level,
        terms,
        installed_at: store::time(store::millis(SystemTime::now())),
        folder: dest,
        manifest,
    };
    let _files = Arc::clone(files);
    let placed = Placed { id, version, folder, grant, recorded: false, _files };
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

pub(super) fn invalid(error: quadriga_package::Error) -> Error {
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

pub(super) fn sync_one(path: &Path) -> Result<(), Error> {
    if !fault::SYNC {
        return Ok(());
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(failed(path))
}
