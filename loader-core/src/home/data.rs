//! What extensions keep in a home: a database of its own, so that nobody who puts something there waits for
//! what is done to the home.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt as _;
use quadriga_abi::{Bytes, Error, ErrorCode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};

use super::{fault, store};
use crate::dispatcher::lock;
use crate::schedule::OWNER;
use crate::{Dispatcher, KvAction, KvChange, KvEntry, KvKey, KvQuota, KvRange, KvStore, block_on};

/// Its name in the home.
pub(super) const FILE: &str = "data.sqlite";

/// What the database is brought to, step by step. A step that was released never changes.
///
/// A version is never used again. What each owner has together is counted by the database itself.
const STEPS: &[&str] = &["
CREATE TABLE pair (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    owner TEXT NOT NULL,
    namespace BLOB NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    expires INTEGER,
    UNIQUE (owner, namespace, key)
) STRICT;
CREATE INDEX expiring ON pair (owner, expires) WHERE expires IS NOT NULL;
CREATE TABLE used (
    owner TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    keys INTEGER NOT NULL CHECK (keys >= 0)
) STRICT;
CREATE TRIGGER added AFTER INSERT ON pair BEGIN
    INSERT INTO used VALUES (new.owner, length(new.namespace) + length(new.key) + length(new.value), 1)
        ON CONFLICT (owner) DO UPDATE SET bytes = bytes + excluded.bytes, keys = keys + 1;
END;
CREATE TRIGGER removed AFTER DELETE ON pair BEGIN
    UPDATE used SET bytes = bytes - length(old.namespace) - length(old.key) - length(old.value), keys = keys - 1
        WHERE owner = old.owner;
END;
"];

/// What extensions keep in the key-value store in a home, and when their jobs were due last: a database in the
/// home, which several processes may use at once. Cheap to clone.
///
/// What was put is there after the process is killed; what was put in the last moments before the machine
/// loses its power may be lost, all of a write or nothing of it. It is opened when it is first used.
#[derive(Clone)]
pub struct Data(Arc<Inner>);

struct Inner {
    path: PathBuf,
    open: Mutex<Option<SqliteConnection>>,
}

impl Data {
    /// That of the home in a folder.
    pub fn of(home: impl AsRef<Path>) -> Self {
        Self(Arc::new(Inner { path: home.as_ref().join(FILE), open: Mutex::default() }))
    }

    /// Takes away all that an owner has, and when its jobs were due.
    ///
    /// # Errors
    /// `store_failed`.
    pub fn forget(&self, owner: &str) -> Result<(), Error> {
        if !self.0.path.exists() {
            return Ok(());
        }
        let query = "DELETE FROM pair WHERE owner = ?1 OR owner = ?2 AND namespace = CAST(?1 AS BLOB)";
        self.with(async |open| {
            let query = sqlx::query(query).bind(owner).bind(OWNER);
            query.execute(open).await.map(drop).map_err(failed)
        })
    }

    /// Closes the database. It is opened again when it is used again.
    pub(super) fn close(&self) {
        if let Some(open) = lock(&self.0.open).take() {
            // What it cannot put away now the next one does.
            let _ = block_on(open.close());
        }
    }

    /// Does something with the database. May wait on the calling thread.
    fn with<T>(&self, work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, Error>) -> Result<T, Error> {
        let mut place = lock(&self.0.open);
        block_on(async {
            let open = match &mut *place {
                Some(open) => open,
                none => none.insert(open(&self.0.path).await?),
            };
            work(open).await
        })
    }
}

/// Has a host keep in a home what extensions put into the key-value store, unless it has a store already.
/// [`start`](super::start), [`start_lazily`](super::start_lazily) and [`Home::attach`](super::Home::attach)
/// do so by themselves.
pub fn keep_data(host: &Dispatcher, home: impl AsRef<Path>) {
    host.core.kv.get_or_init(|| Arc::new(Data::of(home)));
}

/// Opens the database, and brings it up to date.
async fn open(path: &Path) -> Result<SqliteConnection, Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(if fault::SYNC { SqliteSynchronous::Normal } else { SqliteSynchronous::Off })
        .busy_timeout(store::PATIENCE);
    let mut open = options.connect().await.map_err(failed)?;
    store::bring_up_to_date(&mut open, STEPS, path).await?;
    Ok(open)
}

impl KvStore for Data {
    fn get(&self, owner: &str, key: &KvKey, now: u64) -> Result<Option<KvEntry>, Error> {
        let query = "SELECT version, value, expires FROM pair
            WHERE owner = ? AND namespace = ? AND key = ? AND (expires IS NULL OR expires > ?)";
        self.with(async |open| {
            let query =
                sqlx::query(query).bind(owner).bind(key.namespace.as_bytes()).bind(key.key.as_bytes());
            let row = query.bind(number(now)).fetch_optional(open).await.map_err(failed)?;
            row.as_ref().map(entry).transpose()
        })
    }

    fn list(&self, owner: &str, range: &KvRange, now: u64) -> Result<Vec<String>, Error> {
        let query = "SELECT key FROM pair
            WHERE owner = ? AND namespace = ? AND key >= ? AND key < ? AND (expires IS NULL OR expires > ?)
            ORDER BY key LIMIT ?";
        let (from, to) = bounds(range);
        self.with(async |open| {
            let query = sqlx::query_scalar::<_, Vec<u8>>(query).bind(owner).bind(range.namespace.as_bytes());
            let query = query.bind(from).bind(to).bind(number(now)).bind(number(range.most as u64));
            query.fetch_all(open).await.map_err(failed)?.into_iter().map(text).collect()
        })
    }

    fn entries(
        &self,
        owner: &str,
        range: &KvRange,
        bytes: u64,
        now: u64,
    ) -> Result<Vec<(String, KvEntry)>, Error> {
        let query = "SELECT version, value, expires, key FROM pair
            WHERE owner = ? AND namespace = ? AND key >= ? AND key < ? AND (expires IS NULL OR expires > ?)
            ORDER BY key LIMIT ?";
        let (from, to) = bounds(range);
        self.with(async |open| {
            let query = sqlx::query(query).bind(owner).bind(range.namespace.as_bytes());
            let query = query.bind(from).bind(to).bind(number(now)).bind(number(range.most as u64));
            let mut rows = query.fetch(open);
            let (mut list, mut taken) = (Vec::new(), 0);
            while let Some(row) = rows.try_next().await.map_err(failed)? {
                let (key, entry) = (text(row.try_get(3).map_err(failed)?)?, entry(&row)?);
                taken += (range.namespace.len() + key.len() + entry.value.len()) as u64;
                if taken > bytes && !list.is_empty() {
                    break;
                }
                list.push((key, entry));
            }
            Ok(list)
        })
    }

    fn write(
        &self,
        owner: &str,
        changes: &[KvChange],
        quota: KvQuota,
        now: u64,
    ) -> Result<Option<Vec<bool>>, Error> {
        self.with(async |open| {
            // What is not committed is rolled back.
            let mut transaction = open.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            let query = sqlx::query("DELETE FROM pair WHERE owner = ? AND expires <= ?");
            query.bind(owner).bind(number(now)).execute(&mut *transaction).await.map_err(failed)?;
            for KvChange { key, version, .. } in changes {
                let Some(wanted) = version else { continue };
                if find(&mut transaction, owner, key).await? != number(*wanted) {
                    transaction.rollback().await.map_err(failed)?;
                    return Ok(None);
                }
            }
            let before = used(&mut transaction, owner).await?;
            let mut there = Vec::with_capacity(changes.len());
            for KvChange { key, action, .. } in changes {
                there.push(match action {
                    KvAction::Check => find(&mut transaction, owner, key).await? > 0,
                    KvAction::Delete => delete(&mut transaction, owner, key).await?,
                    KvAction::Put { value, expires } => {
                        let was_there = delete(&mut transaction, owner, key).await?;
                        put(&mut transaction, owner, key, value, *expires).await?;
                        was_there
                    }
                });
            }
            quota.check(owner, before, used(&mut transaction, owner).await?)?;
            fault::point("before values are kept");
            transaction.commit().await.map_err(failed)?;
            Ok(Some(there))
        })
    }
}

/// The version of a key, 0 if it is not there.
async fn find(open: &mut SqliteConnection, owner: &str, key: &KvKey) -> Result<i64, Error> {
    let query = "SELECT version FROM pair WHERE owner = ? AND namespace = ? AND key = ?";
    let query = sqlx::query_scalar(query).bind(owner).bind(key.namespace.as_bytes());
    let found = query.bind(key.key.as_bytes()).fetch_optional(open).await.map_err(failed)?;
    Ok(found.unwrap_or(0))
}

async fn delete(open: &mut SqliteConnection, owner: &str, key: &KvKey) -> Result<bool, Error> {
    let query = sqlx::query("DELETE FROM pair WHERE owner = ? AND namespace = ? AND key = ?");
    let query = query.bind(owner).bind(key.namespace.as_bytes()).bind(key.key.as_bytes());
    Ok(query.execute(open).await.map_err(failed)?.rows_affected() > 0)
}

async fn put(
    open: &mut SqliteConnection,
    owner: &str,
    key: &KvKey,
    value: &Bytes,
    expires: Option<u64>,
) -> Result<(), Error> {
    let query = "INSERT INTO pair (owner, namespace, key, value, expires) VALUES (?, ?, ?, ?, ?)";
    let query = sqlx::query(query).bind(owner).bind(key.namespace.as_bytes()).bind(key.key.as_bytes());
    query.bind(&value[..]).bind(expires.map(number)).execute(open).await.map(drop).map_err(failed)
}

/// What an owner has.
async fn used(open: &mut SqliteConnection, owner: &str) -> Result<KvQuota, Error> {
    let query = sqlx::query("SELECT bytes, keys FROM used WHERE owner = ?").bind(owner);
    let Some(row) = query.fetch_optional(open).await.map_err(failed)? else {
        return Ok(KvQuota { bytes: 0, keys: 0 });
    };
    let get = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs).map_err(failed);
    Ok(KvQuota { bytes: get(0)?, keys: usize::try_from(get(1)?).unwrap_or(usize::MAX) })
}

/// Reads an entry out of the first columns of a row.
fn entry(row: &SqliteRow) -> Result<KvEntry, Error> {
    let (version, value, expires): (i64, Vec<u8>, Option<i64>) =
        (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?, row.try_get(2).map_err(failed)?);
    let (version, expires) = (version.unsigned_abs(), expires.map(i64::unsigned_abs));
    Ok(KvEntry { value: value.into(), version, expires })
}

/// The first key that may be in a range, and one that is beyond it.
fn bounds(range: &KvRange) -> (Vec<u8>, Vec<u8>) {
    let prefix = range.prefix.as_bytes();
    // The key right after another is that with a zero byte.
    let after = range.after.as_ref().map(|after| [after.as_bytes(), &[0]].concat());
    // No byte of a text is 255.
    let to = match prefix.split_last() {
        Some((last, rest)) => [rest, &[last + 1]].concat(),
        None => vec![u8::MAX],
    };
    (after.unwrap_or_default().max(prefix.to_vec()), to)
}

/// What is beyond what a column holds is as good as that.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::new(ErrorCode::StoreFailed, "a key in the home is no text"))
}

fn failed(error: sqlx::Error) -> Error {
    Error::new(ErrorCode::StoreFailed, format!("what extensions keep in the home: {error}"))
}
