//! What was done to a home, each entry tied to the one before it by its hash: who changes one has to
//! change all that follow, and the last hash can be kept elsewhere.

use std::time::SystemTime;

use quadriga_abi::{Error, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};
use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::{Home, store};
use crate::ward::{Record, Subject, Trail, Verdict};

/// Who decides what an extension may do.
pub const HOST: &str = "host";

/// One thing that was done, or decided about an extension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Numbers the entries from 1, without gaps.
    pub number: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// Who did it, as the program that works with the home says; [`HOST`] for what the host decided.
    pub actor: String,
    /// What, such as `install`.
    pub action: String,
    /// To which extension.
    pub extension: String,
    /// The rest.
    pub detail: Json,
    /// SHA-256 over the hash of the entry before (32 zero bytes for the first) and this entry, in
    /// hexadecimal.
    pub hash: String,
}

/// What came of looking through all entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// How many there are, and all fit.
    pub entries: usize,
    /// The hash of the last one, in hexadecimal. Kept elsewhere, it shows later that nothing up to
    /// here was changed or cut off.
    pub head: String,
}

/// What an entry begins with before it has a number.
pub(super) struct Act<'a> {
    pub(super) actor: &'a str,
    pub(super) action: &'a str,
    pub(super) extension: &'a str,
    pub(super) detail: Json,
}

impl Home {
    /// What was done, oldest first. What an attached host decided up to now is in it.
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn audit(&self) -> Result<Vec<Entry>, Error> {
        self.write_down().await?;
        let entries = read(&mut *self.connection().await?).await?;
        Ok(entries.into_iter().map(|(entry, _)| entry).collect())
    }

    /// Looks through all entries, and compares the last with a hash that was kept elsewhere, if one is
    /// given: it has to be among them.
    ///
    /// # Errors
    /// `store_failed`, with the first entry that does not fit what is before it.
    pub async fn verify_audit(&self, kept: Option<&str>) -> Result<Audited, Error> {
        self.write_down().await?;
        let entries = read(&mut *self.connection().await?).await?;
        let changed = |number: i64, why: &str| {
            let message = format!("entry {number} of the audit trail {why}");
            Err(Error::new(ErrorCode::StoreFailed, message)
                .with_hint("somebody changed it: compare a backup"))
        };
        let mut before = [0; 32];
        for (place, (entry, detail)) in entries.iter().enumerate() {
            let due = i64::try_from(place).unwrap_or(i64::MAX) + 1;
            if entry.number != due {
                return changed(due, "is missing");
            }
            before = hash(&before, entry, detail);
            if hex(&before) != entry.hash {
                return changed(due, "is not as it was written");
            }
        }
        if let Some(kept) = kept
            && kept != hex(&[0; 32])
            && !entries.iter().any(|(entry, _)| entry.hash == kept)
        {
            let message = "no entry of the audit trail has the hash that was kept";
            return Err(
                Error::new(ErrorCode::StoreFailed, message).with_hint("entries were cut off or made anew")
            );
        }
        Ok(Audited { entries: entries.len(), head: hex(&before) })
    }
}

/// Writes down what is done, in the transaction that does it.
pub(super) async fn write(connection: &mut SqliteConnection, act: Act<'_>) -> Result<(), Error> {
    let query = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1";
    let last = sqlx::query(query).fetch_optional(&mut *connection).await.map_err(store::failed)?;
    let (number, before) = match &last {
        Some(row) => {
            let (number, hash): (i64, Vec<u8>) =
                (row.try_get(0).map_err(store::failed)?, row.try_get(1).map_err(store::failed)?);
            (number + 1, hash)
        }
        None => (1, vec![0; 32]),
    };
    let detail = act.detail.to_string();
    let (actor, action) = (act.actor.to_owned(), act.action.to_owned());
    let (extension, at) = (act.extension.to_owned(), store::millis(SystemTime::now()));
    let entry = Entry { number, at, actor, action, extension, detail: Json::Null, hash: String::new() };
    let hash = hash(&before, &entry, &detail);
    let query = "INSERT INTO audit (number, at, actor, action, extension, detail, hash)
        VALUES (?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(query)
        .bind(number)
        .bind(at)
        .bind(entry.actor)
        .bind(entry.action)
        .bind(entry.extension)
        .bind(detail)
        .bind(hash.to_vec())
        .execute(connection)
        .await
        .map_err(store::failed)?;
    Ok(())
}

/// Writes down what was decided about extensions: what is due, or all of it.
pub(super) async fn write_decisions(store: &SqlitePool, trail: &Trail, all: bool) -> Result<(), Error> {
    let records = trail.take(all);
    if records.is_empty() {
        return Ok(());
    }
    let written = async {
        let mut transaction = store.begin_with("BEGIN IMMEDIATE").await.map_err(store::failed)?;
        for record in &records {
            write(&mut transaction, decision(record)).await?;
        }
        transaction.commit().await.map_err(store::failed)
    };
    let written = written.await;
    if written.is_err() {
        Trail::put_back(records);
    }
    written
}

fn decision(record: &Record) -> Act<'_> {
    let noted = &record.noted;
    let action = match (noted.subject, noted.verdict) {
        (Subject::Management, _) => "manage",
        (_, Verdict::Allowed) => "allow",
        (_, Verdict::Denied) => "deny",
    };
    let mut detail = json!({ "subject": noted.subject, "what": noted.what, "reason": noted.reason });
    if noted.claimed {
        detail["claimed"] = true.into();
    }
    if record.times > 1 {
        detail["times"] = record.times.into();
        detail["first"] = store::millis(record.first).into();
        detail["last"] = store::millis(record.last).into();
    }
    Act { actor: HOST, action, extension: record.extension().as_str(), detail }
}

/// The hash of the last entry, or of none.
pub(super) async fn head(connection: &mut SqliteConnection) -> Result<String, Error> {
    let query = "SELECT hash FROM audit ORDER BY number DESC LIMIT 1";
    let last = sqlx::query_scalar::<_, Vec<u8>>(query).fetch_optional(connection).await;
    Ok(hex(&last.map_err(store::failed)?.unwrap_or_else(|| vec![0; 32])))
}

/// All entries, each with its detail as it is written.
async fn read(connection: &mut SqliteConnection) -> Result<Vec<(Entry, String)>, Error> {
    let query = "SELECT number, at, actor, action, extension, detail, hash FROM audit ORDER BY number";
    let rows = sqlx::query(query).fetch_all(connection).await.map_err(store::failed)?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let detail: String = row.try_get(5)?;
        let hash: Vec<u8> = row.try_get(6)?;
        let entry = Entry {
            number: row.try_get(0)?,
            at: row.try_get(1)?,
            actor: row.try_get(2)?,
            action: row.try_get(3)?,
            extension: row.try_get(4)?,
            detail: serde_json::from_str(&detail).unwrap_or(Json::Null),
            hash: hex(&hash),
        };
        Ok((entry, detail))
    };
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(store::failed)
}

/// Each field has its length before it, so that no two entries are hashed alike.
fn hash(before: &[u8], entry: &Entry, detail: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(entry.number.to_be_bytes());
    hash.update(entry.at.to_be_bytes());
    for field in [&entry.actor, &entry.action, &entry.extension, detail] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    hash.finalize().into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
