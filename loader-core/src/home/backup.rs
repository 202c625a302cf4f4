//! Copies of a home as it was at one moment, to go back to.
//!
//! ```text
//! backups/
//!   2026-01-31T12-00-00.000Z/
//!     backup.json     what it is, and each of its files with size and digest
//!     store.sqlite
//!     events.sqlite   if there is any
//!     data.sqlite     if there is any
//!     packages/       as in the home
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::packages::sync_one;
use super::{Home, Installed, Progress, audit, data, entries, events, failed, remove, store};

/// What a folder with a backup in it says of itself.
const ABOUT: &str = "backup.json";

/// The databases beside `store.sqlite`. Events come first: of one that is taken meanwhile, a backup may have
/// both it and what its handler kept, so that it comes again, but never neither.
const BESIDE: [&str; 2] = [events::FILE, data::FILE];

/// How often a backup begins anew because versions went while they were copied.
const TRIES: usize = 10;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 16;

/// A backup of a home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Backup {
    /// The folder that it is.
    #[serde(skip_deserializing)]
    pub path: PathBuf,
    /// The moment that it shows, in milliseconds since 1970.
    pub at: i64,
    /// What was installed, by id, in which version.
    pub extensions: BTreeMap<ExtensionId, semver::Version>,
    /// The hash of the last entry of the audit trail.
    pub audit_head: String,
    /// Its files by their paths, with `/`.
    pub files: BTreeMap<String, BackedUp>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Bytes.
    pub size: u64,
    /// Its SHA-256 digest, in hexadecimal.
    pub sha256: String,
}

impl Backup {
    /// Bytes of all its files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// Copies a home, as it is at one moment, into a new folder below `into`. Whoever works with the home
    /// is not disturbed. What a killed process left half done there is no backup, and in nobody's way.
    /// `progress` is told how far that is.
    ///
    /// # Errors
    /// `not_installed`, if there is no home; `store_failed`.
    pub async fn make(home: &Path, into: &Path, progress: &Progress) -> Result<Self, Error> {
        if !home.join("store.sqlite").is_file() {
            let message = format!("{} is no home: nothing is installed there", home.display());
            return Err(Error::new(ErrorCode::NotInstalled, message));
        }
        let home = home.canonicalize().map_err(failed(home))?;
        fs::create_dir_all(into).map_err(failed(into))?;
        let into = into.canonicalize().map_err(failed(into))?;
        for _ in 0..TRIES {
            let unfinished = Unfinished(into.join(format!(".unfinished-{}", fastrand::u64(..))));
            fs::create_dir(&unfinished.0).map_err(failed(&unfinished.0))?;
            if let Some(mut backup) = snapshot(&home, &unfinished.0, progress).await? {
                let name = humantime::format_rfc3339_millis(store::time(backup.at)).to_string();
                backup.path = into.join(name.replace(':', "-"));
                fs::rename(&unfinished.0, &backup.path).map_err(failed(&backup.path))?;
                sync_one(&into)?;
                return Ok(backup);
            }
        }
        let message = format!("{} changed too often to be copied", home.display());
        Err(Error::new(ErrorCode::HomeInUse, message).with_hint("try again when less is installed"))
    }

    /// Reads what a backup is; its files are not looked at.
    ///
    /// # Errors
    /// `invalid_backup`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let about = path.join(ABOUT);
        let text = fs::read(&about).map_err(|error| broken(path, format!("{ABOUT}: {error}")))?;
        let backup: Self =
            serde_json::from_slice(&text).map_err(|error| broken(path, format!("{ABOUT}: {error}")))?;
        Ok(Self { path: path.to_owned(), ..backup })
    }

    /// The backups in a folder, the oldest first. Other things in it are left alone.
    ///
    /// # Errors
    /// `store_failed`, if the folder cannot be read.
    pub fn list(folder: &Path) -> Result<Vec<Self>, Error> {
        let folder = folder.canonicalize().map_err(failed(folder))?;
        let found = entries(&folder)?.into_iter().filter(|path| !is_hidden(path));
        let mut list: Vec<Self> = found.filter_map(|path| Self::read(&path).ok()).collect();
        list.sort_by_key(|backup| backup.at);
        Ok(list)
    }

    /// Removes all backups in a folder but for the newest ones. Gives those that are gone.
    ///
    /// # Errors
    /// `store_failed`.
    pub fn retain(folder: &Path, newest: usize) -> Result<Vec<Self>, Error> {
        let mut list = Self::list(folder)?;
        list.truncate(list.len().saturating_sub(newest));
        for backup in &list {
            // Without this file it is no backup any more, whatever happens next.
            remove(&backup.path.join(ABOUT))?;
            remove(&backup.path)?;
        }
        Ok(list)
    }

    /// Compares all files with their digests. `progress` is told how far that is.
    ///
    /// # Errors
    /// `invalid_backup`, with the first file that is missing, was changed, or does not belong there.
    pub fn verify(&self, progress: &Progress) -> Result<(), Error> {
        let mut count = Count::new(progress, "verifying", self.size());
        let mut there = files(&self.path)?;
        there.retain(|path| path != ABOUT);
        if let Some(other) = there.iter().find(|path| !self.files.contains_key(*path)) {
            return Err(broken(&self.path, format!("{other} does not belong there")));
        }
        for (path, file) in &self.files {
            if !there.contains(path) {
                return Err(broken(&self.path, format!("{path} is missing")));
            }
            if digest(&self.path.join(path), &mut io::sink(), &mut count)? != *file {
                return Err(broken(&self.path, format!("{path} is not what was backed up")));
            }
        }
        Ok(())
    }

    /// Makes a home of it, where there is none: all of it, verified, or nothing. `progress` is told how far
    /// that is.
    ///
    /// # Errors
    /// `invalid_backup`; `invalid_arguments`, if something is there already; `store_failed`.
    pub async fn restore(&self, home: &Path, progress: &Progress) -> Result<(), Error> {
        self.verify(progress)?;
        if home.exists() && !entries(home)?.is_empty() {
            let message = format!("{} is not empty", home.display());
            let hint = "restore to a folder of its own, and then put that in its place";
            return Err(Error::new(ErrorCode::InvalidArguments, message).with_hint(hint));
        }
        let name = home.file_name().unwrap_or_default().to_string_lossy();
        let beside = home.with_file_name(format!(".{name}-{}", fastrand::u64(..)));
        fs::create_dir_all(&beside).map_err(failed(&beside))?;
        let unfinished = Unfinished(beside);
        let mut count = Count::new(progress, "restoring", self.size());
        for (path, file) in &self.files {
            // It may have been changed since it was verified.
            if copied(&self.path.join(path), &unfinished.0.join(path), &mut count)? != *file {
                return Err(broken(&self.path, format!("{path} is not what was backed up")));
            }
        }
        let restored = Home::open(&unfinished.0).await?;
        let checked = self.compare(&restored).await;
        restored.close().await;
        checked?;
        fs::rename(&unfinished.0, home).map_err(failed(home))?;
        sync_one(home)
    }

    /// The home that was made is what the backup says.
    async fn compare(&self, home: &Home) -> Result<(), Error> {
        let broken_database = |file: &str, why: String| broken(&self.path, format!("{file}: {why}"));
        let whole = is_whole(&mut *home.connection().await?).await;
        whole.map_err(|why| broken_database("store.sqlite", why))?;
        for (file, path) in BESIDE.map(|file| (file, home.path().join(file))) {
            if path.exists() {
                let open = SqliteConnectOptions::new().filename(path).connect().await;
                let mut open = open.map_err(|error| broken_database(file, error.to_string()))?;
                let whole = is_whole(&mut open).await;
                open.close().await.map_err(store::failed)?;
                whole.map_err(|why| broken_database(file, why))?;
            }
        }
        let list = home.list().await?;
        let folders = list.iter().flat_map(|it| [Some(&it.current), it.previous.as_ref()]).flatten();
        if let Some(missing) = folders.map(|version| &version.folder).find(|folder| !folder.is_dir()) {
            return Err(broken(&self.path, format!("{} is missing", missing.display())));
        }
        let audited = home.verify_audit(None).await?;
        match installed(&list) == self.extensions && audited.head == self.audit_head {
            true => Ok(()),
            false => Err(broken(&self.path, format!("store.sqlite is not what {ABOUT} says"))),
        }
    }
}

/// Tells how many bytes of all are done.
struct Count<'a> {
    progress: &'a Progress,
    what: &'static str,
    done: u64,
    all: u64,
}

impl<'a> Count<'a> {
    fn new(progress: &'a Progress, what: &'static str, all: u64) -> Self {
        Self { progress, what, done: 0, all }
    }

    fn add(&mut self, bytes: u64) {
        self.done += bytes;
        self.progress.tell(self.what, self.done, Some(self.all));
    }
}

/// Removes what was not finished.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It has moved to its place by now if it was finished.
        let _ = remove(&self.0);
    }
}

/// Copies database and versions; `None` if one of these has gone meanwhile.
async fn snapshot(home: &Path, to: &Path, progress: &Progress) -> Result<Option<Backup>, Error> {
    let at = store::millis(SystemTime::now());
    let database = to.join("store.sqlite");
    copy_database(&home.join("store.sqlite"), &database).await?;
    for file in BESIDE {
        if home.join(file).exists() {
            copy_database(&home.join(file), &to.join(file)).await?;
        }
    }
    let copy = store::open(&database).await?;
    let read = async {
        let mut connection = copy.acquire().await.map_err(store::failed)?;
        let list = store::list(&mut connection, home).await?;
        let (folders, head) = (store::folders(&mut connection).await?, audit::head(&mut connection).await?);
        Ok::<_, Error>((list, folders, head))
    };
    let read = read.await;
    // It leaves no log beside the database.
    copy.close().await;
    let ((list, folders, audit_head), packages) = (read?, home.join("packages"));
    let mut count = Count::new(progress, "copying", folders.iter().map(|it| size(&packages.join(it))).sum());
    for folder in folders {
        let (from, into) = (packages.join(&folder), to.join("packages").join(&folder));
        match copy_all(&from, &into, &mut count) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            copied => copied.map_err(failed(&folder))?,
        }
    }
    let (mut all, paths) = (BTreeMap::new(), files(to)?);
    let mut count = Count::new(progress, "digesting", size(to));
    for path in paths {
        let file = to.join(&path);
        all.insert(path, digest(&file, &mut io::sink(), &mut count)?);
        sync_one(&file)?;
    }
    let extensions = installed(&list);
    let backup = Backup { path: PathBuf::new(), at, extensions, audit_head, files: all };
    let about = to.join(ABOUT);
    let text = serde_json::to_vec_pretty(&backup)
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    fs::write(&about, text).map_err(failed(&about))?;
    sync_one(&about)?;
    Ok(Some(backup))
}

/// Copies a database in one read transaction, whatever others write meanwhile.
async fn copy_database(from: &Path, to: &Path) -> Result<(), Error> {
    let options = SqliteConnectOptions::new().filename(from).busy_timeout(store::PATIENCE);
    let mut source = options.connect().await.map_err(store::failed)?;
    let query = sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy().into_owned());
    let copied = query.execute(&mut source).await.map(drop).map_err(store::failed);
    source.close().await.map_err(store::failed)?;
    copied
}

/// Looks whether a database is whole.
async fn is_whole(open: &mut SqliteConnection) -> Result<(), String> {
    let check = sqlx::query_scalar::<_, String>("PRAGMA integrity_check");
    let said = check.fetch_all(open).await.map_err(|error| error.to_string())?;
    if said == ["ok"] { Ok(()) } else { Err(said.join(", ")) }
}

fn installed(list: &[Installed]) -> BTreeMap<ExtensionId, semver::Version> {
    list.iter().map(|it| (it.id.clone(), it.current.version.clone())).collect()
}

/// Copies a folder with all in it. Links are in no package.
fn copy_all(from: &Path, to: &Path, count: &mut Count<'_>) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_all(&entry.path(), &to, count)?,
            false => count.add(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// All files below a folder, with `/` in their paths.
fn files(folder: &Path) -> Result<Vec<String>, Error> {
    let mut list = Vec::new();
    for entry in entries(folder)? {
        let Some(name) = entry.file_name().and_then(|name| name.to_str()) else {
            return Err(broken(folder, "a name is not UTF-8".to_owned()));
        };
        if entry.is_symlink() {
            return Err(broken(folder, format!("{name} is a link")));
        }
        match entry.is_dir() {
            true => list.extend(files(&entry)?.into_iter().map(|below| format!("{name}/{below}"))),
            false => list.push(name.to_owned()),
        }
    }
    Ok(list)
}

/// Bytes of all files below a folder. What cannot be looked at counts as none: it is for people to see.
fn size(folder: &Path) -> u64 {
    let sizes = files(folder).unwrap_or_default().into_iter().map(|path| fs::metadata(folder.join(path)));
    sizes.flatten().map(|it| it.len()).sum()
}

/// Copies a file, with who may run it, and gives what was in it.
fn copied(from: &Path, to: &Path, count: &mut Count<'_>) -> Result<BackedUp, Error> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(failed(parent))?;
    }
    let mut file = File::create(to).map_err(failed(to))?;
    let copied = digest(from, &mut file, count)?;
    let permissions = fs::metadata(from).and_then(|it| file.set_permissions(it.permissions()));
    permissions.map_err(failed(to))?;
    sync_one(to)?;
    Ok(copied)
}

/// Reads a file, and writes what it reads.
fn digest(path: &Path, to: &mut impl io::Write, count: &mut Count<'_>) -> Result<BackedUp, Error> {
    let mut hash = Sha256::new();
    let mut read = || {
        let (mut file, mut chunk, mut size) = (File::open(path)?, vec![0; CHUNK], 0);
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(size);
            }
            hash.update(&chunk[..read]);
            to.write_all(&chunk[..read])?;
            size += read as u64;
            count.add(read as u64);
        }
    };
    let size = read().map_err(failed(path))?;
    Ok(BackedUp { size, sha256: audit::hex(&hash.finalize()) })
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn broken(path: &Path, why: String) -> Error {
    let error = Error::new(ErrorCode::InvalidBackup, format!("{}: {why}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    error.with_hint(format!("take another one: `quadriga backup {} --list` shows them", folder.display()))
}
