//! A home: the extensions that were installed, on disk, with what their operator decided about them.
//!
//! ```text
//! home/
//!   lock            held by the process that works with the home
//!   store.sqlite    what is installed, granted and was done: the truth
//!   data.sqlite     what extensions keep in the key-value store
//!   events.sqlite   what is kept for subscriptions until they have taken it
//!   packages/       ID/VERSION-DIGEST, unpacked
//!   staging/        what is not installed yet
//! ```
//!
//! Each operation puts its files in place first, and then says so in one transaction of the store.
//! Whatever kills the process, the operation is wholly done or wholly not; files that no row of the
//! store names are removed when the home is next opened.

mod audit;
mod backup;
mod change;
mod data;
mod deps;
mod differ;
mod events;
mod fault;
mod grants;
mod graph;
mod licenses;
mod live;
mod lockfile;
mod manage;
mod packages;
mod progress;
mod solve;
mod store;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

pub use audit::{Audited, Entry, HOST};
pub use backup::{BackedUp, Backup};
pub use change::{Came, Changes, Dependents, Needs};
pub use data::{Data, keep_data};
pub use deps::{Dependencies, Dependent, Needed, NeededKind, order, start, start_lazily, stop, with_needs};
pub use differ::Differences;
pub use grants::Grants;
pub use licenses::{LicensePolicy, Licensed, Licenses};
pub use lockfile::Lock;
pub use packages::{InstallOptions, Offer};
pub use progress::Progress;
use quadriga_abi::manifest::Manifest;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::sync::Mutex;
pub use trust::{Signed, Terms, TrustLevel, TrustPolicy, TrustedKey};

use crate::config::Settings;
use events::HomeEvents;
use live::Attached;

/// Installed extensions, on disk. One process at a time works with them: it holds the lock as long as
/// this or a clone of it lives.
///
/// Needs a tokio runtime.
#[derive(Clone)]
pub struct Home {
    path: PathBuf,
    store: SqlitePool,
    events: HomeEvents,
    /// Held by who puts files into the home or takes some away.
    files: Arc<Mutex<()>>,
    /// What extensions keep.
    data: Data,
    /// Whether everything is done as always, and then taken back.
    rehearsal: bool,
    /// Whether what they keep stays when they are uninstalled.
    keeps_data: bool,
    /// What runs changes with the home.
    host: Option<Arc<Attached>>,
    _lock: Arc<Held>,
}

/// The lock of a home. It is given back rather than left to end with its file: a process that is started
/// at that moment has the file too, until its program begins.
struct Held(File);

impl Drop for Held {
    fn drop(&mut self) {
        // What cannot be given back ends with the file.
        let _ = self.0.unlock();
    }
}

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Installed {
    /// Its id.
    pub id: ExtensionId,
    /// What hosts are to do with it.
    pub state: InstalledState,
    /// What it may do, of what its manifest asks for.
    pub grant: Permissions,
    /// What an operator set, over the defaults of its manifest.
    pub config: Settings,
    /// The version that it is kept at, if it is.
    pub pinned: Option<semver::Version>,
    /// The version that is in use.
    pub current: InstalledVersion,
    /// The one before it, for a roll-back.
    pub previous: Option<InstalledVersion>,
}

/// What hosts are to do with an installed extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InstalledState {
    /// Nothing: it is there, and is not loaded.
    Disabled,
    /// Load it.
    Enabled,
}

/// One version of an installed extension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct InstalledVersion {
    /// The version.
    pub version: semver::Version,
    /// The SHA-256 digest of its package, in hexadecimal.
    pub digest: String,
    /// Bytes of its files.
    pub size: u64,
    /// The id of the key that it was signed with, if that was verified.
    pub signer: Option<String>,
    /// What else is known about that.
    pub signed: Signed,
    /// How far the signer is trusted at present.
    pub trust: TrustLevel,
    /// What holds for that level.
    pub terms: Terms,
    /// When it was installed.
    pub installed_at: SystemTime,
    /// Where its files are.
    pub folder: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Home {
    /// Opens a home, or makes one. What a killed process left half done there is removed.
    ///
    /// # Errors
    /// `home_in_use`, with the process that works with it, or `store_failed`.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        for folder in [&path, &path.join("packages"), &path.join("staging")] {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        let path = path.canonicalize().map_err(failed(&path))?;
        let lock = Arc::new(lock(&path)?);
        let store = store::open(&path.join("store.sqlite")).await?;
        let (data, events, files) = (Data::of(&path), HomeEvents::of(&path), Arc::default());
        let (rehearsal, keeps_data, host) = (false, false, None);
        let home = Self { path, store, events, files, data, rehearsal, keeps_data, host, _lock: lock };
        home.clear().await?;
        Ok(home)
    }

    /// What is installed in a home, by id, without working with it: whoever does is not disturbed. Where
    /// there is no home, nothing is installed.
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn look(path: impl AsRef<Path>) -> Result<Vec<Installed>, Error> {
        let path = path.as_ref();
        if !path.join("store.sqlite").exists() {
            return Ok(Vec::new());
        }
        let home = path.canonicalize().map_err(failed(path))?;
        let store = store::open(&home.join("store.sqlite")).await?;
        let list = store::list(&mut *store.acquire().await.map_err(store::failed)?, &home).await;
        store.close().await;
        list
    }

    /// One extension in a home, in the same way.
    ///
    /// # Errors
    /// As for [`Home::show`].
    pub async fn look_at(path: impl AsRef<Path>, id: &str) -> Result<Installed, Error> {
        find(&Self::look(path).await?, id)
    }

    /// Waits until what was given up has put its files away, what was decided is written down and the databases
    /// are closed, and then lets others work with the home. Dropped, it does the same a little later and in the
    /// other order, but writes nothing down.
    pub async fn close(self) {
        drop(self.files.lock().await);
        if let Err(error) = self.write_down().await {
            tracing::warn!(%error, "what was decided is not written down");
        }
        let data = self.data.clone();
        // Whatever comes of that.
        let _ = tokio::task::spawn_blocking(move || data.close()).await;
        if let Err(error) = self.events.settle().await {
            tracing::warn!(%error, "what became of events is not kept");
        }
        self.store.close().await;
    }

    /// From now on nothing is changed: each operation says what it would change, or why it would fail. It
    /// does all that it does otherwise, unpacks and verifies, and takes that back.
    pub fn rehearse(self) -> Self {
        Self { rehearsal: true, ..self }
    }

    /// From now on what an extension keeps in the key-value store stays when it is uninstalled, for when it is
    /// installed again.
    pub fn keep_data(self) -> Self {
        Self { keeps_data: true, ..self }
    }

    /// What extensions keep in it.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that is installed, by id.
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn list(&self) -> Result<Vec<Installed>, Error> {
        store::list(&mut *self.connection().await?, &self.path).await
    }

    /// One extension.
    ///
    /// # Errors
    /// `not_installed`, with what it may have been meant to be, or `store_failed`.
    pub async fn show(&self, id: &str) -> Result<Installed, Error> {
        find(&self.list().await?, id)
    }

    async fn connection(&self) -> Result<sqlx::pool::PoolConnection<Sqlite>, Error> {
        self.store.acquire().await.map_err(store::failed)
    }

    /// Begins what is done as a whole or, unless it is committed, not at all. Gives what is installed, which
    /// stays so until then: nobody else writes, and in this process nobody reads.
    async fn begin(&self) -> Result<(Transaction<'static, Sqlite>, Vec<Installed>), Error> {
        let mut transaction = self.store.begin_with("BEGIN IMMEDIATE").await.map_err(store::failed)?;
        let all = store::list(&mut transaction, &self.path).await?;
        Ok((transaction, all))
    }

    /// Has a transaction take effect, which leads away from `before`; together with what runs, if the home is
    /// attached to a host.
    async fn commit(
        &self,
        transaction: Transaction<'static, Sqlite>,
        before: &[Installed],
    ) -> Result<(), Error> {
        if self.rehearsal {
            return transaction.rollback().await.map_err(store::failed);
        }
        if let Some(attached) = &self.host {
            return self.commit_live(&attached.host, transaction, before).await;
        }
        fault::point("before the commit");
        transaction.commit().await.map_err(store::failed)?;
        fault::point("after the commit");
        Ok(())
    }

    /// Removes files that no row names, and what nobody is to keep any more.
    async fn clear(&self) -> Result<(), Error> {
        let leaving = store::leaving(&mut *self.connection().await?).await?;
        for id in leaving {
            let (data, owner) = (self.data.clone(), id.clone());
            let forgotten = tokio::task::spawn_blocking(move || data.forget(&owner)).await;
            forgotten.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))??;
            fault::point("without its data");
            store::left(&mut *self.connection().await?, &id).await?;
        }
        let staging = self.path.join("staging");
        for left in entries(&staging)? {
            remove(&left)?;
        }
        let named: HashSet<PathBuf> =
            store::folders(&mut *self.connection().await?).await?.into_iter().collect();
        let packages = self.path.join("packages");
        for id in entries(&packages)? {
            let (kept, gone): (Vec<_>, Vec<_>) = entries(&id)?.into_iter().partition(|folder| {
                folder.strip_prefix(&packages).is_ok_and(|relative| named.contains(relative))
            });
            for folder in gone {
                remove(&folder)?;
            }
            if kept.is_empty() {
                fs::remove_dir(&id).map_err(failed(&id))?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Finds one among all, or says what is nearest.
fn find(list: &[Installed], id: &str) -> Result<Installed, Error> {
    list.iter().find(|it| it.id.as_str() == id).cloned().ok_or_else(|| {
        let ids: Vec<&str> = list.iter().map(|it| it.id.as_str()).collect();
        let error = Error::new(ErrorCode::NotInstalled, format!("no extension {id:?} is installed"));
        error.with_hint(crate::route::suggest(id, &ids, "installed are"))
    })
}

/// Holds the home, and writes who does.
fn lock(home: &Path) -> Result<Held, Error> {
    let path = home.join("lock");
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file =
        file.as_mut().map_err(|error| failed(&path)(io::Error::new(error.kind(), error.to_string())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // What cannot be read is not told.
            let _ = file.read_to_string(&mut holder);
            let who = match holder.trim() {
                "" => "another process".to_owned(),
                pid => format!("process {pid}"),
            };
            let message = format!("{who} works with {}", home.display());
            let error = Error::new(ErrorCode::HomeInUse, message);
            return Err(error.with_hint("wait until it is done, or work with another home"));
        }
        Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())
    };
    write(file).map_err(failed(&path))?;
    file.try_clone().map(Held).map_err(failed(&path))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut list: Vec<PathBuf> = list.map_err(failed(folder))?.iter().map(fs::DirEntry::path).collect();
    list.sort_unstable();
    Ok(list)
}

/// Removes a file, or a folder with all in it.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = match path.is_dir() && !path.is_symlink() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::new(ErrorCode::StoreFailed, format!("{}: {error}", path.display()))
}
