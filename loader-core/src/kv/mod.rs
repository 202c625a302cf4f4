//! Key-value stores: what extensions keep with their host, wherever that puts it.

mod memory;
mod suite;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub use memory::MemoryKv;
use quadriga_abi::limits::ByteSize;
use quadriga_abi::{Bytes, Error, ErrorCode};
use serde::Serialize;
pub use suite::check_kv_store;

/// A store of keys and values, of several owners, of whom each has its own.
///
/// An owner is the id of an extension, or of a part of the host, such as `quadriga.schedule`, or `store/NAME` for
/// what several extensions share. Values are one
/// MessagePack value each. Times are milliseconds since 1970, and what time it is whoever calls says: a store
/// has no clock.
///
/// Each operation is whole by itself: others see all that a [`write`](KvStore::write) changes, or nothing of
/// it. The permission is asked for before a store is called, from many threads at once; what it refuses the
/// extension gets as it is. [`check_kv_store`] tests one.
pub trait KvStore: Send + Sync {
    /// The value of a key, unless it has expired.
    ///
    /// # Errors
    /// If the store fails.
    fn get(&self, owner: &str, key: &KvKey, now: u64) -> Result<Option<KvEntry>, Error>;

    /// The keys of a range that have not expired, in the order of their bytes.
    ///
    /// # Errors
    /// If the store fails.
    fn list(&self, owner: &str, range: &KvRange, now: u64) -> Result<Vec<String>, Error>;

    /// The same with what belongs to the keys: as many as have `bytes` of keys and values together, and one
    /// at least, if there is any.
    ///
    /// # Errors
    /// If the store fails.
    fn entries(
        &self,
        owner: &str,
        range: &KvRange,
        bytes: u64,
        now: u64,
    ) -> Result<Vec<(String, KvEntry)>, Error>;

    /// Changes some keys, in their order, all of them or none. All versions are compared first; if one is not
    /// what it should be, nothing is changed, and `None` comes back. Otherwise it says of each key whether it
    /// was there just before its turn. What has expired is not there, and takes up no room.
    ///
    /// Afterwards the owner has no more than the quota, or no more of what is over it than before. A store of
    /// a host's own may have bounds of its own instead.
    ///
    /// # Errors
    /// `quota_exceeded`, as [`KvQuota::check`] says it, or if the store fails; nothing is changed then.
    fn write(
        &self,
        owner: &str,
        changes: &[KvChange],
        quota: KvQuota,
        now: u64,
    ) -> Result<Option<Vec<bool>>, Error>;

    /// Whether it may wait, for a disk or a server. Then it is called on threads of its own, rather
    /// than on those of the guests.
    fn blocks(&self) -> bool {
        true
    }
}

impl<T: KvStore + ?Sized> KvStore for Arc<T> {
    fn get(&self, owner: &str, key: &KvKey, now: u64) -> Result<Option<KvEntry>, Error> {
        (**self).get(owner, key, now)
    }

    fn list(&self, owner: &str, range: &KvRange, now: u64) -> Result<Vec<String>, Error> {
        (**self).list(owner, range, now)
    }

    fn entries(
        &self,
        owner: &str,
        range: &KvRange,
        bytes: u64,
        now: u64,
    ) -> Result<Vec<(String, KvEntry)>, Error> {
        (**self).entries(owner, range, bytes, now)
    }

    fn write(
        &self,
        owner: &str,
        changes: &[KvChange],
        quota: KvQuota,
        now: u64,
    ) -> Result<Option<Vec<bool>>, Error> {
        (**self).write(owner, changes, quota, now)
    }

    fn blocks(&self) -> bool {
        (**self).blocks()
    }
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvKey {
    /// Empty for what is in none. Up to 128 bytes.
    pub namespace: String,
    /// 1 to 512 bytes.
    pub key: String,
}

/// A value that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// One MessagePack value.
    pub value: Bytes,
    /// Which of all values it is that the owner ever put: above 0, and above those of all that were put before
    /// it.
    pub version: u64,
    /// From when on it is not there any more.
    pub expires: Option<u64>,
}

/// Some of the keys of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvRange {
    /// Empty for what is in none.
    pub namespace: String,
    /// What they begin with.
    pub prefix: String,
    /// The key that they come after.
    pub after: Option<String>,
    /// The first so many.
    pub most: usize,
}

/// What becomes of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvChange {
    /// The key.
    pub key: KvKey,
    /// The version that its value has to have before anything is changed; 0 if it must not be there. `None`
    /// for any.
    pub version: Option<u64>,
    /// What is done.
    pub action: KvAction,
}

/// What is done to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvAction {
    /// Nothing: its version is looked at.
    Check,
    /// A value is put in the place of the one before, if there is one.
    Put {
        /// One MessagePack value.
        value: Bytes,
        /// From when on it is not there any more.
        expires: Option<u64>,
    },
    /// It is taken away.
    Delete,
}

/// How much one owner may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvQuota {
    /// Bytes of all namespaces, keys and values, as MessagePack.
    pub bytes: u64,
    /// How many keys.
    pub keys: usize,
}

impl Default for KvQuota {
    fn default() -> Self {
        Self { bytes: 4 << 20, keys: 10_000 }
    }
}

impl KvQuota {
    /// No bounds.
    pub const NONE: Self = Self { bytes: u64::MAX, keys: usize::MAX };

    /// Whether an owner that had so much before may have so much: what fits, or is no more than before.
    ///
    /// # Errors
    /// `quota_exceeded`.
    pub fn check(&self, owner: &str, before: Self, after: Self) -> Result<(), Error> {
        let over = if after.bytes > self.bytes.max(before.bytes) {
            format!("{} of keys and values", ByteSize(self.bytes))
        } else if after.keys > self.keys.max(before.keys) {
            format!("{} keys", self.keys)
        } else {
            return Ok(());
        };
        let message = format!("{owner} may keep {over} in the key-value store");
        Err(Error::new(ErrorCode::QuotaExceeded, message).with_hint("delete some first"))
    }
}

impl KvKey {
    /// A key in no namespace.
    pub fn plain(key: impl Into<String>) -> Self {
        Self { namespace: String::new(), key: key.into() }
    }

    /// Bytes that it takes up with a value.
    pub fn size(&self, value: &[u8]) -> u64 {
        (self.namespace.len() + self.key.len() + value.len()) as u64
    }
}

impl KvEntry {
    /// Whether it is still there.
    pub fn lives(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| expires > now)
    }
}

/// What time it is, as stores are told.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
