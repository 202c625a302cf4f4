//! The database: rows in, rows out.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde_json::Value as Json;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection as _, Row as _, SqliteConnection, SqlitePool};

use super::trust::Trust;
use super::{
    Installed, InstalledState, InstalledVersion, LicensePolicy, Signed, Terms, TrustLevel, TrustPolicy,
    TrustedKey, fault,
};

/// What the database is brought to, step by step. A step that was released never changes.
const STEPS: &[&str] = &[
    "
CREATE TABLE version (
    id TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    signer TEXT,
    installed_at INTEGER NOT NULL,
    folder TEXT NOT NULL UNIQUE,
    manifest TEXT NOT NULL,
    PRIMARY KEY (id, version)
) STRICT;
CREATE TABLE extension (
    id TEXT PRIMARY KEY,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    grants TEXT NOT NULL,
    current TEXT NOT NULL,
    previous TEXT CHECK (previous <> current),
    FOREIGN KEY (id, current) REFERENCES version (id, version),
    FOREIGN KEY (id, previous) REFERENCES version (id, version)
) STRICT;
CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    extension TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
",
    "ALTER TABLE extension ADD COLUMN config TEXT NOT NULL DEFAULT '{}'",
    "
ALTER TABLE version ADD COLUMN key TEXT;
ALTER TABLE version ADD COLUMN once INTEGER NOT NULL DEFAULT 0;
ALTER TABLE version ADD COLUMN signed_at INTEGER;
ALTER TABLE extension ADD COLUMN pinned TEXT;
CREATE TABLE trusted (
    key TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    publisher TEXT NOT NULL,
    level TEXT NOT NULL,
    added_at INTEGER NOT NULL
) STRICT;
CREATE TABLE terms (
    level TEXT PRIMARY KEY,
    terms TEXT NOT NULL
) STRICT;
",
    "
CREATE TABLE license_policy (
    number INTEGER PRIMARY KEY CHECK (number = 1),
    policy TEXT NOT NULL
) STRICT;
",
    // Of whom nothing is to be kept any more.
    "CREATE TABLE leaving (id TEXT PRIMARY KEY) STRICT",
];

/// How long a process that only reads may hold it up.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long an operation waits for its turn: one before it may have several slow extensions started.
const TURN: Duration = Duration::from_secs(600);

/// Opens the database, and brings it up to date.
pub(super) async fn open(path: &Path) -> Result<SqlitePool, Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What is said to be done is on the disk.
        .synchronous(if fault::SYNC { SqliteSynchronous::Full } else { SqliteSynchronous::Off })
        .foreign_keys(true)
        .busy_timeout(PATIENCE);
    let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(TURN);
    let pool = pool.connect_with(options).await.map_err(failed)?;
    bring_up_to_date(&mut *pool.acquire().await.map_err(failed)?, STEPS, path).await?;
    Ok(pool)
}

/// Makes the steps that were not made yet.
pub(super) async fn bring_up_to_date(
    connection: &mut SqliteConnection,
    all: &[&'static str],
    path: &Path,
) -> Result<(), Error> {
    let up_to_date = |done: &i64| usize::try_from(*done) == Ok(all.len());
    if up_to_date(&steps(&mut *connection).await?) {
        return Ok(());
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    // Somebody may have been quicker.
    let done = usize::try_from(steps(&mut transaction).await?).ok();
    let Some(missing) = done.and_then(|done| all.get(done..)) else {
        let message = format!("{} was written by a newer version of this program", path.display());
        return Err(Error::new(ErrorCode::StoreFailed, message).with_hint("update this program"));
    };
    for step in missing {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(failed)?;
    }
    let version = format!("PRAGMA user_version = {}", all.len());
    sqlx::raw_sql(sqlx::AssertSqlSafe(version)).execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// How many steps were made.
async fn steps(connection: &mut SqliteConnection) -> Result<i64, Error> {
    sqlx::query_scalar("PRAGMA user_version").fetch_one(connection).await.map_err(failed)
}

pub(super) fn failed(error: sqlx::Error) -> Error {
    Error::new(ErrorCode::StoreFailed, format!("the store of the home: {error}"))
}

fn broken(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::StoreFailed, format!("the store of the home holds {what} that is none: {error}"))
}

/// Milliseconds since 1970.
pub(super) fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The time of so many of them.
pub(super) fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs())
}

/// All extensions, by id.
pub(super) async fn list(connection: &mut SqliteConnection, home: &Path) -> Result<Vec<Installed>, Error> {
    let query = "SELECT e.id, e.enabled, e.grants, e.config, e.pinned,
            c.version, c.digest, c.size, c.signer, c.installed_at, c.folder, c.manifest, c.key, c.once, c.signed_at,
            p.version, p.digest, p.size, p.signer, p.installed_at, p.folder, p.manifest, p.key, p.once, p.signed_at
        FROM extension e
        JOIN version c ON c.id = e.id AND c.version = e.current
        LEFT JOIN version p ON p.id = e.id AND p.version = e.previous
        ORDER BY e.id";
    let rows = sqlx::query(query).fetch_all(&mut *connection).await.map_err(failed)?;
    let trust = trust(connection).await?;
    rows.iter().map(|row| installed(row, home, &trust)).collect()
}

/// The columns of the two versions of a row.
const CURRENT: usize = 5;
const PREVIOUS: usize = 15;

fn installed(row: &SqliteRow, home: &Path, trust: &Trust) -> Result<Installed, Error> {
    let get = |at: usize| row.try_get::<String, _>(at).map_err(failed);
    let maybe = |at: usize| row.try_get::<Option<String>, _>(at).map_err(failed);
    let id = ExtensionId::new(get(0)?).map_err(|error| broken("an id", error))?;
    let state = match row.try_get::<bool, _>(1).map_err(failed)? {
        true => InstalledState::Enabled,
        false => InstalledState::Disabled,
    };
    let grant = serde_json::from_str(&get(2)?).map_err(|error| broken("a grant", error))?;
    let config = serde_json::from_str(&get(3)?).map_err(|error| broken("settings", error))?;
    let pinned = maybe(4)?.map(|text| text.parse()).transpose();
    let pinned = pinned.map_err(|error| broken("a version", error))?;
    let current = version(row, CURRENT, home, trust, &id)?;
    let previous = maybe(PREVIOUS)?.map(|_| version(row, PREVIOUS, home, trust, &id)).transpose()?;
    Ok(Installed { id, state, grant, config, pinned, current, previous })
}

/// Reads a version out of the columns from `first` on.
fn version(
    row: &SqliteRow,
    first: usize,
    home: &Path,
    trust: &Trust,
    id: &ExtensionId,
) -> Result<InstalledVersion, Error> {
    let get = |at: usize| row.try_get::<String, _>(first + at).map_err(failed);
    let number = |at: usize| row.try_get::<i64, _>(first + at).map_err(failed);
    let signed = Signed {
        key: row.try_get(first + 7).map_err(failed)?,
        once: row.try_get(first + 8).map_err(failed)?,
        at: row.try_get::<Option<i64>, _>(first + 9).map_err(failed)?.map(time),
    };
    let level = trust.level(id, &signed);
    Ok(InstalledVersion {
        version: get(0)?.parse().map_err(|error| broken("a version", error))?,
        digest: get(1)?,
        size: number(2)?.unsigned_abs(),
        signer: row.try_get(first + 3).map_err(failed)?,
        signed,
        trust: level,
        terms: trust.policy.terms(level),
        installed_at: time(number(4)?),
        folder: home.join("packages").join(get(5)?),
        manifest: serde_json::from_str(&get(6)?).map_err(|error| broken("a manifest", error))?,
    })
}

/// The keys that are trusted, by publisher, and what holds for each level.
pub(super) async fn trust(connection: &mut SqliteConnection) -> Result<Trust, Error> {
    let level = |text: String| text.parse::<TrustLevel>().map_err(|error| broken("a level of trust", error));
    let query = "SELECT key, id, publisher, level, added_at FROM trusted ORDER BY publisher, id, key";
    let rows = sqlx::query(query).fetch_all(&mut *connection).await.map_err(failed)?;
    let key = |row: &SqliteRow| {
        let get = |at: usize| row.try_get::<String, _>(at).map_err(failed);
        let added_at = time(row.try_get(4).map_err(failed)?);
        Ok(TrustedKey { key: get(0)?, id: get(1)?, publisher: get(2)?, level: level(get(3)?)?, added_at })
    };
    let keys = rows.iter().map(key).collect::<Result<_, Error>>()?;
    let rows = sqlx::query("SELECT level, terms FROM terms").fetch_all(connection).await.map_err(failed)?;
    let mut policy = TrustPolicy::default();
    for row in rows {
        let get = |at: usize| row.try_get::<String, _>(at).map_err(failed);
        let terms = serde_json::from_str(&get(1)?).map_err(|error| broken("terms", error))?;
        policy.set(level(get(0)?)?, terms);
    }
    Ok(Trust { keys, policy })
}

/// Keeps a key, or changes its level.
pub(super) async fn put_key(connection: &mut SqliteConnection, key: &TrustedKey) -> Result<(), Error> {
    let query = "INSERT INTO trusted (key, id, publisher, level, added_at) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (key) DO UPDATE SET level = excluded.level";
    sqlx::query(query)
        .bind(&key.key)
        .bind(&key.id)
        .bind(&key.publisher)
        .bind(key.level.as_str())
        .bind(millis(key.added_at))
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Keeps a key no longer.
pub(super) async fn delete_key(connection: &mut SqliteConnection, key: &str) -> Result<(), Error> {
    let query = sqlx::query("DELETE FROM trusted WHERE key = ?").bind(key);
    query.execute(connection).await.map_err(failed).map(drop)
}

/// Keeps what holds for a level.
pub(super) async fn put_terms(
    connection: &mut SqliteConnection,
    level: TrustLevel,
    terms: &Terms,
) -> Result<(), Error> {
    let terms =
        serde_json::to_string(terms).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    let query = "INSERT INTO terms (level, terms) VALUES (?, ?)
        ON CONFLICT (level) DO UPDATE SET terms = excluded.terms";
    let query = sqlx::query(query).bind(level.as_str()).bind(terms);
    query.execute(connection).await.map_err(failed).map(drop)
}

/// Which licences may come in.
pub(super) async fn license_policy(connection: &mut SqliteConnection) -> Result<LicensePolicy, Error> {
    let query = sqlx::query_scalar::<_, String>("SELECT policy FROM license_policy");
    match query.fetch_optional(connection).await.map_err(failed)? {
        Some(text) => serde_json::from_str(&text).map_err(|error| broken("a policy on licences", error)),
        None => Ok(LicensePolicy::default()),
    }
}

/// Keeps it.
pub(super) async fn put_license_policy(
    connection: &mut SqliteConnection,
    policy: &LicensePolicy,
) -> Result<(), Error> {
    let policy =
        serde_json::to_string(policy).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    let query = "INSERT INTO license_policy (number, policy) VALUES (1, ?)
        ON CONFLICT (number) DO UPDATE SET policy = excluded.policy";
    sqlx::query(query).bind(policy).execute(connection).await.map_err(failed).map(drop)
}

/// The folders that versions are in, under `packages`.
pub(super) async fn folders(connection: &mut SqliteConnection) -> Result<Vec<PathBuf>, Error> {
    let rows = sqlx::query_scalar::<_, String>("SELECT folder FROM version").fetch_all(connection).await;
    Ok(rows.map_err(failed)?.into_iter().map(PathBuf::from).collect())
}

/// Adds a version.
pub(super) async fn add(
    connection: &mut SqliteConnection,
    id: &ExtensionId,
    version: &InstalledVersion,
    folder: &str,
) -> Result<(), Error> {
    let manifest = serde_json::to_string(&version.manifest)
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    let query = "INSERT INTO version
        (id, version, digest, size, signer, installed_at, folder, manifest, key, once, signed_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(query)
        .bind(id.as_str())
        .bind(version.version.to_string())
        .bind(&version.digest)
        .bind(i64::try_from(version.size).unwrap_or(i64::MAX))
        .bind(&version.signer)
        .bind(millis(version.installed_at))
        .bind(folder)
        .bind(manifest)
        .bind(&version.signed.key)
        .bind(version.signed.once)
        .bind(version.signed.at.map(millis))
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Puts the row of an extension there, or in the place of the one before.
pub(super) async fn put(connection: &mut SqliteConnection, installed: &Installed) -> Result<(), Error> {
    let grants = serde_json::to_string(&installed.grant)
        .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    let query = "INSERT INTO extension (id, enabled, grants, config, pinned, current, previous)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET enabled = excluded.enabled, grants = excluded.grants,
            config = excluded.config, pinned = excluded.pinned, current = excluded.current, previous = excluded.previous";
    sqlx::query(query)
        .bind(installed.id.as_str())
        .bind(installed.state == InstalledState::Enabled)
        .bind(grants)
        .bind(Json::from(installed.config.clone()).to_string())
        .bind(installed.pinned.as_ref().map(semver::Version::to_string))
        .bind(installed.current.version.to_string())
        .bind(installed.previous.as_ref().map(|previous| previous.version.to_string()))
        .execute(connection)
        .await
        .map_err(failed)?;
    Ok(())
}

/// Takes away the versions of an extension that no row of it names.
pub(super) async fn prune(connection: &mut SqliteConnection, id: &ExtensionId) -> Result<(), Error> {
    let query = "DELETE FROM version WHERE id = ?1 AND version NOT IN
        (SELECT current FROM extension WHERE id = ?1
            UNION SELECT previous FROM extension WHERE id = ?1 AND previous IS NOT NULL)";
    sqlx::query(query).bind(id.as_str()).execute(connection).await.map_err(failed)?;
    Ok(())
}

/// Takes an extension away.
pub(super) async fn delete(connection: &mut SqliteConnection, id: &ExtensionId) -> Result<(), Error> {
    for query in ["DELETE FROM extension WHERE id = ?", "DELETE FROM version WHERE id = ?"] {
        sqlx::query(query).bind(id.as_str()).execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}

/// Notes that nothing that an extension kept is to stay.
pub(super) async fn put_leaving(connection: &mut SqliteConnection, id: &ExtensionId) -> Result<(), Error> {
    let query = sqlx::query("INSERT OR IGNORE INTO leaving (id) VALUES (?)").bind(id.as_str());
    query.execute(connection).await.map_err(failed).map(drop)
}

/// Of whom that was noted.
pub(super) async fn leaving(connection: &mut SqliteConnection) -> Result<Vec<String>, Error> {
    sqlx::query_scalar("SELECT id FROM leaving").fetch_all(connection).await.map_err(failed)
}

/// Nothing of it is left.
pub(super) async fn left(connection: &mut SqliteConnection, id: &str) -> Result<(), Error> {
    let query = sqlx::query("DELETE FROM leaving WHERE id = ?").bind(id);
    query.execute(connection).await.map_err(failed).map(drop)
}
