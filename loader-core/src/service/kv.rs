//! `quadriga.kv`: what each extension keeps for itself, by key. `quadriga.store`: what several share; there the
//! name of the store stands before the other arguments.

use std::sync::Arc;

use quadriga_abi::msgpack::{Reader, Token, write};
use quadriga_abi::permission::{Access, FsMode, is_plain_name};
use quadriga_abi::{Bytes, Error, ErrorCode, Value, ValueError, codec};
use serde::{Deserialize, Serialize};

use super::{Service, unknown_method};
use crate::kv::{KvAction, KvChange, KvEntry, KvKey, KvQuota, KvRange, KvStore, now};
use crate::{Bridge, CallContext, Outcome};

/// The most bytes in a namespace, and in a key.
const NAMESPACE: usize = 128;
const KEY: usize = 512;

/// The most keys in one list, entries in one page, and changes in one batch.
const LISTED: usize = 1000;

/// Bytes of the keys and values of one page, unless its first entry has more.
const PAGE: u64 = 1 << 20;

/// The longest time that a value may be given to live, in seconds: a thousand years.
const LONGEST: f64 = 31_556_952_000.0;

/// The service.
pub(crate) enum Kv {
    /// Of what each extension keeps for itself.
    Own,
    /// Of what several share.
    Shared,
}

/// What is asked of a store.
enum Operation {
    Get(KvKey),
    Entry(KvKey),
    List(KvRange),
    Entries(KvRange),
    Write(Vec<KvChange>, Answer),
}

/// What comes back when something was changed or not.
enum Answer {
    Nil,
    /// Whether the versions were as they should be.
    Done,
    /// Whether the first key was there, and they were.
    There,
}

/// A key, in no namespace or in one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a key, or a list of a namespace and a key")]
enum GivenKey {
    Plain(String),
    Within(String, String),
}

/// The last argument of `put`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PutOptions {
    /// Seconds.
    ttl: Option<f64>,
    version: Option<u64>,
}

/// The last argument of `delete`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeleteOptions {
    version: Option<u64>,
}

/// One change of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenChange {
    put: Option<GivenKey>,
    #[serde(default, deserialize_with = "given")]
    value: Option<Value>,
    ttl: Option<f64>,
    delete: Option<GivenKey>,
    check: Option<GivenKey>,
    version: Option<u64>,
}

/// Nil is a value, and not the absence of one.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Arguments, one after the other. What is missing at the end, or nil, is not given.
struct Given<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl Service for Kv {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        let begin = || {
            let mut given = Given::new(&arguments).map_err(|why| self.wrong(method, &why))?;
            let owner = match self {
                Self::Own => {
                    caller.check(parent, &Access::Kv)?;
                    caller.extension().to_string()
                }
                Self::Shared => {
                    let name = given.store().map_err(|why| self.wrong(method, &why))?;
                    let mode = match method {
                        "get" | "entry" | "list" | "entries" => FsMode::ReadOnly,
                        _ => FsMode::ReadWrite,
                    };
                    caller.check(parent, &Access::Store { name: &name, mode })?;
                    // No extension has such an id.
                    format!("store/{name}")
                }
            };
            let operation = self.read(method, given)?;
            let (core, reach) = caller.here()?;
            Ok::<_, Error>((core, Arc::clone(&reach.ward), operation, owner))
        };
        let (core, ward, operation, owner) = match begin() {
            Ok(begun) => begun,
            Err(error) => return Outcome::from(error),
        };
        let (quota, own) = (core.policy.kv, matches!(self, Self::Own));
        let memory = if own { &ward.kept } else { &core.shared };
        match core.kv.get().filter(|_| !(own && ward.loose)) {
            None => Outcome::Ready(operation.run(memory, &owner, quota)),
            Some(store) if !store.blocks() => Outcome::Ready(operation.run(&**store, &owner, quota)),
            Some(store) => {
                let store = Arc::clone(store);
                Outcome::Pending(Box::pin(async move {
                    let done =
                        tokio::task::spawn_blocking(move || operation.run(&*store, &owner, quota)).await;
                    done.unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the store panicked")))
                }))
            }
        }
    }
}

impl Kv {
    fn name(&self) -> &'static str {
        match self {
            Self::Own => "kv",
            Self::Shared => "store",
        }
    }

    fn wrong(&self, method: &str, why: &str) -> Error {
        let message = format!("quadriga.{}/{method}: the arguments: {why}", self.name());
        Error::new(ErrorCode::InvalidArguments, message)
    }

    fn read(&self, method: &str, mut given: Given<'_>) -> Result<Operation, Error> {
        let read = match method {
            "get" => given.key().and_then(|key| given.end(Operation::Get(key))),
            "entry" => given.key().and_then(|key| given.end(Operation::Entry(key))),
            "put" => given.put(),
            "delete" => given.delete(),
            "list" => given.range(false).map(Operation::List),
            "entries" => given.range(true).map(Operation::Entries),
            "batch" => given.batch(),
            _ => {
                let there = ["get", "entry", "put", "delete", "list", "entries", "batch"];
                return Err(unknown_method(self.name(), method, &there));
            }
        };
        read.map_err(|why| self.wrong(method, &why))
    }
}

impl Operation {
    /// Does it, and encodes what it comes to.
    fn run(self, store: &dyn KvStore, owner: &str, quota: KvQuota) -> Result<Bytes, Error> {
        let now = now();
        match self {
            Self::Get(key) => Ok(store.get(owner, &key, now)?.map_or(NIL, |entry| entry.value)),
            Self::Entry(key) => match store.get(owner, &key, now)? {
                Some(entry) => encoded(|out| append(out, None, &entry, now)),
                None => Ok(NIL),
            },
            Self::List(range) => encode(&store.list(owner, &range, now)?),
            Self::Entries(range) => {
                let entries = store.entries(owner, &range, PAGE, now)?;
                encoded(|out| {
                    write(out, Token::List(entries.len()))?;
                    entries.iter().try_for_each(|(key, entry)| append(out, Some(key), entry, now))
                })
            }
            Self::Write(changes, answer) => {
                let done = store.write(owner, &changes, quota, now)?;
                match answer {
                    Answer::Nil => Ok(NIL),
                    Answer::Done => encode(&done.is_some()),
                    Answer::There => encode(&done.is_some_and(|there| there.first() == Some(&true))),
                }
            }
        }
    }
}

const NIL: Bytes = Bytes::from_static(&[0xc0]);

fn encode(value: &impl Serialize) -> Result<Bytes, Error> {
    let bytes = codec::to_bytes(value).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    Ok(bytes.into())
}

fn encoded(append: impl FnOnce(&mut Vec<u8>) -> Result<(), ValueError>) -> Result<Bytes, Error> {
    let mut out = Vec::new();
    append(&mut out).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    Ok(out.into())
}

/// An entry as a map: its key, if that is wanted, its value as it was put, its version, and the seconds that
/// it has left.
fn append(out: &mut Vec<u8>, key: Option<&String>, entry: &KvEntry, now: u64) -> Result<(), ValueError> {
    write(out, Token::Map(3 + usize::from(key.is_some())))?;
    if let Some(key) = key {
        write(out, Token::Text("key"))?;
        write(out, Token::Text(key))?;
    }
    write(out, Token::Text("value"))?;
    out.extend_from_slice(&entry.value);
    write(out, Token::Text("version"))?;
    let version = i64::try_from(entry.version).map_or(Token::UInt(entry.version), Token::Int);
    write(out, version)?;
    write(out, Token::Text("ttl"))?;
    let left = entry.expires.map(|expires| expires.saturating_sub(now) as f64 / 1000.0);
    write(out, left.map_or(Token::Nil, Token::Float))
}

impl<'a> Given<'a> {
    fn new(arguments: &'a [u8]) -> Result<Self, String> {
        let mut reader = Reader::new(arguments);
        match reader.token() {
            Ok(Token::List(left)) => Ok(Self { reader, left }),
            _ => Err("they are no list".to_owned()),
        }
    }

    /// The next one as it is.
    fn raw(&mut self) -> Result<Option<&'a [u8]>, String> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let from = self.reader.rest();
        self.reader.skip().map_err(|error| error.to_string())?;
        Ok(Some(&from[..from.len() - self.reader.rest().len()]))
    }

    fn next<T: Deserialize<'a>>(&mut self) -> Result<Option<T>, String> {
        let Some(raw) = self.raw()? else { return Ok(None) };
        codec::from_bytes(raw).map_err(|error| error.to_string())
    }

    fn end<T>(&self, read: T) -> Result<T, String> {
        match self.left {
            0 => Ok(read),
            more => Err(format!("{more} more than it takes")),
        }
    }

    fn store(&mut self) -> Result<String, String> {
        let name = self.next::<String>()?.ok_or_else(|| "it takes the name of a store".to_owned())?;
        if is_plain_name(&name) { Ok(name) } else { Err("this is no name of a store".to_owned()) }
    }

    fn key(&mut self) -> Result<KvKey, String> {
        self.next::<GivenKey>()?.ok_or_else(|| "it takes a key".to_owned())?.checked(1)
    }

    fn put(&mut self) -> Result<Operation, String> {
        let key = self.key()?;
        let value = self.raw()?.ok_or_else(|| "it takes a key and a value".to_owned())?;
        let options = self.next::<PutOptions>()?;
        let answer = if options.is_some() { Answer::Done } else { Answer::Nil };
        let PutOptions { ttl, version } = options.unwrap_or_default();
        // A part of the message would keep the whole of it.
        let action = KvAction::Put { value: Bytes::copy_from_slice(value), expires: expires(ttl)? };
        self.end(Operation::Write(vec![KvChange { key, version, action }], answer))
    }

    fn delete(&mut self) -> Result<Operation, String> {
        let key = self.key()?;
        let DeleteOptions { version } = self.next()?.unwrap_or_default();
        let change = KvChange { key, version, action: KvAction::Delete };
        self.end(Operation::Write(vec![change], Answer::There))
    }

    fn range(&mut self, bounded: bool) -> Result<KvRange, String> {
        let KvKey { namespace, key: prefix } =
            self.next::<GivenKey>()?.unwrap_or(GivenKey::Plain(String::new())).checked(0)?;
        let after = self.next()?;
        let most = if bounded { self.next::<usize>()?.unwrap_or(LISTED) } else { LISTED };
        self.end(KvRange { namespace, prefix, after, most: most.min(LISTED) })
    }

    fn batch(&mut self) -> Result<Operation, String> {
        let given: Vec<GivenChange> = self.next()?.ok_or_else(|| "it takes a list of changes".to_owned())?;
        if given.len() > LISTED {
            return Err(format!("{} changes are more than {LISTED}", given.len()));
        }
        let changes = given.into_iter().enumerate();
        let changes = changes.map(|(at, it)| it.read().map_err(|why| format!("change {at}: {why}")));
        let changes = changes.collect::<Result<_, String>>()?;
        self.end(Operation::Write(changes, Answer::Done))
    }
}

impl GivenKey {
    fn checked(self, least: usize) -> Result<KvKey, String> {
        let (namespace, key) = match self {
            Self::Plain(key) => (String::new(), key),
            Self::Within(namespace, key) if (1..=NAMESPACE).contains(&namespace.len()) => (namespace, key),
            Self::Within(namespace, _) => {
                return Err(format!("a namespace has 1 to {NAMESPACE} bytes, this has {}", namespace.len()));
            }
        };
        match (least..=KEY).contains(&key.len()) {
            true => Ok(KvKey { namespace, key }),
            false => Err(format!("a key has 1 to {KEY} bytes, this has {}", key.len())),
        }
    }
}

impl GivenChange {
    fn read(self) -> Result<KvChange, String> {
        let Self { put, value, ttl, delete, check, version } = self;
        let (key, action) = match (put, value, delete, check) {
            (Some(key), Some(value), None, None) => {
                let value = value.to_bytes().map_err(|error| error.to_string())?.into();
                (key, KvAction::Put { value, expires: expires(ttl)? })
            }
            (None, None, Some(key), None) if ttl.is_none() => (key, KvAction::Delete),
            (None, None, None, Some(key)) if ttl.is_none() && version.is_some() => (key, KvAction::Check),
            _ => return Err("expected put and value, or delete, or check and version".to_owned()),
        };
        Ok(KvChange { key: key.checked(1)?, version, action })
    }
}

/// When what lives for so many seconds expires.
fn expires(ttl: Option<f64>) -> Result<Option<u64>, String> {
    match ttl {
        None => Ok(None),
        Some(ttl) if ttl > 0.0 && ttl <= LONGEST => Ok(Some(now() + (ttl * 1000.0).ceil() as u64)),
        Some(ttl) => Err(format!("ttl is a number of seconds above 0, up to a thousand years, not {ttl}")),
    }
}
