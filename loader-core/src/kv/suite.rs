//! What every store has to do, as tables.

use quadriga_abi::{Bytes, Error, ErrorCode};

use super::{KvAction, KvChange, KvEntry, KvKey, KvQuota, KvRange, KvStore};

/// Threads that count in one key at once, and how far each of them does.
const THREADS: u8 = 4;
const COUNTS: u8 = 25;

/// The versions that a change wants.
#[derive(Clone, Copy)]
enum Wants {
    Any,
    /// It is not there.
    None,
    /// That of now.
    Now,
    /// That of a value before the one of now.
    Before,
}

/// A key, as `namespace:key` or without one; the version that it wants; and what is done.
type Change<'a> = (&'a str, Wants, Do<'a>);

#[derive(Clone, Copy)]
enum Do<'a> {
    Check,
    Put(&'a str),
    /// Until then.
    PutUntil(&'a str, u64),
    /// A text of so many bytes, two more of a header, and until when.
    Long(usize, Option<u64>),
    Delete,
}

enum Step<'a> {
    /// It is done, and says which keys were there.
    Done(&'a [Change<'a>], &'a [bool]),
    /// A version is another.
    Differs(&'a [Change<'a>]),
    /// It is too much.
    Over(&'a [Change<'a>]),
    /// A key has a value.
    Is(&'a str, Option<&'a str>),
    /// What a prefix, a key before and a number find. The prefix may have a namespace.
    Lists(&'a str, Option<&'a str>, usize, &'a [&'a str]),
    /// What a prefix finds in so many bytes.
    Page(&'a str, u64, &'a [&'a str]),
}

use Do::{Check, Delete, Long, Put, PutUntil};
use Step::{Differs, Done, Is, Lists, Over, Page};
use Wants::{Any, Before, None as Absent, Now};

/// What one owner may have in each case.
const QUOTA: KvQuota = KvQuota { bytes: 60, keys: 6 };

/// Each with an owner of its own: at which time what happens.
const CASES: &[(&str, &[(u64, Step<'static>)])] = &[
    (
        "values come, change and go",
        &[
            (1, Is("a", None)),
            (1, Done(&[("a", Any, Put("one"))], &[false])),
            (1, Is("a", Some("one"))),
            (1, Done(&[("a", Any, Put("two"))], &[true])),
            (1, Is("a", Some("two"))),
            (1, Done(&[("a", Any, Delete)], &[true])),
            (1, Done(&[("a", Any, Delete)], &[false])),
            (1, Is("a", None)),
            (1, Done(&[], &[])),
        ],
    ),
    (
        "versions are compared before anything is done",
        &[
            (1, Differs(&[("a", Now, Put("x")), ("b", Before, Check)])),
            (1, Is("a", None)),
            (1, Done(&[("a", Absent, Put("one"))], &[false])),
            (1, Differs(&[("a", Absent, Put("two"))])),
            (1, Is("a", Some("one"))),
            (1, Done(&[("a", Now, Put("two"))], &[true])),
            (1, Differs(&[("a", Before, Put("three"))])),
            (1, Differs(&[("a", Before, Delete)])),
            (1, Differs(&[("b", Any, Put("x")), ("a", Before, Check)])),
            (1, Is("b", None)),
            (1, Done(&[("b", Any, Put("x")), ("a", Now, Check)], &[false, true])),
            (1, Done(&[("a", Now, Delete)], &[true])),
            // What comes again is not what it was.
            (1, Done(&[("a", Any, Put("two"))], &[false])),
            (1, Differs(&[("a", Before, Delete)])),
        ],
    ),
    (
        "changes are all made or none",
        &[
            (
                1,
                Done(
                    &[("a", Any, Put("1")), ("b", Any, Put("2")), ("c", Any, Delete)],
                    &[false, false, false],
                ),
            ),
            (1, Done(&[("a", Any, Delete), ("a", Any, Put("3")), ("a", Any, Check)], &[true, false, true])),
            (1, Is("a", Some("3"))),
            (1, Done(&[("b", Now, Put("4")), ("b", Any, Delete)], &[true, true])),
            (1, Is("b", None)),
            (1, Over(&[("a", Any, Delete), ("c", Any, Long(60, None))])),
            (1, Is("a", Some("3"))),
            (1, Is("c", None)),
        ],
    ),
    (
        "nobody has more than the quota",
        &[
            (1, Done(&[("a", Any, Long(57, None))], &[false])),
            (1, Over(&[("b", Any, Put(""))])),
            (1, Over(&[("a", Any, Long(58, None))])),
            // One makes room for the other.
            (1, Done(&[("b", Any, Put("x")), ("a", Any, Put("0123456789"))], &[false, true])),
            (
                1,
                Done(
                    &[("n:c", Any, Put("1")), ("d", Any, Put("1")), ("e", Any, Put("1"))],
                    &[false, false, false],
                ),
            ),
            (1, Done(&[("f", Any, Put("1"))], &[false])),
            (1, Over(&[("g", Any, Put("1"))])),
            (1, Done(&[("g", Any, Put("1")), ("f", Any, Delete)], &[false, true])),
            (1, Lists("", None, 9, &["a", "b", "d", "e", "g"])),
        ],
    ),
    (
        "keys are found in the order of their bytes",
        &[
            (
                1,
                Done(
                    &[("b/2", Any, Put("")), ("a", Any, Put("")), ("b/1", Any, Put(""))],
                    &[false, false, false],
                ),
            ),
            (
                1,
                Done(
                    &[("b", Any, Put("")), ("b/10", Any, Put("")), ("ä", Any, Put(""))],
                    &[false, false, false],
                ),
            ),
            (1, Lists("", None, 9, &["a", "b", "b/1", "b/10", "b/2", "ä"])),
            (1, Lists("b", None, 9, &["b", "b/1", "b/10", "b/2"])),
            (1, Lists("b/", None, 9, &["b/1", "b/10", "b/2"])),
            (1, Lists("b/", None, 2, &["b/1", "b/10"])),
            (1, Lists("b/", None, 0, &[])),
            (1, Lists("b/", Some("b/1"), 9, &["b/10", "b/2"])),
            (1, Lists("b/", Some("b/11"), 9, &["b/2"])),
            (1, Lists("b/", Some("a"), 9, &["b/1", "b/10", "b/2"])),
            (1, Lists("b/", Some("c"), 9, &[])),
            (1, Lists("", Some("b/2"), 1, &["ä"])),
            (1, Lists("z", None, 9, &[])),
            (1, Lists("ä", None, 9, &["ä"])),
            (1, Lists("%", None, 9, &[])),
        ],
    ),
    (
        "namespaces are apart",
        &[
            (
                1,
                Done(
                    &[("a", Any, Put("1")), ("n:a", Any, Put("2")), ("nn:a", Any, Put("3"))],
                    &[false, false, false],
                ),
            ),
            (1, Is("a", Some("1"))),
            (1, Is("n:a", Some("2"))),
            (1, Is("o:a", None)),
            (1, Done(&[("n:b", Any, Put("4"))], &[false])),
            (1, Lists("", None, 9, &["a"])),
            (1, Lists("n:", None, 9, &["a", "b"])),
            (1, Lists("n:", Some("a"), 9, &["b"])),
            (1, Lists("nn:", None, 9, &["a"])),
            (1, Done(&[("n:a", Any, Delete)], &[true])),
            (1, Is("a", Some("1"))),
            (1, Is("nn:a", Some("3"))),
        ],
    ),
    (
        "what has expired is not there",
        &[
            (
                10,
                Done(
                    &[("a", Any, PutUntil("1", 20)), ("b", Any, PutUntil("2", 30)), ("c", Any, Put("3"))],
                    &[false, false, false],
                ),
            ),
            (19, Is("a", Some("1"))),
            (20, Is("a", None)),
            (20, Lists("", None, 9, &["b", "c"])),
            (20, Page("", 99, &["b", "c"])),
            (20, Differs(&[("a", Now, Check), ("b", Absent, Check)])),
            (20, Done(&[("a", Absent, Check), ("b", Now, Check)], &[false, true])),
            (20, Done(&[("a", Any, Delete)], &[false])),
            // It takes up no room.
            (25, Done(&[("d", Any, Long(51, Some(40)))], &[false])),
            (29, Over(&[("e", Any, Put("1"))])),
            (30, Done(&[("e", Any, Put("1"))], &[false])),
            (39, Over(&[("f", Any, Put("01234567890"))])),
            (40, Done(&[("f", Any, Put("01234567890"))], &[false])),
            // What is put anew lives as long as that says.
            (41, Done(&[("c", Any, PutUntil("1", 50))], &[true])),
            (45, Done(&[("c", Any, Put("2"))], &[true])),
            (99, Is("c", Some("2"))),
        ],
    ),
    (
        "a page has so many bytes",
        &[
            (
                1,
                Done(
                    &[("a", Any, Put("12345")), ("b", Any, Put("12345")), ("c", Any, Put("12345"))],
                    &[false, false, false],
                ),
            ),
            // One byte of key, one of a header, and five.
            (1, Page("", 21, &["a", "b", "c"])),
            (1, Page("", 20, &["a", "b"])),
            (1, Page("", 14, &["a", "b"])),
            (1, Page("", 1, &["a"])),
            (1, Page("n:", 99, &[])),
        ],
    ),
    (
        "any text is a key, and any bytes are a value",
        &[
            (
                1,
                Done(
                    &[("\0", Any, Put("\0")), ("a\0b", Any, Put("ü")), ("a", Any, Put("\u{10ffff}"))],
                    &[false, false, false],
                ),
            ),
            (1, Is("\0", Some("\0"))),
            (1, Is("a", Some("\u{10ffff}"))),
            (1, Is("a\0b", Some("ü"))),
            (1, Lists("", None, 9, &["\0", "a", "a\0b"])),
            (1, Lists("a\0", None, 9, &["a\0b"])),
            (1, Done(&[("\u{10ffff}", Any, Put("1"))], &[false])),
            (1, Lists("\u{10ffff}", None, 9, &["\u{10ffff}"])),
        ],
    ),
];

/// Tests whether a store does what [`KvStore`] says, in a table of cases, and when several threads use it at
/// once. To be called with one that is empty: it leaves things behind under the owners `suite.0` and up.
///
/// ```
/// assert_eq!(quadriga_core::check_kv_store(&quadriga_core::MemoryKv::default()), Ok(()));
/// ```
///
/// # Errors
/// The first case that fails, and what it should be.
pub fn check_kv_store(store: &dyn KvStore) -> Result<(), String> {
    for (at, (name, steps)) in CASES.iter().enumerate() {
        let mut owner = Owner { name: format!("suite.{at}"), store, before: Vec::new() };
        for (at, (now, step)) in steps.iter().enumerate() {
            owner.take(*now, step).map_err(|why| format!("{name}, step {at}: {why}"))?;
        }
    }
    count(store)
}

struct Owner<'a> {
    name: String,
    store: &'a dyn KvStore,
    /// Versions that were seen.
    before: Vec<(KvKey, u64)>,
}

impl Owner<'_> {
    fn take(&mut self, now: u64, step: &Step<'_>) -> Result<(), String> {
        match step {
            Done(changes, there) => {
                equal(self.write(now, changes).map_err(|error| error.to_string())?, Some(there.to_vec()))?;
            }
            Differs(changes) => {
                equal(self.write(now, changes).map_err(|error| error.to_string())?, None)?;
            }
            Over(changes) => match self.write(now, changes) {
                Err(error) if error.code == ErrorCode::QuotaExceeded => {}
                other => return Err(format!("expected quota_exceeded, found {other:?}")),
            },
            Is(at, value) => {
                let entry = self.get(now, &key(at))?;
                equal(entry.map(|it| it.value), value.map(encoded))?;
            }
            Lists(prefix, after, most, expected) => {
                let range = range(prefix, *after, *most);
                let listed = self.store.list(&self.name, &range, now).map_err(|error| error.to_string())?;
                equal(listed, owned(expected))?;
                equal(self.page(&range, u64::MAX, now)?, owned(expected))?;
            }
            Page(prefix, bytes, expected) => {
                equal(self.page(&range(prefix, None, 100), *bytes, now)?, owned(expected))?;
            }
        }
        Ok(())
    }

    fn get(&self, now: u64, key: &KvKey) -> Result<Option<KvEntry>, String> {
        self.store.get(&self.name, key, now).map_err(|error| error.to_string())
    }

    /// The keys of a page, whose entries are what the store gives for each.
    fn page(&self, range: &KvRange, bytes: u64, now: u64) -> Result<Vec<String>, String> {
        let entries = self.store.entries(&self.name, range, bytes, now).map_err(|error| error.to_string())?;
        for (key, entry) in &entries {
            let key = KvKey { namespace: range.namespace.clone(), key: key.clone() };
            equal(self.get(now, &key)?, Some(entry.clone()))?;
        }
        Ok(entries.into_iter().map(|(key, _)| key).collect())
    }

    fn write(&mut self, now: u64, changes: &[Change<'_>]) -> Result<Option<Vec<bool>>, Error> {
        let mut list = Vec::new();
        for (at, wants, what) in changes {
            let key = key(at);
            let is = self.store.get(&self.name, &key, now)?.map_or(0, |entry| entry.version);
            let was = self.before.iter().rev().find(|(other, version)| *other == key && *version != is);
            let version = match wants {
                Any => None,
                Absent => Some(0),
                Now => Some(is),
                // Of one that never was, one that cannot be.
                Before => Some(was.map_or(u64::MAX >> 1, |(_, version)| *version)),
            };
            let action = match *what {
                Check => KvAction::Check,
                Put(text) => KvAction::Put { value: encoded(text), expires: None },
                PutUntil(text, until) => KvAction::Put { value: encoded(text), expires: Some(until) },
                Long(size, expires) => KvAction::Put { value: encoded(&"x".repeat(size)), expires },
                Delete => KvAction::Delete,
            };
            if is > 0 {
                self.before.push((key.clone(), is));
            }
            list.push(KvChange { key, version, action });
        }
        let done = self.store.write(&self.name, &list, QUOTA, now)?;
        if done.is_some() {
            self.grow(now, &list)?;
        }
        Ok(done)
    }

    /// Versions only grow.
    fn grow(&self, now: u64, changes: &[KvChange]) -> Result<(), Error> {
        for KvChange { key, .. } in changes.iter().filter(|it| matches!(it.action, KvAction::Put { .. })) {
            let Some(entry) = self.store.get(&self.name, key, now)? else { continue };
            if self.before.iter().any(|(other, version)| other == key && *version >= entry.version) {
                let message = format!("{key:?} has the version {} again", entry.version);
                return Err(Error::new(ErrorCode::Internal, message));
            }
        }
        Ok(())
    }
}

/// Several threads count in one key, by what versions are for.
fn count(store: &dyn KvStore) -> Result<(), String> {
    let (owner, key) = ("suite.count", KvKey::plain("count"));
    let add = || -> Result<(), Error> {
        for _ in 0..COUNTS {
            loop {
                let entry = store.get(owner, &key, 1)?;
                let version = entry.as_ref().map_or(0, |it| it.version);
                let value = Bytes::copy_from_slice(&[0xcc, counted(entry) + 1]);
                let action = KvAction::Put { value, expires: None };
                let change = KvChange { key: key.clone(), version: Some(version), action };
                if store.write(owner, &[change], KvQuota::NONE, 1)?.is_some() {
                    break;
                }
            }
        }
        Ok(())
    };
    let done: Vec<Result<(), Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(add)).collect();
        let panicked = |_| Err(Error::new(ErrorCode::Internal, "the store panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    done.into_iter().collect::<Result<(), Error>>().map_err(|error| error.to_string())?;
    let entry = store.get(owner, &key, 1).map_err(|error| error.to_string())?;
    equal(counted(entry), THREADS * COUNTS).map_err(|why| format!("several count at once: {why}"))
}

/// A number of one byte in MessagePack has one byte before it.
fn counted(entry: Option<KvEntry>) -> u8 {
    entry.and_then(|it| it.value.last().copied()).unwrap_or(0)
}

fn key(text: &str) -> KvKey {
    let (namespace, key) = text.split_once(':').unwrap_or(("", text));
    KvKey { namespace: namespace.to_owned(), key: key.to_owned() }
}

fn range(text: &str, after: Option<&str>, most: usize) -> KvRange {
    let KvKey { namespace, key: prefix } = key(text);
    KvRange { namespace, prefix, after: after.map(str::to_owned), most }
}

/// A short text in MessagePack has one byte before it.
fn encoded(text: &str) -> Bytes {
    let header = match text.len() {
        len @ 0..32 => vec![0xa0 | len as u8],
        len => vec![0xd9, len as u8],
    };
    [&header[..], text.as_bytes()].concat().into()
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|it| (*it).to_owned()).collect()
}

fn equal<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("expected {expected:?}, found {found:?}")) }
}
