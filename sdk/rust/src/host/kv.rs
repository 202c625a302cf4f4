//! What the extension keeps with its host, by key. Needs the permission `kv`.
//!
//! Each extension sees its own keys. A key is a text of 1 to 512 bytes, or a pair of a namespace and such a
//! text; the same keys in other namespaces are others.

use std::time::Duration;

use quadriga_abi::{ErrorCode, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Result, call};
use crate::Error;

const SERVICE: &str = "quadriga.kv";
const SHARED: &str = "quadriga.store";

/// A value that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry<T> {
    /// Its key, in what [`entries`] gives.
    #[serde(default)]
    pub key: String,
    /// The value.
    pub value: T,
    /// Each put gives a value a higher version than any before it.
    pub version: u64,
    /// The seconds that it has left, if it does not stay.
    pub ttl: Option<f64>,
}

/// How a value is put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Put {
    /// How long it is there.
    pub ttl: Option<Duration>,
    /// The version that the value has to have that is there; 0 if there must be none.
    pub version: Option<u64>,
}

/// A store that several extensions share. To read there it needs the permission `stores` with `"NAME:ro"`, to
/// change something `"NAME:rw"`. What the methods do the functions of [`kv`](self) of the same names say.
#[derive(Debug, Clone)]
pub struct Store {
    name: String,
}

/// A store that several extensions share, by its name.
pub fn store(name: impl Into<String>) -> Store {
    Store { name: name.into() }
}

impl Store {
    /// The value of a key. Fails if it is no `T`.
    #[track_caller]
    pub fn get<T: DeserializeOwned>(&self, key: impl Serialize) -> Result<Option<T>> {
        call(SHARED, "get", (&self.name, key))
    }

    /// The value of a key with what is known of it. Fails if it is no `T`.
    #[track_caller]
    pub fn entry<T: DeserializeOwned>(&self, key: impl Serialize) -> Result<Option<Entry<T>>> {
        call(SHARED, "entry", (&self.name, key))
    }

    /// Puts a value in the place of the one before.
    #[track_caller]
    pub fn put(&self, key: impl Serialize, value: impl Serialize) -> Result<()> {
        call(SHARED, "put", (&self.name, key, value))
    }

    /// The same for a time, or only if the version is as it should be; says whether it was put.
    #[track_caller]
    pub fn put_with(&self, key: impl Serialize, value: impl Serialize, how: Put) -> Result<bool> {
        call(SHARED, "put", (&self.name, key, value, Options::from(how)))
    }

    /// Takes a key away, and says whether it was there.
    #[track_caller]
    pub fn delete(&self, key: impl Serialize) -> Result<bool> {
        call(SHARED, "delete", (&self.name, key))
    }

    /// The keys that begin with a prefix, in order.
    #[track_caller]
    pub fn list(&self, prefix: impl Serialize, after: Option<&str>) -> Result<Vec<String>> {
        call(SHARED, "list", (&self.name, prefix, after))
    }

    /// The same with their values.
    #[track_caller]
    pub fn entries<T: DeserializeOwned>(
        &self,
        prefix: impl Serialize,
        after: Option<&str>,
        most: Option<usize>,
    ) -> Result<Vec<Entry<T>>> {
        call(SHARED, "entries", (&self.name, prefix, after, most))
    }

    /// Makes changes, as [`Batch::commit`] does.
    #[track_caller]
    pub fn commit(&self, batch: Batch) -> Result<bool> {
        match batch.0 {
            Ok(changes) => call(SHARED, "batch", (&self.name, changes)),
            Err(why) => Err(unsent(&why)),
        }
    }
}

#[derive(Serialize)]
struct Options {
    ttl: Option<f64>,
    version: Option<u64>,
}

impl From<Put> for Options {
    fn from(put: Put) -> Self {
        Self { ttl: put.ttl.map(|ttl| ttl.as_secs_f64()), version: put.version }
    }
}

#[track_caller]
fn unsent(why: &str) -> Error {
    Error::with_code(ErrorCode::InvalidValue, format!("the batch cannot be sent: {why}"))
}

/// The value of a key. Fails if it is no `T`.
#[track_caller]
pub fn get<T: DeserializeOwned>(key: impl Serialize) -> Result<Option<T>> {
    call(SERVICE, "get", (key,))
}

/// The value of a key with what is known of it. Fails if it is no `T`.
#[track_caller]
pub fn entry<T: DeserializeOwned>(key: impl Serialize) -> Result<Option<Entry<T>>> {
    call(SERVICE, "entry", (key,))
}

/// Puts a value in the place of the one before. Fails with `quota_exceeded` if there is no room
/// for it.
#[track_caller]
pub fn put(key: impl Serialize, value: impl Serialize) -> Result<()> {
    call(SERVICE, "put", (key, value))
}

/// The same for a time, or only if the version is as it should be; says whether it was put.
#[track_caller]
pub fn put_with(key: impl Serialize, value: impl Serialize, how: Put) -> Result<bool> {
    call(SERVICE, "put", (key, value, Options::from(how)))
}

/// Takes a key away, and says whether it was there.
#[track_caller]
pub fn delete(key: impl Serialize) -> Result<bool> {
    call(SERVICE, "delete", (key,))
}

/// The keys that begin with a prefix, in order: the first 1000, or the first 1000 after a key.
#[track_caller]
pub fn list(prefix: impl Serialize, after: Option<&str>) -> Result<Vec<String>> {
    call(SERVICE, "list", (prefix, after))
}

/// The same with their values: the first `most` of them, or fewer if they are large. There are no more when
/// none come back.
#[track_caller]
pub fn entries<T: DeserializeOwned>(
    prefix: impl Serialize,
    after: Option<&str>,
    most: Option<usize>,
) -> Result<Vec<Entry<T>>> {
    call(SERVICE, "entries", (prefix, after, most))
}

/// Changes that are made together, in their order, or not at all.
///
/// ```no_run
/// # fn main() -> Result<(), quadriga_sdk::Error> {
/// use quadriga_sdk::host::kv::{self, Batch, Put};
/// if let Some(entry) = kv::entry::<String>("draft")? {
///     let published = Put { version: Some(0), ..Put::default() };
///     let batch = Batch::new().delete_if("draft", entry.version);
///     batch.put_with(("published", "page"), entry.value, published).commit()?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is changed before it is committed"]
pub struct Batch(std::result::Result<Vec<Change>, String>);

#[derive(Debug, Clone, Default, Serialize)]
struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    put: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Value>,
    ttl: Option<f64>,
    version: Option<u64>,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// None yet.
    pub fn new() -> Self {
        Self(Ok(Vec::new()))
    }

    /// Puts a value in the place of the one before.
    pub fn put(self, key: impl Serialize, value: impl Serialize) -> Self {
        self.put_with(key, value, Put::default())
    }

    /// The same for a time, or only if the version is as it should be.
    pub fn put_with(self, key: impl Serialize, value: impl Serialize, how: Put) -> Self {
        let ttl = how.ttl.map(|ttl| ttl.as_secs_f64());
        self.add(&key, |key| {
            let value = Value::of(&value).map_err(|error| error.to_string())?;
            Ok(Change { put: Some(key), value: Some(value), ttl, version: how.version, ..Change::default() })
        })
    }

    /// Takes a key away.
    pub fn delete(self, key: impl Serialize) -> Self {
        self.add(&key, |key| Ok(Change { delete: Some(key), ..Change::default() }))
    }

    /// Takes a key away; all is done only if its value has this version.
    pub fn delete_if(self, key: impl Serialize, version: u64) -> Self {
        self.add(&key, |key| Ok(Change { delete: Some(key), version: Some(version), ..Change::default() }))
    }

    /// All is done only if the value of a key has this version; 0 if it must not be there.
    pub fn check(self, key: impl Serialize, version: u64) -> Self {
        self.add(&key, |key| Ok(Change { check: Some(key), version: Some(version), ..Change::default() }))
    }

    /// Makes the changes, and says whether all versions were as they should be; otherwise none is made. Fails
    /// with `quota_exceeded` if there is no room for what there would be in the end.
    #[track_caller]
    pub fn commit(self) -> Result<bool> {
        match self.0 {
            Ok(changes) => call(SERVICE, "batch", (changes,)),
            Err(why) => Err(unsent(&why)),
        }
    }

    fn add(
        self,
        key: &impl Serialize,
        change: impl FnOnce(Value) -> std::result::Result<Change, String>,
    ) -> Self {
        Self(self.0.and_then(|mut changes| {
            changes.push(change(Value::of(key).map_err(|error| error.to_string())?)?);
            Ok(changes)
        }))
    }
}
