//! The events that are kept in a home until their subscribers have taken them: a database of its own, since
//! it is written to while extensions run, and by one thread.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId};
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::audit::{self, Act};
use super::{Home, fault, store};
use crate::event::{drop_all, find, retry};
use crate::{BoxFuture, DeadLetter, EventStore, KeptEvent, Letters};

/// The file, in a home.
pub(super) const FILE: &str = "events.sqlite";

/// How long another process may hold it up: one that copies it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much is asked of it in one transaction at most.
const BATCH: usize = 1000;

const TABLE: &str = "
CREATE TABLE event (
    id TEXT PRIMARY KEY,
    subscriber TEXT NOT NULL,
    pattern TEXT NOT NULL,
    method TEXT NOT NULL,
    topic TEXT NOT NULL,
    source TEXT,
    data BLOB NOT NULL,
    depth INTEGER NOT NULL,
    emitted INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    error TEXT,
    dead INTEGER
) STRICT;
CREATE INDEX event_of ON event (subscriber, id);
PRAGMA user_version = 1;
";

/// Keeps events in a home. The file is made, and the thread started, when there is the first.
#[derive(Debug, Clone)]
pub(super) struct HomeEvents {
    path: PathBuf,
    asked: Arc<OnceLock<mpsc::UnboundedSender<Asked>>>,
}

#[derive(Debug)]
enum Asked {
    Change(Change, oneshot::Sender<Result<(), Error>>),
    List(Option<ExtensionId>, oneshot::Sender<Result<Vec<KeptEvent>, Error>>),
}

#[derive(Debug)]
enum Change {
    Add(Vec<KeptEvent>),
    Update(KeptEvent),
    Remove(Vec<String>),
}

impl HomeEvents {
    pub(super) fn of(home: &Path) -> Self {
        Self { path: home.join(FILE), asked: Arc::default() }
    }

    /// Asks the thread, which goes on to the end of what it was asked.
    fn ask<T: Send + 'static>(
        &self,
        asked: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Asked,
    ) -> BoxFuture<'static, Result<T, Error>> {
        let (answer, answered) = oneshot::channel();
        let thread = self.asked.get_or_init(|| {
            let (ask, asked) = mpsc::unbounded_channel();
            let path = self.path.clone();
            // Without a thread nobody has the other end, which is told below.
            let _ = std::thread::Builder::new().name("quadriga-events".into()).spawn(|| serve(path, asked));
            ask
        });
        let _ = thread.send(asked(answer));
        Box::pin(async move {
            let gone = |_| Err(Error::new(ErrorCode::StoreFailed, "the thread of the store of events ended"));
            tokio::task::unconstrained(answered).await.unwrap_or_else(gone)
        })
    }

    fn change(&self, change: Change) -> BoxFuture<'static, Result<(), Error>> {
        self.ask(|answer| Asked::Change(change, answer))
    }

    /// Waits until all that was asked is done.
    pub(super) async fn settle(&self) -> Result<(), Error> {
        match self.asked.get() {
            Some(_) => self.change(Change::Remove(Vec::new())).await,
            None => Ok(()),
        }
    }

    /// Forgets all for an extension that is gone.
    pub(super) async fn forget(&self, id: &ExtensionId) -> Result<(), Error> {
        let ids: Vec<String> = self.list(Some(id)).await?.into_iter().map(|event| event.id).collect();
        if ids.is_empty() { Ok(()) } else { self.remove(ids).await }
    }
}

impl EventStore for HomeEvents {
    fn add(&self, events: Vec<KeptEvent>) -> BoxFuture<'static, Result<(), Error>> {
        self.change(Change::Add(events))
    }

    fn update(&self, event: KeptEvent) -> BoxFuture<'static, Result<(), Error>> {
        self.change(Change::Update(event))
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'static, Result<(), Error>> {
        self.change(Change::Remove(ids))
    }

    fn list(&self, subscriber: Option<&ExtensionId>) -> BoxFuture<'static, Result<Vec<KeptEvent>, Error>> {
        if self.asked.get().is_none() && !self.path.exists() {
            // Nothing has ever been kept there.
            return Box::pin(std::future::ready(Ok(Vec::new())));
        }
        let subscriber = subscriber.cloned();
        self.ask(|answer| Asked::List(subscriber, answer))
    }
}

impl Home {
    /// Where a host keeps the events of subscriptions that want each at least once, for
    /// [`Builder::event_store`](crate::Builder::event_store). One that the home is [attached](Home::attach) to
    /// has it by that, unless it has one of its own.
    pub fn event_store(&self) -> impl EventStore + use<> {
        self.events.clone()
    }

    /// The dead letters for what is installed, by the time of their emission.
    ///
    /// # Errors
    /// `store_failed`; `invalid_arguments`, if there is no such one.
    pub async fn dead_letters(&self, which: &Letters) -> Result<Vec<DeadLetter>, Error> {
        if let Some(attached) = &self.host {
            return attached.host.dead_letters(which).await;
        }
        Ok(find(&self.events, which).await?.into_iter().map(DeadLetter::from).collect())
    }

    /// Has dead letters delivered once more: at once, if the home is attached to a host, or when one runs their
    /// extension again.
    ///
    /// # Errors
    /// As for [`Home::dead_letters`].
    pub async fn retry_dead_letters(&self, which: &Letters, actor: &str) -> Result<Vec<DeadLetter>, Error> {
        let letters = match &self.host {
            Some(attached) => attached.host.retry_dead_letters(which).await?,
            None => retry(&self.events, which).await?.into_iter().map(DeadLetter::from).collect(),
        };
        self.note(&letters, actor, "retry").await?;
        Ok(letters)
    }

    /// Forgets dead letters.
    ///
    /// # Errors
    /// As for [`Home::dead_letters`].
    pub async fn drop_dead_letters(&self, which: &Letters, actor: &str) -> Result<Vec<DeadLetter>, Error> {
        let letters = match &self.host {
            Some(attached) => attached.host.drop_dead_letters(which).await?,
            None => drop_all(&self.events, which).await?.into_iter().map(DeadLetter::from).collect(),
        };
        self.note(&letters, actor, "drop").await?;
        Ok(letters)
    }

    /// Writes down what was done about dead letters: one entry for each extension.
    async fn note(&self, letters: &[DeadLetter], actor: &str, what: &str) -> Result<(), Error> {
        let mut ids: Vec<&ExtensionId> = letters.iter().map(|letter| &letter.extension).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut transaction = self.store.begin_with("BEGIN IMMEDIATE").await.map_err(store::failed)?;
        for id in ids {
            let its = letters.iter().filter(|letter| letter.extension == *id);
            let detail = json!({ "letters": its.map(|letter| &letter.id).collect::<Vec<_>>() });
            let action = &format!("{what}-dead-letters");
            audit::write(&mut transaction, Act { actor, action, extension: id.as_str(), detail }).await?;
        }
        transaction.commit().await.map_err(store::failed)
    }
}

/// Does what is asked until nobody can ask any more: as much as there is in one transaction.
fn serve(path: PathBuf, mut asked: mpsc::UnboundedReceiver<Asked>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async move {
        let mut connection = None;
        let mut batch = Vec::new();
        while asked.recv_many(&mut batch, BATCH).await > 0 {
            if connection.is_none() {
                match open(&path).await {
                    Ok(opened) => connection = Some(opened),
                    Err(error) => {
                        batch.drain(..).for_each(|asked| asked.refuse(&error));
                        continue;
                    }
                }
            }
            if let Some(connection) = &mut connection {
                carry_out(connection, &mut batch).await;
            }
        }
        if let Some(connection) = connection {
            // Whoever opens it next finds what is left in its log.
            let _ = connection.close().await;
        }
    });
}

impl Asked {
    fn refuse(self, error: &Error) {
        // Who asked may be gone.
        match self {
            Self::Change(_, answer) => drop(answer.send(Err(error.clone()))),
            Self::List(_, answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}

async fn open(path: &Path) -> Result<SqliteConnection, Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What is said to be kept is on the disk.
        .synchronous(if fault::SYNC { SqliteSynchronous::Full } else { SqliteSynchronous::Off })
        .busy_timeout(PATIENCE);
    let mut connection = options.connect().await.map_err(failed)?;
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.map_err(failed)?;
    match version {
        0 => {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
            sqlx::raw_sql(TABLE).execute(&mut *transaction).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
        }
        1 => {}
        _ => {
            let message = format!("{} was written by a newer version of this program", path.display());
            return Err(Error::new(ErrorCode::StoreFailed, message).with_hint("update this program"));
        }
    }
    Ok(connection)
}

/// Carries out what was asked: changes that follow each other together or, if one of them fails, each on its own.
async fn carry_out(connection: &mut SqliteConnection, batch: &mut Vec<Asked>) {
    let mut changes = Vec::new();
    for asked in batch.drain(..) {
        match asked {
            Asked::Change(change, answer) => changes.push((change, answer)),
            Asked::List(subscriber, answer) => {
                write(connection, &mut changes).await;
                let _ = answer.send(list(connection, subscriber.as_ref()).await);
            }
        }
    }
    write(connection, &mut changes).await;
}

async fn write(
    connection: &mut SqliteConnection,
    changes: &mut Vec<(Change, oneshot::Sender<Result<(), Error>>)>,
) {
    let together = commit(connection, changes.iter().map(|(change, _)| change)).await.is_ok();
    for (change, answer) in changes.drain(..) {
        let _ = answer.send(match together {
            true => Ok(()),
            false => commit(connection, [&change].into_iter()).await,
        });
    }
}

/// All of the changes, or none.
async fn commit(
    connection: &mut SqliteConnection,
    changes: impl Iterator<Item = &Change> + Send,
) -> Result<(), Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    for change in changes {
        match change {
            Change::Add(events) => {
                for event in events {
                    add(&mut transaction, event).await?;
                }
            }
            Change::Update(event) => update(&mut transaction, event).await?,
            Change::Remove(ids) => {
                for id in ids {
                    let query = sqlx::query("DELETE FROM event WHERE id = ?").bind(id);
                    query.execute(&mut *transaction).await.map_err(failed)?;
                }
            }
        }
    }
    fault::point("before events are kept");
    transaction.commit().await.map_err(failed)?;
    fault::point("after events are kept");
    Ok(())
}

async fn add(connection: &mut SqliteConnection, event: &KeptEvent) -> Result<(), Error> {
    let query = "INSERT INTO event
        (id, subscriber, pattern, method, topic, source, data, depth, emitted, attempts, error, dead)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    sqlx::query(query)
        .bind(&event.id)
        .bind(event.subscriber.as_str())
        .bind(&event.pattern)
        .bind(&event.method)
        .bind(&event.topic)
        .bind(event.source.as_ref().map(ExtensionId::as_str))
        .bind(&*event.data)
        .bind(i64::from(event.depth))
        .bind(store::millis(event.emitted))
        .bind(i64::from(event.attempts))
        .bind(said(event)?)
        .bind(event.dead.map(store::millis))
        .execute(connection)
        .await
        .map_err(failed)
        .map(drop)
}

async fn update(connection: &mut SqliteConnection, event: &KeptEvent) -> Result<(), Error> {
    let query = "UPDATE event SET attempts = ?, error = ?, dead = ? WHERE id = ?";
    sqlx::query(query)
        .bind(i64::from(event.attempts))
        .bind(said(event)?)
        .bind(event.dead.map(store::millis))
        .bind(&event.id)
        .execute(connection)
        .await
        .map_err(failed)
        .map(drop)
}

async fn list(
    connection: &mut SqliteConnection,
    subscriber: Option<&ExtensionId>,
) -> Result<Vec<KeptEvent>, Error> {
    let query =
        "SELECT id, subscriber, pattern, method, topic, source, data, depth, emitted, attempts, error, dead
        FROM event WHERE subscriber = ?1 OR ?1 IS NULL ORDER BY id";
    let rows = sqlx::query(query).bind(subscriber.map(ExtensionId::as_str)).fetch_all(connection).await;
    rows.map_err(failed)?.iter().map(event).collect()
}

fn event(row: &SqliteRow) -> Result<KeptEvent, Error> {
    let text = |at: usize| row.try_get::<String, _>(at).map_err(failed);
    let maybe = |at: usize| row.try_get::<Option<String>, _>(at).map_err(failed);
    let number = |at: usize| row.try_get::<i64, _>(at).map_err(failed);
    let id = |text: String| ExtensionId::new(&text).map_err(|error| broken(&error));
    let data: Vec<u8> = row.try_get(6).map_err(failed)?;
    Ok(KeptEvent {
        id: text(0)?,
        subscriber: id(text(1)?)?,
        pattern: text(2)?,
        method: text(3)?,
        topic: text(4)?,
        source: maybe(5)?.map(id).transpose()?,
        data: Bytes::from(data),
        depth: u16::try_from(number(7)?).map_err(|error| broken(&error))?,
        emitted: store::time(number(8)?),
        attempts: u32::try_from(number(9)?).map_err(|error| broken(&error))?,
        error: maybe(10)?
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|error| broken(&error))?,
        dead: row.try_get::<Option<i64>, _>(11).map_err(failed)?.map(store::time),
    })
}

/// The error of an event, as it is written.
fn said(event: &KeptEvent) -> Result<Option<String>, Error> {
    let said = event.error.as_ref().map(serde_json::to_string).transpose();
    said.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
}

fn failed(error: sqlx::Error) -> Error {
    Error::new(ErrorCode::StoreFailed, format!("the events of the home: {error}"))
}

fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorCode::StoreFailed, format!("the events of the home hold one that is none: {error}"))
}
