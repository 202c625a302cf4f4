//! The key-value store of the host, with a runtime that needs no engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use quadriga_core::abi::permission::{AccessKind, Permissions};
use quadriga_core::abi::{Bytes, Error, ErrorCode, Value, codec};
use quadriga_core::{
    CallOptions, DecisionFilter, Dispatcher, Effect, Grant, KvChange, KvEntry, KvKey, KvQuota, KvRange,
    KvStore, LoadOptions, MemoryKv, MockRuntime, Outcome, Policy, Reason, Snippet, Tally, Verdict,
    check_kv_store,
};
use serde_json::json;

use crate::common::{call, host, kv, load, only_kv, told, until, wanted};

const ASKS: &str = "[permissions]\nkv = true";

#[tokio::test]
async fn each_extension_keeps_its_own() {
    let host = host(told(), Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let _y = load(&host, "a.y", ASKS, Grant::Requested).await;
    let value = Value::List(vec![Value::Int(7), Value::Bytes(vec![1, 2]), Value::Nil]);
    assert_eq!(kv::<Value>(&host, "a.x", "get", ("k",)).await.unwrap(), Value::Nil);
    kv::<()>(&host, "a.x", "put", ("k", &value)).await.unwrap();
    kv::<()>(&host, "a.y", "put", ("k", "mine")).await.unwrap();
    // It comes by each way.
    for way in ["call", "detached", "start"] {
        let arguments = wanted("quadriga.kv", "get", ("k",));
        let reply = host.call("a.x", way, arguments, CallOptions::default()).await.unwrap();
        assert_eq!(codec::from_bytes::<Value>(&reply).unwrap(), value, "{way}");
    }
    assert_eq!(kv::<String>(&host, "a.y", "get", ("k",)).await.unwrap(), "mine");
    assert!(kv::<bool>(&host, "a.y", "delete", ("k",)).await.unwrap());
    assert!(!kv::<bool>(&host, "a.y", "delete", ("k",)).await.unwrap());
    assert!(kv::<Vec<String>>(&host, "a.y", "list", ()).await.unwrap().is_empty());
    // It outlasts a generation, and not the extension.
    host.reload("a.x").await.unwrap();
    assert_eq!(kv::<Value>(&host, "a.x", "get", ("k",)).await.unwrap(), value);
    host.unload("a.x").await.unwrap();
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    assert_eq!(kv::<Value>(&host, "a.x", "get", ("k",)).await.unwrap(), Value::Nil);
}

#[tokio::test]
async fn keys_are_listed_in_order_and_in_parts() {
    let host = host(told(), Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    for key in ["b/2", "a", "b/1", "b", "c", "b/10"] {
        kv::<()>(&host, "a.x", "put", (key, 0)).await.unwrap();
    }
    for n in 0..1100 {
        kv::<()>(&host, "a.x", "put", (format!("n{n:04}"), 0)).await.unwrap();
    }
    let cases: &[(&[&str], &[&str])] = &[
        (&["b"], &["b", "b/1", "b/10", "b/2"]),
        (&["b/"], &["b/1", "b/10", "b/2"]),
        (&["b", "b/1"], &["b/10", "b/2"]),
        (&["b/", "a"], &["b/1", "b/10", "b/2"]),
        (&["b/", "c"], &[]),
        (&["", "b/2"], &["c"]),
        (&["z"], &[]),
    ];
    for (arguments, keys) in cases {
        let listed: Vec<String> = kv(&host, "a.x", "list", arguments).await.unwrap();
        assert_eq!(&listed[..keys.len()], *keys, "{arguments:?}");
        assert!(arguments[0].is_empty() || listed.len() == keys.len(), "{arguments:?}: {listed:?}");
    }
    let first: Vec<String> = kv(&host, "a.x", "list", ("n",)).await.unwrap();
    assert_eq!((first.len(), &*first[999]), (1000, "n0999"));
    let rest: Vec<String> = kv(&host, "a.x", "list", ("n", &first[999])).await.unwrap();
    assert_eq!((rest.len(), &*rest[99]), (100, "n1099"));
}

#[tokio::test]
async fn each_operation_asks_for_the_permission() {
    // Whatever the runtime can do about permissions.
    let host = host(told().on_permissions(|_| false), Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Nothing).await;
    let _none = load(&host, "a.none", "[permissions]\ncall = ['*']", Grant::Requested).await;
    for extension in ["a.x", "a.none"] {
        for way in ["call", "detached", "start"] {
            let arguments = wanted("quadriga.kv", "put", ("k", 1));
            let error = host.call(extension, way, arguments, CallOptions::default()).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
            assert_eq!(error.message, format!("{extension} may not use the key-value store"));
        }
    }
    assert_eq!(host.grant("a.x", &only_kv()).unwrap(), Effect::Now);
    kv::<()>(&host, "a.x", "put", ("k", 1)).await.unwrap();
    assert_eq!(host.revoke("a.x", &only_kv()).unwrap(), Effect::Now);
    assert!(kv::<i64>(&host, "a.x", "get", ("k",)).await.is_err());
    let denied = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
    let decisions = host.decisions("a.x", &denied).unwrap();
    let last = decisions.last().unwrap();
    assert_eq!((decisions.len(), &*last.what), (4, "use the key-value store"));
    assert!(matches!(last.reason, Reason::Revoked { .. }) && last.call > 0 && !last.claimed, "{last:?}");
    assert_eq!(host.accesses("a.x").unwrap()[&AccessKind::Kv], Tally { allowed: 1, denied: 4 });
    assert_eq!(host.usage("a.x").unwrap().denied, 4);
    // What was put is still there.
    assert_eq!(host.grant("a.x", &only_kv()).unwrap(), Effect::Now);
    assert_eq!(kv::<i64>(&host, "a.x", "get", ("k",)).await.unwrap(), 1);
}

#[tokio::test]
async fn no_more_is_kept_than_the_quota() {
    let host = host(told(), Policy { kv: KvQuota { bytes: 100, keys: 3 }, ..Policy::default() });
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let _y = load(&host, "a.y", ASKS, Grant::Requested).await;
    let put = async |key: &str, size: usize| {
        // One byte of key, two of a header, and so many.
        kv::<()>(&host, "a.x", "put", (key, Value::Bytes(vec![0; size]))).await
    };
    let over = |result: Result<(), Error>, what: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.code, ErrorCode::QuotaExceeded);
        assert_eq!(error.message, format!("a.x may keep {what} in the key-value store"));
    };
    put("a", 97).await.unwrap();
    over(put("a", 98).await, "100B of keys and values");
    over(put("b", 0).await, "100B of keys and values");
    put("a", 80).await.unwrap();
    put("b", 0).await.unwrap();
    put("c", 0).await.unwrap();
    over(put("d", 0).await, "3 keys");
    put("c", 0).await.unwrap();
    assert!(kv::<bool>(&host, "a.x", "delete", ("a",)).await.unwrap());
    put("d", 91).await.unwrap();
    // Each has its own.
    kv::<()>(&host, "a.y", "put", ("a", Value::Bytes(vec![0; 97]))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_put_at_once_is_counted_right() {
    let quota = KvQuota { bytes: 10_000, keys: 100 };
    let host = host(told(), Policy { kv: quota, ..Policy::default() });
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let host = host.clone();
            tokio::spawn(async move {
                for n in 0..200_usize {
                    let key = format!("k{}", (n + task) % 5);
                    kv::<()>(&host, "a.x", "put", (&key, vec![7; n % 9])).await.unwrap();
                    kv::<bool>(&host, "a.x", "delete", (format!("k{}", n % 5),)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for key in kv::<Vec<String>>(&host, "a.x", "list", ()).await.unwrap() {
        assert!(kv::<bool>(&host, "a.x", "delete", (key,)).await.unwrap());
    }
    // All of it is free again, and no more.
    let put = async |size| kv::<()>(&host, "a.x", "put", ("k", Value::Bytes(vec![0; size]))).await;
    assert_eq!(put(10_000 - 3).await.unwrap_err().code, ErrorCode::QuotaExceeded);
    put(10_000 - 4).await.unwrap();
}

/// A store of the host's own.
#[derive(Clone, Default)]
struct Shelf {
    pairs: Arc<MemoryKv>,
    writes: Arc<AtomicU64>,
    threads: Arc<Mutex<Vec<ThreadId>>>,
    quick: bool,
}

impl KvStore for Shelf {
    fn get(&self, owner: &str, key: &KvKey, now: u64) -> Result<Option<KvEntry>, Error> {
        self.threads.lock().unwrap().push(thread::current().id());
        self.pairs.get(owner, key, now)
    }

    fn list(&self, owner: &str, range: &KvRange, now: u64) -> Result<Vec<String>, Error> {
        self.pairs.list(owner, range, now)
    }

    fn entries(
        &self,
        owner: &str,
        range: &KvRange,
        bytes: u64,
        now: u64,
    ) -> Result<Vec<(String, KvEntry)>, Error> {
        self.pairs.entries(owner, range, bytes, now)
    }

    fn write(
        &self,
        owner: &str,
        changes: &[KvChange],
        quota: KvQuota,
        now: u64,
    ) -> Result<Option<Vec<bool>>, Error> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        match changes.first().map(|it| &*it.key.key) {
            Some("full") => Err(Error::new(ErrorCode::QuotaExceeded, "the shelf is full")),
            Some("panic") => panic!("as it should"),
            _ => self.pairs.write(owner, changes, quota, now),
        }
    }

    fn blocks(&self) -> bool {
        !self.quick
    }
}

#[tokio::test]
async fn a_host_can_keep_it_elsewhere() {
    for quick in [false, true] {
        let shelf = Shelf { quick, ..Shelf::default() };
        let host = Dispatcher::builder().runtime(told()).kv(shelf.clone()).build().unwrap();
        let x = load(&host, "a.x", ASKS, Grant::Requested).await;
        kv::<()>(&host, "a.x", "put", ("k", 1)).await.unwrap();
        assert_eq!(kv::<Vec<String>>(&host, "a.x", "list", ("",)).await.unwrap(), ["k"]);
        let full = kv::<()>(&host, "a.x", "put", ("full", 1)).await.unwrap_err();
        assert_eq!((full.code, &*full.message), (ErrorCode::QuotaExceeded, "the shelf is full"));
        let panicked = kv::<()>(&host, "a.x", "put", ("panic", 1)).await.unwrap_err();
        assert_eq!(panicked.code, ErrorCode::Internal);
        // It outlasts the extension.
        host.unload("a.x").await.unwrap();
        let grant = Grant::Requested;
        host.load(x.path(), LoadOptions { grant, ..LoadOptions::default() }).await.unwrap();
        assert_eq!(kv::<i64>(&host, "a.x", "get", ("k",)).await.unwrap(), 1);
        // What may wait does not hold up the thread of a guest.
        let here = shelf.threads.lock().unwrap().contains(&thread::current().id());
        assert_eq!(here, quick);
        assert!(shelf.get("a.x", &KvKey::plain("k"), 1).unwrap().is_some());
        assert!(kv::<bool>(&host, "a.x", "delete", ("k",)).await.unwrap());
        assert!(shelf.get("a.x", &KvKey::plain("k"), 1).unwrap().is_none());
    }
}

#[tokio::test]
async fn nothing_of_loose_code_stays() {
    let shelf = Shelf::default();
    let host = Dispatcher::builder().runtime(told()).kv(shelf.clone()).build().unwrap();
    let run = async |permissions, method, arguments: Value| {
        let mut snippet = Snippet::new("mock", "");
        snippet.limits.memory = None;
        snippet.permissions = permissions;
        snippet.parameters = wanted("quadriga.kv", method, arguments);
        host.execute(snippet).await.unwrap()
    };
    let pair = Value::List(vec![Value::Text("k".to_owned()), Value::Int(1)]);
    let denied = run(Permissions::default(), "put", pair.clone()).await;
    assert_eq!(denied.result.unwrap_err().code, ErrorCode::PermissionDenied);
    let put = run(only_kv(), "put", pair).await;
    put.result.unwrap();
    assert_eq!(put.decisions.last().unwrap().what, "use the key-value store");
    assert_eq!(shelf.writes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_call_in_flight_is_denied_what_was_revoked() {
    let (put, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (say, hear) = (Arc::clone(&put), Arc::clone(&told));
    let runtime = MockRuntime::new().method("twice", move |bridge, call| {
        let (bridge, context, say, hear) =
            (bridge.clone(), call.context(), Arc::clone(&say), Arc::clone(&hear));
        let pair = Bytes::from(codec::arguments(&("k", 1)).unwrap());
        Outcome::Pending(Box::pin(async move {
            bridge.call(&context, "quadriga.kv", "put", pair.clone()).result().await?;
            say.store(true, Ordering::SeqCst);
            while !hear.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            bridge.call(&context, "quadriga.kv", "put", pair).result().await
        }))
    });
    let host = host(runtime, Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let running = tokio::spawn({
        let host = host.clone();
        async move { call(&host, "a.x", "twice").await }
    });
    until(|| async { put.load(Ordering::SeqCst) }).await;
    assert_eq!(host.revoke("a.x", &only_kv()).unwrap(), Effect::Now);
    told.store(true, Ordering::SeqCst);
    assert_eq!(running.await.unwrap().unwrap_err().code, ErrorCode::PermissionDenied);
}

#[test]
fn the_table_for_stores_finds_what_is_wrong() {
    assert_eq!(check_kv_store(&Shelf::default()), Ok(()));
    /// Forgets to compare versions.
    struct Careless(MemoryKv);
    impl KvStore for Careless {
        fn get(&self, owner: &str, key: &KvKey, now: u64) -> Result<Option<KvEntry>, Error> {
            self.0.get(owner, key, now)
        }

        fn list(&self, owner: &str, range: &KvRange, now: u64) -> Result<Vec<String>, Error> {
            self.0.list(owner, range, now)
        }

        fn entries(
            &self,
            owner: &str,
            range: &KvRange,
            bytes: u64,
            now: u64,
        ) -> Result<Vec<(String, KvEntry)>, Error> {
            self.0.entries(owner, range, bytes, now)
        }

        fn write(
            &self,
            owner: &str,
            changes: &[KvChange],
            quota: KvQuota,
            now: u64,
        ) -> Result<Option<Vec<bool>>, Error> {
            let changes: Vec<KvChange> =
                changes.iter().map(|it| KvChange { version: None, ..it.clone() }).collect();
            self.0.write(owner, &changes, quota, now)
        }
    }
    let wrong = check_kv_store(&Careless(MemoryKv::default())).unwrap_err();
    assert!(wrong.starts_with("versions are compared before anything is done, step 0"), "{wrong}");
}

#[tokio::test]
async fn versions_tell_whether_a_value_was_changed() {
    let host = host(told(), Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let kv = async |method, arguments: serde_json::Value| {
        let value: Value = kv(&host, "a.x", method, arguments).await.unwrap();
        value.to_json()
    };
    let (no, yes) = (json!(false), json!(true));
    assert_eq!(kv("entry", json!(["k"])).await, json!(null));
    assert_eq!(kv("put", json!(["k", 1, { "version": 7 }])).await, no);
    assert_eq!(kv("put", json!(["k", 1, { "version": 0 }])).await, yes);
    assert_eq!(kv("put", json!(["k", 2, { "version": 0 }])).await, no);
    let entry = kv("entry", json!(["k"])).await;
    assert_eq!((&entry["value"], &entry["ttl"]), (&json!(1), &json!(null)));
    let version = entry["version"].as_u64().unwrap();
    assert_eq!(kv("put", json!(["k", 2, { "version": version }])).await, yes);
    assert_eq!(kv("delete", json!(["k", { "version": version }])).await, no);
    assert_eq!(kv("put", json!(["k", 3, { "version": version }])).await, no);
    assert_eq!(kv("put", json!(["k", 3])).await, json!(null));
    assert_eq!(kv("get", json!(["k"])).await, json!(3));
    let version = kv("entry", json!(["k"])).await["version"].clone();
    assert_eq!(kv("delete", json!(["k", { "version": version }])).await, yes);
    assert_eq!(kv("delete", json!(["k", {}])).await, no);
}

#[tokio::test]
async fn a_batch_is_done_as_a_whole() {
    let host = host(told(), Policy { kv: KvQuota { bytes: 1000, keys: 3 }, ..Policy::default() });
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let batch = async |changes: serde_json::Value| kv::<bool>(&host, "a.x", "batch", (changes,)).await;
    let keys = async || kv::<Vec<String>>(&host, "a.x", "list", ()).await.unwrap();
    let two = json!([{ "put": "a", "value": [1, null] }, { "put": "b", "value": null, "version": 0 }]);
    assert!(batch(two.clone()).await.unwrap());
    assert!(!batch(two).await.unwrap(), "b is there now");
    let entry = kv::<Value>(&host, "a.x", "entry", ("b",)).await.unwrap().to_json();
    assert_eq!(entry["value"], json!(null));
    let version = entry["version"].clone();
    let swap =
        json!([{ "check": "b", "version": version }, { "delete": "a" }, { "put": ["n", "a"], "value": 1 }]);
    assert!(batch(swap.clone()).await.unwrap());
    assert_eq!(keys().await, ["b"]);
    assert_eq!(kv::<i64>(&host, "a.x", "get", (("n", "a"),)).await.unwrap(), 1);
    let many = json!([{ "delete": "b" }, { "put": "c", "value": 1 }, { "put": "d", "value": 1 }, { "put": "e", "value": 1 }]);
    assert_eq!(batch(many).await.unwrap_err().code, ErrorCode::QuotaExceeded);
    assert_eq!(keys().await, ["b"]);
    assert!(batch(json!([])).await.unwrap());
}

#[tokio::test]
async fn pages_of_entries_are_bounded() {
    let host = host(told(), Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    for key in ["a", "b", "c"] {
        kv::<()>(&host, "a.x", "put", (("n", key), Value::Bytes(vec![7; 400 << 10]))).await.unwrap();
    }
    kv::<bool>(&host, "a.x", "put", (("n", "d"), "soon", json!({ "ttl": 100.5 }))).await.unwrap();
    let page = async |arguments: serde_json::Value| {
        let page: Vec<Value> = kv(&host, "a.x", "entries", arguments).await.unwrap();
        page.iter().map(Value::to_json).collect::<Vec<_>>()
    };
    let keys = |page: &[serde_json::Value]| {
        page.iter().map(|entry| entry["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(&page(json!([["n", ""]])).await), ["a", "b"], "a megabyte");
    let rest = page(json!([["n", ""], "b"])).await;
    assert_eq!(keys(&rest), ["c", "d"]);
    let ttl = rest[1]["ttl"].as_f64().unwrap();
    assert!(ttl > 50.0 && ttl <= 100.5, "{ttl}");
    assert!(rest[0]["ttl"].is_null() && rest[0]["version"].as_u64() < rest[1]["version"].as_u64());
    assert_eq!(keys(&page(json!([["n", ""], null, 1])).await), ["a"]);
    assert!(page(json!([["n", ""], "d"])).await.is_empty() && page(json!([])).await.is_empty());
}

#[tokio::test]
async fn values_expire() {
    let host = host(told(), Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    assert!(kv::<bool>(&host, "a.x", "put", ("k", 1, json!({ "ttl": 0.05 }))).await.unwrap());
    until(async || kv::<Option<i64>>(&host, "a.x", "get", ("k",)).await.unwrap().is_none()).await;
    assert!(kv::<Vec<String>>(&host, "a.x", "list", ()).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_operation() {
    let host = host(told(), Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let (long, many) = ("x".repeat(513), vec![json!({ "delete": "k" }); 1001]);
    let cases = [
        ("get", json!([]), "it takes a key"),
        ("get", json!(["k", 1]), "1 more than it takes"),
        ("get", json!([""]), "a key has 1 to 512 bytes, this has 0"),
        ("put", json!([long, 1]), "a key has 1 to 512 bytes, this has 513"),
        ("get", json!([7]), "expected a key, or a list of a namespace and a key"),
        ("get", json!([["", "k"]]), "a namespace has 1 to 128 bytes, this has 0"),
        ("put", json!(["k"]), "it takes a key and a value"),
        ("put", json!(["k", 1, { "ttl": 0 }]), "ttl is a number of seconds above 0"),
        ("put", json!(["k", 1, { "ttl": 1e12 }]), "ttl is a number of seconds above 0"),
        ("put", json!(["k", 1, { "tll": 1 }]), "unknown field `tll`"),
        ("delete", json!(["k", { "version": -1 }]), "version"),
        ("batch", json!([]), "it takes a list of changes"),
        ("batch", json!([many]), "1001 changes are more than 1000"),
        (
            "batch",
            json!([[{ "put": "k" }]]),
            "change 0: expected put and value, or delete, or check and version",
        ),
        ("batch", json!([[{ "delete": "k" }, { "check": "k" }]]), "change 1: expected put and value"),
        ("batch", json!([[{ "delete": "k", "ttl": 1 }]]), "change 0: expected put and value"),
    ];
    for (method, arguments, why) in cases {
        let error = kv::<Value>(&host, "a.x", method, &arguments).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArguments, "{method} {arguments}: {error}");
        assert!(error.message.starts_with(&format!("quadriga.kv/{method}: the arguments: ")), "{error}");
        assert!(error.message.contains(why), "{method}: {error}");
    }
}
