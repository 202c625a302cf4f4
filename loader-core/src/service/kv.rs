//! `quadriga.kv`: what each extension keeps for itself, by key.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use quadriga_abi::limits::ByteSize;
use quadriga_abi::permission::Access;
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId, codec};
use serde::Serialize;

use super::{Service, pair, unknown_method};
use crate::dispatcher::lock;
use crate::{Bridge, CallContext, Outcome};

/// The most bytes in a key.
const KEY: usize = 512;

/// The most keys in one list.
const LISTED: usize = 1000;

/// Where the host keeps what extensions put into the key-value store, instead of in memory: by the id
/// of the extension, so that it outlasts an unload and the host itself. What loose code puts never
/// comes here.
///
/// Keys have 1 to 512 bytes, values are one MessagePack value each. A store of the host's sees to
/// bounds of its own. The permission is asked for before it is called, from many threads at once; what
/// it refuses the extension gets as it is. The host may look into it too, and empty it.
pub trait KvStore: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// If the store fails.
    fn get(&self, extension: &ExtensionId, key: &str) -> Result<Option<Bytes>, Error>;

    /// Puts a value in the place of the one before, if there is one.
    ///
    /// # Errors
    /// If the store fails, or `quota_exceeded`.
    fn put(&self, extension: &ExtensionId, key: &str, value: Bytes) -> Result<(), Error>;

    /// Takes a key away, and says whether it was there.
    ///
    /// # Errors
    /// If the store fails.
    fn delete(&self, extension: &ExtensionId, key: &str) -> Result<bool, Error>;

    /// The keys that begin with `prefix` and come after the key `after`, in the order of their bytes:
    /// the first `most`.
    ///
    /// # Errors
    /// If the store fails.
    fn list(
        &self,
        extension: &ExtensionId,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<String>, Error>;

    /// Whether it may wait, for a disk or a server. Then it is called on threads of its own, rather
    /// than on those of the guests.
    fn blocks(&self) -> bool {
        true
    }
}

/// How much one extension may keep in the memory of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KvQuota {
    /// Bytes of all keys and values, as MessagePack.
    pub bytes: u64,
    /// How many keys.
    pub keys: usize,
}

impl Default for KvQuota {
    fn default() -> Self {
        Self { bytes: 4 << 20, keys: 10_000 }
    }
}

/// The service.
pub(crate) struct Kv {
    pub(crate) quota: KvQuota,
    /// The host's own. In memory, if there is none.
    pub(crate) store: Option<Arc<dyn KvStore>>,
}

/// What one extension keeps in memory. It goes with it.
#[derive(Default)]
pub(crate) struct Space(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    pairs: BTreeMap<String, Bytes>,
    bytes: u64,
}

/// A space, and how much fits into it.
struct Bounded<'a> {
    space: &'a Space,
    quota: KvQuota,
}

enum Operation {
    Get(String),
    Put(String, Bytes),
    Delete(String),
    List(String, Option<String>),
}

impl Service for Kv {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        let begin = || {
            caller.check(parent, &Access::Kv)?;
            Operation::read(method, &arguments)
        };
        let operation = match begin() {
            Ok(operation) => operation,
            Err(error) => return error.into(),
        };
        let extension = caller.extension();
        let Some(ward) = caller.ward() else {
            return Error::new(ErrorCode::Internal, "the extension is in another process").into();
        };
        match self.store.as_ref().filter(|_| !ward.loose) {
            None => {
                let space = Bounded { space: &ward.space, quota: self.quota };
                Outcome::Ready(operation.run(&space, extension))
            }
            Some(store) if !store.blocks() => Outcome::Ready(operation.run(&**store, extension)),
            Some(store) => {
                let (store, extension) = (Arc::clone(store), extension.clone());
                Outcome::Pending(Box::pin(async move {
                    let done = tokio::task::spawn_blocking(move || operation.run(&*store, &extension)).await;
                    done.unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the store panicked")))
                }))
            }
        }
    }
}

impl Operation {
    fn read(method: &str, arguments: &Bytes) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::new(ErrorCode::InvalidArguments, format!("quadriga.kv/{method}: the arguments: {why}"))
        };
        let one = || match codec::from_arguments(arguments) {
            Ok((key,)) => checked(key).map_err(wrong),
            Err(error) => Err(wrong(error.to_string())),
        };
        match method {
            "get" => one().map(Self::Get),
            "delete" => one().map(Self::Delete),
            "put" => {
                let none = || wrong("it takes a key and a value".to_owned());
                let (key, value) = pair(arguments).ok_or_else(none)?;
                let key = checked(key.to_owned()).map_err(wrong)?;
                // A part of the message would keep the whole of it.
                Ok(Self::Put(key, Bytes::copy_from_slice(value)))
            }
            "list" => {
                let given: Vec<Option<String>> =
                    codec::from_arguments(arguments).map_err(|error| wrong(error.to_string()))?;
                let mut given = given.into_iter();
                let (prefix, after) = (given.next().flatten().unwrap_or_default(), given.next().flatten());
                match given.next() {
                    None => Ok(Self::List(prefix, after)),
                    Some(_) => Err(wrong("it takes a prefix, and the key to go on after".to_owned())),
                }
            }
            _ => Err(unknown_method("kv", method, &["get", "put", "delete", "list"])),
        }
    }

    /// Does it, and encodes what it comes to.
    fn run(self, store: &dyn KvStore, extension: &ExtensionId) -> Result<Bytes, Error> {
        const NIL: Bytes = Bytes::from_static(&[0xc0]);
        let encoded = |bytes: Result<Vec<u8>, codec::EncodeError>| {
            bytes.map(Bytes::from).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
        };
        match self {
            Self::Get(key) => store.get(extension, &key).map(|value| value.unwrap_or(NIL)),
            Self::Put(key, value) => store.put(extension, &key, value).map(|()| NIL),
            Self::Delete(key) => encoded(codec::to_bytes(&store.delete(extension, &key)?)),
            Self::List(prefix, after) => {
                let keys = store.list(extension, &prefix, after.as_deref(), LISTED)?;
                encoded(codec::to_bytes(&keys))
            }
        }
    }
}

fn checked(key: String) -> Result<String, String> {
    match (1..=KEY).contains(&key.len()) {
        true => Ok(key),
        false => Err(format!("a key has 1 to {KEY} bytes, this has {}", key.len())),
    }
}

impl KvStore for Bounded<'_> {
    fn get(&self, _: &ExtensionId, key: &str) -> Result<Option<Bytes>, Error> {
        Ok(lock(&self.space.0).pairs.get(key).cloned())
    }

    fn put(&self, extension: &ExtensionId, key: &str, value: Bytes) -> Result<(), Error> {
        let mut kept = lock(&self.space.0);
        let before = kept.pairs.get(key).map(|value| size(key, value));
        let bytes = kept.bytes - before.unwrap_or(0) + size(key, &value);
        let keys = kept.pairs.len() + usize::from(before.is_none());
        let over = match (bytes > self.quota.bytes, keys > self.quota.keys) {
            (true, _) => format!("{} of keys and values", ByteSize(self.quota.bytes)),
            (_, true) => format!("{} keys", self.quota.keys),
            _ => {
                kept.bytes = bytes;
                kept.pairs.insert(key.to_owned(), value);
                return Ok(());
            }
        };
        let message = format!("{extension} may keep {over} in the key-value store");
        Err(Error::new(ErrorCode::QuotaExceeded, message).with_hint("delete some first"))
    }

    fn delete(&self, _: &ExtensionId, key: &str) -> Result<bool, Error> {
        let mut kept = lock(&self.space.0);
        let gone = kept.pairs.remove(key);
        kept.bytes -= gone.as_ref().map_or(0, |value| size(key, value));
        Ok(gone.is_some())
    }

    fn list(
        &self,
        _: &ExtensionId,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<String>, Error> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let kept = lock(&self.space.0);
        let keys = kept.pairs.range::<str, _>((from, Bound::Unbounded)).map(|(key, _)| key);
        Ok(keys.take_while(|key| key.starts_with(prefix)).take(most).cloned().collect())
    }
}

fn size(key: &str, value: &Bytes) -> u64 {
    (key.len() + value.len()) as u64
}
